//! Upstream connections by address and identity: grown by load, drained on rotation, dialled at most as often as calls wait.
//!
//! A call that finds a free connection never waits; one that does not queues, and dialling is a task of its own.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use crate::call::cause::Cause;
use crate::call::ends::{Lost, Up};
use crate::clusters::{Tls, Wire};
use crate::connection::dial;
use crate::connection::leaving::Leaving;
use crate::connection::via::Via;
use crate::head::RawHead;
use crate::http1::client::{H1Conn, H1Up, Owner};
use crate::http2::{
    self,
    client::{H2Conn, Owner as _, Place},
};
use crate::seam::ask::Notice;
use crate::shared::Shared;

const MAX_PER_ADDRESS: usize = 1_024; // connections, of all workers together; daprd's bound towards an app
const GROW_AT: usize = 64; // calls on each connection before another is dialled beside them
const NO_MORE: Duration = Duration::from_secs(1); // after a dial that failed beside connections that go on, until the next to have more
/// App servers close idle connections after 2 s (gunicorn), 5 s (Node, uvicorn) or more, and a request that meets the close is lost.
const H1_IDLE: Duration = Duration::from_millis(1_500);

/// What a connection is for: keyed by identity *and* address, so that one made for one callee never serves another.
/// `tunnel`: through the proxy `via` even in plaintext.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub cluster: Arc<str>,
    pub address: Arc<str>,
    pub wire: Wire,
    pub tls: Tls,
    pub expect: Arc<[String]>,
    pub connect: Duration,
    pub via: Option<Arc<Via>>,
    pub tunnel: bool,
}

/// A connection with room for one call, taken.
pub enum Connection {
    H2(Place),
    H1(H1Conn),
}

impl Connection {
    /// Whether the proxy at the other end is a daprd, and not one of ours.
    pub fn is_daprd(&self) -> bool {
        matches!(self, Self::H2(place) if place.conn.is_daprd())
    }

    /// Begin the call.
    pub fn start(self, head: RawHead, end: bool) -> Result<Up, Lost> {
        match self {
            Self::H2(place) => place.start(head, end).map(Up::H2),
            Self::H1(conn) => H1Up::start(conn, head, end).map(Up::H1),
        }
    }
}

/// What a dialled connection is.
pub enum Fresh {
    H2(Rc<H2Conn>),
    H1(H1Conn),
}

type Waiter = oneshot::Sender<Result<Connection, Lost>>;

/// Connections to one origin. `open`: HTTP/1.1 ones, idle or not. Invariant: `dialling` never exceeds the calls waiting.
struct Host {
    origin: Origin,
    shared: Weak<Shared>,
    state: RefCell<HostState>,
}

#[derive(Default)]
struct HostState {
    shared_ones: Vec<Rc<H2Conn>>,
    idle: Vec<H1Conn>,
    open: usize,
    waiting: VecDeque<Waiter>,
    dialling: usize,
    retired: bool,
    /// A dial failed while others stood: until then none is made but for calls that wait.
    no_more_until: Option<Instant>,
}

/// Hosts by origin.
///
/// `terms`: every HTTP/2 connection, also those that take no more calls, by whose word it ends with its certificates.
#[derive(Default)]
pub struct Pool {
    hosts: RefCell<HashMap<Origin, Rc<Host>, foldhash::fast::RandomState>>,
    terms: RefCell<Vec<Weak<Leaving>>>,
    /// Calls on connections of HTTP/2.
    pub streams: Rc<Cell<usize>>,
}

impl Pool {
    /// A connection with room.
    pub fn take(&self, origin: &Origin) -> Option<Connection> {
        let host = self.hosts.borrow().get(origin).cloned()?;
        host.take()
    }

    /// A connection, once there is one.
    pub async fn get(&self, shared: &Rc<Shared>, origin: &Origin) -> Result<Connection, Lost> {
        let host = self.hosts.borrow_mut().entry(origin.clone()).or_insert_with(|| Host::new(shared, origin)).clone();
        let (waiter, served) = oneshot::channel();
        host.state.borrow_mut().waiting.push_back(waiter);
        host.grow();
        served.await.unwrap_or_else(|_| Err(Lost::new(Cause::Connect, "the proxy is shutting down")))
    }

    /// Addresses that are gone from a cluster: no new calls on their connections.
    pub fn retire(&self, cluster: &str, addresses: &[Arc<str>]) {
        self.retire_where(|origin| *origin.cluster == *cluster && addresses.contains(&origin.address));
    }

    /// The identity was renewed: connections under the old one drain.
    pub fn retire_mesh(&self) {
        self.retire_where(|origin| origin.tls == Tls::Mesh);
    }

