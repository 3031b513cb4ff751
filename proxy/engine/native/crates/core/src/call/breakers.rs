//! Circuit breakers: one for each method of each target, over all workers, and what a call has to do with one. Kept in step with
//! `proxy/engine/portable/breakers.py` by `tests/vectors/breakers.json`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::call::cause::Cause;
use crate::call::gates::Refusal;
use crate::call::trips::{Counters, Program};
use crate::decision::target::{Form, as_forwarded};
use crate::head::Head;

const MAX_TARGETS: usize = 1_024; // as in `proxy/contract/breakers.py`
// Places of `Counters`.
const REQUESTS: usize = 0;
const SUCCESSES: usize = 1;
const FAILURES: usize = 2;
const SUCCESSES_IN_A_ROW: usize = 3;
const FAILURES_IN_A_ROW: usize = 4;

/// As `BreakerState` in `proxy/contract/breakers.py` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    HalfOpen,
    Open,
}

impl State {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// See `BreakerSpec` in `proxy/contract/breakers.py`.
#[derive(Debug)]
pub struct BreakerSpec {
    pub policy: String,
    pub max_requests: i64,
    pub interval: Option<Duration>,
    pub timeout: Duration,
    pub trip: Program,
    pub methods: usize,
}

/// See `BreakerUse` in `proxy/contract/breakers.py`.
#[derive(Debug)]
pub struct BreakerUse {
    pub name: Box<str>,
    pub target: Box<str>,
    pub form: Form,
    pub method: Option<Box<str>>,
    pub is_opening: bool,
}

/// A breaker changed its state.
#[derive(Debug)]
pub struct Turn {
    pub breaker: Arc<Breaker>,
    pub before: State,
    pub after: State,
    pub counters: Counters,
}

/// A breaker as it stands.
pub struct Glance {
    pub breaker: Arc<Breaker>,
    pub state: State,
    pub counters: Counters,
    pub left: Duration,
}

/// One circuit breaker, of which only calls of its method meet the lock, held for a few instructions.
#[derive(Debug)]
pub struct Breaker {
    pub name: Arc<str>,
    pub target: Arc<str>,
    pub method: Arc<str>,
    spec: Arc<BreakerSpec>,
    machine: Mutex<Machine>,
}

/// `generation`: how often state or counters began anew. `at`: when they do by themselves; no timer sees to it, whoever looks does.
#[derive(Debug)]
struct Machine {
    state: State,
    counters: Counters,
    generation: u64,
    at: Option<Instant>,
}

impl Machine {
    fn begin_anew(&mut self, spec: &BreakerSpec, now: Instant) {
        self.generation += 1;
        self.counters = Counters::default();
        let after = match self.state {
            State::Closed => spec.interval,
            State::Open => Some(spec.timeout),
            State::HalfOpen => None,
        };
        self.at = after.and_then(|after| now.checked_add(after));
    }

    fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now > at)
    }

    fn left(&self, now: Instant) -> Duration {
        self.at.filter(|_| self.state == State::Open).map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Breaker {
    fn turn(self: &Arc<Self>, machine: &mut Machine, after: State, now: Instant) -> Turn {
        let (before, counters) = (machine.state, machine.counters);
        machine.state = after;
        machine.begin_anew(&self.spec, now);
        Turn { breaker: self.clone(), before, after, counters }
    }

    fn look(self: &Arc<Self>, machine: &mut Machine, now: Instant) -> Option<Turn> {
        if !machine.is_due(now) {
            return None;
        }
        if machine.state == State::Open {
            return Some(self.turn(machine, State::HalfOpen, now));
        }
        machine.begin_anew(&self.spec, now);
        None
    }

    /// How it is found, and whether an attempt may go on: in which generation.
    fn ask(self: &Arc<Self>, now: Instant) -> (State, Result<u64, Refusal>, Option<Turn>) {
        let machine = &mut *lock(&self.machine);
        let turn = self.look(machine, now);
        let BreakerSpec { policy, max_requests, .. } = &*self.spec;
        let found = match machine.state {
            State::Open => {
                let detail = format!("{policy} lets calls try again in {:.1} s", machine.left(now).as_secs_f64());
                Err(Refusal::new(Cause::Breaker, detail))
            }
            State::HalfOpen if machine.counters[REQUESTS] >= *max_requests => {
                let detail = format!("{policy} lets {max_requests} try, which are on their way");
                Err(Refusal::new(Cause::Probing, detail))
            }
            _ => {
                machine.counters[REQUESTS] += 1;
                Ok(machine.generation)
            }
        };
        (machine.state, found, turn)
    }

    /// What it let through has ended. Returns the change that this or the time made, and whether it was this.
    fn hear(self: &Arc<Self>, now: Instant, generation: u64, is_failure: bool) -> (Option<Turn>, bool) {
        let machine = &mut *lock(&self.machine);
        let turn = self.look(machine, now);
        if generation != machine.generation {
            return (turn, false);
        }
        let after = if is_failure {
            machine.counters[FAILURES] += 1;
            machine.counters[FAILURES_IN_A_ROW] += 1;
            machine.counters[SUCCESSES_IN_A_ROW] = 0;
            let trips = machine.state == State::HalfOpen || self.spec.trip.is_true(&machine.counters);
            trips.then_some(State::Open)
        } else {
            machine.counters[SUCCESSES] += 1;
            machine.counters[SUCCESSES_IN_A_ROW] += 1;
            machine.counters[FAILURES_IN_A_ROW] = 0;
            let is_well = machine.state == State::HalfOpen && machine.counters[SUCCESSES_IN_A_ROW] >= self.spec.max_requests;
            is_well.then_some(State::Closed)
        };
        (after.map(|after| self.turn(machine, after, now)), after.is_some())
    }

    /// As it stands; changes nothing.
    fn glance(self: &Arc<Self>, now: Instant) -> Glance {
        let machine = lock(&self.machine);
        let (state, counters) = match (machine.is_due(now), machine.state) {
            (true, State::Open) => (State::HalfOpen, Counters::default()),
            (true, state) => (state, Counters::default()),
            (false, state) => (state, machine.counters),
        };
        Glance { breaker: self.clone(), state, counters, left: machine.left(now) }
    }
}

/// At most so many by their keys; of more, the one that was used longest ago is forgotten.
#[derive(Debug)]
struct Used<T> {
    places: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    entries: Vec<Entry<T>>,
    /// Places in `entries`, by when they were last used.
    by_use: BTreeMap<u64, usize>,
    uses: u64,
}

#[derive(Debug)]
struct Entry<T> {
    key: Arc<str>,
    used: u64,
    value: T,
}

impl<T> Default for Used<T> {
    fn default() -> Self {
        Self { places: HashMap::default(), entries: Vec::new(), by_use: BTreeMap::new(), uses: 0 }
    }
}

impl<T> Used<T> {
    fn get(&mut self, key: &str, most: usize, make: impl FnOnce(Arc<str>) -> T) -> &mut T {
        let place = match self.places.get(key) {
            Some(place) => *place,
            None => self.add(key.into(), most, make),
        };
        let entry = &mut self.entries[place];
        if entry.used < self.uses {
            self.uses += 1;
            self.by_use.remove(&entry.used);
            self.by_use.insert(self.uses, place);
            entry.used = self.uses;
        }
        &mut entry.value
    }

    /// Takes the place of the oldest where there are as many as may be.
    fn add(&mut self, key: Arc<str>, most: usize, make: impl FnOnce(Arc<str>) -> T) -> usize {
        let oldest = if self.entries.len() < most { None } else { self.by_use.pop_first() };
        self.uses += 1;
        let entry = Entry { key: key.clone(), used: self.uses, value: make(key.clone()) };
        let place = if let Some((_, place)) = oldest {
            self.places.remove(&self.entries[place].key);
            self.entries[place] = entry;
            place
        } else {
            self.entries.push(entry);
            self.entries.len() - 1
        };
        self.places.insert(key, place);
        self.by_use.insert(self.uses, place);
        place
    }

    fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|entry| &entry.value)
    }
}

/// What was pushed under a name, and the breakers of the methods called, by target, those used last.
#[derive(Debug)]
pub struct Breakers {
    name: Arc<str>,
    spec: Arc<BreakerSpec>,
    targets: Mutex<Used<Used<Arc<Breaker>>>>,
}

impl Breakers {
    /// None called yet.
    pub fn new(name: &str, spec: BreakerSpec) -> Arc<Self> {
        Arc::new(Self { name: name.into(), spec: Arc::new(spec), targets: Mutex::default() })
    }

    fn find(&self, target: &str, method: &str, now: Instant) -> Arc<Breaker> {
        let mut targets = lock(&self.targets);
        let methods = targets.get(target, MAX_TARGETS, |_| Used::default());
        let make = |method| {
            let mut machine = Machine { state: State::Closed, counters: Counters::default(), generation: 0, at: None };
            machine.begin_anew(&self.spec, now);
            let (name, target, machine) = (self.name.clone(), target.into(), Mutex::new(machine));
            Arc::new(Breaker { name, target, method, spec: self.spec.clone(), machine })
        };
        methods.get(method, self.spec.methods, make).clone()
    }

    /// All that have been asked.
    pub fn glances(&self) -> Vec<Glance> {
        let now = Instant::now();
        let targets = lock(&self.targets);
        targets.values().flat_map(Used::values).map(|breaker| breaker.glance(now)).collect()
    }
}

