//! What is known of each endpoint of a cluster: its load, its latency and its failures. `proxy/engine/portable/balance.py`, with the same
//! numbers, kept in step by `tests/vectors/balance.json`. The clock is passed in.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::call::cause::Cause;
use crate::call::outliers::{Answers, Standing, UNTOLD, Watch};

const DEFAULT_RTT_S: f64 = 0.030; // what an endpoint costs before it was measured
const DECAY_S: f64 = 10.0;
const WARM_UP: u32 = 5; // answers before an endpoint's latency counts
const REFUSED_RTT_S: f64 = 1.0; // what an endpoint costs that refused a call
const EJECT_FIRST_S: f64 = 1.0;
const EJECT_MAX_S: f64 = 30.0;
const AVOID: Duration = Duration::from_secs(1); // at a time, while an endpoint does not answer a PING
const AWAY_FIRST_S: f64 = 30.0; // an address that shows a wrong identity or none is no instance: it is looked at again seldom
const AWAY_MAX_S: f64 = 300.0;

/// What all workers know of one endpoint: what one of them met, the others need not meet. `is_ailing`: there is something to look up,
/// so that healthy endpoints cost no lock. `is_proven`: its certificate was the right one (without mutual
/// TLS: it was reached, and speaks as a peer does). `is_proving`: a connection beside the calls
/// finds that out.
#[derive(Debug)]
pub struct Health {
    is_ailing: AtomicBool,
    is_proven: AtomicBool,
    is_proving: AtomicBool,
    ejections: Mutex<Ejections>,
    pub answers: Answers,
}

/// `mismatches`: how often in a row its certificate was not the right one.
#[derive(Clone, Copy, Debug, Default)]
struct Ejections {
    failures: i32,
    mismatches: i32,
    until: Option<Instant>,
    avoided_until: Option<Instant>,
}

impl Ejections {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    fn is_avoided(&self, now: Instant) -> bool {
        self.avoided_until.is_some_and(|until| until > now)
    }
}

