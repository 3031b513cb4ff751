//! A bound on what is inside at once, fixed or adaptive, with one bounded queue: who came first comes in first, or last where it was full,
//! whichever worker serves it. Kept in step with `Concurrency` in `proxy/engine/portable/concurrency.py` by `tests/vectors/gates.json`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::call::cause::Cause;
use crate::call::gates::gradient::Gradient;
use crate::call::gates::{Begun, Entered, Exit, Gate, GateSpec, GateState, Left, Pass, Refusal, counted};

/// See `ConcurrencyGate` and `AdaptiveGate` in `proxy/contract/gates.py`. `adapts`: what the limit is between; then `limit` says nothing.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub limit: usize,
    pub adapts: Option<(usize, usize)>,
    pub queue: usize,
    pub wait: Option<Duration>,
    pub newest_first: bool,
}

/// Owns how many are inside and who waits.
#[derive(Debug)]
pub struct Concurrency {
    state: Mutex<State>,
}

/// `is_reversed`: who came last comes in first.
#[derive(Debug)]
struct State {
    bounds: Bounds,
    gradient: Option<Gradient>,
    chance: f64,
    inside: usize,
    waiting: VecDeque<Ticket>,
    is_reversed: bool,
    left: Left,
    full: u64,
    late: u64,
}

type Ticket = oneshot::Sender<Result<Pass, Refusal>>;

impl State {
    fn limit(&self) -> usize {
        self.gradient.as_ref().map_or(self.bounds.limit, Gradient::limit)
    }

    fn come_in(&mut self, now: Instant) {
        self.inside += 1;
        if let Some(gradient) = &mut self.gradient {
            gradient.entered(now, self.inside);
        }
    }
}

/// How long it took until the answer began tells how busy the callee is: not of those that never reached it, or were turned away.
fn took(exit: Exit, entered_at: Instant) -> Option<Duration> {
    let begun_at = match exit.begun {
        Begun::Never => exit.now,
        Begun::At(at) => at,
        Begun::Streaming => return None,
    };
    matches!(exit.outcome, None | Some(Cause::Status | Cause::Timeout)).then(|| begun_at.saturating_duration_since(entered_at))
}

