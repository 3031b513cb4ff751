//! Which endpoints of a cluster answer so badly that they are left out for a while, for all workers: `proxy/engine/portable/outliers.py`,
//! with the same numbers, kept in step by `tests/vectors/outliers.json`. Clock and chance are passed in.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::call::balance::Health;
use crate::call::cause::Cause;
use crate::seam::ask::Attempt;

const JITTER: f64 = 0.1; // of an ejection
const PATIENCE_NS: u64 = 100_000_000; // a deadline that ends an attempt sooner says more of the caller than of the endpoint
const LEAST_SHARE: f64 = 0.1; // of its calls, for an endpoint that has just come back
/// So many calls that went well a worker counts by itself, before it tells the others.
pub const UNTOLD: u32 = 16;

/// When endpoints are left out; see `Outliers` in `proxy/contract/balancing.py`.
#[derive(Clone, Debug, PartialEq)]
pub struct Outliers {
    pub consecutive: u32,
    pub rate_endpoints: usize,
    pub rate_requests: u32,
    pub rate_factor: f64,
    pub ejection: Duration,
    pub max_ejection: Duration,
    pub max_percent: usize,
    pub interval: Duration,
    pub slow_start: Duration,
}

/// Why an endpoint was put out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Why {
    #[default]
    Failures,
    SuccessRate,
    Probe,
}

impl Why {
    /// As `EjectionReason` in `proxy/contract/balancing.py`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::SuccessRate => "success-rate",
            Self::Probe => "probe",
        }
    }
}

/// An endpoint was put out for so long, the how many-th time, or has come back.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointTurn {
    pub cluster: Arc<str>,
    pub address: Arc<str>,
    pub put_out: Option<(Why, Duration)>,
    pub times: u32,
}

/// Whether an attempt that has ended speaks against its endpoint; `None`: it says nothing of it.
pub fn has_failed(attempt: &Attempt, is_tunnel: bool) -> Option<bool> {
    let of_ours = attempt.cause.filter(|cause| *cause != Cause::Status).or(attempt.said);
    match of_ours {
        None => Some(attempt.grpc_code.map_or(attempt.status >= 500, |code| matches!(code, 2 | 4 | 13 | 14))),
        _ if attempt.sent_ns == 0 => None,
        // It came soon, or the answer had begun and was as long as its caller wanted it: that says more of the caller.
        Some(Cause::Timeout) if attempt.cause.is_some() && attempt.status > 0 => None,
        Some(Cause::Timeout) => (attempt.ended_ns.saturating_sub(attempt.sent_ns) >= PATIENCE_NS).then_some(true),
        Some(Cause::ResetLate) => (!is_tunnel).then_some(true),
        Some(Cause::ResetEarly | Cause::InvalidAnswer) => Some(true),
        Some(_) => None,
    }
}

/// How an endpoint's answers were, as far as it was put out. `out_until`: `None` where it takes calls; after that moment one call at a time
/// probes it. `forget_at`: when nothing of this matters any more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    pub out_until: Option<Instant>,
    pub why: Why,
    probed_until: Option<Instant>,
    times: u32,
    back_at: Option<Instant>,
    slow: Duration,
    forget_at: Option<Instant>,
}

impl Standing {
    /// Whether it takes no calls now, but where too many are out.
    pub fn is_out(&self, now: Instant) -> bool {
        self.out_until.is_some_and(|until| now < until || self.probed_until.is_some_and(|until| now < until))
    }

    /// Of its calls, as much as it gets now: less where it has just come back.
    pub fn share(&self, now: Instant) -> f64 {
        let Some(back_at) = self.back_at else { return 1.0 };
        let passed = now.saturating_duration_since(back_at);
        if self.out_until.is_some() || passed >= self.slow {
            1.0
        } else {
            LEAST_SHARE.max(passed.as_secs_f64() / self.slow.as_secs_f64())
        }
    }

    fn forgive(&mut self, now: Instant, interval: Duration) {
        if let Some(back_at) = self.back_at {
            let passed = now.saturating_duration_since(back_at).as_secs_f64() / interval.as_secs_f64();
            self.times = self.times.saturating_sub(passed as u32);
        }
    }
}

/// An endpoint's answers, as all workers know them. `is_marked`: there is a standing to look up.
#[derive(Debug, Default)]
pub struct Answers {
    is_marked: AtomicBool,
    in_a_row: AtomicU32,
    calls: AtomicU32,
    failed: AtomicU32,
    standing: Mutex<Standing>,
}

