//! Orders the endpoints of a cluster by load and ejections: `proxy/engine/portable/balance.py`, with the same numbers, kept in
//! step by `tests/vectors/balance.json`. Clock and chance are passed in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::call::cause::Cause;

const DEFAULT_RTT_S: f64 = 0.030; // what an endpoint costs before it was measured
const DECAY_S: f64 = 10.0;
const WARM_UP: u32 = 5; // answers before an endpoint's latency counts
const SAME: f64 = 1.9; // costs nearer than this are noise
const REFUSED_RTT_S: f64 = 1.0; // what an endpoint costs that refused a call
const EJECT_FIRST_S: f64 = 1.0;
const EJECT_MAX_S: f64 = 30.0;
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
}

/// `mismatches`: how often in a row its certificate was not the right one.
#[derive(Clone, Copy, Debug, Default)]
struct Ejections {
    failures: i32,
    mismatches: i32,
    until: Option<Instant>,
}

impl Ejections {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

impl Health {
    /// Of an endpoint that nobody used. Apps and our own sockets were not announced by anybody: nothing has to be proven.
    pub fn new(is_proven: bool) -> Self {
        let flag = AtomicBool::new;
        Self { is_ailing: flag(false), is_proven: flag(is_proven), is_proving: flag(false), ejections: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Ejections> {
        self.ejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn eject(&self, now: Instant) {
        let mut ejections = self.lock();
        if ejections.is_over(now) {
            ejections.failures += 1;
            ejections.until = Some(now + doubled(EJECT_FIRST_S, ejections.failures, EJECT_MAX_S));
            self.is_ailing.store(true, Ordering::Release);
        }
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
    samples: u32,
}

impl Load {
    /// An endpoint that this worker never used.
    pub fn new(weight: u32, rank: u8, health: Arc<Health>) -> Self {
        Self { weight: weight.max(1), in_flight: 0, rtt_s: DEFAULT_RTT_S, seen_at: None, rank, health, samples: 0 }
    }

    /// What was pushed of it.
    pub fn describe(&mut self, weight: u32, rank: u8) {
        (self.weight, self.rank) = (weight.max(1), rank);
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

    /// Its proxy refused the call, which is quick: as if the answer had taken twice as long as they do, so that others are preferred.
    pub fn had_no_room(&mut self, took: Duration, now: Instant) {
        let penalty = (2.0 * self.rtt_s).min(REFUSED_RTT_S);
        self.observe(took.max(Duration::from_secs_f64(penalty)), now);
    }

    /// It refused or broke a connection: leave it alone, each time twice as long.
    pub fn eject(&mut self, now: Instant) {
        self.health.eject(now);
    }

    /// How long it is still left alone.
    pub fn ejected_for(&self, now: Instant) -> Duration {
        self.health.ejections().until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// A connection to it could not be made.
    pub fn lose(&mut self, cause: Cause, is_mesh: bool, now: Instant) {
        match cause {
            Cause::TlsIdentity if is_mesh => self.health.put_away(now),
            Cause::Connect | Cause::Refused | Cause::TlsIdentity => self.health.eject(now),
            _ => {}
        }
    }

    /// Endpoints of a lower tier are chosen before those of a higher one.
    ///
    /// What was only announced may be anybody: it comes after what has proven itself, even where that is ejected just now, unless this
    /// host itself knows of it; and what was seen to be somebody else comes last.
    fn tier(&self, now: Instant) -> u8 {
        let ejections = self.health.ejections();
        let is_ejected = !ejections.is_over(now);
        match (self.health.is_proven(), is_ejected) {
            (true, false) => 0,
            (true, true) => 2,
            _ if ejections.mismatches > 0 => 5,
            (false, false) => {
                if self.rank == 0 {
                    1
                } else {
                    3
                }
            }
            (false, true) => 4,
        }
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

/// The place of the endpoint for the next attempt: untried before tried, then by tier; when all are ejected, any. `chance`: in [0, 1).
pub fn choose(loads: &[(&Load, bool)], now: Instant, mut chance: impl FnMut() -> f64) -> Option<usize> {
    let all = 0..loads.len();
    if let [_] = loads {
        return Some(0);
    }
    let untried: Vec<usize> = all.clone().filter(|&at| !loads[at].1).collect();
    let untried = if untried.is_empty() { all.collect() } else { untried };
    let tiers: Vec<u8> = untried.iter().map(|&at| loads[at].0.tier(now)).collect();
    let best = tiers.iter().min().copied().unwrap_or_default();
    let pool: Vec<usize> = untried.iter().zip(&tiers).filter(|(_, tier)| **tier == best).map(|(&at, _)| at).collect();
    let [first, second] = match pool[..] {
        [] => return None,
        [only] => return Some(only),
        [first, second] => [first, second],
        _ => {
            let mut below = |count: usize| (chance() * count as f64) as usize;
            let one = below(pool.len());
            let other = (one + 1 + below(pool.len() - 1)) % pool.len();
            [pool[one], pool[other]]
        }
    };
    let (a, b) = (loads[first].0, loads[second].0);
    let (one, other) = (a.cost(b, now), b.cost(a, now));
    if one.max(other) < SAME * one.min(other) {
        return Some(if chance() < 0.5 { first } else { second });
    }
    Some(if one < other { first } else { second })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors;

    fn one() -> u32 {
        1
    }

    fn yes() -> bool {
        true
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Endpoint {
        #[serde(default = "one")]
        weight: u32,
        #[serde(default)]
        rank: u8,
        #[serde(default = "yes")]
        proven: bool,
    }

    /// What happens to the endpoint `to` at a moment, or is asked: `choose` one, or what is to `see` of it.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Step {
        at: f64,
        r#do: String,
        #[serde(default)]
        to: usize,
        #[serde(default)]
        took_s: f64,
        #[serde(default = "one")]
        times: u32,
        #[serde(default)]
        tried: Vec<usize>,
        #[serde(default)]
        chance: Vec<f64>,
        chosen: Option<usize>,
        ejected_s: Option<f64>,
        rtt_s: Option<f64>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Choices {
        why: String,
        endpoints: Vec<Endpoint>,
        steps: Vec<Step>,
    }

    fn change(load: &mut Load, step: &Step, now: Instant) {
        match &*step.r#do {
            "observe" => load.observe(Duration::from_secs_f64(step.took_s), now),
            "yield_way" => load.yield_way(),
            "eject" => load.eject(now),
            "put_away" => load.lose(Cause::TlsIdentity, true, now),
            "restore" => load.health.restore(),
            "prove" => load.health.prove(),
            "begin" => load.in_flight += 1,
            "end" => load.in_flight -= 1,
            other => panic!("{other}"),
        }
    }

    fn take(loads: &mut [Load], step: &Step, now: Instant) {
        if step.r#do == "choose" {
            let all: Vec<_> = loads.iter().enumerate().map(|(place, load)| (load, step.tried.contains(&place))).collect();
            let mut chances = step.chance.iter().copied();
            assert_eq!(choose(&all, now, || chances.next().unwrap()), step.chosen, "{step:?}");
            assert_eq!(chances.next(), None, "{step:?}");
        } else if step.r#do == "see" {
            let is_near = |found: f64, wanted: Option<f64>| wanted.is_none_or(|wanted| (found - wanted).abs() <= 1e-5 * wanted);
            assert!(is_near(loads[step.to].ejected_for(now).as_secs_f64(), step.ejected_s), "{step:?}");
            assert!(is_near(loads[step.to].rtt_s, step.rtt_s), "{step:?}: {}", loads[step.to].rtt_s);
        } else {
            (0..step.times).for_each(|_| change(&mut loads[step.to], step, now));
        }
    }

    #[test]
    fn endpoints_are_chosen_by_what_happened_to_them() {
        let begin = Instant::now();
        for case in vectors::read::<Choices>("balance", "choices") {
            println!("{}", case.why);
            let load = |end: &Endpoint| Load::new(end.weight, end.rank, Arc::new(Health::new(end.proven)));
            let mut loads: Vec<_> = case.endpoints.iter().map(load).collect();
            case.steps.iter().for_each(|step| take(&mut loads, step, begin + Duration::from_secs_f64(step.at)));
        }
    }

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
