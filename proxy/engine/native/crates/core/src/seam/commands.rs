//! Changes from the control plane on their way to the workers: numbered in one sequence, queued for each worker.
//!
//! A worker applies what waits for it before its next call begins, so that a push takes effect for the next call.

use std::collections::{HashMap, HashSet, VecDeque};
use std::iter::repeat_with;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::call::balance::Health;
use crate::call::breakers::Breakers;
use crate::call::gates::Gate;
use crate::call::outliers::Watch;
use crate::clusters::Cluster;
use crate::connection::listener::Bound;
use crate::connection::tls::Identity;
use crate::decision::tables::PathTable;
use crate::decision::trace::{Sampler, SamplingRules};
use crate::seam::news;

/// A change from the control plane, as one worker gets it.
pub enum Command {
    /// With the health of each upstream, and who watches their answers.
    SetCluster(Cluster, Vec<Arc<Health>>, Option<Arc<Watch>>),
    DropCluster(String),
    Wake(String),
    SetPaths(u32, PathTable),
    SetMembers(u32, Arc<HashSet<Box<[u8]>>>),
    SetGate(String, Option<Arc<dyn Gate>>),
    SetBreakers(String, Option<Arc<Breakers>>),
    SetIdentity(Option<Identity>),
    SetSampler(Option<Sampler>, Arc<SamplingRules>),
    /// Tell of calls as they go on, first of those under way; `None`: nobody looks.
    SetWatch(Option<Arc<news::Watch>>),
    /// Drop the kept decisions of a scope.
    Invalidate(String),
    RedecideOpen,
    Listen(Bound),
    Unlisten(String),
    Drain {
        names: Vec<String>,
        within: Duration,
        cut: Arc<Cut>,
    },
    Loads {
        key: String,
        answer: mpsc::Sender<Vec<EndpointLoad>>,
    },
    OpenWork {
        answer: mpsc::Sender<OpenWork>,
    },
    Stop,
}

/// Load and health of an endpoint, for status. `seen_at`: when it was last measured.
#[derive(Debug, Clone)]
pub struct EndpointLoad {
    pub address: Arc<str>,
    pub in_flight: u32,
    pub rtt: Duration,
    pub seen_at: Option<Instant>,
    pub ejected_for: Duration,
    pub is_proven: bool,
    /// Why it is left out for its answers; empty where it is not.
    pub outlier: &'static str,
}

impl EndpointLoad {
    /// What two workers know of one endpoint, as one: calls add up, and the newer latency counts.
    pub fn add(&mut self, other: &Self) {
        self.in_flight += other.in_flight;
        if other.seen_at > self.seen_at {
            (self.rtt, self.seen_at) = (other.rtt, other.seen_at);
        }
        self.ejected_for = self.ejected_for.max(other.ejected_for);
    }
}

/// What a worker has open. `calls`: those being carried, by their decisions' tokens. `lag`: how late it was, at worst of late.
#[derive(Debug, Default)]
pub struct OpenWork {
    pub calls: HashMap<u64, usize, foldhash::fast::RandomState>,
    pub streams_in: usize,
    pub streams_out: usize,
    pub replay_bytes: usize,
    pub lag: Duration,
}

impl OpenWork {
    /// What two workers have open.
    pub fn add(&mut self, other: Self) {
        for (token, count) in other.calls {
            *self.calls.entry(token).or_default() += count;
        }
        self.streams_in += other.streams_in;
        self.streams_out += other.streams_out;
        self.replay_bytes += other.replay_bytes;
        self.lag = self.lag.max(other.lag);
    }
}

/// Gets the number of calls that were cut.
pub type Tell = Box<dyn FnOnce(usize) + Send>;

/// The calls that a drain cut, added up over the workers; the last of them tells.
pub struct Cut {
    left: AtomicUsize,
    calls: AtomicUsize,
    tell: Mutex<Option<Tell>>,
}

