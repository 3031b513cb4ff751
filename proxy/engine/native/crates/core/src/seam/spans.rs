//! Spans of sampled calls that are in the sums: written here where only Zipkin is to get them, and the latest calls remembered for whoever
//! asks, so that none costs the other side anything by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::decision::baggage::BAGGAGE;
use crate::decision::trace::Span;
use crate::head::Head;
use crate::seam::ask::Outcome;
use crate::seam::zipkin::{self, SpanForm};

const MAX_BYTES: usize = 8 * 1024 * 1024; // that wait to be taken, of one worker: half a second at 20,000 calls/s
const RECENT: usize = 4_096; // as many as there are in `telemetry/tracing.py`
const RECENT_BYTES: usize = 2 * 1024 * 1024; // of their paths and of what failed

/// What becomes of spans. `per_piece`: written ones that leave together; `None`: they go nowhere.
#[derive(Debug)]
pub struct Wanted {
    pub form: SpanForm,
    pub per_piece: Option<u32>,
}

/// Spans written, with commas between, and how many they are.
#[derive(Debug, Default)]
pub struct Piece {
    pub text: Vec<u8>,
    pub spans: u32,
}

/// What became of a call's span.
#[allow(clippy::large_enum_variant)] // handed on at once: a box would cost more than the move
pub enum Added {
    Taken,
    /// There are too many that nobody has taken.
    Lost,
    /// The other side makes it.
    NotHere(Outcome),
}

/// Owns what is wanted, what was written and not taken yet, and the latest calls.
#[derive(Default)]
pub struct Spans {
    wanted: Option<Arc<Wanted>>,
    pieces: VecDeque<Piece>,
    bytes: usize,
    recent: VecDeque<Outcome>,
    recent_bytes: usize,
}

impl Spans {
    /// Take spans from now on, or leave them to the other side.
    pub fn set(&mut self, wanted: Option<Arc<Wanted>>) {
        self.wanted = wanted;
    }

    /// Take the span of a sampled call; of one that crosses no mesh the other side makes it.
    pub fn add(&mut self, outcome: Outcome) -> Added {
        let has_labels = outcome.decision.as_ref().is_some_and(|token| token.span_labels.is_some());
        let Some(wanted) = self.wanted.clone().filter(|_| has_labels) else { return Added::NotHere(outcome) };
        let is_written = wanted.per_piece.is_none_or(|most| self.write(&outcome, &wanted.form, most));
        self.remember(outcome, &wanted.form);
        if is_written { Added::Taken } else { Added::Lost }
    }

    fn write(&mut self, outcome: &Outcome, form: &SpanForm, most: u32) -> bool {
        let labels = outcome.decision.as_ref().and_then(|token| token.span_labels.as_deref());
        let (Some(labels), Some(Span::Own { context, .. })) = (labels, &outcome.span) else { return true };
        if self.bytes > MAX_BYTES {
            return false;
        }
        if self.pieces.back().is_none_or(|piece| piece.spans >= most) {
            self.pieces.push_back(Piece::default());
        }
        let Some(piece) = self.pieces.back_mut() else { return true };
        let before = piece.text.len();
        if before > 0 {
            piece.text.push(b',');
        }
        if zipkin::write(&mut piece.text, outcome, context, labels, form) {
            piece.spans += 1;
            self.bytes += piece.text.len() - before;
        } else {
            piece.text.truncate(before);
        }
        true
    }

    fn remember(&mut self, mut outcome: Outcome, form: &SpanForm) {
        let Some(labels) = outcome.decision.as_ref().and_then(|token| token.span_labels.as_deref()) else {
            return; // no call crossed the mesh
        };
        let head = &outcome.head;
        let path = zipkin::kept_path(head, labels, form.hides_paths).to_owned();
        let mut told = head.told(path);
        told.query = Bytes::copy_from_slice(form.query(&head.query));
        if !form.baggage.is_empty() {
            for value in head.headers.get_all(BAGGAGE) {
                told.headers.append(BAGGAGE, value.clone());
            }
        }
        outcome.head = Arc::new(told);
        self.recent_bytes += bytes_of(&outcome);
        self.recent.push_back(outcome);
        while self.recent.len() > RECENT || self.recent_bytes > RECENT_BYTES {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= bytes_of(&oldest);
        }
    }

    /// What was written since this was last asked, oldest first.
    pub fn take_written(&mut self) -> VecDeque<Piece> {
        self.bytes = 0;
        let mut taken = std::mem::take(&mut self.pieces);
        taken.retain(|piece| piece.spans > 0);
        taken
    }

    /// At most `most` of the calls that are remembered, oldest first; they are forgotten here.
    pub fn take_recent(&mut self, most: usize) -> Vec<Outcome> {
        let taken: Vec<_> = self.recent.drain(..most.min(self.recent.len())).collect();
        self.recent_bytes -= taken.iter().map(bytes_of).sum::<usize>();
        taken
    }
}

