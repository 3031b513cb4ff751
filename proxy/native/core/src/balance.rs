//! Orders the endpoints of a cluster by load and ejections: `proxy/balance.py`, with the same numbers. Clock passed in.

use std::time::{Duration, Instant};

const DEFAULT_RTT_S: f64 = 0.030; // what an endpoint costs before it was measured
const DECAY_S: f64 = 10.0;
const SAME: f64 = 1.9; // costs nearer than this are noise
const EJECT_FIRST_S: f64 = 1.0;
const EJECT_MAX_S: f64 = 30.0;

/// What one engine knows of one endpoint.
#[derive(Debug)]
pub struct Load {
    pub weight: u32,
    pub in_flight: u32,
    pub rtt_s: f64,
    seen_at: Option<Instant>,
    failures: i32,
    ejected_until: Option<Instant>,
}

impl Load {
    /// An endpoint that was never used.
    pub fn new(weight: u32) -> Self {
        Self { weight: weight.max(1), in_flight: 0, rtt_s: DEFAULT_RTT_S, seen_at: None, failures: 0, ejected_until: None }
    }

    /// One attempt got its answer after so long.
    pub fn observe(&mut self, took: Duration, now: Instant) {
        let took_s = took.as_secs_f64();
        self.rtt_s = match self.seen_at {
            Some(seen) if took_s < self.rtt_s => took_s + (self.rtt_s - took_s) * decay(seen, now) * 0.9,
            _ => took_s,
        };
        self.seen_at = Some(now);
        self.failures = 0;
        self.ejected_until = None;
    }

    /// It refused or broke a connection: leave it alone, each time twice as long.
    pub fn eject(&mut self, now: Instant) {
        if self.ejected_for(now).is_zero() {
            self.failures += 1;
            let pause_s = (EJECT_FIRST_S * 2f64.powi(self.failures - 1)).min(EJECT_MAX_S);
            self.ejected_until = Some(now + Duration::from_secs_f64(pause_s));
        }
    }

    /// How long it is still left alone.
    pub fn ejected_for(&self, now: Instant) -> Duration {
        self.ejected_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// The expected wait behind what is already there. Not measured yet: as quick as the other, so that it gets measured.
    fn cost(&self, beside: &Self, now: Instant) -> f64 {
        let measured = if self.seen_at.is_some() { self } else { beside };
        let rtt_s = measured.seen_at.map_or(DEFAULT_RTT_S, |seen| (measured.rtt_s * decay(seen, now)).max(1e-6));
        rtt_s * f64::from(self.in_flight + 1) / f64::from(self.weight)
    }
}

fn decay(seen: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(seen).as_secs_f64() / DECAY_S).exp()
}

/// The place of the endpoint for the next attempt: untried before tried, healthy before ejected; when all are ejected, any.
pub fn choose(loads: &[(&Load, bool)], now: Instant) -> Option<usize> {
    let all = 0..loads.len();
    if let [_] = loads {
        return Some(0);
    }
    let untried: Vec<usize> = all.clone().filter(|&at| !loads[at].1).collect();
    let untried = if untried.is_empty() { all.collect() } else { untried };
    let healthy: Vec<usize> = untried.iter().copied().filter(|&at| loads[at].0.ejected_for(now).is_zero()).collect();
    let pool = if healthy.is_empty() { untried } else { healthy };
    let [first, second] = match pool[..] {
        [] => return None,
        [only] => return Some(only),
        [first, second] => [first, second],
        _ => {
            let one = fastrand::usize(..pool.len());
            let other = (one + fastrand::usize(1..pool.len())) % pool.len();
            [pool[one], pool[other]]
        }
    };
    let (a, b) = (loads[first].0, loads[second].0);
    let (one, other) = (a.cost(b, now), b.cost(a, now));
    if one.max(other) < SAME * one.min(other) {
        return Some(if fastrand::bool() { first } else { second });
    }
    Some(if one < other { first } else { second })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejected_endpoints_come_last_and_pauses_double() {
        let now = Instant::now();
        let (mut bad, good) = (Load::new(1), Load::new(1));
        bad.eject(now);
        assert!((0..50).all(|_| choose(&[(&bad, false), (&good, false)], now) == Some(1)));
        assert_eq!(choose(&[(&bad, false), (&good, true)], now), Some(0));
        let later = now + Duration::from_secs(2);
        bad.eject(later);
        assert_eq!(bad.ejected_for(later), Duration::from_secs(2));
    }

    #[test]
    fn busier_endpoint_yields() {
        let now = Instant::now();
        let (mut busy, idle) = (Load::new(1), Load::new(1));
        busy.in_flight = 3;
        assert!((0..50).all(|_| choose(&[(&busy, false), (&idle, false)], now) == Some(1)));
    }
}
