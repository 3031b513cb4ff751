//! Where the time of a call went: as `timings_us` in `telemetry/split.py`.

use crate::seam::ask::Outcome;

/// Nanoseconds; `connect` and what follows are of the last attempt. `None`: it did not come to that.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    pub resolve: u64,
    pub queue: u64,
    pub connect: Option<u64>,
    pub upstream_ttfb: Option<u64>,
    pub body: Option<u64>,
}

impl Outcome {
    /// Where its time went.
    pub fn split(&self) -> Split {
        let Some(last) = self.attempts.last() else {
            return Split { resolve: self.resolve_ns, queue: self.queue_ns, connect: None, upstream_ttfb: None, body: None };
        };
        let or_end = |at_ns: u64| if at_ns > 0 { at_ns } else { self.ended_ns };
        let (sent_ns, head_ns) = (or_end(last.sent_ns), or_end(last.head_ns));
        Split {
            resolve: self.resolve_ns,
            queue: self.queue_ns + last.queue_ns,
            connect: Some(sent_ns.saturating_sub(last.started_ns).saturating_sub(last.queue_ns)),
            upstream_ttfb: (last.sent_ns > 0).then(|| head_ns.saturating_sub(sent_ns)),
            body: (last.head_ns > 0).then(|| self.ended_ns.saturating_sub(head_ns)),
        }
    }
}
