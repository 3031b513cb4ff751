//! A bound on what is inside at once, with one bounded queue: who came first comes in first, whichever worker serves it.

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
            // A pass that comes back lowers the count again by its drop.
            drop(ticket.send(self.pass()));
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
    fn enter(self: Arc<Self>, _: Instant, _: f64) -> Entered {
        let mut state = self.lock();
        if state.inside < state.limit {
            state.inside += 1;
            drop(state);
            return Entered::Passed(self.pass());
        }
        let shed = Refusal { cause: Cause::Shed, detail: format!("more than {} calls wait already", state.queue) };
        state.waiting.retain(|ticket| !ticket.is_closed());
        if state.waiting.len() >= state.queue {
            return Entered::Refused(shed);
        }
        let (ticket, admitted) = oneshot::channel();
        state.waiting.push_back(ticket);
        Entered::Wait(Box::pin(async move { admitted.await.map_err(|_| shed) }))
    }

    fn change(self: Arc<Self>, spec: &GateSpec) -> bool {
        let GateSpec::Concurrency { limit, queue } = *spec;
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
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::thread;

    use super::*;
    use crate::call::gates::Gates;

    const QUEUE: usize = 16;

    async fn entering(gate: Arc<dyn Gate>) -> Result<Pass, Refusal> {
        match gate.enter(Instant::now(), 0.0) {
            Entered::Passed(pass) => Ok(pass),
            Entered::Wait(wait) => wait.await,
            Entered::Refused(refusal) => Err(refusal),
        }
    }

    fn poll(entering: std::pin::Pin<&mut impl Future<Output = Result<Pass, Refusal>>>) -> Poll<Result<Pass, Refusal>> {
        entering.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_came_first_comes_in_first_and_who_left_is_passed_over() {
        let gate = Concurrency::new(1, 10);
        let Poll::Ready(Ok(inside)) = poll(pin!(entering(gate.clone()))) else { panic!("there is room") };
        let (mut first, mut last) = (pin!(entering(gate.clone())), pin!(entering(gate.clone())));
        assert!(poll(first.as_mut()).is_pending());
        {
            let mut leaver = pin!(entering(gate.clone()));
            assert!(poll(leaver.as_mut()).is_pending());
        }
        assert!(poll(last.as_mut()).is_pending());
        drop(inside);
        assert!(poll(last.as_mut()).is_pending());
        let Poll::Ready(Ok(inside)) = poll(first) else { panic!("it is its turn") };
        drop(inside);
        assert!(matches!(poll(last), Poll::Ready(Ok(_))));
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
