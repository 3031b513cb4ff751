//! What an answer says of the next attempt: gRPC's `grpc-retry-pushback-ms`, HTTP's `Retry-After`. Equal to `proxy/wire/pushback.py`.

use std::time::{Duration, SystemTime};

use http::{HeaderName, header};

use crate::fields::Headers;

/// That a caller is made to wait for another attempt: it gets an answer that asks for more.
const MOST: Duration = Duration::from_secs(30);
const MAX_MS: u64 = i32::MAX as u64; // as gRPC has it
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// No other attempt.
    Stop,
    Exactly(Duration),
    AtLeast(Duration),
}

impl Pushback {
    /// The pause before the next attempt where a rule has drawn one; `None`: there is none.
    pub fn applied(self, drawn: Duration) -> Option<Duration> {
        match self {
            Self::Stop => None,
            Self::Exactly(pause) => Some(pause),
            Self::AtLeast(pause) => Some(pause.max(drawn)),
        }
    }
}

/// What the fields of an answer ask for; of gRPC, those that came with its status.
pub fn read(headers: &Headers, grpc: bool, status: u16, now: SystemTime) -> Option<Pushback> {
    if grpc {
        let given = headers.get(GRPC_PUSHBACK)?.as_bytes();
        let asked = number(given, 10).filter(|millis| *millis <= MAX_MS);
        let pause = asked.map(Duration::from_millis).filter(|pause| *pause <= MOST);
        return Some(pause.map_or(Pushback::Stop, Pushback::Exactly));
    }
    if !matches!(status, 429 | 503) {
        return None;
    }
    let given = headers.get(header::RETRY_AFTER)?.as_bytes();
    let later = if !given.is_empty() && given.iter().all(u8::is_ascii_digit) {
        number(given, 9).map_or(Duration::MAX, Duration::from_secs)
    } else {
        let at = httpdate::parse_http_date(std::str::from_utf8(given).ok()?).ok()?;
        at.duration_since(now).unwrap_or_default()
    };
    Some(if later <= MOST { Pushback::AtLeast(later) } else { Pushback::Stop })
}

/// Of so many digits at most.
fn number(data: &[u8], most: usize) -> Option<u64> {
    if data.is_empty() || data.len() > most || !data.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(data.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors::{self, Text};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        why: String,
        headers: Vec<(String, Text)>,
        grpc: bool,
        status: u16,
        now_s: u64,
        stops: bool,
        least_s: Option<f64>,
        exactly_s: Option<f64>,
    }

    #[test]
    fn answers_ask_for_later_attempts_or_none() {
        for case in vectors::read::<Case>("pushback", "read") {
            let headers = vectors::headers(case.headers.iter().map(|(name, data)| (&**name, data)));
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(case.now_s);
            let found = read(&headers, case.grpc, case.status, now);
            let wanted = match (case.least_s, case.exactly_s) {
                (Some(least), _) => Some(Pushback::AtLeast(Duration::from_secs_f64(least))),
                (_, Some(exactly)) => Some(Pushback::Exactly(Duration::from_secs_f64(exactly))),
                _ => case.stops.then_some(Pushback::Stop),
            };
            assert_eq!(found, wanted, "{}", case.why);
        }
    }

    #[test]
    fn a_longer_pause_is_at_least_as_long() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(Pushback::AtLeast(short).applied(long), Some(long));
        assert_eq!(Pushback::AtLeast(long).applied(short), Some(long));
        assert_eq!(Pushback::Exactly(short).applied(long), Some(short));
        assert_eq!(Pushback::Stop.applied(long), None);
    }
}