impl Answers {
    /// Whether there is something to look up.
    pub fn is_marked(&self) -> bool {
        self.is_marked.load(Ordering::Acquire)
    }

    /// One more went well.
    pub fn note_well(&self) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands.
    pub fn standing(&self, now: Instant) -> Standing {
        if !self.is_marked() {
            return Standing::default();
        }
        let mut standing = self.lock();
        if standing.out_until.is_none() && standing.forget_at.is_none_or(|at| at <= now) {
            *standing = Standing::default();
            self.is_marked.store(false, Ordering::Release);
        }
        *standing
    }

    /// A call goes there: where its time is over, it is the one that probes.
    pub fn begin(&self, now: Instant, interval: Duration) {
        if self.is_marked() {
            let mut standing = self.lock();
            if standing.out_until.is_some_and(|until| until <= now) {
                standing.probed_until = Some(now + interval);
            }
        }
    }

    /// Nothing is held against it.
    pub fn readmit(&self) {
        if self.is_marked() {
            *self.lock() = Standing::default();
            self.is_marked.store(false, Ordering::Release);
        }
        for count in [&self.in_a_row, &self.calls, &self.failed] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// An endpoint of a cluster.
#[derive(Debug)]
pub struct Member {
    pub address: Arc<str>,
    pub rank: u8,
    pub health: Arc<Health>,
}

/// The outliers of one cluster as it was pushed. `compare_at`: when success rates are next compared; held while somebody is put out.
#[derive(Debug)]
pub struct Watch {
    key: Arc<str>,
    pub rules: Outliers,
    members: Vec<Member>,
    compare_at: Mutex<Option<Instant>>,
}

impl Watch {
    /// Of a cluster of two or more.
    pub fn new(key: Arc<str>, rules: Outliers, members: Vec<Member>) -> Arc<Self> {
        Arc::new(Self { key, rules, members, compare_at: Mutex::default() })
    }

    /// An attempt at an endpoint has ended, and before it `well` others that went well. Returns what changed.
    pub fn heard(
        &self,
        address: &str,
        well: u32,
        has_failed: Option<bool>,
        now: Instant,
        mut chance: impl FnMut() -> f64,
    ) -> Vec<EndpointTurn> {
        let Some(member) = self.members.iter().find(|member| *member.address == *address) else { return Vec::new() };
        let answers = &member.health.answers;
        if answers.standing(now).out_until.is_some() {
            return self.probed(member, has_failed, now, &mut chance).into_iter().collect();
        }
        answers.calls.fetch_add(well + u32::from(has_failed.is_some()), Ordering::Relaxed);
        let mut compare_at = self.compare_at.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turns = Vec::new();
        match has_failed {
            Some(true) => {
                answers.failed.fetch_add(1, Ordering::Relaxed);
                let in_a_row = answers.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
                if self.rules.consecutive > 0 && in_a_row >= self.rules.consecutive {
                    turns.extend(self.eject(member, Why::Failures, now, &mut chance));
                }
            }
            Some(false) => answers.note_well(),
            None => {}
        }
        let is_due = has_failed.is_some() && compare_at.is_none_or(|at| at <= now);
        if is_due && compare_at.replace(now + self.rules.interval).is_some() {
            turns.extend(self.compare(now, &mut chance));
        }
        turns
    }

    /// Of an endpoint that is out: what began before says nothing, and what was sent since its time is over decides.
    fn probed(
        &self,
        member: &Member,
        has_failed: Option<bool>,
        now: Instant,
        chance: &mut impl FnMut() -> f64,
    ) -> Option<EndpointTurn> {
        let mut standing = member.health.answers.lock();
        standing.out_until.filter(|until| *until <= now)?;
        standing.probed_until = None;
        if has_failed? {
            return Some(self.put_out(member, &mut standing, Why::Probe, now, chance));
        }
        let memory = self.rules.slow_start.max(self.rules.interval.saturating_mul(standing.times));
        (standing.out_until, standing.back_at, standing.forget_at) = (None, Some(now), Some(now + memory));
        standing.slow = self.rules.slow_start;
        let (cluster, address) = (self.key.clone(), member.address.clone());
        Some(EndpointTurn { cluster, address, put_out: None, times: standing.times })
    }

    /// Unless too many are out, or none would be left that takes calls.
    fn eject(&self, member: &Member, why: Why, now: Instant, chance: &mut impl FnMut() -> f64) -> Option<EndpointTurn> {
        member.health.answers.in_a_row.store(0, Ordering::Relaxed);
        let is_out = |one: &Member| one.health.answers.standing(now).out_until.is_some();
        let out = self.members.iter().filter(|one| is_out(one)).count();
        let takes_calls = |one: &&Member| one.address != member.address && !is_out(one) && one.health.tier(one.rank, now) <= 1;
        let has_other = self.members.iter().any(|one| takes_calls(&one));
        if !has_other || out >= (self.members.len() * self.rules.max_percent / 100).max(1) || is_out(member) {
            return None;
        }
        let mut standing = member.health.answers.lock();
        standing.forgive(now, self.rules.interval);
        Some(self.put_out(member, &mut standing, why, now, chance))
    }

    fn put_out(
        &self,
        member: &Member,
        standing: &mut Standing,
        why: Why,
        now: Instant,
        chance: &mut impl FnMut() -> f64,
    ) -> EndpointTurn {
        standing.times += 1;
        let length = self.rules.ejection.saturating_mul(standing.times).min(self.rules.max_ejection);
        let length = length.mul_f64(1.0 + JITTER * chance());
        (standing.out_until, standing.why) = (Some(now + length), why);
        member.health.answers.is_marked.store(true, Ordering::Release);
        let (cluster, address) = (self.key.clone(), member.address.clone());
        EndpointTurn { cluster, address, put_out: Some((why, length)), times: standing.times }
    }

    /// Put out who fails far more often than the others; all are counted anew.
    fn compare(&self, now: Instant, chance: &mut impl FnMut() -> f64) -> Vec<EndpointTurn> {
        let mut busy: Vec<(&Member, f64)> = Vec::new();
        for member in &self.members {
            let answers = &member.health.answers;
            let (calls, failed) = (answers.calls.swap(0, Ordering::Relaxed), answers.failed.swap(0, Ordering::Relaxed));
            if calls >= self.rules.rate_requests && answers.standing(now).out_until.is_none() {
                busy.push((member, 1.0 - f64::from(failed) / f64::from(calls)));
            }
        }
        if self.rules.rate_factor <= 0.0 || busy.len() < self.rules.rate_endpoints {
            return Vec::new();
        }
        let count = busy.len() as f64;
        let mean = busy.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let deviation = (busy.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count).sqrt();
        let least = mean - self.rules.rate_factor * deviation;
        let slow = busy.iter().filter(|(_, rate)| *rate < least);
        slow.filter_map(|(member, _)| self.eject(member, Why::SuccessRate, now, chance)).collect()
    }
}

#[cfg(test)]
impl Answers {
    /// As if it had been put out just now, or had just come back.
    pub fn pretend(&self, out_until: Option<Instant>, back_at: Option<Instant>) {
        let slow = Duration::from_secs(10);
        let forget_at = back_at.map(|at| at + slow);
        *self.lock() = Standing { out_until, back_at, slow, forget_at, ..Standing::default() };
        self.is_marked.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::call::balance::Load;
    use crate::vectors;

    fn yes() -> bool {
        true
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Verdict {
        why: String,
        cause: Option<String>,
        said: Option<String>,
        #[serde(default)]
        status: u16,
        code: Option<u32>,
        #[serde(default = "yes")]
        sent: bool,
        #[serde(default)]
        took_s: f64,
        #[serde(default)]
        tunnel: bool,
        failed: Option<bool>,
    }

    #[test]
    fn attempts_speak_against_their_endpoints() {
        for case in vectors::read::<Verdict>("outliers", "verdicts") {
            let cause = |name: Option<String>| name.map(|name| Cause::parse(&name).unwrap());
            let attempt = Attempt {
                ended_ns: 1_000 + (case.took_s * 1e9) as u64,
                cause: cause(case.cause),
                status: case.status,
                grpc_code: case.code,
                said: cause(case.said),
                sent_ns: if case.sent { 1_000 } else { 0 },
                ..Attempt::default()
            };
            assert_eq!(has_failed(&attempt, case.tunnel), case.failed, "{}", case.why);
        }
    }

    /// See `tests/unit/proxy/engine/test_outliers.py`.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Step {
        at: f64,
        #[serde(default)]
        to: usize,
        #[serde(default)]
        failed: Vec<Option<bool>>,
        #[serde(default)]
        chance: f64,
        turn: Option<(String, f64, u32)>,
        begin: Option<usize>,
        unreachable: Option<usize>,
        out: Option<Vec<usize>>,
        share: Option<Vec<f64>>,
    }

    fn five() -> u32 {
        5
    }

    fn hundred() -> u32 {
        100
    }

    fn ten() -> usize {
        10
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Watched {
        why: String,
        endpoints: usize,
        #[serde(default = "five")]
        consecutive: u32,
        #[serde(default = "hundred")]
        requests: u32,
        #[serde(default = "ten")]
        max_percent: usize,
        steps: Vec<Step>,
    }

    /// One worker's view of the endpoints.
    fn loads(case: &Watched) -> Vec<Load> {
        let healths: Vec<_> = (0..case.endpoints).map(|_| Arc::new(Health::new(true))).collect();
        let member = |(place, health): (usize, &Arc<Health>)| Member {
            address: place.to_string().into(),
            rank: 0,
            health: health.clone(),
        };
        let rules = Outliers {
            consecutive: case.consecutive,
            rate_endpoints: 5,
            rate_requests: case.requests,
            rate_factor: 1.9,
            ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_percent: case.max_percent,
            interval: Duration::from_secs(10),
            slow_start: Duration::from_secs(10),
        };
        let members = healths.iter().enumerate().map(member).collect();
        let watch = (case.endpoints > 1).then(|| Watch::new("c".into(), rules, members));
        let load = |health| {
            let mut load = Load::new(1, 0, health);
            load.describe(1, 0, watch.as_ref());
            load
        };
        healths.into_iter().map(load).collect()
    }

    /// As an attempt does when it ends; each is told at once, as of a worker that was told to tell.
    fn end(load: &mut Load, place: usize, failed: Option<bool>, now: Instant, chance: f64) -> Vec<EndpointTurn> {
        load.in_flight += 1;
        let told = load.end(failed);
        let Some(watch) = load.watch.clone() else { return Vec::new() };
        let (well, failed) = match told {
            Some((_, well)) => (well, failed),
            None if failed.is_some() => (load.tell() - 1, failed),
            None => return Vec::new(),
        };
        watch.heard(&place.to_string(), well, failed, now, || chance)
    }

    #[test]
    fn endpoints_are_left_out_and_come_back() {
        let begin = Instant::now();
        for case in vectors::read::<Watched>("outliers", "watches") {
            println!("{}", case.why);
            let mut loads = loads(&case);
            for step in &case.steps {
                let now = begin + Duration::from_secs_f64(step.at);
                let mut turns = Vec::new();
                for failed in &step.failed {
                    assert!(turns.is_empty(), "{step:?}");
                    turns = end(&mut loads[step.to], step.to, *failed, now, step.chance);
                }
                let told: Vec<_> = turns
                    .iter()
                    .map(|turn| {
                        let (reason, length) = turn.put_out.map_or(("", Duration::ZERO), |(why, length)| (why.name(), length));
                        (reason.to_owned(), (length.as_secs_f64() * 1e3).round() / 1e3, turn.times)
                    })
                    .collect();
                assert_eq!(told, step.turn.iter().cloned().collect::<Vec<_>>(), "{step:?}");
                if let Some(place) = step.begin {
                    loads[place].begin(now);
                    loads[place].in_flight -= 1;
                }
                if let Some(place) = step.unreachable {
                    loads[place].eject(now);
                }
                if let Some(out) = &step.out {
                    let found: Vec<_> = (0..loads.len()).filter(|&at| loads[at].standing(now).is_out(now)).collect();
                    assert_eq!(&found, out, "{step:?}");
                }
                for (load, share) in loads.iter().zip(step.share.iter().flatten()) {
                    assert!((load.standing(now).share(now) - share).abs() < 1e-6, "{step:?}");
                }
            }
        }
    }

    #[test]
    fn what_goes_well_is_told_of_now_and_then_alone() {
        let case =
            Watched { why: String::new(), endpoints: 2, consecutive: 5, requests: 100, max_percent: 10, steps: Vec::new() };
        let mut loads = loads(&case);
        loads[0].in_flight = 100;
        let told: Vec<_> = (0..40).filter_map(|_| loads[0].end(Some(false)).map(|(_, well)| well)).collect();
        assert_eq!(told, [UNTOLD; 2]);
        loads[1].in_flight = 1;
        assert!(loads[1].end(Some(true)).is_some(), "a failure is told at once");
    }
}
