//! What a connection is asked from outside: to say goodbye, to end, to rest.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

/// What others ask of one connection, and whether it has calls.
#[derive(Debug)]
pub struct Leaving {
    asked: Cell<bool>,
    over: Cell<bool>,
    tired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    pub calls: Cell<usize>,
    pub active_at: Cell<Instant>,
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
        })
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
