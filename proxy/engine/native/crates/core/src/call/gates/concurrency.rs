//! A bound on what is inside at once, with one bounded queue: who came first comes in first, whichever worker serves it. Kept in
//! step with `Concurrency` in `proxy/engine/portable/gates.py` by `tests/vectors/gates.json`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::call::cause::Cause;
use crate::call::gates::{Entered, Gate, GateSpec, GateState, Left, Pass, Refusal};

/// Owns how many are inside and who waits.
#[derive(Debug)]
pub struct Concurrency {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    queue: usize,
    inside: usize,
    waiting: VecDeque<oneshot::Sender<Pass>>,
    left: Left,
}

impl Concurrency {
    /// A gate for so many; so many more wait.
    pub fn new(limit: usize, queue: usize) -> Arc<Self> {
        let state = State { limit, queue, inside: 0, waiting: VecDeque::new(), left: Left::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(self: &Arc<Self>) -> Pass {
        let gate = self.clone();
        Pass::new(move |outcome| {
            {
                let mut state = gate.lock();
                state.inside -= 1;
                state.left.count(outcome);
            }
            gate.admit();
        })
    }

    fn admit(self: &Arc<Self>) {
        while let Some(ticket) = self.next() {
            if let Err(pass) = ticket.send(self.pass()) {
                pass.unused(); // who waited has just left
                self.lock().inside -= 1;
            }
        }
    }

    /// The first who waits, counted as inside, if there is room.
    fn next(&self) -> Option<oneshot::Sender<Pass>> {
        let mut state = self.lock();
        while state.inside < state.limit {
            let ticket = state.waiting.pop_front()?;
            if !ticket.is_closed() {
                state.inside += 1;
                return Some(ticket);
            }
        }
        None
    }

    fn resize(self: &Arc<Self>, limit: usize, queue: usize) {
        {
            let mut state = self.lock();
            (state.limit, state.queue) = (limit, queue);
        }
        self.admit();
    }
}

impl Gate for Concurrency {
    fn enter(self: Arc<Self>, _: Instant, _: f64, _: &str) -> Entered {
        let mut state = self.lock();
        let is_awaited = || state.waiting.iter().any(|ticket| !ticket.is_closed());
        if state.inside < state.limit && !is_awaited() {
            state.inside += 1;
            drop(state);
            return Entered::Passed(self.pass());
        }
        let shed = Refusal { cause: Cause::Shed, detail: format!("queue full (limit {})", state.queue) };
        state.waiting.retain(|ticket| !ticket.is_closed());
        if state.waiting.len() >= state.queue {
            return Entered::Refused(shed);
        }
        let (ticket, admitted) = oneshot::channel();
        state.waiting.push_back(ticket);
        Entered::Wait(Box::pin(async move { admitted.await.map_err(|_| shed) }))
    }

    fn change(self: Arc<Self>, spec: &GateSpec) -> bool {
        let Some((limit, queue)) = spec.concurrency() else { return false };
        self.resize(limit, queue);
        true
    }

    fn open(self: Arc<Self>) {
        self.resize(usize::MAX, 0);
    }

    fn state(&self) -> GateState {
        let state = self.lock();
        let waiting = state.waiting.iter().filter(|ticket| !ticket.is_closed()).count();
        GateState { inside: state.inside, waiting, left: state.left }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::thread;
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;
    use crate::call::gates::{Gates, Wait};
    use crate::vectors;

    const QUEUE: usize = 16;

    async fn entering(gate: Arc<dyn Gate>) -> Result<Pass, Refusal> {
        match gate.enter(Instant::now(), 0.0, "") {
            Entered::Passed(pass) => Ok(pass),
            Entered::Wait(wait) => wait.await,
            Entered::Refused(refusal) => Err(refusal),
        }
    }

    fn poll(entering: std::pin::Pin<&mut impl Future<Output = Result<Pass, Refusal>>>) -> Poll<Result<Pass, Refusal>> {
        entering.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// What `who` does at a moment and what comes of it, another spec, or what is to `see`. `let_in`: who waited and came in by it.
    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Step {
        at: f64,
        chance: f64,
        r#do: String,
        who: String,
        then: String,
        detail: String,
        cause: String,
        let_in: Vec<String>,
        limit: usize,
        queue: usize,
        inside: usize,
        waiting: usize,
        left: BTreeMap<String, u64>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Calls {
        why: String,
        limit: usize,
        queue: usize,
        steps: Vec<Step>,
    }

    /// Those who are at a gate: inside it, and waiting in their order.
    struct Crowd {
        gate: Arc<Concurrency>,
        begin: Instant,
        inside: BTreeMap<String, Pass>,
        waiting: Vec<(String, Wait)>,
    }

    impl Crowd {
        fn enter(&mut self, step: &Step) {
            match self.gate.clone().enter(self.begin + Duration::from_secs_f64(step.at), step.chance, &step.who) {
                Entered::Passed(pass) => {
                    assert_eq!(step.then, "inside", "{step:?}");
                    self.inside.insert(step.who.clone(), pass);
                }
                Entered::Wait(wait) => {
                    assert_eq!(step.then, "waits", "{step:?}");
                    self.waiting.push((step.who.clone(), wait));
                }
                Entered::Refused(refusal) => {
                    assert_eq!((refusal.cause, &*step.then, &refusal.detail), (Cause::Shed, "shed", &step.detail), "{step:?}");
                }
            }
        }

        fn take(&mut self, step: &Step) {
            match &*step.r#do {
                "enter" => self.enter(step),
                "leave" => self.inside.remove(&step.who).unwrap().leave(Cause::parse(&step.cause)),
                "give_up" => self.waiting.retain(|(who, _)| *who != step.who),
                "change" => {
                    let spec = GateSpec::Concurrency { limit: step.limit, queue: step.queue };
                    assert!(self.gate.clone().change(&spec));
                }
                "open" => self.gate.clone().open(),
                "see" => {
                    let state = self.gate.state();
                    let left = state.left.by_name().map(|(cause, times)| (cause.to_owned(), times)).collect();
                    assert_eq!((state.inside, state.waiting, &left), (step.inside, step.waiting, &step.left), "{step:?}");
                }
                other => panic!("{other}"),
            }
            let mut let_in = Vec::new();
            for (who, mut wait) in std::mem::take(&mut self.waiting) {
                match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(pass) => {
                        self.inside.insert(who.clone(), pass.unwrap());
                        let_in.push(who);
                    }
                    Poll::Pending => self.waiting.push((who, wait)),
                }
            }
            assert_eq!(let_in, step.let_in, "{step:?}");
        }
    }

    #[test]
    fn as_many_come_in_as_there_is_room_for() {
        for case in vectors::read::<Calls>("gates", "concurrency") {
            println!("{}", case.why);
            let (inside, waiting) = (BTreeMap::new(), Vec::new());
            let mut crowd = Crowd { gate: Concurrency::new(case.limit, case.queue), begin: Instant::now(), inside, waiting };
            case.steps.iter().for_each(|step| crowd.take(step));
        }
    }

    #[test]
    fn queue_is_bounded_and_a_gate_that_is_taken_down_lets_all_in() {
        let of = |limit| GateSpec::Concurrency { limit, queue: QUEUE };
        let mut gates = Gates::default();
        let gate = gates.set("g", Some(&of(0))).unwrap();
        let mut waiting: Vec<_> = (0..QUEUE).map(|_| Box::pin(entering(gate.clone()))).collect();
        assert!(waiting.iter_mut().all(|entering| poll(entering.as_mut()).is_pending()));
        assert!(matches!(poll(pin!(entering(gate.clone()))), Poll::Ready(Err(Refusal { cause: Cause::Shed, .. }))));
        assert!(Arc::ptr_eq(&gates.set("g", Some(&of(1))).unwrap(), &gate));
        assert!(matches!(poll(waiting[0].as_mut()), Poll::Ready(Ok(_))));
        assert!(gates.set("g", None).is_none());
        assert!(waiting[1..].iter_mut().all(|entering| matches!(poll(entering.as_mut()), Poll::Ready(Ok(_)))));
    }

    #[test]
    fn bound_holds_over_threads_and_nobody_is_forgotten() {
        let gate = Concurrency::new(2, 1_024);
        let (inside, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let call = async || {
            let pass = entering(gate.clone()).await.unwrap();
            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            drop(pass);
            served.fetch_add(1, Ordering::SeqCst);
        };
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                for _ in 0..500 {
                    tokio::join!(call(), call(), call(), call());
                }
            });
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(work);
            }
        });
        assert_eq!(served.load(Ordering::SeqCst), 4 * 500 * 4);
        assert_eq!((gate.state().inside, gate.state().waiting), (0, 0));
        assert_eq!(gate.state().left.by_name().collect::<Vec<_>>(), [("caller-left", 4 * 500 * 4)]);
    }
}