    /// Let go of every connection: idle ones of HTTP/1.1 hold what holds the pool.
    pub fn end(&self) {
        self.retire_where(|_| true);
    }

    fn retire_where(&self, matches: impl Fn(&Origin) -> bool) {
        let gone: Vec<Rc<Host>> = {
            let mut hosts = self.hosts.borrow_mut();
            let keys: Vec<Origin> = hosts.keys().filter(|origin| matches(origin)).cloned().collect();
            keys.iter().filter_map(|origin| hosts.remove(origin)).collect()
        };
        for host in gone {
            // Calls that wait go on waiting on a host of the new kind, if any calls for it; the old one serves who waits and is gone.
            let mut state = host.state.borrow_mut();
            state.retired = true;
            let (shared_ones, idle) = (std::mem::take(&mut state.shared_ones), std::mem::take(&mut state.idle));
            state.open -= idle.len();
            drop(state);
            host.count(-((shared_ones.len() + idle.len()) as i64));
        }
    }

    /// Have a connection end with its certificates.
    pub fn watch(&self, leaving: &Rc<Leaving>) {
        self.terms.borrow_mut().push(Rc::downgrade(leaving));
    }

    /// Have connections leave before their certificates end, and end soon after; returns how many were ended so.
    pub fn check_terms(&self, wall: SystemTime) -> usize {
        let mut ended = 0;
        self.terms.borrow_mut().retain(|leaving| {
            let Some(leaving) = leaving.upgrade() else { return false };
            ended += usize::from(leaving.check_term(wall));
            true
        });
        ended
    }

    /// Let go of what was idle for too long, and of what leaves.
    pub fn sweep(&self, now: Instant, idle: Duration) {
        let hosts: Vec<Rc<Host>> = self.hosts.borrow().values().cloned().collect();
        for host in hosts {
            let mut state = host.state.borrow_mut();
            let before = state.shared_ones.len() + state.idle.len();
            state.shared_ones.retain(|conn| {
                !conn.closed.get()
                    && !conn.leaving.is_leaving()
                    && (conn.in_flight.get() > 0 || now.saturating_duration_since(conn.active_at.get()) <= idle)
            });
            let kept = state.idle.len();
            state.idle.retain(|conn| now.saturating_duration_since(conn.active_at) <= H1_IDLE.min(idle));
            state.open -= kept - state.idle.len();
            let gone = before - state.shared_ones.len() - state.idle.len();
            let is_empty = state.shared_ones.is_empty() && state.open == 0 && state.waiting.is_empty() && state.dialling == 0;
            drop(state);
            host.count(-(gone as i64));
            if is_empty {
                self.hosts.borrow_mut().remove(&host.origin);
            }
        }
    }
}

impl Host {
    fn new(shared: &Rc<Shared>, origin: &Origin) -> Rc<Self> {
        Rc::new(Self { origin: origin.clone(), shared: Rc::downgrade(shared), state: RefCell::default() })
    }

    fn count(&self, change: i64) {
        if let Some(shared) = self.shared.upgrade() {
            shared.inbox.stats.upstream.fetch_add(change, Ordering::Relaxed);
        }
    }

    fn take(self: &Rc<Self>) -> Option<Connection> {
        let mut state = self.state.borrow_mut();
        if self.origin.wire == Wire::Http1 {
            while let Some(mut conn) = state.idle.pop() {
                if conn.active_at.elapsed() <= H1_IDLE && conn.is_alive() {
                    conn.leased = true;
                    return Some(Connection::H1(conn));
                }
                state.open -= 1;
                self.count(-1);
            }
            return None;
        }
        // The first that isn't busy: fewer connections fill larger batches, and those that a peak left behind get idle.
        let with_room = || state.shared_ones.iter().filter(|conn| conn.capacity() > 0);
        let unhurried = with_room().find(|conn| conn.in_flight.get() < GROW_AT);
        let found = unhurried.or_else(|| with_room().min_by_key(|conn| conn.in_flight.get())).cloned();
        drop(state);
        let conn = found?;
        if conn.in_flight.get() >= GROW_AT {
            self.grow();
        }
        let owner: Weak<Self> = Rc::downgrade(self);
        Some(Connection::H2(Place::take(&conn, owner)))
    }

    fn grow(self: &Rc<Self>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut state = self.state.borrow_mut();
        state.waiting.retain(|waiter| !waiter.is_closed());
        if state.waiting.is_empty() && state.no_more_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let per_connection = if self.origin.wire == Wire::Http1 { 1 } else { GROW_AT };
        let wanted = state.waiting.len().max(1).div_ceil(per_connection);
        let most = (MAX_PER_ADDRESS / shared.worker_index.of).max(1);
        let room = most.saturating_sub(state.shared_ones.len() + state.open + state.dialling);
        for _ in 0..wanted.saturating_sub(state.dialling).min(room) {
            state.dialling += 1;
            tokio::task::spawn_local(self.clone().dial(shared.clone()));
        }
    }

