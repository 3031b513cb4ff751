//! A bucket of tokens for each caller: so many calls at once, and so many a second in the long run, whichever worker serves them. Kept
//! in step with `Rate` in `proxy/engine/portable/gates.py` by `tests/vectors/gates.json`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::call::cause::Cause;
use crate::call::gates::{Entered, Gate, GateSpec, GateState, Left, Pass, Refusal};

const MAX_CALLERS: usize = 8_192; // as in `gates.py`: a caller that is forgotten begins afresh

/// Owns what is inside, and the buckets.
#[derive(Debug)]
pub struct Rate {
    state: Mutex<State>,
}

/// Buckets in two generations, of which the older is dropped once the younger is full. `spec`: `None` lets everybody in.
#[derive(Debug)]
struct State {
    spec: Option<(f64, f64)>,
    young: HashMap<Box<str>, Bucket>,
    old: HashMap<Box<str>, Bucket>,
    inside: usize,
    left: Left,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rate {
    /// A gate for so many calls a second of each caller, and `burst` at once.
    pub fn new(per_s: f64, burst: f64) -> Arc<Self> {
        let (young, old) = (HashMap::new(), HashMap::new());
        let state = State { spec: Some((per_s, burst)), young, old, inside: 0, left: Left::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there was a token for a caller.
    fn take(&mut self, now: Instant, who: &str) -> bool {
        let Some((per_s, burst)) = self.spec else { return true };
        let known = self.young.get(who).or_else(|| self.old.get(who)).copied();
        let before = known.unwrap_or(Bucket { tokens: burst, at: now });
        let tokens = burst.min(before.tokens + now.saturating_duration_since(before.at).as_secs_f64() * per_s);
        let has_one = tokens >= 1.0;
        let bucket = Bucket { tokens: if has_one { tokens - 1.0 } else { tokens }, at: now };
        if let Some(young) = self.young.get_mut(who) {
            *young = bucket;
            return has_one;
        }
        if self.young.len() >= MAX_CALLERS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(who.into(), bucket);
        has_one
    }
}

impl Gate for Rate {
    fn enter(self: Arc<Self>, now: Instant, _: f64, who: &str) -> Entered {
        {
            let mut state = self.lock();
            if !state.take(now, who) {
                let from = if who.is_empty() { "a local socket" } else { who };
                return Entered::Refused(Refusal { cause: Cause::Rate, detail: format!("from {from}") });
            }
            state.inside += 1;
        }
        Entered::Passed(Pass::new(move |outcome| {
            let mut state = self.lock();
            state.inside -= 1;
            state.left.count(outcome);
        }))
    }

    fn change(self: Arc<Self>, spec: &GateSpec) -> bool {
        let Some(rate) = spec.rate() else { return false };
        self.lock().spec = Some(rate);
        true
    }

    fn open(self: Arc<Self>) {
        self.lock().spec = None;
    }

    fn state(&self) -> GateState {
        let state = self.lock();
        GateState { inside: state.inside, waiting: 0, left: state.left }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;
    use crate::vectors;

    /// What `who` does at a moment and what comes of it, another spec, or what is to `see`.
    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Step {
        at: f64,
        r#do: String,
        who: String,
        then: String,
        detail: String,
        cause: String,
        per_s: f64,
        burst: f64,
        inside: usize,
        left: BTreeMap<String, u64>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Calls {
        why: String,
        per_s: f64,
        burst: f64,
        steps: Vec<Step>,
    }

    fn enter(gate: &Arc<Rate>, now: Instant, step: &Step) -> Option<Pass> {
        match gate.clone().enter(now, 0.0, &step.who) {
            Entered::Passed(pass) => {
                assert_eq!(step.then, "inside", "{step:?}");
                Some(pass)
            }
            Entered::Refused(refusal) => {
                assert_eq!((refusal.cause, &*step.then, &refusal.detail), (Cause::Rate, "refused", &step.detail), "{step:?}");
                None
            }
            Entered::Wait(_) => panic!("{step:?}"),
        }
    }

    #[test]
    fn each_caller_comes_in_as_often_as_the_rate_says() {
        for case in vectors::read::<Calls>("gates", "rate") {
            println!("{}", case.why);
            let (gate, begin) = (Rate::new(case.per_s, case.burst), Instant::now());
            let mut inside: BTreeMap<String, Vec<Pass>> = BTreeMap::new();
            for step in &case.steps {
                match &*step.r#do {
                    "enter" => {
                        let passed = enter(&gate, begin + Duration::from_secs_f64(step.at), step);
                        inside.entry(step.who.clone()).or_default().extend(passed);
                    }
                    "leave" => inside.get_mut(&step.who).unwrap().pop().unwrap().leave(Cause::parse(&step.cause)),
                    "change" => assert!(gate.clone().change(&GateSpec::Rate { per_s: step.per_s, burst: step.burst })),
                    "open" => gate.clone().open(),
                    "see" => {
                        let state = gate.state();
                        let left: BTreeMap<_, _> = state.left.by_name().map(|(cause, times)| (cause.to_owned(), times)).collect();
                        assert_eq!((state.inside, &left), (step.inside, &step.left), "{step:?}");
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }

    #[test]
    fn callers_are_forgotten_before_they_are_too_many() {
        let (gate, now) = (Rate::new(1.0, 1.0), Instant::now());
        for number in 0..5 * MAX_CALLERS {
            gate.clone().enter(now, 0.0, &number.to_string());
            let state = gate.lock();
            assert!(state.young.len() <= MAX_CALLERS && state.old.len() <= MAX_CALLERS);
        }
        assert!(matches!(gate.clone().enter(now, 0.0, &(5 * MAX_CALLERS - 1).to_string()), Entered::Refused(_)));
    }
}
