//! The engine's workers, a thread each, and the handle that others hold: commands in, answers out.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Type};
use tokio::runtime::LocalOptions;

use crate::call::breakers::{BreakerSpec, Breakers, Glance};
use crate::call::budgets::Budgets;
use crate::call::gates::{GateSpec, GateState, Gates};
use crate::call::request_body::ReplayRoom;
use crate::clusters::{Cluster, HealthRegistry};
use crate::connection::handout::{Seats, ways};
use crate::connection::listener::{Bound, Socket, Source};
use crate::connection::tls::{Identity, VerifiedConfigs};
use crate::limits::Limits;
use crate::seam::commands::{Command, Commands, Cut, EndpointLoad, OpenWork, Tell};
use crate::seam::inboxes::Inboxes;
use crate::shared::{Shared, WorkerIndex};

const BACKLOG: i32 = 1_024;
const SWEEP: Duration = Duration::from_secs(1);

/// A running engine. Dropped, it stops.
pub struct Engine {
    pub inboxes: Inboxes,
    pub commands: Arc<Commands>,
    /// Of clusters outside of the mesh.
    pub verified: VerifiedConfigs,
    threads: Mutex<Vec<JoinHandle<()>>>,
    sockets: Mutex<HashMap<String, TcpListener>>,
    gates: Mutex<Gates>,
    breakers: Mutex<HashMap<String, Arc<Breakers>>>,
    pub budgets: Arc<Budgets>,
    replay: Arc<ReplayRoom>,
    health: Mutex<HealthRegistry>,
    listeners: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Start a worker for each inbox.
    pub fn start(limits: &Limits, inboxes: Inboxes) -> io::Result<Self> {
        let commands = Commands::new(inboxes.each().len());
        let engine = Self {
            inboxes,
            commands,
            verified: VerifiedConfigs::default(),
            threads: Mutex::default(),
            sockets: Mutex::default(),
            gates: Mutex::default(),
            breakers: Mutex::default(),
            budgets: Arc::default(),
            replay: ReplayRoom::new(limits.replay_bytes),
            health: Mutex::default(),
            listeners: AtomicUsize::new(0),
        };
        for worker in 0..engine.workers() {
            let thread = engine.spawn(worker, limits.clone())?;
            lock(&engine.threads).push(thread);
        }
        Ok(engine)
    }

    fn workers(&self) -> usize {
        self.inboxes.each().len()
    }

