//! Kept decisions, found again by what their deciders read: a tree per listener, as in `portable/plans.py`.
//!
//! At each node the facet that the decider asked for next, an edge per answer, a decision at the end. As deciders are pure, heads
//! with equal answers so far are asked the same next question. Bounded in bytes: Plans that find no room start all afresh, ready-made
//! answers only the answers, so that callers who are refused can't push out the decisions of others.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::call::cause::Cause;
use crate::decision::plan::{Decision, Plan, Read, Reply};
use crate::decision::tables::Tables;
use crate::head::Head;

const MAX_PLAN_BYTES: usize = 32 * 1024 * 1024; // as in `portable/plans.py`, for each worker
const MAX_REPLY_BYTES: usize = 8 * 1024 * 1024;
const PLAN_BYTES: usize = 16 * 1024; // what one takes on both sides of the boundary, besides its key; measured
const REPLY_BYTES: usize = 3 * 1024;
const EDGE_BYTES: usize = 64;
const MAX_REPLIES: usize = 4; // ready-made answers that are kept with one Plan
const FEW: usize = 8;

/// A decision in force; `dead` once a scope was invalidated. `replies`: its ready-made answers, fetched when first needed.
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
        let mut replies = self.replies.borrow_mut();
        if replies.len() >= MAX_REPLIES {
            replies.clear();
        }
        replies.insert(cause, reply);
    }

    /// What is held for it with a key of so many bytes.
    fn held(&self, key_bytes: usize) -> Held {
        match &self.decision {
            Decision::Plan(_) => Held { count: 1, plan_bytes: key_bytes + PLAN_BYTES, reply_bytes: 0 },
            Decision::Reply(reply) => Held {
                count: 1,
                plan_bytes: 0,
                reply_bytes: key_bytes + REPLY_BYTES + 2 * (reply.body.len() + reply.grpc_message.len()), // Python's and ours
            },
        }
    }
}

/// How many decisions there are, and about how many bytes they take.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Held {
    count: usize,
    plan_bytes: usize,
    reply_bytes: usize,
}

impl std::ops::AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.plan_bytes += other.plan_bytes;
        self.reply_bytes += other.reply_bytes;
    }
}

impl std::ops::SubAssign for Held {
    fn sub_assign(&mut self, other: Self) {
        self.count -= other.count;
        self.plan_bytes -= other.plan_bytes;
        self.reply_bytes -= other.reply_bytes;
    }
}

#[derive(Debug)]
struct Leaf {
    kept: Rc<Kept>,
    held: Held,
}

#[derive(Debug, Default)]
struct Node {
    read: Option<Read>,
    edges: Edges,
    leaf: Option<Leaf>,
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
    held: Held,
}

impl PlanCache {
    /// How many decisions are kept.
    pub fn len(&self) -> usize {
        self.held.count
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.held.count == 0
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
        match &node.leaf {
            Some(leaf) if !leaf.kept.dead.get() => Found::Kept(leaf.kept.clone()),
            _ => Found::Nothing,
        }
    }

    /// Keep what the decider said of a head.
    pub fn keep(&mut self, head: &Head, reads: Vec<(Read, Option<u64>)>, kept: &Rc<Kept>, tables: &mut Tables) {
        if self.held.plan_bytes > MAX_PLAN_BYTES {
            *self = Self::default();
        } else if self.held.reply_bytes > MAX_REPLY_BYTES {
            self.drop_where(|kept| kept.plan().is_none());
        }
        for (read, class) in &reads {
            if let (Read::Path(number), Some(class)) = (read, class) {
                tables.learn(*number, &head.path, *class);
            }
        }
        let mut key_bytes = 0;
        let mut node = self.roots.entry(head.entry.listener.clone()).or_default();
        for (read, _) in reads {
            if node.read.as_ref() != Some(&read) {
                // Only a decider that changed its mind (a new snapshot) asks something else here: the old branch is stale.
                self.held -= held(node);
                *node = Node { read: Some(read), ..Node::default() };
            }
            self.buffer.clear();
            if let Some(read) = &node.read {
                if !tables.answer(read, head, &mut self.buffer) {
                    return; // the table changed meanwhile: it is asked for again
                }
            }
            key_bytes += self.buffer.len() + EDGE_BYTES;
            let Some(next) = node.edges.get_or_add(&self.buffer) else { return };
            node = next;
        }
        self.held -= held(node);
        let leaf = Leaf { kept: kept.clone(), held: kept.held(key_bytes) };
        self.held += leaf.held;
        *node = Node { leaf: Some(leaf), ..Node::default() };
        for scope in kept.decision.scopes() {
            let members = self.scopes.entry(scope.clone()).or_default();
            if members.len() == members.capacity() {
                members.retain(|member| member.strong_count() > 0);
            }
            members.push(Rc::downgrade(kept));
        }
    }

