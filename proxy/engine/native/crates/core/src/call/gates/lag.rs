//! Sheds what is new while a worker is late. Equal to `Lag` in `proxy/engine/portable/overload.py`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::call::cause::Cause;
use crate::call::gates::{Entered, Gate, GateSpec, GateState, Left, Pass, Refusal, counted};

const SAMPLE: Duration = Duration::from_secs(1); // from one look at a worker's lag to the next

/// Owns how many looks in a row found each worker late.
#[derive(Debug)]
pub struct Lag {
    state: Mutex<State>,
}

/// `spec`: how late, and for how long; `None` lets everybody in.
#[derive(Debug)]
struct State {
    spec: Option<(Duration, Duration)>,
    late: HashMap<usize, u32>,
    inside: usize,
    left: Left,
    refused: u64,
}

impl Lag {
    /// A gate that is shut while a worker has been later than `above` for so long.
    pub fn new(above: Duration, within: Duration) -> Arc<Self> {
        let (late, left) = (HashMap::new(), Left::default());
        Arc::new(Self { state: Mutex::new(State { spec: Some((above, within)), late, inside: 0, left, refused: 0 }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for Lag {
    fn enter(self: Arc<Self>, _: Instant, _: f64, _: &str) -> Entered {
        {
            let mut state = self.lock();
            if let Some((above, within)) = state.spec {
                if state.late.values().any(|looks| SAMPLE * *looks >= within) {
                    state.refused += 1;
                    let (above, within) = (above.as_secs_f64(), within.as_secs_f64());
                    let detail = format!("this proxy has been late by more than {above} s for {within} s");
                    return Entered::Refused(Refusal::new(Cause::Shed, detail));
                }
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
        let GateSpec::Lag(above, within) = *spec else { return false };
        self.lock().spec = Some((above, within));
        true
    }

    fn open(self: Arc<Self>) {
        self.lock().spec = None;
    }

    fn state(&self) -> GateState {
        let state = self.lock();
        let refused = counted(&[("lag", state.refused)]);
        GateState { inside: state.inside, left: state.left, refused, ..GateState::default() }
    }

    fn note_lag(&self, worker: usize, lag: Duration) {
        let mut state = self.lock();
        if state.spec.is_some_and(|(above, _)| lag > above) {
            *state.late.entry(worker).or_default() += 1;
        } else {
            state.late.remove(&worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shut(gate: &Arc<Lag>) -> bool {
        matches!(gate.clone().enter(Instant::now(), 0.0, ""), Entered::Refused(Refusal { cause: Cause::Shed, .. }))
    }

    #[test]
    fn gate_is_shut_while_a_worker_is_late_for_too_long() {
        let gate = Lag::new(Duration::from_millis(250), Duration::from_secs(2));
        let late = Duration::from_millis(251);
        gate.note_lag(0, late);
        gate.note_lag(1, late);
        assert!(!is_shut(&gate));
        gate.note_lag(0, late);
        assert!(is_shut(&gate));
        assert_eq!(gate.state().refused, [("lag", 1)]);
        gate.note_lag(0, Duration::from_millis(250));
        assert!(!is_shut(&gate));
    }
}
