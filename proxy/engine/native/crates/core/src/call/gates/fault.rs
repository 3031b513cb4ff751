//! Lets everybody in, and does harm to some on purpose. Kept in step with `Fault` in `proxy/engine/portable/faults.py` by
//! `tests/vectors/gates.json`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::call::cause::Cause;
use crate::call::gates::{Entered, Gate, GateSpec, GateState, Left, Pass, counted};

/// Which attempts are harmed, and how; see `FaultGate` in `proxy/contract/gates.py`. `kind` is the harm's name.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultSpec {
    pub name: Arc<str>,
    pub kind: &'static str,
    pub share: f64,
    /// At most so many; `None`: without end.
    pub times: Option<u64>,
    /// `None`: by chance.
    pub seed: Option<u64>,
    pub harm: Harm,
}

/// What is done to an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Harm {
    /// It waits, from the first to the second.
    Delay(Duration, Duration),
    /// It is answered by this status, or code of gRPC.
    Abort(u16, u32),
    Fail(Cause),
    /// Its answer breaks off: behind its head, or after so many bytes of its body.
    Cut(Option<u64>),
    /// So many bytes of its answer a second.
    Slow(f64),
}

/// A harm that was done, by whose name.
#[derive(Clone, Debug)]
pub struct Hit {
    pub name: Arc<str>,
    pub harm: Harm,
}

/// Owns how many came, and how many were harmed.
#[derive(Debug)]
pub struct Fault {
    state: Mutex<State>,
}

/// `spec`: `None` harms nobody.
#[derive(Debug)]
struct State {
    spec: Option<FaultSpec>,
    came: u64,
    hits: u64,
    inside: usize,
    left: Left,
}

impl Fault {
    /// A gate that does such harm.
    pub fn new(spec: FaultSpec) -> Arc<Self> {
        let state = State { spec: Some(spec), came: 0, hits: 0, inside: 0, left: Left::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether this one is harmed, and how long it waits for that.
    fn hit(&mut self, chance: f64) -> Option<(Hit, Duration)> {
        let spec = self.spec.as_ref()?;
        self.came += 1;
        let chance = spec.seed.map_or(chance, |seed| drawn(seed, self.came));
        if chance >= spec.share || spec.times.is_some_and(|times| self.hits >= times) {
            return None;
        }
        self.hits += 1;
        let wait = match spec.harm {
            Harm::Delay(least, most) => least + most.saturating_sub(least).mul_f64(chance / spec.share),
            _ => Duration::ZERO,
        };
        Some((Hit { name: spec.name.clone(), harm: spec.harm }, wait))
    }
}

/// The draw of who comes as this one, in [0, 1): `SplitMix64` (Steele, Lea and Flood: Fast Splittable Pseudorandom Number Generators).
fn drawn(seed: u64, number: u64) -> f64 {
    let mut bits = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

impl Gate for Fault {
    fn enter(self: Arc<Self>, _: Instant, chance: f64, _: &str) -> Entered {
        let hit = {
            let mut state = self.lock();
            state.inside += 1;
            state.hit(chance)
        };
        let pass = Pass::new(move |exit| {
            let mut state = self.lock();
            state.inside -= 1;
            state.left.count(exit.outcome);
        });
        match hit {
            None => Entered::Passed(pass),
            Some((hit, wait)) if wait.is_zero() => Entered::Passed(pass.harmed(hit)),
            Some((hit, wait)) => Entered::Delayed(wait, pass.harmed(hit)),
        }
    }

    fn change(self: Arc<Self>, spec: &GateSpec) -> bool {
        let GateSpec::Fault(spec) = spec else { return false };
        let mut state = self.lock();
        if state.spec.as_ref() != Some(spec) {
            (state.came, state.hits, state.spec) = (0, 0, Some(spec.clone()));
        }
        true
    }

    fn open(self: Arc<Self>) {
        self.lock().spec = None;
    }

    fn state(&self) -> GateState {
        let state = self.lock();
        let kind = state.spec.as_ref().map_or("", |spec| spec.kind);
        GateState { inside: state.inside, left: state.left, refused: counted(&[(kind, state.hits)]), ..GateState::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors;

    #[derive(Debug, Deserialize)]
    struct Case {
        share: f64,
        times: Option<u64>,
        seed: u64,
        /// Of an attempt that is harmed, for how many milliseconds it waits, to the nearest; of another one none.
        waits_ms: Vec<Option<u64>>,
    }

    #[test]
    fn seed_says_who_is_harmed() {
        for case in vectors::read::<Case>("gates", "fault") {
            let harm = Harm::Delay(Duration::from_millis(100), Duration::from_secs(1));
            let (share, times, seed) = (case.share, case.times, Some(case.seed));
            let gate = Fault::new(FaultSpec { name: "f".into(), kind: "delay", share, times, seed, harm });
            let found: Vec<_> = case.waits_ms.iter().map(|_| gate.lock().hit(0.0)).collect();
            let waits: Vec<_> =
                found.into_iter().map(|hit| hit.map(|(_, wait)| (wait.as_secs_f64() * 1e3).round() as u64)).collect();
            assert_eq!(waits, case.waits_ms, "{case:?}");
        }
    }
}