impl Concurrency {
    /// A gate of these bounds; so many more wait.
    pub fn new(bounds: Bounds, gradient: Option<Gradient>) -> Arc<Self> {
        let state = State {
            bounds,
            gradient,
            chance: 0.5,
            inside: 0,
            waiting: VecDeque::new(),
            is_reversed: false,
            left: Left::default(),
            full: 0,
            late: 0,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(self: &Arc<Self>, entered_at: Instant) -> Pass {
        let gate = self.clone();
        Pass::new(move |exit| {
            {
                let mut state = gate.lock();
                state.inside -= 1;
                state.left.count(exit.outcome);
                let chance = state.chance;
                if let Some(gradient) = &mut state.gradient {
                    gradient.left(exit.now, entered_at, chance, took(exit, entered_at));
                }
            }
            gate.admit(exit.now);
        })
    }

    /// Come in where there is room, and nobody waits for it.
    fn come_in(self: &Arc<Self>, now: Instant, chance: f64) -> Result<Pass, MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.chance = chance;
        if state.inside >= state.limit() || state.waiting.iter().any(|ticket| !ticket.is_closed()) {
            return Err(state);
        }
        state.come_in(now);
        Ok(self.pass(now))
    }

    fn admit(self: &Arc<Self>, now: Instant) {
        while let Some(ticket) = self.next(now) {
            if let Err(Ok(pass)) = ticket.send(Ok(self.pass(now))) {
                pass.unused(); // who waited has just left
                self.lock().inside -= 1;
            }
        }
    }

    /// Who waits and is next, counted as inside, if there is room.
    fn next(&self, now: Instant) -> Option<Ticket> {
        let mut state = self.lock();
        while state.inside < state.limit() {
            let next = if state.is_reversed { state.waiting.pop_back() } else { state.waiting.pop_front() };
            if state.is_reversed {
                state.is_reversed = state.waiting.iter().any(|ticket| !ticket.is_closed());
            }
            let ticket = next?;
            if !ticket.is_closed() {
                state.come_in(now);
                return Some(ticket);
            }
        }
        None
    }

    /// Wait in turn.
    fn queue(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> Entered {
        state.waiting.retain(|ticket| !ticket.is_closed());
        let queue = state.bounds.queue;
        let full = || Refusal::new(Cause::Shed, format!("queue full (limit {queue})"));
        let mut displaced = None;
        if state.waiting.len() >= queue {
            state.full += 1;
            displaced = if state.bounds.newest_first { state.waiting.pop_front() } else { None };
            if displaced.is_none() {
                return Entered::Refused(full());
            }
            state.is_reversed = true;
        }
        let (ticket, admitted) = oneshot::channel();
        state.waiting.push_back(ticket);
        let wait = state.bounds.wait;
        drop(state);
        if let Some(ticket) = displaced {
            drop(ticket.send(Err(full()))); // who waited has just left
        }
        let gone = move || Refusal::new(Cause::Shed, format!("queue full (limit {queue})"));
        let Some(wait) = wait else {
            return Entered::Wait(Box::pin(async move { admitted.await.unwrap_or_else(|_| Err(gone())) }));
        };
        let gate = self.clone();
        Entered::Wait(Box::pin(async move {
            if let Ok(found) = tokio::time::timeout(wait, admitted).await {
                return found.unwrap_or_else(|_| Err(gone()));
            }
            {
                let mut state = gate.lock();
                state.late += 1;
                state.is_reversed = state.bounds.newest_first; // those behind it would wait as long, each until just before its turn
            }
            Err(Refusal::new(Cause::Shed, format!("no room within {} s", wait.as_secs_f64())))
        }))
    }

    fn bound(self: &Arc<Self>, bounds: Bounds) {
        {
            let mut state = self.lock();
            if let (Some(gradient), Some((least, most))) = (&mut state.gradient, bounds.adapts) {
                gradient.bound(least, most);
            }
            state.bounds = bounds;
        }
        self.admit(Instant::now());
    }
}

impl Gate for Concurrency {
    fn enter(self: Arc<Self>, now: Instant, chance: f64, _: &str) -> Entered {
        match self.come_in(now, chance) {
            Ok(pass) => Entered::Passed(pass),
            Err(state) => self.queue(state),
        }
    }

    fn enter_at_once(self: Arc<Self>, now: Instant, chance: f64, _: &str) -> Entered {
        match self.come_in(now, chance) {
            Ok(pass) => Entered::Passed(pass),
            Err(_) => Entered::Refused(Refusal::new(Cause::Shed, "no room for another attempt beside those under way")),
        }
    }

    fn change(self: Arc<Self>, spec: &GateSpec) -> bool {
        let GateSpec::Concurrency(bounds) = spec else { return false };
        if self.lock().gradient.is_some() != bounds.adapts.is_some() {
            return false;
        }
        self.bound(bounds.clone());
        true
    }

    fn open(self: Arc<Self>) {
        {
            let mut state = self.lock();
            state.gradient = None;
            state.bounds.limit = usize::MAX;
        }
        self.admit(Instant::now());
    }

    fn state(&self) -> GateState {
        let state = self.lock();
        let waiting = state.waiting.iter().filter(|ticket| !ticket.is_closed()).count();
        let refused = counted(&[("queue-full", state.full), ("queue-timeout", state.late)]);
        let limit = state.gradient.as_ref().map(Gradient::limit);
        GateState { inside: state.inside, waiting, left: state.left, refused, limit }
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

    fn of(limit: usize, queue: usize) -> Bounds {
        Bounds { limit, adapts: None, queue, wait: None, newest_first: false }
    }

    async fn entering(gate: Arc<dyn Gate>) -> Result<Pass, Refusal> {
        match gate.enter(Instant::now(), 0.0, "") {
            Entered::Passed(pass) => Ok(pass),
            Entered::Wait(wait) => wait.await,
            Entered::Refused(refusal) => Err(refusal),
            Entered::Delayed(..) => panic!("nobody is delayed"),
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
        refused: BTreeMap<String, u64>,
        shed: Vec<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Calls {
        why: String,
        limit: usize,
        queue: usize,
        #[serde(default)]
        newest_first: bool,
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
                Entered::Delayed(..) => panic!("{step:?}"),
            }
        }

        fn take(&mut self, step: &Step) {
            match &*step.r#do {
                "enter" => self.enter(step),
                "leave" => self.inside.remove(&step.who).unwrap().leave(Cause::parse(&step.cause), self.begin),
                "give_up" => self.waiting.retain(|(who, _)| *who != step.who),
                "change" => {
                    let spec = GateSpec::Concurrency(of(step.limit, step.queue));
                    assert!(self.gate.clone().change(&spec));
                }
                "open" => self.gate.clone().open(),
                "see" => {
                    let state = self.gate.state();
                    let left = state.left.by_name().map(|(cause, times)| (cause.to_owned(), times)).collect();
                    assert_eq!((state.inside, state.waiting, &left), (step.inside, step.waiting, &step.left), "{step:?}");
                    let refused: BTreeMap<_, _> = state.refused.iter().map(|(why, times)| ((*why).to_owned(), *times)).collect();
                    assert_eq!(refused, step.refused, "{step:?}");
                }
                other => panic!("{other}"),
            }
            let (mut let_in, mut shed) = (Vec::new(), Vec::new());
            for (who, mut wait) in std::mem::take(&mut self.waiting) {
                match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(Ok(pass)) => {
                        self.inside.insert(who.clone(), pass);
                        let_in.push(who);
                    }
                    Poll::Ready(Err(_)) => shed.push(who),
                    Poll::Pending => self.waiting.push((who, wait)),
                }
            }
            assert_eq!((&let_in, &shed), (&step.let_in, &step.shed), "{step:?}");
        }
    }

    #[test]
    fn as_many_come_in_as_there_is_room_for() {
        for case in vectors::read::<Calls>("gates", "concurrency") {
            println!("{}", case.why);
            let (inside, waiting) = (BTreeMap::new(), Vec::new());
            let mut crowd = Crowd {
                gate: Concurrency::new(Bounds { newest_first: case.newest_first, ..of(case.limit, case.queue) }, None),
                begin: Instant::now(),
                inside,
                waiting,
            };
            case.steps.iter().for_each(|step| crowd.take(step));
        }
    }

    #[test]
    fn queue_is_bounded_and_a_gate_that_is_taken_down_lets_all_in() {
        let of = |limit| GateSpec::Concurrency(of(limit, QUEUE));
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
        let gate = Concurrency::new(of(2, 1_024), None);
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
