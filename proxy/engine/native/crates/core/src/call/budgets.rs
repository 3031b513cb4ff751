//! Retry budgets: what calls deposit and retries take, by target. Equal to `proxy/engine/portable/budgets.py`; all workers share them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const SLOTS: usize = 10; // of a share's time: what a call deposits is gone a tenth of it too early at most
const MAX_BUDGETS: usize = 1_024; // as in `proxy/contract/budgets.py`

/// What a budget goes by; see `proxy/contract/budgets.py`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    Share { ratio: f64, min_per_s: f64, ttl_s: f64 },
    Throttle { max_tokens: f64, token_ratio: f64 },
}

#[derive(Debug)]
enum State {
    /// What was deposited and taken in each part of the time, and which of them is the newest.
    Share([f64; SLOTS], u64),
    /// The tokens that are left.
    Throttle(f64),
}

/// That of one target.
#[derive(Debug)]
pub struct Budget {
    rule: Rule,
    began: Instant,
    state: Mutex<State>,
}

impl Budget {
    /// A full one.
    pub fn new(rule: Rule) -> Self {
        let state = match rule {
            Rule::Share { .. } => State::Share([0.0; SLOTS], 0),
            Rule::Throttle { max_tokens, .. } => State::Throttle(max_tokens),
        };
        Self { rule, began: Instant::now(), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_s(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// A call begins.
    pub fn begun(&self) {
        self.begun_at(self.now_s());
    }

    /// An attempt failed.
    pub fn failed(&self) {
        if let State::Throttle(tokens) = &mut *self.lock() {
            *tokens = (*tokens - 1.0).max(0.0);
        }
    }

    /// A call went well.
    pub fn succeeded(&self) {
        if let (State::Throttle(tokens), Rule::Throttle { max_tokens, token_ratio }) = (&mut *self.lock(), self.rule) {
            *tokens = (*tokens + token_ratio).min(max_tokens);
        }
    }

    /// Whether a retry may be made; it is counted.
    pub fn take(&self) -> bool {
        self.take_at(self.now_s())
    }

    /// Of a share how many retries it would let through now, of a throttle the tokens that are left.
    pub fn left(&self) -> f64 {
        self.left_at(self.now_s())
    }

    fn left_at(&self, now_s: f64) -> f64 {
        match (&mut *self.lock(), self.rule) {
            (State::Share(slots, newest), Rule::Share { min_per_s, ttl_s, .. }) => {
                turn(slots, newest, ttl_s, now_s);
                (min_per_s * ttl_s + slots.iter().sum::<f64>()).max(0.0)
            }
            (State::Throttle(tokens), _) => *tokens,
            _ => 0.0, // a budget keeps its rule
        }
    }

    fn begun_at(&self, now_s: f64) {
        if let (State::Share(slots, newest), Rule::Share { ratio, ttl_s, .. }) = (&mut *self.lock(), self.rule) {
            slots[turn(slots, newest, ttl_s, now_s)] += ratio;
        }
    }

    fn take_at(&self, now_s: f64) -> bool {
        match (&mut *self.lock(), self.rule) {
            (State::Share(slots, newest), Rule::Share { min_per_s, ttl_s, .. }) => {
                let slot = turn(slots, newest, ttl_s, now_s);
                let may = min_per_s * ttl_s + slots.iter().sum::<f64>() >= 1.0;
                if may {
                    slots[slot] -= 1.0;
                }
                may
            }
            (State::Throttle(tokens), Rule::Throttle { max_tokens, .. }) => *tokens > max_tokens / 2.0,
            _ => false, // a budget keeps its rule
        }
    }
}

/// The slot of this moment; those that are older than the time are empty.
fn turn(slots: &mut [f64; SLOTS], newest: &mut u64, ttl_s: f64, now_s: f64) -> usize {
    let now = (now_s / (ttl_s / SLOTS as f64)) as u64;
    for slot in (*newest + 1).max((now + 1).saturating_sub(SLOTS as u64))..=now {
        slots[slot as usize % SLOTS] = 0.0;
    }
    *newest = now.max(*newest);
    *newest as usize % SLOTS
}

/// The budgets of the targets called.
#[derive(Debug, Default)]
pub struct Budgets(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    each: HashMap<String, Entry>,
    asked: u64,
}

/// `at`: when it was last asked for, counted in questions.
#[derive(Debug)]
struct Entry {
    budget: Arc<Budget>,
    at: u64,
}

impl Budgets {
    /// That of a target, begun anew where its rule is another.
    pub fn find(&self, target: &str, rule: Rule) -> Arc<Budget> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { each, asked } = &mut *known;
        *asked += 1;
        if let Some(entry) = each.get_mut(target) {
            entry.at = *asked;
            if entry.budget.rule != rule {
                entry.budget = Arc::new(Budget::new(rule));
            }
            return entry.budget.clone();
        }
        if each.len() >= MAX_BUDGETS {
            let oldest = each.iter().min_by_key(|(_, entry)| entry.at).map(|(target, _)| target.clone());
            oldest.and_then(|target| each.remove(&target));
        }
        let budget = Arc::new(Budget::new(rule));
        each.insert(target.to_owned(), Entry { budget: budget.clone(), at: *asked });
        budget
    }

    /// A glance at each, by target: its kind, what is left, and what is left where nothing was deposited or taken.
    pub fn glances(&self) -> Vec<(String, &'static str, f64, f64)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let glance = |(target, entry): (&String, &Entry)| {
            let (kind, full) = match entry.budget.rule {
                Rule::Share { min_per_s, ttl_s, .. } => ("share", min_per_s * ttl_s),
                Rule::Throttle { max_tokens, .. } => ("throttle", max_tokens),
            };
            (target.clone(), kind, entry.budget.left(), full)
        };
        known.each.iter().map(glance).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        why: String,
        share: Option<(f64, f64, f64)>,
        throttle: Option<(f64, f64)>,
        steps: Vec<(String, f64, usize, Option<bool>)>,
    }

    #[test]
    fn budgets_let_as_many_retry_as_their_rule_says() {
        for case in vectors::read::<Case>("budgets", "steps") {
            let rule = match (case.share, case.throttle) {
                (Some((ratio, min_per_s, ttl_s)), None) => Rule::Share { ratio, min_per_s, ttl_s },
                (None, Some((max_tokens, token_ratio))) => Rule::Throttle { max_tokens, token_ratio },
                _ => panic!("{}: one rule", case.why),
            };
            let budget = Budget::new(rule);
            for (place, (what, at_s, times, may)) in case.steps.into_iter().enumerate() {
                for _ in 0..if what == "left" { 1 } else { times } {
                    match what.as_str() {
                        "call" => budget.begun_at(at_s),
                        "failure" => budget.failed(),
                        "success" => budget.succeeded(),
                        "left" => assert!((budget.left_at(at_s) - times as f64).abs() < 1e-6, "{}: step {place}", case.why),
                        "retry" => assert_eq!(Some(budget.take_at(at_s)), may, "{}: step {place}", case.why),
                        other => panic!("{}: {other}", case.why),
                    }
                }
            }
        }
    }

    #[test]
    fn a_target_has_one_budget_until_its_rule_changes() {
        let rule = Rule::Throttle { max_tokens: 1.0, token_ratio: 1.0 };
        let budgets = Budgets::default();
        let first = budgets.find("a", rule);
        assert!(Arc::ptr_eq(&first, &budgets.find("a", rule)));
        assert!(!Arc::ptr_eq(&first, &budgets.find("b", rule)));
        let other = Rule::Throttle { max_tokens: 2.0, token_ratio: 1.0 };
        assert!(!Arc::ptr_eq(&first, &budgets.find("a", other)));
        for place in 0..MAX_BUDGETS {
            budgets.find(&place.to_string(), rule);
        }
        assert_eq!(budgets.0.lock().unwrap().each.len(), MAX_BUDGETS);
    }
}
