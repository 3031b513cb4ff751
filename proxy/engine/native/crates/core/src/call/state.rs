//! What others may do to a call under way: cut it, deny it, and see whether its caller stalls.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use crate::decision::cache::Kept;
use crate::head::Head;
use crate::limits::Limits;

/// The caller does not send what it announced.
pub const SLOW_BODY: &str = "slow-body";
/// The caller does not read what it asked for.
pub const SLOW_READER: &str = "slow-reader";

/// Why a call is cut.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    Ending,
    Stalled,
    Denied,
}

/// One call, seen from outside.
#[derive(Debug)]
pub struct CallState {
    pub head: Arc<Head>,
    /// Epoch nanoseconds.
    pub started_ns: u64,
    /// The status that it was answered with, and when.
    pub answered: Cell<Option<(u16, u64)>>,
    /// Of the decision that it is carried by, 0 before.
    pub carried_by: Cell<u64>,
    /// The token of the answer that it gets unless its callee is found in time, while it waits for that; 0: it does not.
    pub held_by: Cell<u64>,
    /// It came as a stream of HTTP/2.
    pub is_stream: Cell<bool>,
    /// Bytes of its request that are held.
    pub held_bytes: Cell<usize>,
    denial: RefCell<Option<Rc<Kept>>>,
    cut: Cell<Option<Cut>>,
    waker: RefCell<Option<Waker>>,
    /// What the caller is waited for, and the bytes that it has moved.
    waits: Cell<Option<&'static str>>,
    moved: Cell<u64>,
    /// When it last had moved enough, and how much that was.
    seen: Cell<Option<(Instant, u64)>>,
}

impl CallState {
    /// A call that nobody has looked at.
    pub fn new(head: Arc<Head>, started_ns: u64) -> Rc<Self> {
        Rc::new(Self {
            head,
            started_ns,
            answered: Cell::default(),
            carried_by: Cell::default(),
            held_by: Cell::default(),
            is_stream: Cell::default(),
            held_bytes: Cell::default(),
            denial: RefCell::default(),
            cut: Cell::default(),
            waker: RefCell::default(),
            waits: Cell::default(),
            moved: Cell::default(),
            seen: Cell::default(),
        })
    }

    /// End the call visibly.
    pub fn cut(&self) {
        self.end(Cut::Ending);
    }

    /// End the call by a newer decision, which denies it.
    pub fn deny(&self, decision: Rc<Kept>) {
        *self.denial.borrow_mut() = Some(decision);
        self.end(Cut::Denied);
    }

    /// The decision that denied the call.
    pub fn take_denial(&self) -> Option<Rc<Kept>> {
        self.denial.borrow_mut().take()
    }

    fn end(&self, cut: Cut) {
        self.cut.set(Some(cut));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether to end; the task that asks is woken.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Option<Cut> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.cut.get()
    }

    /// What the caller is waited for, if anything, and the bytes that it has moved.
    pub fn note_progress(&self, waits: Option<&'static str>, moved: u64) {
        self.waits.set(waits);
        self.moved.set(moved);
    }

    /// Cut off a caller that has stalled for too long; says what it was waited for.
    pub fn check_progress(&self, now: Instant, limits: &Limits) -> Option<&'static str> {
        let Some(waits) = self.waits.get() else {
            self.seen.set(None);
            return None;
        };
        let moved = self.moved.get();
        let enough = |before: u64| moved - before >= limits.stall_bytes;
        match self.seen.get() {
            Some((at, before)) if !enough(before) => {
                if now.saturating_duration_since(at) <= limits.stall || self.cut.get().is_some() {
                    return None;
                }
                self.end(Cut::Stalled);
                Some(waits)
            }
            _ => {
                self.seen.set(Some((now, moved)));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fields::Headers;
    use crate::head::{self, Entry, Framing, Protocol, RawHead};

    fn head() -> Arc<Head> {
        let entry = Entry { listener: "in".into(), peer: None, caller: None, address: "".into() };
        let raw = RawHead {
            protocol: Protocol::Http1,
            method: "GET".into(),
            authority: "a".into(),
            target: "/".into(),
            headers: Headers::new(),
            framing: Framing::None,
            length: None,
        };
        Arc::new(head::read(raw, entry).0)
    }

    #[test]
    fn only_who_is_waited_for_and_moves_too_little_stalls() {
        let limits = Limits { stall: Duration::from_secs(10), stall_bytes: 100, ..Limits::default() };
        let (state, start) = (CallState::new(head(), 0), Instant::now());
        let at = |second: u64| state.check_progress(start + Duration::from_secs(second), &limits);
        state.note_progress(Some(SLOW_BODY), 0);
        assert_eq!((at(0), at(9)), (None, None));
        state.note_progress(Some(SLOW_BODY), 100);
        assert_eq!((at(10), at(19)), (None, None)); // enough came in time
        state.note_progress(None, 100);
        assert_eq!(at(60), None); // others took their time
        state.note_progress(Some(SLOW_READER), 100);
        assert_eq!((at(61), at(70)), (None, None));
        state.note_progress(Some(SLOW_READER), 150);
        assert_eq!((at(72), at(73)), (Some(SLOW_READER), None));
        assert!(matches!(state.cut.get(), Some(Cut::Stalled)));
    }
}
