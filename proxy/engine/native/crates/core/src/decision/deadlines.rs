//! How long an HTTP call may still take, as its caller says it, and how that is told on. Equal to `proxy/wire/deadlines.py`.

use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue};

use crate::decision::edits::parse_grpc_timeout;
use crate::fields::Headers;

pub const TIMEOUT: HeaderName = HeaderName::from_static("postern-timeout");
pub const DEADLINE: HeaderName = HeaderName::from_static("postern-deadline");
const ENVOYS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
static NAMES: [HeaderName; 3] = [TIMEOUT, DEADLINE, ENVOYS];
const MAX_DIGITS: usize = 15; // milliseconds, beyond which no deadline lies

/// The least that is said counts, what is malformed does not; `None`: nothing is said.
pub fn left(headers: &Headers) -> Option<Duration> {
    left_at(headers, SystemTime::now)
}

fn left_at(headers: &Headers, now: impl Fn() -> SystemTime) -> Option<Duration> {
    let said = headers.iter().filter(|(name, _)| NAMES.contains(name));
    said.filter_map(|(name, value)| match (name, value.as_bytes()) {
        (name, data) if *name == DEADLINE => {
            let at = SystemTime::UNIX_EPOCH.checked_add(millis(data)?)?;
            Some(at.duration_since(now()).unwrap_or_default())
        }
        (name, data) if *name == TIMEOUT && !data.iter().all(u8::is_ascii_digit) => parse_grpc_timeout(data),
        (name, data) if *name == TIMEOUT => millis(data),
        (_, data) => millis(data).filter(|left| !left.is_zero()), // 0 bounds nothing there
    })
    .min()
}

/// The same fields with what is left, in milliseconds, rounded up: whoever is told never gives up before us.
pub fn tell(headers: &mut Headers, left: Duration) {
    let millis = u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
    let value = HeaderValue::from(millis);
    headers.retain(|name| *name != DEADLINE);
    headers.set_each(&ENVOYS, &value);
    headers.insert(TIMEOUT, value);
}

fn millis(data: &[u8]) -> Option<Duration> {
    if data.is_empty() || data.len() > MAX_DIGITS || !data.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(Duration::from_millis(data.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))))
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
        now_s: f64,
        left_s: Option<f64>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Passed {
        why: String,
        headers: Vec<(String, Text)>,
        left_s: f64,
        told: Vec<(String, Text)>,
    }

    fn fields(of: &[(String, Text)]) -> Headers {
        vectors::headers(of.iter().map(|(name, data)| (&**name, data)))
    }

    #[test]
    fn the_least_that_is_said_counts() {
        for case in vectors::read::<Case>("deadlines", "left") {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(case.now_s);
            let found = left_at(&fields(&case.headers), || now);
            assert_eq!(
                found.map(|left| left.as_micros()),
                case.left_s.map(|left_s| (left_s * 1e6).round() as u128),
                "{}",
                case.why
            );
        }
    }

    #[test]
    fn what_is_left_is_told_on() {
        for case in vectors::read::<Passed>("deadlines", "told") {
            let mut headers = fields(&case.headers);
            tell(&mut headers, Duration::from_secs_f64(case.left_s));
            assert_eq!(headers, fields(&case.told), "{}", case.why);
        }
    }
}
