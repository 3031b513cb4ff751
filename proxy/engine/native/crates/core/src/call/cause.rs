//! Why postern itself ended an attempt or a call. The names are those of `proxy/contract/plan.py`, and a test compares them.

/// One enum for attempts, calls, retries and the `postern-error` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    NoApp,
    NoEndpoint,
    Denied,
    Connect,
    TlsIdentity,
    Refused,
    ResetEarly,
    ResetLate,
    Timeout,
    Breaker,
    Probing,
    Shed,
    Rate,
    TooLarge,
    Status,
    CallerLeft,
    Draining,
    BadRequest,
    Unauthenticated,
    ForbiddenOrigin,
    Misdirected,
    Unsupported,
    AppDown,
    AppUnhealthy,
    NotReady,
    InvalidAnswer,
    Authorizer,
}

/// All causes by their names on the wire, in the order of the enum.
pub const CAUSES: [(Cause, &str); 27] = [
    (Cause::NoApp, "no-app"),
    (Cause::NoEndpoint, "no-endpoint"),
    (Cause::Denied, "denied"),
    (Cause::Connect, "connect"),
    (Cause::TlsIdentity, "tls-identity"),
    (Cause::Refused, "refused"),
    (Cause::ResetEarly, "reset-early"),
    (Cause::ResetLate, "reset-late"),
    (Cause::Timeout, "timeout"),
    (Cause::Breaker, "breaker-open"),
    (Cause::Probing, "breaker-probing"),
    (Cause::Shed, "shed"),
    (Cause::Rate, "rate-limited"),
    (Cause::TooLarge, "too-large"),
    (Cause::Status, "status"),
    (Cause::CallerLeft, "caller-left"),
    (Cause::Draining, "draining"),
    (Cause::BadRequest, "bad-request"),
    (Cause::Unauthenticated, "unauthenticated"),
    (Cause::ForbiddenOrigin, "forbidden-origin"),
    (Cause::Misdirected, "misdirected"),
    (Cause::Unsupported, "unsupported"),
    (Cause::AppDown, "app-down"),
    (Cause::AppUnhealthy, "app-unhealthy"),
    (Cause::NotReady, "not-ready"),
    (Cause::InvalidAnswer, "invalid-answer"),
    (Cause::Authorizer, "authorizer"),
];

impl Cause {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        CAUSES[self as usize].1
    }

    /// The cause of a name.
    pub fn parse(name: &str) -> Option<Self> {
        CAUSES.iter().find(|(_, known)| *known == name).map(|(cause, _)| *cause)
    }

    /// Its place in a set of causes.
    pub fn bit(self) -> u32 {
        1 << (self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_the_order_of_the_enum_and_parse_back() {
        for (place, (cause, name)) in CAUSES.iter().enumerate() {
            assert_eq!(*cause as usize, place);
            assert_eq!(Cause::parse(name), Some(*cause));
            assert_eq!(cause.name(), *name);
        }
    }
}
