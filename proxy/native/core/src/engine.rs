//! The engine's thread and the handle that others hold: commands in, answers out.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, SockAddr, Type};
use tokio::runtime::LocalOptions;

use crate::ask::Inbox;
use crate::gate::Gates;
use crate::limits::Limits;
use crate::listener::{Bound, Socket};
use crate::shared::{Command, Commands, Shared};

const BACKLOG: i32 = 1_024;
const SWEEP: Duration = Duration::from_secs(1);

/// A running engine. Dropped, it stops.
pub struct Engine {
    pub inbox: Arc<Inbox>,
    pub commands: Arc<Commands>,
    thread: Mutex<Option<JoinHandle<()>>>,
    sockets: Mutex<HashMap<String, TcpListener>>,
    gates: Mutex<Gates>,
}

impl Engine {
    /// Start the engine's thread.
    pub fn start(limits: Limits, inbox: Arc<Inbox>) -> io::Result<Self> {
        let commands = Arc::new(Commands::default());
        let (seen, told) = (inbox.clone(), commands.clone());
        let (tell, built) = mpsc::channel();
        let thread = std::thread::Builder::new().name("postern-engine".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let (runtime, fault) = runtime.map_or_else(|error| (None, Err(error)), |runtime| (Some(runtime), Ok(())));
            let is_heard = tell.send(fault).is_ok();
            if let (Some(runtime), true) = (runtime, is_heard) {
                runtime.block_on(run(Shared::new(limits, seen, told)));
                drop(runtime); // what still runs is dropped here, and its connections close
            }
        })?;
        built.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(Self { inbox, commands, thread: Mutex::new(Some(thread)), sockets: Mutex::default(), gates: Mutex::default() })
    }

    /// Bind, and accept there. Returns the bound address.
    pub fn listen(&self, name: &str, address: &str, mesh: bool) -> io::Result<String> {
        let (socket, address) = bind(address)?;
        if let Socket::Tcp(socket) = &socket {
            let held = socket.try_clone()?;
            self.sockets.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), held);
        }
        self.commands.send(Command::Listen(Bound { name: name.to_owned(), socket, mesh }));
        Ok(address)
    }

    /// Accept no more, from now on; connections go on.
    pub fn unlisten(&self, name: &str) {
        let held = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.commands.send(Command::Unlisten(name.to_owned()));
        if let Some(socket) = held {
            // Closing our end alone would let the kernel accept until the thread has closed its own.
            drop(socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Both));
        }
    }

    /// A gate on calls in flight; `None` takes it down.
    pub fn set_gate(&self, name: String, limit: Option<usize>) {
        let gate = self.gates.lock().unwrap_or_else(PoisonError::into_inner).set(&name, limit);
        self.commands.send(Command::SetGate(name, gate));
    }

    /// End every call and connection, and wait for the thread.
    pub fn stop(&self) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.commands.send(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
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
        let applied = catch_unwind(AssertUnwindSafe(|| shared.apply()));
        drop(applied); // a fault of ours costs one command, not the engine; tasks catch their own
        tokio::select! {
            () = shared.stop.notified() => return shared.end().await,
            () = shared.commands.arrived.notified() => {}
            _ = sweep.tick() => shared.sweep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Question;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn fault_of_ours_ends_one_call_alone() {
        let (ring, rung) = mpsc::channel();
        let rings = AtomicUsize::new(0);
        let bell = move || {
            assert_ne!(rings.fetch_add(1, Ordering::Relaxed), 0, "the fault that this test is about");
            ring.send(()).ok(); // nobody listens any more when the engine ends
        };
        let inbox = Inbox::new(Box::new(bell), false);
        let engine = Engine::start(Limits::default(), inbox.clone()).unwrap();
        let address = engine.listen("in", "127.0.0.1:0", false).unwrap();
        let call = || {
            let mut caller = TcpStream::connect(&address).unwrap();
            caller.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            caller.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            caller
        };
        let mut first = call();
        assert!(!matches!(first.read(&mut [0; 16]), Ok(1..)), "closed without an answer");
        assert_eq!(inbox.stats.calls.load(Ordering::Relaxed), 0);
        while inbox.next_question().is_some() {}
        let second = call();
        rung.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(matches!(inbox.next_question(), Some(Question::Decide { .. })));
        drop(second);
        engine.stop();
        assert_eq!(inbox.take_outcomes(10).len(), 2);
    }
}
