//! Calls as they go on, for whoever looks: one began, its answer did. While nobody looks nothing of this is made; what finds no room is
//! counted. How a call ended is its outcome.

use std::collections::VecDeque;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::decision::trace::{Context, Span};
use crate::fields::Headers;
use crate::head::Head;

const MAX_NEWS: usize = 4_096; // of one worker, that nobody has taken yet; a head each

/// Somebody looks. `fields`: those whose values are told.
#[derive(Debug, Default)]
pub struct Watch {
    pub fields: Box<[HeaderName]>,
}

impl Watch {
    /// What is told of a message's fields.
    pub fn pick(&self, headers: &Headers) -> Vec<(HeaderName, HeaderValue)> {
        let values = |name| headers.get_all(name).map(move |value| (HeaderName::clone(name), value.clone()));
        self.fields.iter().flat_map(values).collect()
    }
}

/// What a call came to. `number`: the call's.
#[derive(Debug)]
pub enum News {
    /// `token`: of its decision. `context`: of its span, where that is known here.
    Begun {
        number: u64,
        head: Arc<Head>,
        fields: Vec<(HeaderName, HeaderValue)>,
        token: u64,
        context: Option<Context>,
        started_ns: u64,
    },
    Answered {
        number: u64,
        head_ns: u64,
        status: u16,
        fields: Vec<(HeaderName, HeaderValue)>,
    },
}

/// The span that was made here.
pub fn own_context(span: Option<&Span>) -> Option<Context> {
    match span {
        Some(Span::Own { context, .. }) => Some(*context),
        _ => None,
    }
}

/// What nobody has taken yet.
#[derive(Debug, Default)]
pub struct Board {
    waiting: VecDeque<News>,
    lost: u64,
}

impl Board {
    /// Tell one, if there is room.
    pub fn add(&mut self, news: News) {
        if self.waiting.len() < MAX_NEWS {
            self.waiting.push_back(news);
        } else {
            self.lost += 1;
        }
    }

    /// All of them, oldest first, and how many were lost since this was last asked.
    pub fn take(&mut self) -> (VecDeque<News>, u64) {
        (std::mem::take(&mut self.waiting), std::mem::take(&mut self.lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut board = Board::default();
        for number in 0..MAX_NEWS as u64 + 3 {
            board.add(News::Answered { number, head_ns: 1, status: 200, fields: Vec::new() });
        }
        let (news, lost) = board.take();
        assert_eq!((news.len(), lost), (MAX_NEWS, 3));
        let (news, lost) = board.take();
        assert_eq!((news.len(), lost), (0, 0));
    }

    #[test]
    fn only_fields_that_are_asked_for_are_told() {
        let watch = Watch { fields: Box::new([HeaderName::from_static("x-a")]) };
        let mut headers = Headers::new();
        for (name, value) in [("x-a", "1"), ("authorization", "secret"), ("x-a", "2")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let told: Vec<_> = watch.pick(&headers).iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        assert_eq!(told, [("x-a".to_owned(), HeaderValue::from_static("1")), ("x-a".to_owned(), HeaderValue::from_static("2"))]);
    }
}
