//! What the calls of one worker share, and how commands change it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use crate::call::breakers::Breakers;
use crate::call::cause::Cause;
use crate::call::deciding;
use crate::call::gates::Gate;
use crate::call::pool::Pool;
use crate::call::request_body::ReplayRoom;
use crate::call::state::CallState;
use crate::clusters::Clusters;
use crate::connection::listener::{self, Listener};
use crate::connection::tls::Identity;
use crate::decision::cache::PlanCache;
use crate::decision::plan::Decision;
use crate::decision::tables::Tables;
use crate::decision::trace::{Sampler, SamplingRules, Span};
use crate::fields::Headers;
use crate::limits::Limits;
use crate::seam::ask::{Inbox, Notice};
use crate::seam::commands::{Command, CommandQueue, Cut, EndpointLoad, OpenWork};
use crate::seam::news::{News, Watch};

const END: Duration = Duration::from_millis(250); // for each half of the end
/// Of so many calls that begin, the first. As in `proxy/contract/outcome.py`.
const PHASED: u64 = 64;
/// Seconds whose worst lag is told: a usual interval between scrapes.
const LAGS: usize = 15;
const END_STEP: Duration = Duration::from_millis(2);

/// A worker's place among all of an engine, counted from 0.
#[derive(Clone, Copy, Debug)]
pub struct WorkerIndex {
    pub worker: usize,
    pub of: usize,
}

/// Owned by one worker's thread: workers share nothing that a call writes.
pub struct Shared {
    pub worker_index: WorkerIndex,
    pub limits: Limits,
    pub inbox: Arc<Inbox>,
    pub commands: Arc<CommandQueue>,
    pub tables: RefCell<Tables>,
    pub plans: RefCell<PlanCache>,
    pub clusters: RefCell<Clusters>,
    pub identity: RefCell<Option<Identity>>,
    /// `None`: only the other side can begin a span.
    pub sampler: Cell<Option<Sampler>>,
    sampling_rules: RefCell<Arc<SamplingRules>>,
    watch: RefCell<Option<Arc<Watch>>>,
    pub pool: Pool,
    pub replay: Arc<ReplayRoom>,
    pub stop: Notify,
    gates: RefCell<HashMap<String, Arc<dyn Gate>, foldhash::fast::RandomState>>,
    breakers: RefCell<HashMap<String, Arc<Breakers>, foldhash::fast::RandomState>>,
    held: RefCell<HashMap<Arc<str>, Rc<Notify>>>,
    wakes: Cell<u64>,
    /// The number of the newest command that made verdicts stale.
    staled: Cell<u64>,
    calls: RefCell<HashMap<u64, Rc<CallState>, foldhash::fast::RandomState>>,
    next_call: Cell<u64>,
    listeners: RefCell<HashMap<String, Rc<Listener>>>,
    lags: RefCell<VecDeque<Duration>>,
}

impl Shared {
    /// Nothing pushed yet.
    pub fn new(
        worker_index: WorkerIndex,
        limits: Limits,
        inbox: Arc<Inbox>,
        commands: Arc<CommandQueue>,
        replay: Arc<ReplayRoom>,
    ) -> Rc<Self> {
        Rc::new(Self {
            worker_index,
            limits,
            inbox,
            commands,
            tables: RefCell::default(),
            plans: RefCell::default(),
            clusters: RefCell::default(),
            identity: RefCell::default(),
            sampler: Cell::new(None),
            sampling_rules: RefCell::new(Arc::new(SamplingRules::new(vec![]))),
            watch: RefCell::default(),
            pool: Pool::default(),
            replay,
            stop: Notify::new(),
            gates: RefCell::default(),
            breakers: RefCell::default(),
            held: RefCell::default(),
            wakes: Cell::new(0),
            staled: Cell::new(0),
            calls: RefCell::default(),
            next_call: Cell::new(worker_index.worker as u64),
            listeners: RefCell::default(),
            lags: RefCell::default(),
        })
    }

