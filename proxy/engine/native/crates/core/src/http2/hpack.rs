//! HPACK, the reading side: header blocks to fields in their order. What `h2` would make of them loses the order, cuts targets and
//! answers some faults by itself, so it gets blocks without content (`head_blocks.rs`). Source: RFC 7541.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;

use crate::http2::hpack_tables::{HUFFMAN, STATIC};

const TABLE_BYTES: usize = 4_096; // what every peer may use unless told otherwise (RFC 9113 §6.5.2)
const ENTRY_BYTES: usize = 32;
const EOS: usize = 256;

/// The block can't be read, and no later one on this connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// One direction of one connection: the dynamic table, newest first.
#[derive(Debug)]
pub struct Decoder {
    entries: VecDeque<(Bytes, Bytes)>,
    size: usize,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, limit: TABLE_BYTES }
    }
}

static FIRST: LazyLock<Vec<(Bytes, Bytes)>> = LazyLock::new(|| {
    STATIC.iter().map(|(name, value)| (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()))).collect()
});

impl Decoder {
    /// Every field of a whole block, and whether it may enter no table (RFC 7541 §6.2.3), until `each` has enough. An error leaves the table behind: no later block can be read.
    pub fn decode<E: From<Broken>>(
        &mut self,
        block: &Bytes,
        mut each: impl FnMut(Bytes, Bytes, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        let mut begun = false;
        while let Some(&first) = block.get(at) {
            if first & 0x80 != 0 {
                let (name, value) = self.entry(integer(block, &mut at, 7)?)?;
                each(name, value, false)?;
            } else if first & 0xe0 == 0x20 {
                let limit = integer(block, &mut at, 5)?;
                if begun || limit > TABLE_BYTES {
                    return Err(Broken.into());
                }
                self.limit = limit;
                self.shrink();
                continue;
            } else {
                let indexed = first & 0x40 != 0;
                let index = integer(block, &mut at, if indexed { 6 } else { 4 })?;
                let name = if index == 0 { text(block, &mut at)? } else { self.entry(index)?.0 };
                let value = text(block, &mut at)?;
                if indexed {
                    self.insert(name.clone(), value.clone());
                }
                each(name, value, first & 0xf0 == 0x10)?;
            }
            begun = true;
        }
        Ok(())
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub fn is_within_limit(&self) -> bool {
        self.size <= self.limit && self.limit <= TABLE_BYTES
    }

    fn entry(&self, index: usize) -> Result<(Bytes, Bytes), Broken> {
        let place = index.checked_sub(1).ok_or(Broken)?;
        let found = if place < FIRST.len() { FIRST.get(place) } else { self.entries.get(place - FIRST.len()) };
        found.cloned().ok_or(Broken)
    }

    fn insert(&mut self, name: Bytes, value: Bytes) {
        // A copy: a table entry must not keep the whole block that it came in.
        let (name, value) = (Bytes::copy_from_slice(&name), Bytes::copy_from_slice(&value));
        self.size += name.len() + value.len() + ENTRY_BYTES;
        self.entries.push_front((name, value));
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.size > self.limit {
            let Some((name, value)) = self.entries.pop_back() else { return };
            self.size -= name.len() + value.len() + ENTRY_BYTES;
        }
    }
}

fn integer(block: &[u8], at: &mut usize, prefix: u8) -> Result<usize, Broken> {
    let top = (1usize << prefix) - 1;
    let mut number = usize::from(*block.get(*at).ok_or(Broken)?) & top;
    *at += 1;
    if number < top {
        return Ok(number);
    }
    for shift in [0, 7, 14, 21] {
        let byte = *block.get(*at).ok_or(Broken)?;
        *at += 1;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Broken) // nothing in a block is this large
}

fn text(block: &Bytes, at: &mut usize) -> Result<Bytes, Broken> {
    let huffman = block.get(*at).ok_or(Broken)? & 0x80 != 0;
    let size = integer(block, at, 7)?;
    let end = at.checked_add(size).filter(|end| *end <= block.len()).ok_or(Broken)?;
    let raw = block.slice(*at..end);
    *at = end;
    if huffman { unpack(&raw) } else { Ok(raw) }
}

/// Four bits on from a place in the code tree: the next place, and the byte that was completed.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    next: u16,
    byte: Option<u8>,
    wrong: bool,
}

/// Steps by place and bits, and the places where a string may end (padding is of ones, shorter than a byte; RFC 7541 §5.2).
struct Tree {
    steps: Vec<[Step; 16]>,
    ends: Vec<bool>,
}

static TREE: LazyLock<Tree> = LazyLock::new(|| {
    const LEAF: u16 = 1 << 15;
    let mut nodes: Vec<[u16; 2]> = vec![[0; 2]];
    for (byte, &(code, bits)) in HUFFMAN.iter().enumerate() {
        let mut node = 0;
        for shift in (0..bits).rev() {
            let side = usize::from(code >> shift & 1 == 1);
            if shift == 0 {
                nodes[node][side] = LEAF | byte as u16;
            } else {
                if nodes[node][side] == 0 {
                    nodes[node][side] = nodes.len() as u16;
                    nodes.push([0; 2]);
                }
                node = usize::from(nodes[node][side]);
            }
        }
    }
    let step = |start: usize, nibble: usize| {
        let (mut node, mut step) = (start, Step::default());
        for shift in (0..4).rev() {
            let next = nodes[node][nibble >> shift & 1];
            if next & LEAF == 0 {
                node = usize::from(next);
            } else {
                step.wrong |= usize::from(next & !LEAF) == EOS;
                step.byte = Some((next & !LEAF) as u8);
                node = 0;
            }
        }
        step.next = node as u16;
        step
    };
    let steps = (0..nodes.len()).map(|start| std::array::from_fn(|nibble| step(start, nibble))).collect();
    let mut ends = vec![false; nodes.len()];
    let mut node = 0;
    for _ in 0..8 {
        ends[node] = true;
        node = usize::from(nodes[node][1]);
    }
    Tree { steps, ends }
});

fn unpack(raw: &[u8]) -> Result<Bytes, Broken> {
    let tree = &*TREE;
    let mut out = Vec::with_capacity(raw.len() * 8 / 5);
    let mut place = 0;
    for byte in raw {
        for nibble in [byte >> 4, byte & 15] {
            let step = tree.steps[place][usize::from(nibble)];
            if step.wrong {
                return Err(Broken);
            }
            out.extend(step.byte);
            place = usize::from(step.next);
        }
    }
    if tree.ends[place] { Ok(out.into()) } else { Err(Broken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Bytes {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn read(decoder: &mut Decoder, hex: &str) -> Result<Vec<String>, Broken> {
        let mut fields = Vec::new();
        decoder.decode(&bytes(hex), |name, value, _| {
            fields.push(format!("{}: {}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&value)));
            Ok::<_, Broken>(())
        })?;
        Ok(fields)
    }

    #[test]
    fn examples_of_the_rfc_are_read() {
        // RFC 7541, C.4 and C.6.1
        let mut decoder = Decoder::default();
        let first = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(read(&mut decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff").unwrap(), first);
        let second = read(&mut decoder, "8286 84be 5886 a8eb 1064 9cbf").unwrap();
        assert_eq!((&second[..4], second[4].as_str()), (&first.map(String::from)[..], "cache-control: no-cache"));
        let third = read(&mut decoder, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf").unwrap();
        assert_eq!(third[3..], [":authority: www.example.com", "custom-key: custom-value"]);
        assert_eq!(decoder.size, 164);
        let response = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
            2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
        let found = read(&mut Decoder::default(), response).unwrap();
        assert_eq!(found[..3], [":status: 302", "cache-control: private", "date: Mon, 21 Oct 2013 20:13:21 GMT"]);
    }

    #[test]
    fn table_obeys_its_size_and_forgets_the_oldest() {
        let mut decoder = Decoder::default();
        read(&mut decoder, "4001 6101 31 4001 6201 32").unwrap();
        assert_eq!(read(&mut decoder, "be bf").unwrap(), ["b: 2", "a: 1"]);
        assert_eq!(read(&mut decoder, "3f 03 be").unwrap(), ["b: 2"]); // 34 bytes: room for one
        assert_eq!(read(&mut decoder, "bf"), Err(Broken));
    }

    #[test]
    fn broken_blocks_are_refused() {
        for hex in [
            "80",                   // index 0
            "c0",                   // beyond the tables
            "00",                   // no name
            "00 01 61 05 31",       // shorter than it says
            "82 20",                // dynamic table size update after a field
            "3f e2 1f",             // a table larger than allowed
            "ff ff ff ff ff 01",    // an endless number
            "00 01 61 84 ffffffff", // the end of a string inside one
            "00 01 61 82 f8ff",     // eight bits of padding
            "00 01 61 81 00",       // padding of zeros
        ] {
            assert_eq!(read(&mut Decoder::default(), hex), Err(Broken), "{hex}");
        }
    }
}
