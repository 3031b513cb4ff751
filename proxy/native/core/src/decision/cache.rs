//! Kept decisions, found again by what their deciders read: a tree per listener, as in `portable/plans.py`.
//!
//! At each node the facet that the decider asked for next, an edge per answer, a decision at the end. As deciders are pure, heads
//! with equal answers so far are asked the same next question. Bounded: a full cache starts afresh.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::call::cause::Cause;
use crate::decision::plan::{Decision, Plan, Read, Reply};
use crate::decision::tables::Tables;
use crate::head::Head;

const MAX_KEPT: usize = 10_000;
const FEW: usize = 8;

/// A decision in force; `dead` once a scope was bumped. `replies`: its ready-made answers, fetched when first needed.
#[derive(Debug)]
pub struct Kept {
    pub decision: Decision,
    dead: Cell<bool>,
    replies: RefCell<HashMap<Cause, Rc<Reply>>>,
}

impl Kept {
    /// A decision, not yet kept anywhere.
    pub fn new(decision: Decision) -> Rc<Self> {
        Rc::new(Self { decision, dead: Cell::new(false), replies: RefCell::default() })
    }

    /// The Plan, if it is one.
    pub fn plan(&self) -> Option<&Plan> {
        match &self.decision {
            Decision::Plan(plan) => Some(plan),
            Decision::Reply(_) => None,
        }
    }

    /// The answer for a cause, if it was fetched before.
    pub fn reply(&self, cause: Cause) -> Option<Rc<Reply>> {
        self.replies.borrow().get(&cause).cloned()
    }

    /// Remember the answer for a cause.
    pub fn set_reply(&self, cause: Cause, reply: Rc<Reply>) {
        self.replies.borrow_mut().insert(cause, reply);
    }
}

#[derive(Debug, Default)]
struct Node {
    read: Option<Read>,
    edges: Edges,
    kept: OnceCell<Rc<Kept>>,
}

/// The nodes after one, by the answer. Most nodes have but a few, found sooner one by one than by a hash.
#[derive(Debug)]
enum Edges {
    Few(Vec<(Box<[u8]>, Node)>),
    Many(HashMap<Box<[u8]>, Node>),
}

impl Default for Edges {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Edges {
    fn get(&self, answer: &[u8]) -> Option<&Node> {
        match self {
            Self::Few(nodes) => nodes.iter().find(|(known, _)| **known == *answer).map(|(_, node)| node),
            Self::Many(nodes) => nodes.get(answer),
        }
    }

    fn get_or_add(&mut self, answer: &[u8]) -> Option<&mut Node> {
        if let Self::Few(nodes) = self {
            if nodes.len() < FEW || nodes.iter().any(|(known, _)| **known == *answer) {
                let place = nodes.iter().position(|(known, _)| **known == *answer).unwrap_or(nodes.len());
                if place == nodes.len() {
                    nodes.push((answer.into(), Node::default()));
                }
                return match self {
                    Self::Few(nodes) => nodes.get_mut(place).map(|(_, node)| node),
                    Self::Many(_) => None,
                };
            }
            *self = Self::Many(std::mem::take(nodes).into_iter().collect());
        }
        match self {
            Self::Few(_) => None,
            Self::Many(nodes) => Some(nodes.entry(answer.into()).or_default()),
        }
    }

    fn values(&self) -> Box<dyn Iterator<Item = &Node> + '_> {
        match self {
            Self::Few(nodes) => Box::new(nodes.iter().map(|(_, node)| node)),
            Self::Many(nodes) => Box::new(nodes.values()),
        }
    }

    fn retain(&mut self, keep: impl Fn(&mut Node) -> bool) {
        match self {
            Self::Few(nodes) => nodes.retain_mut(|(_, node)| keep(node)),
            Self::Many(nodes) => nodes.retain(|_, node| keep(node)),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(nodes) => nodes.is_empty(),
            Self::Many(nodes) => nodes.is_empty(),
        }
    }
}

/// What is known of a head.
#[derive(Debug)]
pub enum Found {
    Kept(Rc<Kept>),
    /// No kept decision covers it.
    Nothing,
    /// Which it is turns on its path's class in a table that only the decider can read.
    Class(u32),
}

/// Owns the trees, which kept decisions belong to a scope, and how many are kept.
#[derive(Debug, Default)]
pub struct PlanCache {
    roots: HashMap<Arc<str>, Node, foldhash::fast::RandomState>,
    scopes: HashMap<Arc<str>, Vec<Weak<Kept>>>,
    buffer: Vec<u8>,
    size: usize,
}

impl PlanCache {
    /// How many decisions are kept.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The kept decision that covers a head.
    pub fn find(&mut self, head: &Head, tables: &Tables) -> Found {
        let Some(mut node) = self.roots.get(&head.entry.listener) else { return Found::Nothing };
        while let Some(read) = &node.read {
            self.buffer.clear();
            if !tables.answer(read, head, &mut self.buffer) {
                return if let Read::Path(number) = read { Found::Class(*number) } else { Found::Nothing };
            }
            let Some(next) = node.edges.get(self.buffer.as_slice()) else { return Found::Nothing };
            node = next;
        }
        match node.kept.get() {
            Some(kept) if !kept.dead.get() => Found::Kept(kept.clone()),
            _ => Found::Nothing,
        }
    }

    /// Keep what the decider said of a head.
    pub fn keep(&mut self, head: &Head, reads: Vec<(Read, Option<u64>)>, kept: &Rc<Kept>, tables: &mut Tables) {
        if self.size >= MAX_KEPT {
            *self = Self::default();
        }
        for (read, class) in &reads {
            if let (Read::Path(number), Some(class)) = (read, class) {
                tables.learn(*number, &head.path, *class);
            }
        }
        let mut node = self.roots.entry(head.entry.listener.clone()).or_default();
        for (read, _) in reads {
            if node.read.as_ref() != Some(&read) {
                // Only a decider that changed its mind (a new snapshot) asks something else here: the old branch is stale.
                self.size -= count(node);
                *node = Node { read: Some(read), ..Node::default() };
            }
            self.buffer.clear();
            if let Some(read) = &node.read {
                if !tables.answer(read, head, &mut self.buffer) {
                    return; // the table changed meanwhile: it is asked for again
                }
            }
            let Some(next) = node.edges.get_or_add(&self.buffer) else { return };
            node = next;
        }
        self.size -= count(node);
        *node = Node { kept: OnceCell::from(kept.clone()), ..Node::default() };
        self.size += 1;
        for scope in kept.decision.scopes() {
            let members = self.scopes.entry(scope.clone()).or_default();
            if members.len() == members.capacity() {
                members.retain(|member| member.strong_count() > 0);
            }
            members.push(Rc::downgrade(kept));
        }
    }

    /// Drop every kept decision of a scope.
    pub fn bump(&mut self, scope: &str) {
        for kept in self.scopes.remove(scope).unwrap_or_default() {
            if let Some(kept) = kept.upgrade() {
                kept.dead.set(true);
            }
        }
        for root in self.roots.values_mut() {
            prune(root);
        }
        self.size = self.roots.values().map(count).sum();
    }
}

fn count(node: &Node) -> usize {
    usize::from(node.kept.get().is_some()) + node.edges.values().map(count).sum::<usize>()
}

/// Let go of what is dead; true where nothing is left.
fn prune(node: &mut Node) -> bool {
    node.edges.retain(|next| !prune(next));
    if node.kept.get().is_some_and(|kept| kept.dead.get()) {
        node.kept.take();
    }
    node.edges.is_empty() && node.kept.get().is_none()
}
