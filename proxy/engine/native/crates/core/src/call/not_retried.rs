//! Why a failure is a call's last: `NotRetried` in `proxy/contract/outcome.py`.

/// See there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotRetried {
    NotCovered,
    Streaming,
    Body,
    NoAttempts,
    TooLate,
    Deadline,
    Pushback,
    Budget,
    Begun,
    Denied,
}

const NAMES: [(NotRetried, &str); 10] = [
    (NotRetried::NotCovered, "not-covered"),
    (NotRetried::Streaming, "streaming"),
    (NotRetried::Body, "body-not-kept"),
    (NotRetried::NoAttempts, "no-attempts-left"),
    (NotRetried::TooLate, "time-of-the-rule-over"),
    (NotRetried::Deadline, "deadline"),
    (NotRetried::Pushback, "pushback"),
    (NotRetried::Budget, "budget"),
    (NotRetried::Begun, "response-begun"),
    (NotRetried::Denied, "denied"),
];

impl NotRetried {
    /// As spans and lines say it.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(why, _)| *why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_reasons() {
        for (why, name) in NAMES {
            assert_eq!((why.name(), NotRetried::parse(name)), (name, Some(why)));
        }
        assert_eq!(NotRetried::parse("other"), None);
    }
}