    fn spawn(&self, worker: usize, limits: Limits) -> io::Result<JoinHandle<()>> {
        let worker_index = WorkerIndex { worker, of: self.workers() };
        let (inbox, commands) = (self.inboxes.each()[worker].clone(), self.commands.queues()[worker].clone());
        let replay = self.replay.clone();
        let (tell, built) = mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("postern-{worker}")).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let (runtime, fault) = runtime.map_or_else(|error| (None, Err(error)), |runtime| (Some(runtime), Ok(())));
            let is_heard = tell.send(fault).is_ok();
            if let (Some(runtime), true) = (runtime, is_heard) {
                runtime.block_on(run(Shared::new(worker_index, limits, inbox, commands, replay)));
                drop(runtime); // what still runs is dropped here, and its connections close
            }
        })?;
        built.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(thread)
    }

    /// Bind, and accept there. Returns the bound address.
    pub fn listen(&self, name: &str, address: &str, mesh: bool) -> io::Result<String> {
        let (socket, address) = bind(address)?;
        if let Socket::Tcp(socket) = &socket {
            lock(&self.sockets).insert(name.to_owned(), socket.try_clone()?);
        }
        // The accepting worker is first in turn for no more listeners than the others are.
        let seats = Seats::new(self.workers(), 1 + self.listeners.fetch_add(1, Ordering::Relaxed));
        let (there, here) = ways(self.workers() - 1);
        let sources = [Source::Socket(socket, there)].into_iter().chain(here.into_iter().map(Source::Way));
        let bound = |source| Bound { name: name.to_owned(), source, seats: seats.clone(), mesh };
        self.commands.send_each(sources.map(|source| Command::Listen(bound(source))));
        Ok(address)
    }

    /// Accept no more, from now on; connections go on.
    pub fn unlisten(&self, name: &str) {
        let held = lock(&self.sockets).remove(name);
        self.commands.send(|| Command::Unlisten(name.to_owned()));
        if let Some(socket) = held {
            // Closing our end alone would let the kernel accept until the thread has closed its own.
            drop(socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Both));
        }
    }

    /// Add or replace a cluster.
    pub fn set_cluster(&self, cluster: &Cluster) {
        let health = lock(&self.health).put(cluster);
        let watch = HealthRegistry::watch(cluster, &health);
        self.commands.send(|| Command::SetCluster(cluster.clone(), health.clone(), watch.clone()));
    }

    /// Forget a cluster.
    pub fn drop_cluster(&self, key: &str) {
        lock(&self.health).forget(key);
        self.commands.send(|| Command::DropCluster(key.to_owned()));
    }

    /// What mutual TLS is made of; who could not be proven under the old identity may be under the new one.
    pub fn set_identity(&self, identity: Option<Identity>) {
        lock(&self.health).restore();
        self.commands.send(|| Command::SetIdentity(identity.clone()));
    }

    /// Put up a gate or change the one that stands; `None` takes it down.
    pub fn set_gate(&self, name: &str, spec: Option<&GateSpec>) {
        let gate = lock(&self.gates).set(name, spec);
        self.commands.send(|| Command::SetGate(name.to_owned(), gate.clone()));
    }

    /// A glance at each gate, by name.
    pub fn gates(&self) -> Vec<(String, GateState)> {
        lock(&self.gates).states().map(|(name, state)| (name.to_owned(), state)).collect()
    }

    /// Set circuit breakers anew; `None` removes them.
    pub fn set_breakers(&self, name: &str, spec: Option<BreakerSpec>) {
        let made = spec.map(|spec| Breakers::new(name, spec));
        match &made {
            Some(breakers) => drop(lock(&self.breakers).insert(name.to_owned(), breakers.clone())),
            None => drop(lock(&self.breakers).remove(name)),
        }
        self.commands.send(|| Command::SetBreakers(name.to_owned(), made.clone()));
    }

    /// The circuit breakers that have been asked.
    pub fn breakers(&self) -> Vec<Glance> {
        lock(&self.breakers).values().flat_map(|breakers| breakers.glances()).collect()
    }

    /// Drain the listeners' connections; `tell` gets the number of calls that were cut, once, from a worker's thread.
    pub fn drain(&self, names: &[String], within: Duration, tell: Tell) {
        for name in names {
            self.unlisten(name);
        }
        let cut = Cut::new(self.workers(), tell);
        self.commands.send(|| Command::Drain { names: names.to_vec(), within, cut: cut.clone() });
    }

    /// Load and health of a cluster's endpoints; without what a worker does not say in time.
    pub fn loads(&self, key: &str, within: Duration) -> Vec<EndpointLoad> {
        let until = Instant::now() + within;
        let (answer, told) = mpsc::channel();
        self.commands.send(|| Command::Loads { key: key.to_owned(), answer: answer.clone() });
        let mut sums: Vec<EndpointLoad> = Vec::new();
        for _ in 0..self.workers() {
            let Ok(loads) = told.recv_timeout(until.saturating_duration_since(Instant::now())) else { break };
            for load in loads {
                match sums.iter_mut().find(|sum| sum.address == load.address) {
                    Some(sum) => sum.add(&load),
                    None => sums.push(load),
                }
            }
        }
        sums
    }

    /// What is open; without what a worker does not say in time.
    pub fn open_work(&self, within: Duration) -> OpenWork {
        let until = Instant::now() + within;
        let (answer, told) = mpsc::channel();
        self.commands.send(|| Command::OpenWork { answer: answer.clone() });
        let mut sum = OpenWork::default();
        for _ in 0..self.workers() {
            let Ok(work) = told.recv_timeout(until.saturating_duration_since(Instant::now())) else { break };
            sum.add(work);
        }
        sum
    }

    /// End every call and connection, and wait for the threads.
    pub fn stop(&self) {
        lock(&self.sockets).clear();
        self.commands.send(|| Command::Stop);
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            drop(thread.join()); // a panic of the thread was reported by its hook
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn bind(address: &str) -> io::Result<(Socket, String)> {
    if let Some(path) = address.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        drop(std::fs::remove_file(&path)); // of a process that is gone
        let socket = std::os::unix::net::UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        return Ok((Socket::Unix(socket, path), address.to_owned()));
    }
    let resolved = std::net::ToSocketAddrs::to_socket_addrs(address)?.next();
    let resolved = resolved.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the address names no host"))?;
    let socket = socket2::Socket::new(Domain::for_address(resolved), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if resolved.is_ipv6() {
        socket.set_only_v6(true)?; // `[::]` stands beside `0.0.0.0`
    }
    socket.bind(&SockAddr::from(resolved))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let socket: std::net::TcpListener = socket.into();
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bound = format!("{host}:{}", socket.local_addr()?.port());
    Ok((Socket::Tcp(socket), bound))
}

async fn run(shared: std::rc::Rc<Shared>) {
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        contained(|| shared.apply());
        tokio::select! {
            () = shared.stop.notified() => return shared.end().await,
            () = shared.commands.arrived.notified() => {}
            due = sweep.tick() => {
                shared.note_lag(due.elapsed());
                contained(|| shared.sweep());
            }
        }
    }
}