impl Health {
    /// Of an endpoint that nobody used. Apps and our own sockets were not announced by anybody: nothing has to be proven.
    pub fn new(is_proven: bool) -> Self {
        let flag = AtomicBool::new;
        let (is_ailing, is_proven, is_proving) = (flag(false), flag(is_proven), flag(false));
        Self { is_ailing, is_proven, is_proving, ejections: Mutex::default(), answers: Answers::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Ejections> {
        self.ejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It refused or broke a connection: leave it alone, each time twice as long.
    pub fn eject(&self, now: Instant) {
        let mut ejections = self.lock();
        if ejections.is_over(now) {
            ejections.failures += 1;
            ejections.until = Some(now + doubled(EJECT_FIRST_S, ejections.failures, EJECT_MAX_S));
            self.is_ailing.store(true, Ordering::Release);
        }
    }

    /// It does not answer just now: leave it alone for a moment, without counting that as a failure.
    pub fn avoid(&self, now: Instant) {
        self.lock().avoided_until = Some(now + AVOID);
        self.is_ailing.store(true, Ordering::Release);
    }

    fn put_away(&self, now: Instant) {
        let mut ejections = self.lock();
        self.is_proven.store(false, Ordering::Relaxed);
        if ejections.is_over(now) {
            ejections.mismatches += 1;
            ejections.until = Some(now + doubled(AWAY_FIRST_S, ejections.mismatches, AWAY_MAX_S));
            self.is_ailing.store(true, Ordering::Release);
        }
    }

    /// Nothing is held against it.
    pub fn restore(&self) {
        if self.is_ailing.load(Ordering::Relaxed) {
            let mut ejections = self.lock();
            *ejections = Ejections::default();
            self.is_ailing.store(false, Ordering::Release);
        }
    }

    fn ejections(&self) -> Ejections {
        if self.is_ailing.load(Ordering::Acquire) { *self.lock() } else { Ejections::default() }
    }

    /// Whether it was seen to be somebody else.
    pub fn is_put_away(&self) -> bool {
        self.ejections().mismatches > 0
    }

    /// Whether its certificate was the right one.
    pub fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// Its certificate was the right one.
    pub fn prove(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
    }

    /// Begin to find out, unless somebody does.
    pub fn begin_proving(&self) -> bool {
        !self.is_proving.swap(true, Ordering::Relaxed)
    }

    /// It was found out.
    pub fn end_proving(&self) {
        self.is_proving.store(false, Ordering::Relaxed);
    }

    /// Whether somebody is about to find out.
    pub fn is_proving(&self) -> bool {
        self.is_proving.load(Ordering::Relaxed)
    }

    /// Endpoints of a lower tier are chosen before those of a higher one. `rank`: of its source.
    ///
    /// What was only announced may be anybody: it comes after what has proven itself, even where that is ejected just now, unless this
    /// host itself knows of it; and what was seen to be somebody else comes last.
    pub fn tier(&self, rank: u8, now: Instant) -> u8 {
        let ejections = self.ejections();
        let is_ejected = !ejections.is_over(now) || ejections.is_avoided(now);
        match (self.is_proven(), is_ejected) {
            (true, false) => 0,
            (true, true) => 2,
            _ if ejections.mismatches > 0 => 5,
            (false, false) => {
                if rank == 0 {
                    1
                } else {
                    3
                }
            }
            (false, true) => 4,
        }
    }

    /// When to find out, among others: who was somebody else before comes last. `None`: not now.
    pub fn turn(&self, now: Instant) -> Option<i32> {
        let ejections = self.ejections();
        (!self.is_proven() && !self.is_proving() && ejections.is_over(now)).then_some(ejections.mismatches)
    }
}

fn doubled(first_s: f64, times: i32, most_s: f64) -> Duration {
    Duration::from_secs_f64((first_s * 2f64.powi(times - 1)).min(most_s))
}

/// What one worker knows of one endpoint: calls and latencies are its own, health is shared.
#[derive(Debug)]
pub struct Load {
    pub weight: u32,
    pub in_flight: u32,
    pub rtt_s: f64,
    pub seen_at: Option<Instant>,
    /// Of its source: among those that are not proven, lower before higher.
    pub rank: u8,
    pub health: Arc<Health>,
    /// Of round-robin.
    pub turn: Cell<f64>,
    /// Of the cluster's outliers, where there may be any.
    pub watch: Option<Arc<Watch>>,
    /// Calls that went well and that `watch` was not told of.
    untold: u32,
    samples: u32,
}

impl Load {
    /// An endpoint that this worker never used.
    pub fn new(weight: u32, rank: u8, health: Arc<Health>) -> Self {
        let (in_flight, rtt_s, seen_at, turn) = (0, DEFAULT_RTT_S, None, Cell::new(0.0));
        Self { weight: weight.max(1), in_flight, rtt_s, seen_at, rank, health, turn, watch: None, untold: 0, samples: 0 }
    }

    /// What was pushed of it.
    pub fn describe(&mut self, weight: u32, rank: u8, watch: Option<&Arc<Watch>>) {
        (self.weight, self.rank, self.watch) = (weight.max(1), rank, watch.cloned());
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

    /// It failed or refused a call, which may be quick: as if that took at least twice as long as its answers do, so that others are
    /// preferred.
    pub fn penalize(&mut self, took: Duration, now: Instant) {
        self.rtt_s = self.rtt_s.max(took.as_secs_f64()).max((2.0 * self.rtt_s).min(REFUSED_RTT_S));
        self.seen_at = Some(now);
    }

    /// It refused or broke a connection: leave it alone, each time twice as long.
    pub fn eject(&mut self, now: Instant) {
        self.health.eject(now);
    }

    /// How long it is still left alone.
    pub fn ejected_for(&self, now: Instant) -> Duration {
        self.health
            .ejections()
            .until
            .max(self.standing(now).out_until)
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// A call goes there.
    pub fn begin(&mut self, now: Instant) {
        self.in_flight += 1;
        if let Some(watch) = &self.watch {
            self.health.answers.begin(now, watch.rules.interval);
        }
    }

    /// An attempt has ended: see `outliers::has_failed`. Whom to tell of it, and of how many others that went well; `None`: nobody yet.
    pub fn end(&mut self, has_failed: Option<bool>) -> Option<(Arc<Watch>, u32)> {
        self.in_flight -= 1;
        let watch = self.watch.as_ref()?;
        let answers = &self.health.answers;
        if !answers.is_marked() {
            match has_failed {
                None => return None,
                Some(false) if self.untold < UNTOLD => {
                    answers.note_well();
                    self.untold += 1;
                    return None;
                }
                Some(_) => {}
            }
        }
        Some((watch.clone(), std::mem::take(&mut self.untold)))
    }

    #[cfg(test)]
    pub fn tell(&mut self) -> u32 {
        std::mem::take(&mut self.untold)
    }

    /// How its answers were.
    pub fn standing(&self, now: Instant) -> Standing {
        self.health.answers.standing(now)
    }

    /// Its weight, less where it has just come back.
    pub fn worth(&self, now: Instant) -> f64 {
        f64::from(self.weight) * self.standing(now).share(now)
    }

    /// A connection to it could not be made.
    pub fn lose(&mut self, cause: Cause, is_mesh: bool, now: Instant) {
        match cause {
            Cause::TlsIdentity if is_mesh => self.health.put_away(now),
            Cause::Connect | Cause::Refused | Cause::TlsIdentity => self.health.eject(now),
            _ => {}
        }
    }

    /// See `Health::tier`. `heeds_answers`: who is left out for them comes later.
    pub fn tier(&self, now: Instant, heeds_answers: bool) -> u8 {
        match self.health.tier(self.rank, now) {
            0 if heeds_answers && self.standing(now).is_out(now) => 2,
            tier => tier,
        }
    }

    /// The expected wait behind what is already there. Not measured yet: as quick as the other, so that it gets measured.
    pub fn cost(&self, beside: &Self, now: Instant) -> f64 {
        let measured = self.measured().or_else(|| beside.measured());
        let rtt_s = measured.map_or(DEFAULT_RTT_S, |(rtt_s, seen)| (rtt_s * decay(seen, now)).max(1e-6));
        rtt_s * f64::from(self.in_flight + 1) / self.worth(now)
    }

    /// Its latency and when that was seen last, once it counts.
    fn measured(&self) -> Option<(f64, Instant)> {
        self.seen_at.filter(|_| self.samples > WARM_UP).map(|seen| (self.rtt_s, seen))
    }
}

fn decay(seen: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(seen).as_secs_f64() / DECAY_S).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_worker_met_holds_for_all() {
        let now = Instant::now();
        let health = Arc::new(Health::new(true));
        let (mut here, mut there) = (Load::new(1, 0, health.clone()), Load::new(1, 0, health));
        here.eject(now);
        there.eject(now);
        assert_eq!(there.ejected_for(now), Duration::from_secs(1), "met by both, but one pause");
        there.observe(Duration::from_millis(1), now);
        assert_eq!(here.ejected_for(now), Duration::ZERO);
        here.eject(now);
        assert_eq!(there.ejected_for(now), Duration::from_secs(1), "it begins afresh");
    }
}
