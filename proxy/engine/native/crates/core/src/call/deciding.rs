//! What a call asks of the side that decides: a decision where none is kept, classes, spans, explanations.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::call::ends::Down;
use crate::call::exchange::{Call, Stop};
use crate::decision::cache::{Found, Kept};
use crate::decision::plan::{Reply, Verdict};
use crate::head::{Head, Protocol};
use crate::seam::ask::Question;
use crate::shared::Shared;

/// What came of asking.
pub enum Decided {
    Kept(Rc<Kept>),
    /// A hold that nobody ended, and for what.
    Late(Box<Reply>, Arc<str>),
}

/// What the side that decides said.
enum Asked {
    Kept(Rc<Kept>),
    Hold { key: Arc<str>, within: Duration, then: Box<Reply> },
}

/// The decision about the head of a call under way by what holds now; `None` where there is none at once.
pub async fn decide_again(shared: &Rc<Shared>, head: &Arc<Head>) -> Option<Rc<Kept>> {
    if let Some(kept) = find(shared.clone(), head.clone()).await.ok()? {
        return Some(kept);
    }
    match ask(shared.clone(), head.clone()).await.ok()? {
        Asked::Kept(kept) => Some(kept),
        Asked::Hold { .. } => None,
    }
}

/// The kept decision for a head, once the classes of its path that it turns on are known.
async fn find(shared: Rc<Shared>, head: Arc<Head>) -> Result<Option<Rc<Kept>>, Stop> {
    loop {
        let found = shared.plans.borrow_mut().find(&head, &shared.tables.borrow());
        let table = match found {
            Found::Kept(kept) => return Ok(Some(kept)),
            Found::Nothing => return Ok(None),
            Found::Class(table) => table,
        };
        let (answer, told) = oneshot::channel();
        shared.inbox.ask(Question::Class { head: head.clone(), table, answer });
        let (class, as_of) = told.await.map_err(|_| Stop::Silent)?;
        shared.apply();
        match class {
            Some(class) if shared.is_current(as_of) => shared.tables.borrow_mut().learn(table, &head.path, class),
            _ => return Ok(None),
        }
    }
}

/// A fresh decision about a head, kept for others like it.
async fn ask(shared: Rc<Shared>, head: Arc<Head>) -> Result<Asked, Stop> {
    let (answer, verdict) = oneshot::channel();
    shared.inbox.ask(Question::Decide { head: head.clone(), answer });
    let (verdict, as_of) = verdict.await.map_err(|_| Stop::Silent)?;
    shared.apply();
    Ok(match verdict {
        Verdict::Keep { decision, reads } => {
            let kept = Kept::new(decision);
            if let Some(reads) = reads.filter(|_| shared.is_current(as_of)) {
                let mut plans = shared.plans.borrow_mut();
                plans.keep(&head, reads, &kept, &mut shared.tables.borrow_mut());
                shared.inbox.stats.plans.store(plans.len() as i64, Ordering::Relaxed);
            }
            Asked::Kept(kept)
        }
        Verdict::Hold { key, within, then } => Asked::Hold { key, within, then },
    })
}

impl Call {
    pub fn find_now(&self) -> Found {
        let found = self.shared.plans.borrow_mut().find(&self.head, &self.shared.tables.borrow());
        if matches!(found, Found::Kept(_)) {
            self.shared.inbox.count_lookup(true);
        }
        found
    }

    pub async fn decide(&mut self, down: &mut Down) -> Result<Decided, Stop> {
        let mut held_at = None;
        let decided = self.decided(down, &mut held_at).await;
        self.held = held_at.map_or(Duration::ZERO, |at| at.elapsed());
        decided
    }

    /// `held_at`: since when it waits for its callee to be found.
    async fn decided(&mut self, down: &mut Down, held_at: &mut Option<Instant>) -> Result<Decided, Stop> {
        let mut until: Option<Instant> = None;
        loop {
            let found = self.guarded(down, find(self.shared.clone(), self.head.clone())).await??;
            if let Some(kept) = found {
                self.shared.inbox.count_lookup(true);
                return Ok(Decided::Kept(kept));
            }
            self.shared.inbox.count_lookup(false);
            let wakes = self.shared.wakes();
            let (key, within, then) = match self.guarded(down, ask(self.shared.clone(), self.head.clone())).await?? {
                Asked::Kept(kept) => return Ok(Decided::Kept(kept)),
                Asked::Hold { key, within, then } => (key, within, then),
            };
            if held_at.is_none() {
                *held_at = Some(Instant::now());
                self.tell_begun(then.token.id);
            }
            let until = *until.get_or_insert_with(|| Instant::now() + within);
            if Instant::now() >= until {
                return Ok(Decided::Late(then, key));
            }
            if wakes == self.shared.wakes() {
                let woken = self.shared.held(&key);
                // Late or not, ask again: the news may be in, and its push on the way.
                let held = async move { tokio::time::timeout_at(until.into(), woken.notified()).await.is_ok() };
                self.state.held_by.set(then.token.id);
                self.guarded(down, held).await?;
                self.state.held_by.set(0);
            }
        }
    }

    pub async fn explain(&self, key: Arc<str>) -> Result<String, Stop> {
        let (answer, told) = oneshot::channel();
        self.shared.inbox.ask(Question::Explain { key, answer });
        told.await.map_err(|_| Stop::Silent)
    }

    pub async fn undecided(&self, bad_request: Option<String>) -> Result<Box<Reply>, Stop> {
        let (answer, made) = oneshot::channel();
        self.shared.inbox.ask(Question::Undecided { head: self.head.clone(), bad_request, answer });
        made.await.map_err(|_| Stop::Silent)
    }

    /// This hop's span; it begins when first needed.
    pub async fn begin_span(&mut self, down: &mut Down) -> Result<(), Stop> {
        if self.span.is_none() {
            let (answer, begun) = oneshot::channel();
            self.shared.inbox.ask(Question::Span { head: self.head.clone(), answer });
            self.span = Some(self.guarded(down, begun).await?.map_err(|_| Stop::Silent)?);
        }
        Ok(())
    }

    /// The same for an answer of ours, whatever else would stop the call.
    pub async fn ask_span(&mut self) {
        let (answer, begun) = oneshot::channel();
        self.shared.inbox.ask(Question::Span { head: self.head.clone(), answer });
        self.span = begun.await.ok();
    }

    /// The same without a question; false where only the other side can begin it.
    pub fn begin_own_span(&mut self) -> bool {
        let sampling = self.kept.as_ref().map_or(0, |kept| kept.decision.token().sampling);
        self.begin_span_by(sampling)
    }

    /// The same by a sampling.
    pub fn begin_span_by(&mut self, sampling: i32) -> bool {
        if self.span.is_none() {
            let grpc = self.head.protocol == Protocol::Grpc;
            self.span = self.shared.begin_span(&self.head.headers, grpc, sampling);
        }
        self.span.is_some()
    }
}