/// A fault of ours costs what was being done, not the worker; tasks catch their own.
fn contained(work: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(work)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::ask::Question;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::OnceLock;

    fn call(address: &str) -> TcpStream {
        let mut caller = TcpStream::connect(address).unwrap();
        caller.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        caller
    }

    #[test]
    fn fault_of_ours_ends_one_call_alone() {
        let (ring, rung) = mpsc::channel();
        let rings = AtomicUsize::new(0);
        let bell = move || {
            assert_ne!(rings.fetch_add(1, Ordering::Relaxed), 0, "the fault that this test is about");
            ring.send(()).ok(); // nobody listens any more when the engine ends
        };
        let engine = Engine::start(&Limits::default(), Inboxes::new(1, Box::new(bell), false)).unwrap();
        let inbox = &engine.inboxes;
        let address = engine.listen("in", "127.0.0.1:0", false).unwrap();
        let mut first = call(&address);
        assert!(!matches!(first.read(&mut [0; 16]), Ok(1..)), "closed without an answer");
        assert_eq!(inbox.sum(|stats| &stats.calls), 0);
        while inbox.next_question().is_some() {}
        let second = call(&address);
        rung.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(matches!(inbox.next_question(), Some(Question::Decide { .. })));
        drop(second);
        engine.stop();
        assert_eq!(inbox.take_outcomes(10).len(), 2);
    }

    #[test]
    fn call_is_no_longer_counted_when_its_end_is_told() {
        let (ring, rung) = mpsc::channel();
        let started = Arc::new(OnceLock::<Engine>::new());
        let seen = started.clone();
        let bell = move || {
            ring.send(seen.get().map(|engine| engine.inboxes.sum(|stats| &stats.calls))).ok();
        };
        let inboxes = Inboxes::new(1, Box::new(bell), true);
        let engine = started.get_or_init(|| Engine::start(&Limits::default(), inboxes).unwrap());
        let _caller = call(&engine.listen("in", "127.0.0.1:0", false).unwrap());
        let question = loop {
            match engine.inboxes.next_question() {
                Some(question) => break question,
                None => rung.recv_timeout(Duration::from_secs(10)).unwrap(),
            };
        };
        assert!(engine.inboxes.next_question().is_none()); // from now on the bell rings again
        rung.try_iter().for_each(drop);
        drop(question); // without an answer
        assert_eq!(rung.recv_timeout(Duration::from_secs(10)), Ok(Some(0)));
        engine.stop();
    }
}
