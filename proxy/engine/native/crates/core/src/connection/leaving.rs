//! What a connection is asked from outside: to drain (GOAWAY, or `Connection: close`), to end, to rest; and how long its certificates
//! let it live.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Instant, SystemTime};

use crate::limits::Limits;

/// What others ask of one connection, and whether it has calls.
#[derive(Debug)]
pub struct Leaving {
    asked: Cell<bool>,
    over: Cell<bool>,
    tired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    pub calls: Cell<usize>,
    pub active_at: Cell<Instant>,
    term: Cell<Option<Term>>,
}

/// TLS looks at a certificate in the handshake only (RFC 8446 §4.4.2), and connections are kept for as long as they are used: before the
/// certificate of either side that ends first does, a connection takes no more calls, and soon after it is closed with those left.
#[derive(Clone, Copy, Debug)]
struct Term {
    drain_at: SystemTime,
    end_at: SystemTime,
}

impl Leaving {
    /// Nobody has asked yet.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            asked: Cell::new(false),
            over: Cell::new(false),
            tired: Cell::new(false),
            waker: RefCell::default(),
            calls: Cell::new(0),
            active_at: Cell::new(Instant::now()),
            term: Cell::new(None),
        })
    }

    /// Live no longer than certificates that end at `ends_at`.
    pub fn limit(&self, ends_at: SystemTime, limits: &Limits) {
        let left = ends_at.duration_since(SystemTime::now()).unwrap_or_default();
        let lead = limits.expiry_lead.min(left / 4);
        self.term.set(Some(Term { drain_at: ends_at - lead, end_at: ends_at + limits.expiry_skew }));
    }

    /// Called every second or so: go before the certificates end, and at once after it. Returns whether it was cut off now.
    pub fn check_term(&self, wall: SystemTime) -> bool {
        let Some(term) = self.term.get() else { return false };
        if wall >= term.end_at && !self.over.get() {
            self.end();
            return true;
        }
        if wall >= term.drain_at && !self.asked.get() {
            self.ask();
        }
        false
    }

    /// Take no new calls; close once the last has ended.
    pub fn ask(&self) {
        self.asked.set(true);
        self.wake();
    }

    /// It has had no call for a while: hold no more than it must. Returns whether that is news.
    pub fn tire(&self) -> bool {
        let is_news = !self.tired.replace(true);
        if is_news {
            self.wake();
        }
        is_news
    }

    /// It goes on.
    pub fn refresh(&self) {
        self.tired.set(false);
    }

    /// Whether to hold no more than it must; who looks at `is_asked` is woken.
    pub fn is_tired(&self) -> bool {
        self.tired.get() && self.calls.get() == 0
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether to take no new calls.
    pub fn is_leaving(&self) -> bool {
        self.asked.get()
    }

    /// The engine stops: close now, whatever goes on.
    pub fn end(&self) {
        self.over.set(true);
        self.ask();
    }

    /// Whether to close now; who looks at `is_asked` is woken.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Whether to go; the task that asks is woken.
    pub fn is_asked(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.asked.get()
    }
}
