//! This hop's span, as wire values. How spans come about is the other side's to say; see `ask`.

use http::HeaderValue;

/// The headers of the next hop. `id` names the span on the other side.
#[derive(Debug, Clone)]
pub struct Span {
    pub id: u64,
    traceparent: HeaderValue,
    grpc_trace_bin: HeaderValue,
}

impl Span {
    /// A span made elsewhere.
    pub fn new(id: u64, traceparent: HeaderValue, grpc_trace_bin: HeaderValue) -> Self {
        Self { id, traceparent, grpc_trace_bin }
    }

    /// The traceparent to send on.
    pub fn traceparent(&self) -> HeaderValue {
        self.traceparent.clone()
    }

    /// The same in gRPC's binary form, base64.
    pub fn grpc_trace_bin(&self) -> HeaderValue {
        self.grpc_trace_bin.clone()
    }
}
