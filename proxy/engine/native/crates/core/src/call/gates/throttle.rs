//! Holds back as many as the callee would refuse. Kept in step with `Throttle` in `proxy/engine/portable/overload.py` by
//! `tests/vectors/gates.json`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::call::cause::Cause;
use crate::call::gates::{Entered, Gate, GateSpec, GateState, Left, Pass, Refusal, counted};

const SLICES: u64 = 24; // of the window, which forgets one at a time
const FROM: u64 = 10; // requests in the window, as in `proxy/contract/gates.py`
/// It did not reach the callee, or that had no room for it.
const NOT_ACCEPTED: [Cause; 8] = [
    Cause::NoEndpoint,
    Cause::Connect,
    Cause::TlsIdentity,
    Cause::Refused,
    Cause::ResetEarly,
    Cause::Timeout,
    Cause::Shed,
    Cause::Rate,
];

/// Owns what ended in each slice of the window.
#[derive(Debug)]
pub struct Throttle {
    begin: Instant,
    state: Mutex<State>,
}

/// `spec`: ratio and window, `None` lets everybody in. Requests count once they ended: those under way say nothing yet.
#[derive(Debug)]
struct State {
    spec: Option<(f64, Duration)>,
    slices: VecDeque<Slice>,
    inside: usize,
    left: Left,
    refused: u64,
}

#[derive(Debug)]
struct Slice {
    number: u64,
    requests: u64,
    accepts: u64,
}

impl Throttle {
    /// A gate of this ratio of requests to accepted ones, over such a window.
    pub fn new(ratio: f64, window: Duration) -> Arc<Self> {
        let (slices, left) = (VecDeque::new(), Left::default());
        let state = State { spec: Some((ratio, window)), slices, inside: 0, left, refused: 0 };
        Arc::new(Self { begin: Instant::now(), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The slice that it is now; those that are too old are forgotten.
    fn now(&mut self, since: Duration, window: Duration) {
        let number = (since.as_secs_f64() * SLICES as f64 / window.as_secs_f64()) as u64;
        while self.slices.front().is_some_and(|slice| slice.number + SLICES <= number) {
            self.slices.pop_front();
        }
        if self.slices.back().is_none_or(|slice| slice.number < number) {
            self.slices.push_back(Slice { number, requests: 0, accepts: 0 });
        }
    }

    fn count(&mut self, is_accepted: bool) {
        if let Some(slice) = self.slices.back_mut() {
            slice.requests += 1;
            slice.accepts += u64::from(is_accepted);
        }
    }
}

impl Gate for Throttle {
    fn enter(self: Arc<Self>, now: Instant, chance: f64, _: &str) -> Entered {
        {
            let mut state = self.lock();
            if let Some((ratio, window)) = state.spec {
                state.now(now.saturating_duration_since(self.begin), window);
                let requests: u64 = state.slices.iter().map(|slice| slice.requests).sum();
                let accepts: u64 = state.slices.iter().map(|slice| slice.accepts).sum();
                let refuses = (requests as f64 - ratio * accepts as f64) / (requests as f64 + 1.0);
                if requests >= FROM && chance < refuses {
                    state.count(false);
                    state.refused += 1;
                    let window = window.as_secs_f64();
                    let detail = format!("it accepted {accepts} of {requests} requests in {window} s, and some are held back");
                    return Entered::Refused(Refusal::new(Cause::Shed, detail));
                }
            }
            state.inside += 1;
        }
        Entered::Passed(Pass::new(move |exit| {
            let mut state = self.lock();
            state.inside -= 1;
            state.left.count(exit.outcome);
            if let Some((_, window)) = state.spec {
                state.now(exit.now.saturating_duration_since(self.begin), window);
                state.count(!exit.outcome.is_some_and(|cause| NOT_ACCEPTED.contains(&cause)));
            }
        }))
    }

    fn change(self: Arc<Self>, spec: &GateSpec) -> bool {
        let GateSpec::Throttle(ratio, window) = *spec else { return false };
        let mut state = self.lock();
        if state.spec.is_none_or(|(_, before)| before != window) {
            state.slices.clear();
        }
        state.spec = Some((ratio, window));
        true
    }

    fn open(self: Arc<Self>) {
        self.lock().spec = None;
    }

    fn state(&self) -> GateState {
        let state = self.lock();
        let refused = counted(&[("throttle", state.refused)]);
        GateState { inside: state.inside, left: state.left, refused, ..GateState::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors;

    /// One asks at a moment, with a chance, and is let in and ends by `cause`, or is refused.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Step {
        at: f64,
        #[serde(default)]
        chance: f64,
        then: String,
        #[serde(default)]
        cause: String,
        #[serde(default)]
        times: usize,
        #[serde(default)]
        detail: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Calls {
        why: String,
        ratio: f64,
        window_s: f64,
        steps: Vec<Step>,
    }

    #[test]
    fn as_many_are_held_back_as_the_callee_would_refuse() {
        for case in vectors::read::<Calls>("gates", "throttle") {
            println!("{}", case.why);
            let gate = Throttle::new(case.ratio, Duration::from_secs_f64(case.window_s));
            for step in &case.steps {
                let now = gate.begin + Duration::from_secs_f64(step.at);
                for _ in 0..step.times.max(1) {
                    match gate.clone().enter(now, step.chance, "") {
                        Entered::Passed(pass) => {
                            assert_eq!(step.then, "inside", "{step:?}");
                            pass.leave(Cause::parse(&step.cause), now);
                        }
                        Entered::Refused(refusal) => {
                            assert_eq!((&*step.then, refusal.cause, &*refusal.detail), ("shed", Cause::Shed, &*step.detail));
                        }
                        Entered::Wait(_) | Entered::Delayed(..) => panic!("{step:?}"),
                    }
                }
            }
        }
    }
}
