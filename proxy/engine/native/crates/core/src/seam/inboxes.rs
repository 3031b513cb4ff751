//! What all workers ask and tell, for the one other side: each worker writes into an inbox of its own, and they are merged where they
//! are read. One bell serves all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use crate::seam::ask::{Inbox, Notice, Outcome, Question, Stats};
use crate::seam::lines::Wanted;
use crate::seam::news::News;
use crate::seam::spans::{self, Piece};
use crate::seam::tally::{Bounds, Kind, Tally};

/// Says "look": once, until somebody has looked. The ring is called with no lock held.
pub struct Bell {
    ring: Box<dyn Fn() + Send + Sync>,
    rung: AtomicBool,
}

impl Bell {
    /// Ring, if nobody did since the other side last looked.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            (self.ring)();
        }
    }
}

/// The inboxes of all workers. `turn`: which is looked into first, so that none waits behind the others for ever.
pub struct Inboxes {
    each: Vec<Arc<Inbox>>,
    bell: Arc<Bell>,
    turn: AtomicUsize,
}

impl Inboxes {
    /// For so many workers. `prompt`: reports ring the bell too, not only questions.
    pub fn new(workers: usize, ring: Box<dyn Fn() + Send + Sync>, prompt: bool) -> Self {
        let bell = Arc::new(Bell { ring, rung: AtomicBool::new(false) });
        let each = (0..workers).map(|_| Inbox::new(bell.clone(), prompt)).collect();
        Self { each, bell, turn: AtomicUsize::new(0) }
    }

    /// Each worker's.
    pub fn each(&self) -> &[Arc<Inbox>] {
        &self.each
    }

    fn in_turn(&self) -> impl Iterator<Item = &Arc<Inbox>> {
        let (behind, first) = self.each.split_at(self.turn.fetch_add(1, Ordering::Relaxed) % self.each.len());
        first.iter().chain(behind)
    }

    /// A question, the oldest of its worker; the bell rings again for what comes after this found nothing.
    pub fn next_question(&self) -> Option<Question> {
        let look = || self.in_turn().find_map(|inbox| inbox.take_question());
        let found = look();
        if found.is_some() {
            return found;
        }
        self.bell.rung.store(false, Ordering::Release);
        look()
    }

    /// Add calls up from now on, or tell each by itself.
    pub fn set_bounds(&self, bounds: Option<&Bounds>) {
        for inbox in &self.each {
            inbox.set_bounds(bounds.cloned());
        }
    }

    /// Write lines of calls from now on, or none.
    pub fn set_lines(&self, wanted: Option<Wanted>) {
        let wanted = wanted.map(Arc::new);
        for inbox in &self.each {
            inbox.set_lines(wanted.clone());
        }
    }

    /// The lines since this was last asked, in the order of each worker, and how many were lost.
    pub fn take_lines(&self) -> (Vec<u8>, u64) {
        self.each.iter().map(|inbox| inbox.take_lines()).fold((Vec::new(), 0), |(mut text, lost), (more, more_lost)| {
            if text.is_empty() {
                text = more;
            } else {
                text.extend_from_slice(&more);
            }
            (text, lost + more_lost)
        })
    }

    /// Take spans of calls that are in the sums from now on, or leave them to the other side.
    pub fn set_spans(&self, wanted: Option<spans::Wanted>) {
        let wanted = wanted.map(Arc::new);
        for inbox in &self.each {
            inbox.set_spans(wanted.clone());
        }
    }

    /// Spans written since this was last asked, oldest first of each worker.
    pub fn take_written(&self) -> Vec<Piece> {
        self.each.iter().flat_map(|inbox| inbox.take_written()).collect()
    }

    /// At most `most` of the sampled calls whose spans were taken, oldest first of each worker.
    pub fn take_recent(&self, most: usize) -> Vec<Outcome> {
        self.take(most, Inbox::take_recent)
    }

    fn take<T>(&self, most: usize, take: impl Fn(&Inbox, usize) -> Vec<T>) -> Vec<T> {
        self.in_turn().fold(Vec::new(), |mut taken, inbox| {
            taken.append(&mut take(inbox, most - taken.len()));
            taken
        })
    }

    /// At most `most` outcomes, oldest first of each worker.
    pub fn take_outcomes(&self, most: usize) -> Vec<Outcome> {
        self.take(most, Inbox::take_outcomes)
    }

    /// At most `most` calls that are in the sums and whose spans are to be recorded, oldest first of each worker.
    pub fn take_spans(&self, most: usize) -> Vec<Outcome> {
        self.take(most, Inbox::take_spans)
    }

    /// The sums since this was last asked. Kinds of different workers differ: each has decisions of its own.
    pub fn take_tallies(&self) -> Vec<(Kind, Tally)> {
        self.each.iter().flat_map(|inbox| inbox.take_tallies()).collect()
    }

    /// What calls came to since this was last asked, oldest first of each worker, and how much of it was lost.
    pub fn take_news(&self) -> (Vec<News>, u64) {
        self.each.iter().fold((Vec::new(), 0), |(mut all, lost), inbox| {
            let (news, more_lost) = inbox.take_news();
            all.extend(news);
            (all, lost + more_lost)
        })
    }

    /// All notices, oldest first of each worker.
    pub fn take_notices(&self) -> Vec<Notice> {
        self.each.iter().flat_map(|inbox| inbox.take_notices()).collect()
    }

    /// A number for status, over all workers.
    pub fn sum(&self, number: impl Fn(&Stats) -> &AtomicI64) -> i64 {
        self.each.iter().map(|inbox| number(&inbox.stats).load(Ordering::Relaxed)).sum()
    }

    /// A count over all workers, since this was last asked.
    pub fn take_sum(&self, count: impl Fn(&Stats) -> &AtomicU64) -> u64 {
        self.each.iter().map(|inbox| count(&inbox.stats).swap(0, Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn bell_rings_once_for_the_questions_of_all_and_again_after_a_look() {
        let rings = Arc::new(AtomicUsize::new(0));
        let heard = rings.clone();
        let ring = move || {
            rings.fetch_add(1, Ordering::Relaxed);
        };
        let inboxes = Inboxes::new(2, Box::new(ring), false);
        let ask = |worker: usize| inboxes.each()[worker].ask(Question::Explain { key: "a".into(), answer: oneshot::channel().0 });
        ask(0);
        ask(1);
        ask(1);
        assert_eq!(heard.load(Ordering::Relaxed), 1);
        assert!((0..3).all(|_| inboxes.next_question().is_some()));
        assert!(inboxes.next_question().is_none());
        ask(0);
        assert_eq!(heard.load(Ordering::Relaxed), 2);
        assert!(inboxes.next_question().is_some());
    }

    #[test]
    fn no_worker_waits_behind_the_others() {
        let inboxes = Inboxes::new(2, Box::new(|| ()), false);
        for inbox in inboxes.each() {
            (0..10).for_each(|_| inbox.note(Notice::RefusedFrames { kind: "a", who: "".into() }));
            inbox.stats.hits.fetch_add(3, Ordering::Relaxed);
        }
        let firsts: Vec<_> = (0..4).map(|_| std::ptr::from_ref(inboxes.in_turn().next().unwrap())).collect();
        assert!(firsts[0] == firsts[2] && firsts[1] == firsts[3] && firsts[0] != firsts[1]);
        assert_eq!(inboxes.take_notices().len(), 20);
        assert_eq!((inboxes.take_sum(|stats| &stats.hits), inboxes.take_sum(|stats| &stats.hits)), (6, 0));
    }
}
