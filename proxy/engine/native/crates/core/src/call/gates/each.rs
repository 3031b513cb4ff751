//! A bound on what each caller has inside at once. Equal to `Each` in `proxy/engine/portable/concurrency.py`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::call::cause::Cause;
use crate::call::gates::{Entered, Gate, GateSpec, GateState, Left, Pass, Refusal, counted};

/// Owns how many are inside of each caller, of those that have any.
#[derive(Debug)]
pub struct Each {
    state: Mutex<State>,
}

/// `limit`: `None` lets everybody in.
#[derive(Debug)]
struct State {
    limit: Option<usize>,
    inside: HashMap<Box<str>, usize>,
    left: Left,
    refused: u64,
}

impl Each {
    /// A gate for so many of each caller.
    pub fn new(limit: usize) -> Arc<Self> {
        let state = State { limit: Some(limit), inside: HashMap::new(), left: Left::default(), refused: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for Each {
    fn enter(self: Arc<Self>, _: Instant, _: f64, who: &str) -> Entered {
        {
            let mut state = self.lock();
            let inside = state.inside.get(who).copied().unwrap_or_default();
            if let Some(limit) = state.limit.filter(|limit| inside >= *limit) {
                state.refused += 1;
                let who = if who.is_empty() { "a local socket" } else { who };
                return Entered::Refused(Refusal::new(Cause::Rate, format!("{who} has as many as it may (limit {limit})")));
            }
            state.inside.insert(who.into(), inside + 1);
        }
        let who: Box<str> = who.into();
        Entered::Passed(Pass::new(move |exit| {
            let mut state = self.lock();
            state.left.count(exit.outcome);
            if let Some(inside) = state.inside.get_mut(&who) {
                *inside -= 1;
                if *inside == 0 {
                    state.inside.remove(&who);
                }
            }
        }))
    }

    fn change(self: Arc<Self>, spec: &GateSpec) -> bool {
        let GateSpec::Each(limit) = *spec else { return false };
        self.lock().limit = Some(limit);
        true
    }

    fn open(self: Arc<Self>) {
        self.lock().limit = None;
    }

    fn state(&self) -> GateState {
        let state = self.lock();
        let refused = counted(&[("connections", state.refused)]);
        GateState { inside: state.inside.values().sum(), left: state.left, refused, ..GateState::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(gate: &Arc<Each>, who: &str) -> Option<Pass> {
        match gate.clone().enter(Instant::now(), 0.0, who) {
            Entered::Passed(pass) => Some(pass),
            Entered::Refused(refusal) => {
                assert_eq!((refusal.cause, &*refusal.detail), (Cause::Rate, "a has as many as it may (limit 2)"));
                None
            }
            Entered::Wait(_) | Entered::Delayed(..) => panic!("nobody waits"),
        }
    }

    #[test]
    fn each_caller_has_so_many_inside_and_none_that_left_is_remembered() {
        let gate = Each::new(2);
        let (one, two) = (enter(&gate, "a"), enter(&gate, "a"));
        assert!(one.is_some() && two.is_some() && enter(&gate, "a").is_none() && enter(&gate, "b").is_some());
        assert_eq!((gate.state().inside, gate.state().refused), (2, vec![("connections", 1)]));
        drop(one);
        assert!(enter(&gate, "a").is_some());
        drop(two);
        assert!(gate.lock().inside.is_empty());
        gate.clone().open();
        let all: Vec<_> = (0..9).filter_map(|_| enter(&gate, "a")).collect();
        assert_eq!(all.len(), 9);
    }
}