    async fn dial(self: Rc<Self>, shared: Rc<Shared>) {
        let host = Rc::downgrade(&self);
        let changed = move || {
            if let Some(host) = host.upgrade() {
                host.forget_closed();
            }
        };
        let dialled = tokio::time::timeout(self.origin.connect, dial::connect(&shared, &self.origin, changed)).await;
        let late = || {
            let through = self.origin.via.as_ref().map(|via| format!(" through {}", via.who())).unwrap_or_default();
            Lost::new(Cause::Connect, format!("no connection within {} s{through}", self.origin.connect.as_secs_f64()))
        };
        match dialled.unwrap_or_else(|_| Err(late())) {
            Ok(Fresh::H2(conn)) if conn.capacity() == 0 => {
                // Dialling it again at once would go on for ever.
                self.failed(
                    &shared,
                    &Lost::new(Cause::Connect, "it accepts no streams (its limit is 0), or closed the connection at once"),
                );
            }
            Ok(fresh) => {
                let mut state = self.state.borrow_mut();
                state.dialling -= 1;
                match fresh {
                    Fresh::H2(conn) => state.shared_ones.push(conn),
                    Fresh::H1(mut conn) => {
                        state.open += 1;
                        let owner: Rc<dyn Owner> = self.clone();
                        conn.set_owner(Rc::downgrade(&owner));
                        state.idle.push(conn);
                    }
                }
                drop(state);
                self.count(1);
                self.serve();
                self.let_go_if_retired();
            }
            Err(lost) => self.failed(&shared, &lost),
        }
    }

    fn failed(&self, shared: &Shared, lost: &Lost) {
        shared.note(Notice::UpstreamFailed {
            cluster: self.origin.cluster.clone(),
            address: self.origin.address.clone(),
            reason: lost.detail.clone(),
        });
        let waiting = {
            let mut state = self.state.borrow_mut();
            state.dialling -= 1;
            if !state.shared_ones.is_empty() {
                state.no_more_until = Some(Instant::now() + NO_MORE); // those go on: the peer may let us have no more of them
            }
            if state.dialling > 0 && state.shared_ones.iter().any(|conn| conn.capacity() > 0) {
                return;
            }
            std::mem::take(&mut state.waiting)
        };
        for waiter in waiting {
            drop(waiter.send(Err(Lost::new(lost.cause, lost.detail.clone()))));
        }
    }

    fn serve(self: &Rc<Self>) {
        loop {
            self.state.borrow_mut().waiting.retain(|waiter| !waiter.is_closed());
            if self.state.borrow().waiting.is_empty() {
                return;
            }
            let Some(connection) = self.take() else { return self.grow() };
            let waiter = self.state.borrow_mut().waiting.pop_front();
            if let Some(waiter) = waiter {
                if let Err(Ok(Connection::H1(mut conn))) = waiter.send(Ok(connection)) {
                    conn.leased = false;
                    self.state.borrow_mut().idle.push(conn);
                }
            }
        }
    }

    fn forget_closed(self: &Rc<Self>) {
        let gone = {
            let mut state = self.state.borrow_mut();
            let before = state.shared_ones.len();
            state.shared_ones.retain(|conn| !conn.closed.get());
            before - state.shared_ones.len()
        };
        self.count(-(gone as i64));
        if !self.state.borrow().waiting.is_empty() {
            self.serve();
        }
    }

    fn let_go_if_retired(&self) {
        let mut state = self.state.borrow_mut();
        if state.retired && state.waiting.is_empty() {
            let gone = state.shared_ones.len() + state.idle.len();
            state.open -= state.idle.len();
            state.shared_ones.clear();
            state.idle.clear();
            drop(state);
            self.count(-(gone as i64));
        }
    }
}

impl Owner for Host {
    fn put_back(self: Rc<Self>, conn: H1Conn) {
        {
            let mut state = self.state.borrow_mut();
            if state.retired && state.waiting.is_empty() {
                state.open -= 1;
                drop(state);
                return self.count(-1);
            }
            state.idle.push(conn);
        }
        self.serve();
    }

    fn forget_one(self: Rc<Self>) {
        self.state.borrow_mut().open -= 1;
        self.count(-1);
        self.freed();
    }
}

impl http2::client::Owner for Host {
    fn freed(self: Rc<Self>) {
        if !self.state.borrow().waiting.is_empty() {
            self.serve();
        }
    }
}