    /// A worker without an engine.
    #[cfg(test)]
    pub fn alone(limits: Limits) -> Rc<Self> {
        let inboxes = crate::seam::inboxes::Inboxes::new(1, Box::new(|| ()), false);
        let replay = ReplayRoom::new(limits.replay_bytes);
        Self::new(WorkerIndex { worker: 0, of: 1 }, limits, inboxes.each()[0].clone(), Arc::default(), replay)
    }

    /// A new span by a decision's sampling; `None`: only the other side can begin it.
    pub fn begin_span(&self, headers: &Headers, grpc: bool, sampling: i32) -> Option<Span> {
        let mut span = self.sampler.get()?.begin(headers, grpc);
        span.resample(sampling, &self.sampling_rules.borrow());
        Some(span)
    }

    /// Tell news.
    pub fn note(&self, notice: Notice) {
        self.inbox.note(notice);
    }

    /// Count what a limit or a rule forbids, where nobody can say who sent it.
    pub fn refused(&self, kind: &'static str) {
        self.note(Notice::RefusedFrames { kind, who: "".into() });
    }

    /// The gate of that name; `None` where it stands open.
    pub fn gate(&self, name: &str) -> Option<Arc<dyn Gate>> {
        self.gates.borrow().get(name).cloned()
    }

    /// The circuit breakers of that name; `None` where none were pushed.
    pub fn breakers(&self, name: &str) -> Option<Arc<Breakers>> {
        self.breakers.borrow().get(name).cloned()
    }

    /// Who is told when `key` is set or woken.
    pub fn held(&self, key: &Arc<str>) -> Rc<Notify> {
        self.held.borrow_mut().entry(key.clone()).or_default().clone()
    }

    /// How often anything was woken: unchanged means that nobody missed it.
    pub fn wakes(&self) -> u64 {
        self.wakes.get()
    }

    /// Whether a verdict made after so many commands still holds.
    pub fn is_current(&self, as_of: u64) -> bool {
        self.staled.get() <= as_of
    }

    /// A call begins; returns its number, which no other worker gives.
    pub fn enter_call(&self, state: Rc<CallState>) -> u64 {
        let number = self.next_call.replace(self.next_call.get() + self.worker_index.of as u64);
        self.calls.borrow_mut().insert(number, state);
        self.inbox.stats.calls.fetch_add(1, Ordering::Relaxed);
        number
    }

    /// How late the thread ran a timer that is due once a second.
    pub fn note_lag(&self, lag: Duration) {
        let mut lags = self.lags.borrow_mut();
        if lags.len() == LAGS {
            lags.pop_front();
        }
        lags.push_back(lag);
        for gate in self.gates.borrow().values() {
            gate.note_lag(self.worker_index.worker, lag);
        }
    }

    /// Whether a call is one of those whose phases are told.
    pub fn is_phased(&self, number: u64) -> bool {
        (number / self.worker_index.of as u64) % PHASED == 0
    }

