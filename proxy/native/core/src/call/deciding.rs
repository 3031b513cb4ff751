//! What a call asks of the side that decides: a decision where none is kept, classes, spans, explanations.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::call::ends::Down;
use crate::call::exchange::{Call, Stop};
use crate::decision::cache::{Found, Kept};
use crate::decision::plan::{Reply, Verdict};
use crate::head::Protocol;
use crate::seam::ask::Question;

/// What came of asking.
pub enum Decided {
    Kept(Rc<Kept>),
    /// A hold that nobody ended, and for what.
    Late(Box<Reply>, Arc<str>),
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
        let mut until: Option<Instant> = None;
        loop {
            let found = self.find(down).await?;
            if let Some(kept) = found {
                self.shared.inbox.count_lookup(true);
                return Ok(Decided::Kept(kept));
            }
            self.shared.inbox.count_lookup(false);
            let wakes = self.shared.wakes();
            let (answer, verdict) = oneshot::channel();
            self.shared.inbox.ask(Question::Decide { head: self.head.clone(), answer });
            let (verdict, as_of) = self.guarded(down, verdict).await?.map_err(|_| Stop::Silent)?;
            self.shared.apply();
            let (key, within, then) = match verdict {
                Verdict::Keep { decision, reads } => {
                    let kept = Kept::new(decision);
                    if self.shared.is_current(as_of) {
                        let mut plans = self.shared.plans.borrow_mut();
                        plans.keep(&self.head, reads, &kept, &mut self.shared.tables.borrow_mut());
                        self.shared.inbox.stats.plans.store(plans.len() as i64, Ordering::Relaxed);
                    }
                    return Ok(Decided::Kept(kept));
                }
                Verdict::Hold { key, within, then } => (key, within, then),
            };
            let until = *until.get_or_insert_with(|| Instant::now() + within);
            if Instant::now() >= until {
                return Ok(Decided::Late(then, key));
            }
            if wakes == self.shared.wakes() {
                let woken = self.shared.held(&key);
                let held = async move { tokio::time::timeout_at(until.into(), woken.notified()).await.is_ok() };
                if !self.guarded(down, held).await? {
                    return Ok(Decided::Late(then, key));
                }
            }
        }
    }

    /// The kept decision for this head, once the classes of its path that it turns on are known.
    async fn find(&mut self, down: &mut Down) -> Result<Option<Rc<Kept>>, Stop> {
        loop {
            let found = self.shared.plans.borrow_mut().find(&self.head, &self.shared.tables.borrow());
            let table = match found {
                Found::Kept(kept) => return Ok(Some(kept)),
                Found::Nothing => return Ok(None),
                Found::Class(table) => table,
            };
            let (answer, told) = oneshot::channel();
            self.shared.inbox.ask(Question::Class { head: self.head.clone(), table, answer });
            let (class, as_of) = self.guarded(down, told).await?.map_err(|_| Stop::Silent)?;
            self.shared.apply();
            match class {
                Some(class) if self.shared.is_current(as_of) => {
                    self.shared.tables.borrow_mut().learn(table, &self.head.path, class);
                }
                _ => return Ok(None),
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
        let listener = self.head.entry.listener.clone();
        self.shared.inbox.ask(Question::Undecided { listener, bad_request, answer });
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
        if self.span.is_none() {
            let grpc = self.head.protocol == Protocol::Grpc;
            self.span = self.shared.sampler.get().map(|sampler| sampler.begin(&self.head.headers, grpc));
        }
        self.span.is_some()
    }
}
