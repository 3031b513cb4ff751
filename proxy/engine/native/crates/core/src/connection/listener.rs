//! Accepts connections, completes TLS, tells HTTP/1.1 from HTTP/2 by the preface, and hands over to the protocol's end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use rustls::ServerConnection;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::call::gates::{Entered, Pass};
use crate::connection::ahead::Ahead;
use crate::connection::dial;
use crate::connection::handout::{Parcel, Seat, Seats};
use crate::connection::io::Io;
use crate::connection::kind::{Kind, part};
use crate::connection::leaving::Leaving;
use crate::connection::refusal::Refusal;
use crate::connection::tls::Identity;
use crate::head::{Caller, Entry};
use crate::http1;
use crate::http2::{self, frames::PREFACE};
use crate::seam::ask::{Leaf, Notice};
use crate::shared::Shared;

/// Connections that begin to rest at one sweep: each takes some 10 us, and calls wait meanwhile.
const RESTS: usize = 500;
/// How connections are counted whose certificates ended while they had calls or a peer that stayed.
pub const EXPIRED: &str = "certificate-expired";

/// A bound socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

/// How connections reach a worker.
#[derive(Debug)]
pub enum Source {
    /// It accepts, for the other workers too; the ways to these, in their order.
    Socket(Socket, Vec<UnboundedSender<Parcel>>),
    /// It is handed them.
    Way(UnboundedReceiver<Parcel>),
}

/// Where to accept. `mesh`: a client certificate is demanded.
#[derive(Debug)]
pub struct Bound {
    pub name: String,
    pub source: Source,
    pub seats: Arc<Seats>,
    pub mesh: bool,
}

/// One bound address, as one worker has it. Owns the ways to ask its connections to drain.
#[derive(Debug)]
pub struct Listener {
    name: Arc<str>,
    /// That each of its connections passes once its caller is proven, as `connections_gate` in `proxy/contract/gates.py` names it.
    gate: String,
    mesh: bool,
    seats: Arc<Seats>,
    worker: usize,
    draining: Cell<bool>,
    changed: Notify,
    stop: Notify,
    connections: RefCell<Vec<Weak<Leaving>>>,
}

impl Listener {
    /// Nothing accepted yet.
    pub fn new(bound: &Bound, worker: usize) -> Rc<Self> {
        Rc::new(Self {
            name: bound.name.as_str().into(),
            gate: format!("connections:{}", bound.name),
            mesh: bound.mesh,
            seats: bound.seats.clone(),
            worker,
            draining: Cell::new(false),
            changed: Notify::new(),
            stop: Notify::new(),
            connections: RefCell::default(),
        })
    }

    /// Whether a caller may have one more connection: a pass where a gate let it in, the reason where it did not.
    fn let_in(&self, shared: &Shared, peer: &str) -> Result<Option<Pass>, String> {
        let Some(gate) = shared.gate(&self.gate) else { return Ok(None) };
        match gate.enter(Instant::now(), 0.0, peer) {
            Entered::Passed(pass) => Ok(Some(pass)),
            Entered::Refused(refusal) => Err(refusal.detail),
            Entered::Wait(_) | Entered::Delayed(..) => Err("no gate of connections has any wait".to_owned()),
        }
    }

    /// Close the socket; connections go on.
    pub fn stop_accepting(&self) {
        self.draining.set(true);
        self.stop.notify_one();
    }

    /// The identity was renewed: who came in under the old one is asked to come again.
    pub fn renew(&self) {
        if self.mesh {
            self.ask_all();
        }
    }

    /// Tell every connection to finish what it has and come no more.
    pub fn start_drain(&self) {
        self.draining.set(true);
        self.ask_all();
    }

    fn ask_all(&self) {
        let connections: Vec<_> = self.connections.borrow().iter().filter_map(Weak::upgrade).collect();
        for connection in connections {
            connection.ask();
        }
    }

    /// The engine stops: accept no more, close every connection.
    pub fn end(&self) {
        self.stop_accepting();
        let connections: Vec<_> = self.connections.borrow().iter().filter_map(Weak::upgrade).collect();
        for connection in connections {
            connection.end();
        }
    }

    /// Wait until this worker has no connection, nor gets one that was accepted already.
    pub async fn wait_empty(&self) {
        while self.seats.taken(self.worker) > 0 {
            self.changed.notified().await;
        }
    }

