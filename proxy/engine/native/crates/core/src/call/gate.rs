//! A bound on calls in flight over all workers, with one bounded queue: who came first comes in first, whichever worker serves it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub const QUEUE: usize = 1_024;

/// Owns how many are inside and who waits. Calls leave the gate that they entered, whatever stands there by then.
///
/// Only calls under a gate meet its lock, held for a few instructions and never while somebody is told.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    inside: usize,
    waiting: VecDeque<oneshot::Sender<Pass>>,
}

/// Being inside; ends when dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.lock().inside -= 1;
        self.gate.admit();
    }
}

/// Why nobody gets in.
#[derive(Debug)]
pub struct Full;

impl Gate {
    /// A gate for so many.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { limit, inside: 0, waiting: VecDeque::new() }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Come in, now or when there is room.
    pub async fn enter(self: Arc<Self>) -> Result<Pass, Full> {
        let ticket = {
            let mut state = self.lock();
            if state.inside < state.limit {
                state.inside += 1;
                drop(state);
                return Ok(Pass { gate: self });
            }
            state.waiting.retain(|ticket| !ticket.is_closed());
            if state.waiting.len() >= QUEUE {
                return Err(Full);
            }
            let (ticket, admitted) = oneshot::channel();
            state.waiting.push_back(ticket);
            admitted
        };
        ticket.await.map_err(|_| Full)
    }

    /// Another bound; who waits may come in at once.
    pub fn resize(self: &Arc<Self>, limit: usize) {
        self.lock().limit = limit;
        self.admit();
    }

    fn admit(self: &Arc<Self>) {
        while let Some(ticket) = self.next() {
            // A pass that comes back lowers the count again by its drop.
            drop(ticket.send(Pass { gate: self.clone() }));
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
}

/// The gates that stand, by name.
#[derive(Debug, Default)]
pub struct Gates {
    known: HashMap<String, Arc<Gate>>,
}

impl Gates {
    /// Put a gate up, or another bound on the one that stands, or take it down. Returns what stands there now.
    pub fn set(&mut self, name: &str, limit: Option<usize>) -> Option<Arc<Gate>> {
        let Some(limit) = limit else {
            if let Some(gate) = self.known.remove(name) {
                gate.resize(usize::MAX);
            }
            return None;
        };
        if let Some(gate) = self.known.get(name) {
            gate.resize(limit);
            return Some(gate.clone());
        }
        let gate = Gate::new(limit);
        self.known.insert(name.to_owned(), gate.clone());
        Some(gate)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::thread;

    use super::*;

    fn poll(entering: std::pin::Pin<&mut impl Future<Output = Result<Pass, Full>>>) -> Poll<Result<Pass, Full>> {
        entering.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_came_first_comes_in_first_and_who_left_is_passed_over() {
        let gate = Gate::new(1);
        let Poll::Ready(Ok(inside)) = poll(pin!(gate.clone().enter())) else { panic!("there is room") };
        let (mut first, mut last) = (pin!(gate.clone().enter()), pin!(gate.clone().enter()));
        assert!(poll(first.as_mut()).is_pending());
        {
            let mut leaver = pin!(gate.clone().enter());
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
        let mut gates = Gates::default();
        let gate = gates.set("g", Some(0)).unwrap();
        let mut waiting: Vec<_> = (0..QUEUE).map(|_| Box::pin(gate.clone().enter())).collect();
        assert!(waiting.iter_mut().all(|entering| poll(entering.as_mut()).is_pending()));
        assert!(matches!(poll(pin!(gate.clone().enter())), Poll::Ready(Err(Full))));
        assert!(Arc::ptr_eq(&gates.set("g", Some(1)).unwrap(), &gate));
        assert!(matches!(poll(waiting[0].as_mut()), Poll::Ready(Ok(_))));
        assert!(gates.set("g", None).is_none());
        assert!(waiting[1..].iter_mut().all(|entering| matches!(poll(entering.as_mut()), Poll::Ready(Ok(_)))));
    }

    #[test]
    fn bound_holds_over_threads_and_nobody_is_forgotten() {
        let gate = Gate::new(2);
        let (inside, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let call = async || {
            let pass = gate.clone().enter().await.unwrap();
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
        assert_eq!(gate.lock().inside, 0);
    }
}
