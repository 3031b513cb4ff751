//! Cases that the tests of both languages read; see `tests/vectors/README.md`.

use std::collections::HashMap;
use std::fs;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::fields::Headers;

/// A text, or its pieces.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Text {
    Whole(String),
    Pieces(Vec<Piece>),
}

/// A piece of text, which may be repeated.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    Once(String),
    Times(String, usize),
}

impl Default for Text {
    fn default() -> Self {
        Self::Whole(String::new())
    }
}

impl Text {
    /// The text in one piece.
    pub fn spelt(&self) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Once(text) => text.clone(),
            Piece::Times(text, times) => text.repeat(*times),
        };
        match self {
            Self::Whole(text) => text.clone(),
            Self::Pieces(pieces) => pieces.iter().map(piece).collect(),
        }
    }

    /// The same as bytes, one a character.
    pub fn octets(&self) -> Vec<u8> {
        self.spelt().chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect()
    }
}

/// Fields as a case gives them.
pub fn headers<'a>(fields: impl IntoIterator<Item = (&'a str, &'a Text)>) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.append(http::HeaderName::try_from(name).unwrap(), http::HeaderValue::from_maybe_shared(value.octets()).unwrap());
    }
    headers
}

/// The cases of a section.
pub fn read<T: DeserializeOwned>(file: &str, section: &str) -> Vec<T> {
    let path = format!("{}/../../../../../tests/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let mut sections: HashMap<String, serde_json::Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    serde_json::from_value(sections.remove(section).unwrap()).unwrap()
}