    /// Drop every kept decision of a scope.
    pub fn invalidate(&mut self, scope: &str) {
        for kept in self.scopes.remove(scope).unwrap_or_default() {
            if let Some(kept) = kept.upgrade() {
                kept.dead.set(true);
            }
        }
        self.drop_where(|kept| kept.dead.get());
    }

    fn drop_where(&mut self, is_over: impl Fn(&Kept) -> bool) {
        for root in self.roots.values_mut() {
            prune(root, &is_over);
        }
        self.held = Held::default();
        for root in self.roots.values() {
            self.held += held(root);
        }
    }
}

fn held(node: &Node) -> Held {
    let mut sum = node.leaf.as_ref().map(|leaf| leaf.held).unwrap_or_default();
    for next in node.edges.values() {
        sum += held(next);
    }
    sum
}

/// Let go of what is over; true where nothing is left.
fn prune(node: &mut Node, is_over: &impl Fn(&Kept) -> bool) -> bool {
    node.edges.retain(|next| !prune(next, is_over));
    if node.leaf.as_ref().is_some_and(|leaf| is_over(&leaf.kept)) {
        node.leaf = None;
    }
    node.edges.is_empty() && node.leaf.is_none()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::decision::plan::Token;
    use crate::fields::Headers;
    use crate::head::{Entry, Framing, Protocol, RawHead};

    fn reply(body_bytes: usize) -> Decision {
        Decision::Reply(Box::new(Reply {
            token: Token::new(1, 1, Arc::default()),
            cause: Cause::Denied,
            status: 403,
            headers: Vec::new(),
            body: Bytes::from(vec![0; body_bytes]),
            grpc_code: 7,
            grpc_message: String::new(),
            scopes: vec!["access".into()],
            gates: Vec::new(),
        }))
    }

    fn plan() -> Decision {
        Decision::Plan(Box::new(Plan {
            token: Token::new(2, 2, Arc::default()),
            routes: Vec::new(),
            retries: Vec::new(),
            gates: Vec::new(),
            breaker: None,
            budget: None,
            hedge: None,
            connect: Duration::ZERO,
            attempt: None,
            total: None,
            body_bytes: None,
            replay_bytes: 0,
            reply_edits: None,
            upper_request: false,
            upper_response: false,
            asks: false,
            by_daprd: None,
            denials_fail: false,
            scopes: vec!["access".into()],
        }))
    }

    fn head(method: &str) -> Head {
        let raw = RawHead {
            protocol: Protocol::Http1,
            method: Bytes::copy_from_slice(method.as_bytes()),
            authority: Bytes::new(),
            target: Bytes::from_static(b"/"),
            headers: Headers::new(),
            framing: Framing::None,
            length: None,
        };
        let entry = Entry { listener: "test".into(), peer: None, caller: None, address: "".into() };
        crate::head::read(raw, entry).0
    }

    fn is_kept(cache: &mut PlanCache, method: &str) -> bool {
        matches!(cache.find(&head(method), &Tables::default()), Found::Kept(_))
    }

    #[test]
    fn kept_decisions_are_bounded_in_bytes_and_answers_push_out_no_plan() {
        let (mut cache, mut tables) = (PlanCache::default(), Tables::default());
        let mut keep = |cache: &mut PlanCache, method: &str, decision| {
            cache.keep(&head(method), vec![(Read::Method, None)], &Kept::new(decision), &mut tables);
        };
        keep(&mut cache, "PLAN", plan());
        for number in 0..2_000 {
            keep(&mut cache, &number.to_string(), reply(number));
            assert!(cache.held.reply_bytes <= MAX_REPLY_BYTES + REPLY_BYTES + 2 * number + EDGE_BYTES + 4);
        }
        assert!(is_kept(&mut cache, "PLAN") && is_kept(&mut cache, "1999") && !is_kept(&mut cache, "0"));
        for number in 0..200_000 {
            keep(&mut cache, &format!("P{number}"), plan());
            assert!(cache.held.plan_bytes <= MAX_PLAN_BYTES + 2 * PLAN_BYTES);
        }
        assert!(!is_kept(&mut cache, "PLAN") && is_kept(&mut cache, "P199999"));
        assert_eq!(held(&cache.roots["test"]), cache.held);
        cache.invalidate("access");
        assert_eq!((cache.len(), cache.held), (0, Held::default()));
    }
}