/// What one call has to do with a breaker: by what it was let through, and how it found the one that it asked first and left it.
#[derive(Debug, Default)]
pub struct Asking {
    admitted: Option<(Arc<Breaker>, u64)>,
    pub met: Option<(State, State)>,
}

impl Asking {
    /// Whether an attempt may begin, and how the time had changed the breaker. What was let through stays so until its end is told.
    pub fn ask(&mut self, breakers: &Breakers, used: &BreakerUse, head: &Head) -> (Result<(), Refusal>, Option<Turn>) {
        if self.admitted.is_some() {
            return (Ok(()), None);
        }
        let now = Instant::now();
        let breaker = match &used.method {
            Some(method) => breakers.find(&used.target, method, now),
            None => breakers.find(&used.target, &as_forwarded(&head.path, used.form), now),
        };
        let (state, found, turn) = breaker.ask(now);
        self.met.get_or_insert((state, state));
        (found.map(|generation| self.admitted = Some((breaker, generation))), turn)
    }

    /// What was let through has ended; returns how that changed the breaker.
    pub fn tell(&mut self, is_failure: bool) -> Option<Turn> {
        let (breaker, generation) = self.admitted.take()?;
        let (turn, is_ours) = breaker.hear(Instant::now(), generation, is_failure);
        if let (true, Some(turn), Some((_, left))) = (is_ours, &turn, &mut self.met) {
            *left = turn.after;
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::call::trips::tests::{Number, program};
    use crate::vectors;

    /// A call of a method begins (`ask`) or ends (`hear`) at a moment, and what comes of it; or what is to `see`.
    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Step {
        at: f64,
        r#do: String,
        call: String,
        method: String,
        target: String,
        then: String,
        detail: String,
        failed: bool,
        turned: Option<(String, String, Counters)>,
        state: String,
        counters: Counters,
        left: f64,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        why: String,
        max_requests: i64,
        interval: f64,
        timeout: f64,
        #[serde(rename = "trip")]
        _trip: String,
        program: Vec<(String, Number)>,
        methods: usize,
        steps: Vec<Step>,
    }

    fn told(turn: Option<Turn>) -> Option<(String, String, Counters)> {
        turn.map(|turn| (turn.before.name().to_owned(), turn.after.name().to_owned(), turn.counters))
    }

    fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
        if text.is_empty() { otherwise } else { text }
    }

    #[test]
    fn breakers_open_probe_and_close() {
        for case in vectors::read::<Case>("breakers", "breakers") {
            println!("{}", case.why);
            let spec = BreakerSpec {
                policy: "guard".to_owned(),
                max_requests: case.max_requests,
                interval: (case.interval > 0.0).then(|| Duration::from_secs_f64(case.interval)),
                timeout: Duration::from_secs_f64(case.timeout),
                trip: program(&case.program),
                methods: case.methods,
            };
            let (breakers, begin) = (Breakers::new("a", spec), Instant::now());
            let mut calls: HashMap<&str, (Arc<Breaker>, u64)> = HashMap::new();
            for step in &case.steps {
                let now = begin + Duration::from_secs_f64(step.at);
                let find = || breakers.find(or(&step.target, "a"), or(&step.method, "/m"), now);
                let turned = match &*step.r#do {
                    "ask" => {
                        let breaker = find();
                        let (_, found, turn) = breaker.ask(now);
                        let then = found.as_ref().map_or_else(|refusal| (refusal.cause.name(), &*refusal.detail), |_| ("in", ""));
                        assert_eq!(then, (&*step.then, &*step.detail), "{step:?}");
                        calls.extend(found.ok().map(|generation| (&*step.call, (breaker, generation))));
                        turn
                    }
                    "hear" => {
                        let (breaker, generation) = calls.remove(&*step.call).unwrap();
                        breaker.hear(now, generation, step.failed).0
                    }
                    "see" => {
                        let seen = find().glance(now);
                        let found = (seen.state.name(), seen.counters, seen.left.as_secs_f64());
                        assert_eq!(found, (&*step.state, step.counters, step.left), "{step:?}");
                        None
                    }
                    other => panic!("{other}"),
                };
                assert_eq!(told(turned), step.turned, "{step:?}");
            }
        }
    }

    #[test]
    fn targets_are_forgotten_before_they_are_too_many() {
        let spec = BreakerSpec {
            policy: "guard".to_owned(),
            max_requests: 1,
            interval: None,
            timeout: Duration::from_secs(1),
            trip: program(&[("bool".to_owned(), Number::Int(1))]),
            methods: 2,
        };
        let breakers = Breakers::new("", spec);
        for target in 0..2 * MAX_TARGETS {
            for method in ["/a", "/b", "/c"] {
                breakers.find(&target.to_string(), method, Instant::now());
            }
        }
        assert_eq!(breakers.glances().len(), 2 * MAX_TARGETS);
    }
}