    /// Let connections without a call rest, and drain those that have had none for long, or whose certificates end.
    pub fn sweep(&self, now: Instant, wall: SystemTime, shared: &Shared) {
        let limits = &shared.limits;
        let mut tired = 0;
        self.connections.borrow_mut().retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            if connection.check_term(wall) {
                shared.refused(EXPIRED);
            }
            let silent = now.saturating_duration_since(connection.active_at.get());
            if connection.calls.get() > 0 {
                return true;
            }
            if silent > limits.idle {
                connection.ask();
            } else if silent > limits.rest && tired < RESTS {
                tired += usize::from(connection.tire());
            }
            true
        });
    }

    fn count(&self, shared: &Shared, change: i8) {
        shared.inbox.stats.connections.fetch_add(i64::from(change), Ordering::Relaxed);
        shared.note(Notice::Connection { listener: self.name.clone(), change });
        self.changed.notify_one();
    }
}

/// A connection in the count of open ones, for as long as its task lives.
struct Open {
    shared: Rc<Shared>,
    listener: Rc<Listener>,
    seat: Option<Seat>,
}

impl Open {
    /// Serve a connection from now on.
    fn begin(shared: &Rc<Shared>, listener: &Rc<Listener>, kind: Kind, address: Arc<str>, seat: Seat) {
        listener.count(shared, 1);
        let open = Self { shared: shared.clone(), listener: listener.clone(), seat: Some(seat) };
        tokio::task::spawn_local(async move { begin(&open.shared, &open.listener, kind, address).await });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.seat.take()); // whoever is told that it has closed finds room
        self.listener.count(&self.shared, -1);
    }
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Accepting {
    fn new(socket: Socket) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            Socket::Unix(socket, path) => Self::Unix(UnixListener::from_std(socket)?, path),
        })
    }

    async fn accept(&self) -> io::Result<(Kind, Arc<str>)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Kind::Tcp(stream), address.ip().to_string().into()))
            }
            Self::Unix(socket, _) => Ok((Kind::Unix(socket.accept().await?.0), "".into())),
        }
    }
}

/// Serve what comes until told to stop.
pub async fn run(shared: Rc<Shared>, listener: Rc<Listener>, bound: Bound) {
    match bound.source {
        Source::Socket(socket, ways) => accept(shared, listener, socket, ways).await,
        Source::Way(way) => receive(shared, listener, way).await,
    }
}

/// The way ends with the accepting worker's part of the listener.
async fn receive(shared: Rc<Shared>, listener: Rc<Listener>, mut way: UnboundedReceiver<Parcel>) {
    while let Some(parcel) = way.recv().await {
        let (kind, address, seat) = parcel.unpack();
        if let Some(kind) = kind {
            Open::begin(&shared, &listener, kind, address, seat);
        } else {
            drop(seat);
            listener.changed.notify_one();
        }
    }
}

async fn accept(shared: Rc<Shared>, listener: Rc<Listener>, socket: Socket, ways: Vec<UnboundedSender<Parcel>>) {
    let Ok(socket) = Accepting::new(socket) else { return };
    loop {
        let accepted = tokio::select! {
            biased;
            () = listener.stop.notified() => break,
            accepted = socket.accept() => accepted,
        };
        let Ok((kind, address)) = accepted else {
            if listener.draining.get() {
                break; // the socket was shut from outside
            }
            shared.refused("accept");
            tokio::time::sleep(Duration::from_millis(50)).await; // out of file descriptors: leave the backlog alone for a moment
            continue;
        };
        let Some(seat) = listener.seats.take(shared.limits.connections) else {
            shared.refused("connections");
            continue;
        };
        if seat.worker == listener.worker {
            Open::begin(&shared, &listener, kind, address, seat);
        } else if let Some(parcel) = Parcel::pack(kind, address, seat) {
            drop(ways[parcel.seat.worker - 1].send(parcel)); // a worker that is gone closes what it was to serve
        }
    }
    if let Accepting::Unix(_, path) = &socket {
        drop(std::fs::remove_file(path)); // it may be gone already
    }
}