    /// A call is over.
    pub fn leave_call(&self, number: u64) {
        self.calls.borrow_mut().remove(&number);
        self.inbox.stats.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// Do what was commanded.
    pub fn apply(self: &Rc<Self>) {
        for (number, command) in self.commands.take() {
            self.apply_one(number, command);
        }
    }

    fn apply_one(self: &Rc<Self>, number: u64, command: Command) {
        match command {
            Command::SetCluster(cluster, health, watch) => {
                let key = cluster.key.clone();
                let gone = self.clusters.borrow_mut().put(cluster, health, watch.as_ref());
                if !gone.is_empty() {
                    self.pool.retire(&key, &gone);
                }
                self.wake(&key);
            }
            Command::DropCluster(key) => {
                let gone = self.clusters.borrow_mut().drop(&key);
                self.pool.retire(&key, &gone);
            }
            Command::Wake(key) => self.wake(&key),
            Command::SetPaths(table, paths) => {
                self.staled.set(number);
                self.tables.borrow_mut().put_paths(table, paths);
            }
            Command::SetMembers(set, members) => {
                self.staled.set(number);
                self.tables.borrow_mut().put_set(set, members);
            }
            Command::SetGate(name, Some(gate)) => drop(self.gates.borrow_mut().insert(name, gate)),
            Command::SetGate(name, None) => drop(self.gates.borrow_mut().remove(&name)),
            Command::SetBreakers(name, Some(breakers)) => drop(self.breakers.borrow_mut().insert(name, breakers)),
            Command::SetBreakers(name, None) => drop(self.breakers.borrow_mut().remove(&name)),
            Command::SetIdentity(identity) => {
                *self.identity.borrow_mut() = identity;
                self.pool.retire_mesh();
                self.listeners.borrow().values().for_each(|listener| listener.renew());
            }
            Command::SetSampler(sampler, rules) => {
                self.sampler.set(sampler);
                *self.sampling_rules.borrow_mut() = rules;
            }
            Command::SetWatch(watch) => self.set_watch(watch),
            Command::Invalidate(scope) => {
                self.staled.set(number);
                let mut plans = self.plans.borrow_mut();
                plans.invalidate(&scope);
                self.inbox.stats.plans.store(plans.len() as i64, Ordering::Relaxed);
            }
            Command::RedecideOpen => {
                tokio::task::spawn_local(self.clone().redecide_open());
            }
            Command::Listen(bound) => {
                let listener = Listener::new(&bound, self.worker_index.worker);
                self.listeners.borrow_mut().insert(bound.name.clone(), listener.clone());
                tokio::task::spawn_local(listener::run(self.clone(), listener, bound));
            }
            Command::Unlisten(name) => {
                if let Some(listener) = self.listeners.borrow().get(&name) {
                    listener.stop_accepting();
                }
            }
            Command::Drain { names, within, cut } => {
                tokio::task::spawn_local(self.clone().drain(names, within, cut));
            }
            Command::Loads { key, answer } => drop(answer.send(self.loads(&key))), // who asked may have given up
            Command::OpenWork { answer } => drop(answer.send(self.open_work())),
            Command::Stop => self.stop.notify_one(),
        }
    }

    /// Whether somebody looks at calls, and at what of them.
    pub fn watch(&self) -> Option<Arc<Watch>> {
        self.watch.borrow().clone()
    }

    fn set_watch(&self, watch: Option<Arc<Watch>>) {
        let before = self.watch.replace(watch.clone());
        let (None, Some(watch)) = (before, watch) else { return };
        for (number, call) in &*self.calls.borrow() {
            let (number, token) = (*number, call.carried_by.get().max(call.held_by.get()));
            if token == 0 {
                continue; // it is told once it is decided, or is answered here
            }
            let (head, fields, started_ns) = (call.head.clone(), watch.pick(&call.head.headers), call.started_ns);
            self.inbox.tell_news(News::Begun { number, head, fields, token, context: None, started_ns });
            if let Some((status, head_ns)) = call.answered.get() {
                self.inbox.tell_news(News::Answered { number, head_ns, status, fields: Vec::new() });
            }
        }
    }

    fn wake(&self, key: &str) {
        self.wakes.set(self.wakes.get() + 1);
        if let Some(held) = self.held.borrow_mut().remove(key) {
            held.notify_waiters();
        }
    }

    /// Decide about every open call again, one after the other so that equal ones find what the first was told; end those denied now.
    async fn redecide_open(self: Rc<Self>) {
        let calls: Vec<Rc<CallState>> = self.calls.borrow().values().cloned().collect();
        for call in calls {
            if let Some(decided) = deciding::decide_again(&self, &call.head).await {
                if matches!(&decided.decision, Decision::Reply(reply) if reply.cause == Cause::Denied) {
                    call.deny(decided);
                }
            }
        }
    }

    async fn drain(self: Rc<Self>, names: Vec<String>, within: Duration, cut: Arc<Cut>) {
        let chosen: Vec<Rc<Listener>> = {
            let listeners = self.listeners.borrow();
            names.iter().filter_map(|name| listeners.get(name).cloned()).collect()
        };
        for listener in &chosen {
            listener.stop_accepting();
            listener.start_drain();
        }
        let all_empty = async {
            for listener in &chosen {
                listener.wait_empty().await;
            }
        };
        drop(tokio::time::timeout(within, all_empty).await); // late ones are cut
        let left: Vec<Rc<CallState>> = self
            .calls
            .borrow()
            .values()
            .filter(|call| names.iter().any(|name| **name == *call.head.entry.listener))
            .cloned()
            .collect();
        for call in &left {
            call.cut();
        }
        cut.add(left.len());
    }

    /// The worker stops: cut every call, then close every connection; who does not take that in time is dropped.
    pub async fn end(&self) {
        let calls: Vec<Rc<CallState>> = self.calls.borrow().values().cloned().collect();
        for call in &calls {
            call.cut();
        }
        for listener in self.listeners.borrow().values() {
            listener.stop_accepting();
        }
        let cut = async {
            while !self.calls.borrow().is_empty() {
                tokio::time::sleep(END_STEP).await;
            }
        };
        drop(tokio::time::timeout(END, cut).await);
        let listeners: Vec<Rc<Listener>> = self.listeners.borrow().values().cloned().collect();
        for listener in &listeners {
            listener.end();
        }
        let closed = async {
            for listener in &listeners {
                listener.wait_empty().await;
            }
        };
        drop(tokio::time::timeout(END, closed).await);
        self.pool.end();
    }

    fn open_work(&self) -> OpenWork {
        let lag = self.lags.borrow().iter().max().copied().unwrap_or_default();
        let mut work = OpenWork { streams_out: self.pool.streams.get(), lag, ..OpenWork::default() };
        for call in self.calls.borrow().values() {
            work.streams_in += usize::from(call.is_stream.get());
            work.replay_bytes += call.held_bytes.get();
            if call.carried_by.get() != 0 {
                *work.calls.entry(call.carried_by.get()).or_default() += 1;
            }
        }
        work
    }

    fn loads(&self, key: &str) -> Vec<EndpointLoad> {
        let now = Instant::now();
        let clusters = self.clusters.borrow();
        let endpoints = clusters.get(key).map(|state| &state.endpoints[..]).unwrap_or_default();
        endpoints
            .iter()
            .map(|endpoint| {
                let load = endpoint.load.borrow();
                let standing = load.standing(now);
                EndpointLoad {
                    address: endpoint.address.clone(),
                    in_flight: load.in_flight,
                    rtt: Duration::from_secs_f64(load.rtt_s),
                    seen_at: load.seen_at,
                    ejected_for: load.ejected_for(now),
                    is_proven: load.health.is_proven(),
                    outlier: if standing.out_until.is_some() { standing.why.name() } else { "" },
                }
            })
            .collect()
    }

    /// Look after idle connections and callers that stall, once a second.
    pub fn sweep(&self) {
        let now = Instant::now();
        for call in self.calls.borrow().values() {
            if let Some(kind) = call.check_progress(now, &self.limits) {
                self.refused(kind);
            }
        }
        let wall = SystemTime::now();
        for _ in 0..self.pool.check_terms(wall) {
            self.refused(listener::EXPIRED);
        }
        self.pool.sweep(now, self.limits.idle);
        for listener in self.listeners.borrow().values() {
            listener.sweep(now, wall, self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_worst_of_the_last_seconds() {
        let shared = Shared::alone(Limits::default());
        assert_eq!(shared.open_work().lag, Duration::ZERO);
        for millis in [90, 7].into_iter().chain([1; LAGS - 2]) {
            shared.note_lag(Duration::from_millis(millis));
        }
        assert_eq!(shared.open_work().lag, Duration::from_millis(90));
        shared.note_lag(Duration::ZERO);
        assert_eq!(shared.open_work().lag, Duration::from_millis(7));
    }
}