impl Cut {
    /// Over so many workers.
    pub fn new(workers: usize, tell: Tell) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(workers), calls: AtomicUsize::new(0), tell: Mutex::new(Some(tell)) })
    }

    /// One worker is done.
    pub fn add(&self, calls: usize) {
        self.calls.fetch_add(calls, Ordering::AcqRel);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(tell) = tell {
                tell(self.calls.load(Ordering::Acquire));
            }
        }
    }
}

/// What waits for one worker.
#[derive(Default)]
pub struct CommandQueue {
    queue: Mutex<VecDeque<(u64, Command)>>,
    waiting: AtomicBool,
    pub arrived: Notify,
}

impl CommandQueue {
    fn put(&self, number: u64, command: Command) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back((number, command));
        self.waiting.store(true, Ordering::Release);
        self.arrived.notify_one();
    }

    /// What came since this was last asked, with its numbers.
    pub fn take(&self) -> VecDeque<(u64, Command)> {
        if !self.waiting.load(Ordering::Acquire) {
            return VecDeque::new();
        }
        self.waiting.store(false, Ordering::Release);
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The way to all workers. Invariant: who reads a number finds every command up to it in every queue.
pub struct Commands {
    queues: Vec<Arc<CommandQueue>>,
    sent: Mutex<u64>,
}

impl Commands {
    /// To so many workers.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { queues: repeat_with(Arc::default).take(workers).collect(), sent: Mutex::new(0) })
    }

    /// Each worker's queue.
    pub fn queues(&self) -> &[Arc<CommandQueue>] {
        &self.queues
    }

    /// Send every worker the same.
    pub fn send(&self, make: impl FnMut() -> Command) {
        self.send_each(repeat_with(make));
    }

    /// Send each worker its own, under one number.
    pub fn send_each(&self, commands: impl IntoIterator<Item = Command>) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent += 1;
        for (queue, command) in self.queues.iter().zip(commands) {
            queue.put(*sent, command);
        }
    }

    /// How many were sent: a verdict is as of this number.
    pub fn sent(&self) -> u64 {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(queue: &CommandQueue) -> Vec<u64> {
        queue.take().into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn every_worker_gets_every_command_under_the_same_number() {
        let commands = Commands::new(3);
        commands.send(|| Command::Invalidate("a".into()));
        assert_eq!(numbers(&commands.queues()[0]), [1]);
        commands.send_each(["b", "c", "d"].map(|key| Command::Wake(key.into())));
        assert_eq!(commands.sent(), 2);
        assert_eq!(numbers(&commands.queues()[0]), [2]);
        let last = commands.queues()[2].take();
        assert_eq!(last.len(), 2);
        assert!(matches!(&last[1], (2, Command::Wake(key)) if key == "d"));
        assert!(numbers(&commands.queues()[2]).is_empty());
    }

    #[test]
    fn cut_calls_are_added_up_and_told_once() {
        let (tell, told) = mpsc::channel();
        let cut = Cut::new(3, Box::new(move |calls| tell.send(calls).unwrap()));
        cut.add(2);
        cut.add(0);
        assert!(told.try_recv().is_err());
        cut.add(5);
        assert_eq!(told.iter().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn loads_of_workers_add_up_to_one() {
        let now = Instant::now();
        let load = |in_flight, rtt_ms, seen_at, ejected_s| EndpointLoad {
            address: "a".into(),
            in_flight,
            rtt: Duration::from_millis(rtt_ms),
            seen_at,
            ejected_for: Duration::from_secs(ejected_s),
            is_proven: true,
            outlier: "",
        };
        let mut sum = load(1, 30, None, 0);
        sum.add(&load(2, 5, Some(now), 1));
        sum.add(&load(3, 9, Some(now.checked_sub(Duration::from_secs(1)).unwrap()), 0));
        sum.add(&load(0, 30, None, 0));
        assert_eq!((sum.in_flight, sum.rtt, sum.ejected_for), (6, Duration::from_millis(5), Duration::from_secs(1)));
    }
}
