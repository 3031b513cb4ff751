//! A bound on calls in flight, with a bounded queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use tokio::sync::oneshot;

pub const QUEUE: usize = 1_024;

/// Owns how many are inside and who waits. Calls leave the gate that they entered, whatever stands there by then.
#[derive(Debug)]
pub struct Gate {
    limit: Cell<usize>,
    inside: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<Pass>>>,
}

/// Being inside; ends when dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Weak<Gate>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.upgrade() {
            gate.inside.set(gate.inside.get() - 1);
            gate.admit();
        }
    }
}

/// Why nobody gets in.
#[derive(Debug)]
pub struct Full;

impl Gate {
    /// A gate for so many.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { limit: Cell::new(limit), inside: Cell::new(0), waiting: RefCell::default() })
    }

    /// Come in, now or when there is room.
    pub async fn enter(self: &Rc<Self>) -> Result<Pass, Full> {
        let ticket = {
            let mut waiting = self.waiting.borrow_mut();
            if self.inside.get() < self.limit.get() {
                return Ok(self.pass());
            }
            waiting.retain(|ticket| !ticket.is_closed());
            if waiting.len() >= QUEUE {
                return Err(Full);
            }
            let (ticket, admitted) = oneshot::channel();
            waiting.push_back(ticket);
            admitted
        };
        ticket.await.map_err(|_| Full)
    }

    fn pass(self: &Rc<Self>) -> Pass {
        self.inside.set(self.inside.get() + 1);
        Pass { gate: Rc::downgrade(self) }
    }

    /// Another bound; who waits may come in at once.
    pub fn resize(self: &Rc<Self>, limit: usize) {
        self.limit.set(limit);
        self.admit();
    }

    fn admit(self: &Rc<Self>) {
        while self.inside.get() < self.limit.get() {
            let Some(ticket) = self.waiting.borrow_mut().pop_front() else { return };
            if !ticket.is_closed() {
                // A pass that comes back has lowered the count again by its drop.
                drop(ticket.send(self.pass()));
            }
        }
    }
}