async fn begin(shared: &Rc<Shared>, listener: &Rc<Listener>, kind: Kind, address: Arc<str>) {
    let refused = |refusal: Refusal| {
        shared.note(Notice::RefusedPeer { listener: listener.name.clone(), refusal, address: address.clone() });
    };
    let leaving = Leaving::new();
    let mut is_stale = false; // the identity was renewed during the handshake
    let (kind, peer) = match (kind, listener.mesh) {
        (Kind::Tcp(stream), true) => match secure(shared, stream).await {
            Ok((kind, peer, under)) => {
                let current = shared.identity.borrow().as_ref().is_some_and(|now| Arc::ptr_eq(&now.server, &under.server));
                is_stale = !current;
                leaving.limit(peer.ends_at.min(under.ends_at), &shared.limits);
                (kind, Some(peer.spiffe_id.into()))
            }
            Err(refusal) => return refused(refusal),
        },
        (kind, _) => (kind, None),
    };
    if listener.draining.get() || is_stale {
        leaving.ask();
    }
    listener.connections.borrow_mut().push(Rc::downgrade(&leaving));
    let passed = match peer.as_deref().map(|peer| listener.let_in(shared, peer)) {
        Some(Err(detail)) => {
            part(kind); // before HTTP/2 begins on it: to a client, a dial that failed
            return refused(Refusal::new("too-many", detail));
        }
        Some(Ok(passed)) => passed,
        None => None,
    };
    let caller = peer.as_deref().and_then(Caller::of).map(Arc::new);
    let entry = Entry { listener: listener.name.clone(), peer, caller, address: address.clone() };
    let mut io = Io::new(kind);
    let Some(seen) = timeout(shared.limits.head, sniff(&mut io)).await.ok().flatten() else { return };
    let is_http2 = seen.starts_with(PREFACE);
    let io = io.with_prefix(seen.freeze());
    if is_http2 {
        http2::server::serve(shared.clone(), io, entry, leaving).await;
    } else if listener.mesh {
        io.part();
        refused(Refusal::new("protocol", "the peer did not speak HTTP/2 over mutual TLS"));
    } else if let Some(upgraded) = http1::server::serve(shared.clone(), io, entry.clone(), leaving.clone()).await {
        http2::server::serve_upgraded(shared.clone(), upgraded, entry, leaving).await;
    }
    if let Some(passed) = passed {
        passed.leave(None, Instant::now());
    }
}

/// The first bytes: as soon as they differ from the HTTP/2 preface, or hold all of it.
async fn sniff(io: &mut Io) -> Option<BytesMut> {
    let mut seen = BytesMut::new();
    loop {
        if poll_fn(|cx| io.poll_fill(cx, &mut seen)).await.ok()? == 0 {
            return None;
        }
        let size = seen.len().min(PREFACE.len());
        if size == PREFACE.len() || seen[..size] != PREFACE[..size] {
            return Some(seen);
        }
    }
}

/// Mutual TLS: the stream, whose it is, and under which identity of ours.
async fn secure(shared: &Shared, stream: TcpStream) -> Result<(Kind, Leaf, Identity), Refusal> {
    let identity = shared.identity.borrow().clone();
    let identity = identity.ok_or_else(|| Refusal::new("not-ready", "this proxy has no certificate yet"))?;
    let accepted = timeout(shared.limits.handshake, TlsAcceptor::from(identity.server.clone()).accept(Ahead::new(stream))).await;
    let stream = accepted
        .map_err(|_| Refusal::new("timeout", "the TLS handshake took too long"))?
        .map_err(|error| Refusal::of_handshake(&error))?;
    let peer = admit(shared, stream.get_ref().1).await;
    let kind = Kind::Server(Box::new(stream));
    match peer {
        Ok(peer) => Ok((kind, peer, identity)),
        Err(refusal) => {
            part(kind);
            Err(refusal)
        }
    }
}

/// Whose the other end is, where we speak with it.
async fn admit(shared: &Shared, tls: &ServerConnection) -> Result<Leaf, Refusal> {
    if tls.alpn_protocol().is_none() {
        return Err(Refusal::new("protocol", "the peer offered neither postern/1 nor h2 (ALPN)"));
    }
    let leaf = tls.peer_certificates().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| Refusal::new("no-certificate", "the peer presented no certificate"))?;
    dial::whose(shared, leaf.to_vec(), false).await
}
