//! Orders the endpoints of a cluster by load and ejections: `proxy/balance.py`, with the same numbers. Clock passed in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const DEFAULT_RTT_S: f64 = 0.030; // what an endpoint costs before it was measured
const DECAY_S: f64 = 10.0;
const WARM_UP: u32 = 5; // answers before an endpoint's latency counts
const SAME: f64 = 1.9; // costs nearer than this are noise
const REFUSED_RTT_S: f64 = 1.0; // what an endpoint costs that refused a call
const EJECT_FIRST_S: f64 = 1.0;
const EJECT_MAX_S: f64 = 30.0;

/// What all workers know of one endpoint: what one of them met, the others need not meet. `is_ailing`: there is something to look up,
/// so that healthy endpoints cost no lock.
#[derive(Debug, Default)]
pub struct Health {
    is_ailing: AtomicBool,
    ejections: Mutex<Ejections>,
}

#[derive(Debug, Default)]
struct Ejections {
    failures: i32,
    until: Option<Instant>,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Ejections> {
        self.ejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn eject(&self, now: Instant) {
        let mut ejections = self.lock();
        if ejections.until.is_none_or(|until| until <= now) {
            ejections.failures += 1;
            let pause_s = (EJECT_FIRST_S * 2f64.powi(ejections.failures - 1)).min(EJECT_MAX_S);
            ejections.until = Some(now + Duration::from_secs_f64(pause_s));
            self.is_ailing.store(true, Ordering::Release);
        }
    }

    fn restore(&self) {
        if self.is_ailing.load(Ordering::Relaxed) {
            let mut ejections = self.lock();
            *ejections = Ejections::default();
            self.is_ailing.store(false, Ordering::Release);
        }
    }

    fn ejected_for(&self, now: Instant) -> Duration {
        if !self.is_ailing.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        self.lock().until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

/// What one worker knows of one endpoint: calls and latencies are its own, health is shared.
#[derive(Debug)]
pub struct Load {
    pub weight: u32,
    pub in_flight: u32,
    pub rtt_s: f64,
    pub seen_at: Option<Instant>,
    samples: u32,
    health: Arc<Health>,
}

impl Load {
    /// An endpoint that this worker never used.
    pub fn new(weight: u32, health: Arc<Health>) -> Self {
        Self { weight: weight.max(1), in_flight: 0, rtt_s: DEFAULT_RTT_S, seen_at: None, samples: 0, health }
    }

    /// One attempt got its answer after so long.
    pub fn observe(&mut self, took: Duration, now: Instant) {
        let took_s = took.as_secs_f64();
        self.samples = self.samples.saturating_add(1);
        // A first answer pays for what is cold; only later ones tell endpoints apart.
        self.rtt_s = match self.measured() {
            Some((rtt_s, seen)) if took_s < rtt_s => took_s + (rtt_s - took_s) * decay(seen, now) * 0.9,
            _ => took_s,
        };
        self.seen_at = Some(now);
        self.health.restore();
    }

    /// It takes calls, but not this one: let others take the next.
    pub fn yield_way(&mut self) {
        self.rtt_s = self.rtt_s.max(REFUSED_RTT_S);
    }

    /// It refused or broke a connection: leave it alone, each time twice as long.
    pub fn eject(&mut self, now: Instant) {
        self.health.eject(now);
    }

    /// How long it is still left alone.
    pub fn ejected_for(&self, now: Instant) -> Duration {
        self.health.ejected_for(now)
    }

    /// The expected wait behind what is already there. Not measured yet: as quick as the other, so that it gets measured.
    fn cost(&self, beside: &Self, now: Instant) -> f64 {
        let measured = self.measured().or_else(|| beside.measured());
        let rtt_s = measured.map_or(DEFAULT_RTT_S, |(rtt_s, seen)| (rtt_s * decay(seen, now)).max(1e-6));
        rtt_s * f64::from(self.in_flight + 1) / f64::from(self.weight)
    }

    /// Its latency and when that was seen last, once it counts.
    fn measured(&self) -> Option<(f64, Instant)> {
        self.seen_at.filter(|_| self.samples > WARM_UP).map(|seen| (self.rtt_s, seen))
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

    fn load() -> Load {
        Load::new(1, Arc::default())
    }

    #[test]
    fn ejected_endpoints_come_last_and_pauses_double() {
        let now = Instant::now();
        let (mut bad, good) = (load(), load());
        bad.eject(now);
        assert!((0..50).all(|_| choose(&[(&bad, false), (&good, false)], now) == Some(1)));
        assert_eq!(choose(&[(&bad, false), (&good, true)], now), Some(0));
        let later = now + Duration::from_secs(2);
        bad.eject(later);
        assert_eq!(bad.ejected_for(later), Duration::from_secs(2));
    }

    #[test]
    fn what_one_worker_met_holds_for_all() {
        let now = Instant::now();
        let health = Arc::new(Health::default());
        let (mut here, mut there) = (Load::new(1, health.clone()), Load::new(1, health));
        here.eject(now);
        there.eject(now);
        assert_eq!(there.ejected_for(now), Duration::from_secs(1), "met by both, but one pause");
        there.observe(Duration::from_millis(1), now);
        assert_eq!(here.ejected_for(now), Duration::ZERO);
        here.eject(now);
        assert_eq!(there.ejected_for(now), Duration::from_secs(1), "it begins afresh");
    }

    #[test]
    fn first_answers_tell_no_endpoints_apart() {
        let now = Instant::now();
        let (mut cold, mut warm) = (load(), load());
        cold.observe(Duration::from_millis(80), now);
        (0..20).for_each(|_| warm.observe(Duration::from_millis(1), now));
        assert!((0..200).any(|_| choose(&[(&cold, false), (&warm, false)], now) == Some(0)));
        (0..WARM_UP).for_each(|_| cold.observe(Duration::from_millis(80), now));
        assert!((0..200).all(|_| choose(&[(&cold, false), (&warm, false)], now) == Some(1)));
    }

    #[test]
    fn busier_endpoint_yields() {
        let now = Instant::now();
        let (mut busy, idle) = (load(), load());
        busy.in_flight = 3;
        assert!((0..50).all(|_| choose(&[(&busy, false), (&idle, false)], now) == Some(1)));
    }
}