fn bytes_of(outcome: &Outcome) -> usize {
    let Head { path, query, headers, .. } = &*outcome.head;
    let of_headers = headers.get_all(BAGGAGE).map(http::HeaderValue::len).sum::<usize>();
    path.len() + query.len() + of_headers + outcome.attempts.iter().map(|attempt| attempt.detail.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::decision::plan::{ReleasedTokens, Token};
    use crate::decision::trace::Context;
    use crate::fields::Headers;
    use crate::head::{self, Entry, Framing, Protocol, RawHead};
    use crate::seam::zipkin::{Conventions, SpanLabels};

    fn outcome(path: &str, number: u64) -> Outcome {
        let raw = RawHead {
            protocol: Protocol::Http1,
            method: Bytes::from_static(b"GET"),
            authority: Bytes::new(),
            target: Bytes::copy_from_slice(path.as_bytes()),
            headers: Headers::new(),
            framing: Framing::None,
            length: None,
        };
        let labels = SpanLabels {
            is_outbound: true,
            is_dapr: false,
            is_by_path: false,
            is_grpc_web: false,
            src: "web".into(),
            dst: "cart".into(),
            decision: "".into(),
        };
        let context = Context { trace_id: 1, span_id: 1, parent_id: 0, sampled: true };
        Outcome {
            head: Arc::new(head::read(raw, Entry { listener: "http".into(), peer: None, caller: None, address: "".into() }).0),
            decision: Some(Token::telling(1, 1, None, Some(Box::new(labels)), 0, ReleasedTokens::default())),
            span: Some(Span::Own { context, tracestate: "".into() }),
            started_ns: number,
            head_ns: 0,
            ended_ns: 0,
            status: 200,
            grpc_code: None,
            cause: None,
            attempts: vec![],
            up_bytes: 0,
            down_bytes: 0,
            breaker: None,
            not_retried: None,
            resolve_ns: 0,
            queue_ns: 0,
            authorize_ns: 0,
            number: 0,
        }
    }

    fn spans(per_piece: Option<u32>) -> Spans {
        hiding(per_piece, false)
    }

    fn hiding(per_piece: Option<u32>, hides_paths: bool) -> Spans {
        let (conventions, phrases) = (Conventions::Both, HashMap::new());
        let form = SpanForm { service: "web".into(), hides_paths, conventions, captures_query: false, baggage: vec![], phrases };
        let mut spans = Spans::default();
        spans.set(Some(Arc::new(Wanted { form, per_piece })));
        spans
    }

    #[test]
    fn spans_leave_in_pieces_and_probes_have_none() {
        let mut spans = spans(Some(2));
        for path in ["/a", "/healthz", "/b", "/c", "/healthz"] {
            assert!(matches!(spans.add(outcome(path, 0)), Added::Taken));
        }
        let counts: Vec<_> = spans.take_written().iter().map(|piece| piece.spans).collect();
        assert_eq!(counts, [2, 1]);
        assert!(spans.take_written().is_empty());
    }

    #[test]
    fn spans_that_nobody_takes_are_lost_beyond_some_bytes_until_somebody_does() {
        let mut spans = spans(Some(128));
        let path = format!("/{}", "x".repeat(1_000));
        let written = (0..100_000).find(|_| matches!(spans.add(outcome(&path, 0)), Added::Lost)).unwrap();
        let taken = spans.take_written();
        assert_eq!(taken.iter().map(|piece| piece.spans).sum::<u32>(), written);
        assert!(taken.iter().map(|piece| piece.text.len()).sum::<usize>() < MAX_BYTES + 8 * 1_024);
        assert!(matches!(spans.add(outcome(&path, 0)), Added::Taken));
    }

    #[test]
    fn latest_calls_are_remembered_up_to_a_number_and_some_bytes() {
        let mut all = spans(None);
        for number in 0..RECENT as u64 + 2 {
            assert!(matches!(all.add(outcome("/a", number)), Added::Taken));
        }
        assert!(all.take_written().is_empty());
        assert_eq!(all.take_recent(1)[0].started_ns, 2);
        assert_eq!(all.take_recent(usize::MAX).len(), RECENT - 1);
        assert_eq!(all.recent_bytes, 0);
        let mut long = spans(None);
        let path = format!("/{}", "x".repeat(RECENT_BYTES / 4 - 1));
        for number in 0..9 {
            long.add(outcome(&path, number));
        }
        assert_eq!(long.take_recent(9).iter().map(|call| call.started_ns).collect::<Vec<_>>(), [5, 6, 7, 8]);
    }

    #[test]
    fn paths_that_are_hidden_are_not_remembered() {
        let mut spans = hiding(None, true);
        for path in ["/secret", "/x/healthz"] {
            spans.add(outcome(path, 0));
        }
        let paths: Vec<_> = spans.take_recent(9).iter().map(|call| call.head.path.clone()).collect();
        assert_eq!(paths, ["", "/healthz"]);
    }

    #[test]
    fn spans_that_are_not_wanted_are_left_to_the_other_side() {
        assert!(matches!(Spans::default().add(outcome("/a", 0)), Added::NotHere(_)));
    }
}
