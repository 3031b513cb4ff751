//! A bucket of tokens for each caller: so many calls at once, and so many a second in the long run, whichever worker serves them. Kept
//! in step with `Rate` in `proxy/engine/portable/rate.py` by `tests/vectors/gates.json`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, header};

use crate::call::cause::Cause;
use crate::call::gates::{Entered, Gate, GateSpec, GateState, Left, Pass, Refusal, Told, counted};

const MAX_CALLERS: usize = 8_192; // as in `gates.py`: a caller that is forgotten begins afresh

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// See `RateGate` in `proxy/contract/gates.py`.
#[derive(Clone, Debug, Default)]
pub struct RateSpec {
    pub per_s: f64,
    pub burst: f64,
    pub is_shared: bool,
    pub name: String,
    pub policy: String,
}

impl RateSpec {
    /// For draft-ietf-httpapi-ratelimit-headers-10: which limit, that nothing is left of it, and in how many seconds there is.
    fn refusal(&self, who: &str, again_s: f64) -> Refusal {
        let who = if who.is_empty() { "a local socket" } else { who };
        if self.name.is_empty() {
            return Refusal::new(Cause::Rate, format!("from {who}"));
        }
        let again = Duration::try_from_secs_f64(again_s).unwrap_or(Duration::from_secs(u32::MAX.into()));
        let whole_s = again.as_secs().saturating_add(u64::from(again.subsec_nanos() > 0)).max(1);
        let value = |text: &str| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        let headers = vec![
            (header::RETRY_AFTER, whole_s.into()),
            (POLICY, value(&self.policy)),
            (LIMIT, value(&format!("\"{}\";r=0;t={whole_s}", self.name))),
        ];
        let of = if self.is_shared { "all callers" } else { who };
        let detail = format!("from {of}: the limit {} is used up, try again in {whole_s} s", self.name);
        Refusal { cause: Cause::Rate, detail, told: Some(Box::new(Told { headers, again: Some(again) })) }
    }
}

/// Owns what is inside, and the buckets.
#[derive(Debug)]
pub struct Rate {
    state: Mutex<State>,
}

/// Buckets in two generations, of which the older is dropped once the younger is full. `spec`: `None` lets everybody in.
#[derive(Debug)]
struct State {
    spec: Option<RateSpec>,
    young: HashMap<Box<str>, Bucket>,
    old: HashMap<Box<str>, Bucket>,
    inside: usize,
    left: Left,
    refused: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rate {
    /// A gate for so many calls a second of each caller, and so many at once.
    pub fn new(spec: RateSpec) -> Arc<Self> {
        let (young, old) = (HashMap::new(), HashMap::new());
        let state = State { spec: Some(spec), young, old, inside: 0, left: Left::default(), refused: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Take a token for a caller, or say why there is none.
    fn take(&mut self, now: Instant, who: &str) -> Result<(), Refusal> {
        let Some(spec) = &self.spec else { return Ok(()) };
        let whose = if spec.is_shared { "" } else { who };
        let known = self.young.get(whose).or_else(|| self.old.get(whose)).copied();
        let before = known.unwrap_or(Bucket { tokens: spec.burst, at: now });
        let tokens = spec.burst.min(before.tokens + now.saturating_duration_since(before.at).as_secs_f64() * spec.per_s);
        let has_one = tokens >= 1.0;
        let refusal = (!has_one).then(|| spec.refusal(who, (1.0 - tokens) / spec.per_s));
        let bucket = Bucket { tokens: if has_one { tokens - 1.0 } else { tokens }, at: now };
        if let Some(young) = self.young.get_mut(whose) {
            *young = bucket;
        } else {
            if self.young.len() >= MAX_CALLERS {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(whose.into(), bucket);
        }
        refusal.map_or(Ok(()), Err)
    }
}

impl Gate for Rate {
    fn enter(self: Arc<Self>, now: Instant, _: f64, who: &str) -> Entered {
        {
            let mut state = self.lock();
            if let Err(refusal) = state.take(now, who) {
                state.refused += 1;
                return Entered::Refused(refusal);
            }
            state.inside += 1;
        }
        Entered::Passed(Pass::new(move |exit| {
            let mut state = self.lock();
            state.inside -= 1;
            state.left.count(exit.outcome);
        }))
    }

    fn change(self: Arc<Self>, spec: &GateSpec) -> bool {
        let GateSpec::Rate(spec) = spec else { return false };
        self.lock().spec = Some(spec.clone());
        true
    }

    fn open(self: Arc<Self>) {
        self.lock().spec = None;
    }

    fn state(&self) -> GateState {
        let state = self.lock();
        let refused = counted(&[("rate", state.refused)]);
        GateState { inside: state.inside, left: state.left, refused, ..GateState::default() }
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
        refused: BTreeMap<String, u64>,
        fields: BTreeMap<String, String>,
        again_s: f64,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Calls {
        why: String,
        per_s: f64,
        burst: f64,
        #[serde(default)]
        is_shared: bool,
        #[serde(default)]
        name: String,
        #[serde(default)]
        policy: String,
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
                let told = refusal.told.unwrap_or_else(|| Box::new(Told { headers: Vec::new(), again: Some(Duration::ZERO) }));
                let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
                let fields = told.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
                assert_eq!((step.fields.clone(), step.again_s), (fields, told.again.unwrap().as_secs_f64()), "{step:?}");
                None
            }
            Entered::Wait(_) | Entered::Delayed(..) => panic!("{step:?}"),
        }
    }

    #[test]
    fn each_caller_comes_in_as_often_as_the_rate_says() {
        for case in vectors::read::<Calls>("gates", "rate") {
            println!("{}", case.why);
            let of = |per_s, burst| {
                let (name, policy) = (case.name.clone(), case.policy.clone());
                RateSpec { per_s, burst, is_shared: case.is_shared, name, policy }
            };
            let (gate, begin) = (Rate::new(of(case.per_s, case.burst)), Instant::now());
            let mut inside: BTreeMap<String, Vec<Pass>> = BTreeMap::new();
            for step in &case.steps {
                match &*step.r#do {
                    "enter" => {
                        let passed = enter(&gate, begin + Duration::from_secs_f64(step.at), step);
                        inside.entry(step.who.clone()).or_default().extend(passed);
                    }
                    "leave" => inside.get_mut(&step.who).unwrap().pop().unwrap().leave(Cause::parse(&step.cause), begin),
                    "change" => assert!(gate.clone().change(&GateSpec::Rate(of(step.per_s, step.burst)))),
                    "open" => gate.clone().open(),
                    "see" => {
                        let state = gate.state();
                        let left: BTreeMap<_, _> = state.left.by_name().map(|(cause, times)| (cause.to_owned(), times)).collect();
                        assert_eq!((state.inside, &left), (step.inside, &step.left), "{step:?}");
                        let refused: BTreeMap<_, _> =
                            state.refused.iter().map(|(why, times)| ((*why).to_owned(), *times)).collect();
                        assert_eq!(refused, step.refused, "{step:?}");
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }

    #[test]
    fn callers_are_forgotten_before_they_are_too_many() {
        let (gate, now) = (Rate::new(RateSpec { per_s: 1.0, burst: 1.0, ..RateSpec::default() }), Instant::now());
        for number in 0..5 * MAX_CALLERS {
            gate.clone().enter(now, 0.0, &number.to_string());
            let state = gate.lock();
            assert!(state.young.len() <= MAX_CALLERS && state.old.len() <= MAX_CALLERS);
        }
        assert!(matches!(gate.clone().enter(now, 0.0, &(5 * MAX_CALLERS - 1).to_string()), Entered::Refused(_)));
    }
}
