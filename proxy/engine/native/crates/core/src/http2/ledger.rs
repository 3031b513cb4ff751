//! What both ends of an HTTP/2 connection have agreed on, kept apart from `h2` so that its half of a connection without calls (20 KB of
//! buffers and tables) can be given back, and made anew when the peer goes on. `h2` then begins as on a new connection: it is told what
//! the peer once said (`wake`), and what it says of itself, which the peer knows, goes no further (`Filter`).
//! Header blocks need no state: ours begin with an empty table, whose entries come to stand before what the peer still keeps, and the
//! peer's are read by the filter. Source: RFC 9113 §5.1.1, §5.2, §6.5, §6.9; RFC 7541 §2.3.2, §4.

use bytes::{BufMut, Bytes, BytesMut};

use crate::http2::frames::{ACK, DATA, HEADER, Header, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE};

const WINDOW: i64 = 65_535; // of every new connection
const SETTING: usize = 6; // bytes of one
const INCREMENT: usize = 4; // bytes of it, all that a WINDOW_UPDATE holds
const KNOWN_SETTINGS: usize = 10; // RFC 9113 §6.5.2, RFC 8441 §3, RFC 9218 §2.1: identifiers below this

/// The state of one connection that we accepted. Windows are what each side may still send on the whole connection.
#[derive(Debug, Default)]
pub struct Ledger {
    settings: [Option<u32>; KNOWN_SETTINGS],
    acked: bool,
    granted: i64,
    received: i64,
    sent: i64,
    updated: i64,
    /// Of the frame that goes out: its header with the increment of a window update, how much of it was said, and what is to follow.
    header: [u8; HEADER + INCREMENT],
    begun: usize,
    skip: usize,
    /// Resets (`RST_STREAM`) that went out since somebody asked.
    resets: u32,
    filter: Option<Filter>,
}

impl Ledger {
    /// The peer's SETTINGS.
    pub fn heard_settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(SETTING) {
            let identifier = usize::from(u16::from_be_bytes([setting[0], setting[1]]));
            if let Some(known) = self.settings.get_mut(identifier) {
                *known = Some(u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
            }
        }
    }

    /// The peer's first SETTINGS came in an upgrade, whose 101 has acknowledged them (RFC 7540 §3.2.1): what a new `h2` is to read
    /// first. Its answer to them goes no further.
    pub fn upgrade(&mut self, settings: &[u8]) -> BytesMut {
        self.heard_settings(settings);
        self.filter = Some(Filter { settings: true, update: true, ..Filter::default() });
        let mut told = BytesMut::from(PREFACE);
        put_header(&mut told, settings.len(), SETTINGS, 0);
        told.extend_from_slice(settings);
        told
    }

    /// The peer knows our SETTINGS.
    pub fn heard_ack(&mut self) {
        self.acked = true;
    }

    /// The peer lets us send more on the connection.
    pub fn heard_update(&mut self, payload: &[u8]) {
        if let Ok(increment) = payload.try_into() {
            self.granted += i64::from(u32::from_be_bytes(increment) & 0x7fff_ffff);
        }
    }

    /// A DATA frame of that length.
    pub fn heard_data(&mut self, length: usize) {
        self.received += length as i64;
    }

    /// Bytes that went out, however they are cut.
    pub fn said(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let skip = self.skip.min(data.len());
            self.skip -= skip;
            data = &data[skip..];
            let want = if self.begun >= HEADER { HEADER + INCREMENT } else { HEADER };
            let size = (want - self.begun).min(data.len());
            self.header[self.begun..self.begun + size].copy_from_slice(&data[..size]);
            self.begun += size;
            data = &data[size..];
            let is_update = self.header[3] == WINDOW_UPDATE;
            if self.begun == HEADER + INCREMENT || (self.begun == HEADER && !is_update) {
                self.frame();
            }
        }
    }

    fn frame(&mut self) {
        let [header @ .., a, b, c, d] = self.header;
        let head = Header::new(header);
        match (head.kind, head.stream) {
            (DATA, _) => self.sent += head.length as i64,
            (RST_STREAM, _) => self.resets += 1,
            (WINDOW_UPDATE, 0) => self.updated += i64::from(u32::from_be_bytes([a, b, c, d])),
            _ => {}
        }
        self.skip = head.length - (self.begun - HEADER);
        self.begun = 0;
    }

    /// How many resets went out since the last call.
    pub fn take_resets(&mut self) -> u32 {
        std::mem::take(&mut self.resets)
    }

    /// Whether `h2` may go: nothing half said, its SETTINGS known, and windows that one of its new connections can have.
    pub fn may_rest(&self, window: u32) -> bool {
        self.filter.is_none()
            && self.acked
            && self.skip == 0
            && self.begun == 0
            && self.granted >= self.sent
            && i64::from(window) > 2 * WINDOW // of what is less, `h2` says nothing
    }

    /// What a new `h2` is to read first; from now on what it says of itself goes no further.
    pub fn wake(&mut self) -> BytesMut {
        let known: Vec<(u16, u32)> =
            self.settings.iter().enumerate().filter_map(|(identifier, value)| Some((identifier as u16, (*value)?))).collect();
        let mut told = BytesMut::from(PREFACE);
        put_header(&mut told, known.len() * SETTING, SETTINGS, 0);
        for (identifier, value) in known {
            told.put_u16(identifier);
            told.put_u32(value);
        }
        put_header(&mut told, 0, SETTINGS, ACK);
        let more = self.granted - self.sent;
        if more > 0 {
            put_header(&mut told, INCREMENT, WINDOW_UPDATE, 0);
            told.put_u32(more as u32);
        }
        self.filter = Some(Filter { surplus: self.updated - self.received, ..Filter::default() });
        told
    }

    /// Whether what `h2` says goes through `filter` first.
    pub fn is_filtering(&self) -> bool {
        self.filter.is_some()
    }

    /// Take what `h2` says; what the peer is to hear of it.
    pub fn filter(&mut self, data: &[u8]) -> BytesMut {
        let mut passed = BytesMut::new();
        match &mut self.filter {
            None => passed.extend_from_slice(data),
            Some(filter) => {
                if filter.feed(data, &mut passed) {
                    self.filter = None;
                }
            }
        }
        self.said(&passed);
        passed
    }
}

/// The header of a frame of the whole connection.
fn put_header(out: &mut BytesMut, length: usize, kind: u8, flags: u8) {
    Header { length, kind, flags, stream: 0 }.put(out);
}

/// Keeps back what a peer heard long ago: SETTINGS, the answer to its own, and the connection's window but for what it lacks.
#[derive(Debug, Default)]
struct Filter {
    held: BytesMut,
    settings: bool,
    ack: bool,
    update: bool,
    /// By how much the window that the peer knows is larger than a new connection's.
    surplus: i64,
}

impl Filter {
    /// Returns whether all of it was kept back: the rest passes.
    fn feed(&mut self, data: &[u8], out: &mut BytesMut) -> bool {
        self.held.extend_from_slice(data);
        while !(self.settings && self.ack && self.update) {
            let Some(header) = self.held.first_chunk::<HEADER>() else { return false };
            let head = Header::new(*header);
            if self.held.len() < HEADER + head.length {
                return false;
            }
            let frame = self.held.split_to(HEADER + head.length).freeze();
            match (head.kind, head.flags & ACK, head.stream) {
                (SETTINGS, 0, _) if !self.settings => self.settings = true,
                (SETTINGS, ACK, _) if !self.ack => self.ack = true,
                (WINDOW_UPDATE, _, 0) if !self.update => {
                    self.update = true;
                    self.put_update(&frame, out);
                }
                _ => out.extend_from_slice(&frame),
            }
        }
        out.extend_from_slice(&self.held.split());
        true
    }

    fn put_update(&self, frame: &Bytes, out: &mut BytesMut) {
        let increment = frame[HEADER..].try_into().map_or(0, |bytes| i64::from(u32::from_be_bytes(bytes)));
        let more = increment - self.surplus;
        if more > 0 {
            put_header(out, INCREMENT, WINDOW_UPDATE, 0);
            out.put_u32(more as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut data = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        data.extend_from_slice(payload);
        data
    }

    fn update(stream: u8, increment: u32) -> Vec<u8> {
        frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
    }

    #[test]
    fn what_was_said_is_known_however_it_is_cut() {
        let data =
            [frame(SETTINGS, 0, 0, &[7; 12]), update(0, 9), frame(DATA, 0, 1, &[8; 200]), update(1, 5), frame(DATA, 1, 1, b"")]
                .concat();
        for size in [1, 2, 9, 10, 13, 14, 1_000] {
            let mut ledger = Ledger { acked: true, granted: 200, ..Ledger::default() };
            let whole = data.chunks(size).enumerate().filter(|(number, piece)| {
                ledger.said(piece);
                ledger.may_rest(1_000_000) && (number + 1) * size < data.len()
            });
            assert!(whole.count() <= 5, "between frames alone");
            assert_eq!((ledger.sent, ledger.updated, ledger.begun, ledger.skip), (200, 9, 0, 0));
            assert!(ledger.may_rest(1_000_000) && !ledger.may_rest(100_000));
            ledger.said(&frame(DATA, 0, 3, b"x"));
            assert!(!ledger.may_rest(1_000_000), "a new `h2` would send one byte too many");
        }
    }

    #[test]
    fn a_new_h2_hears_what_the_peer_said() {
        let mut ledger = Ledger::default();
        ledger.heard_settings(&[0, 4, 0, 0, 1, 0, 0xf0, 0, 0, 0, 0, 1]);
        ledger.heard_settings(&[0, 4, 0, 0, 2, 0]);
        ledger.heard_update(&300_u32.to_be_bytes());
        ledger.said(&frame(DATA, 0, 1, &[0; 100]));
        let told =
            [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 2, 0]), frame(SETTINGS, ACK, 0, b""), update(0, 200)].concat();
        assert_eq!(ledger.wake(), told);
    }

    #[test]
    fn the_peer_hears_of_a_new_h2_what_it_does_not_know() {
        let said =
            [frame(SETTINGS, 0, 0, &[0; 6]), frame(SETTINGS, ACK, 0, b""), update(0, 1_000), frame(DATA, 1, 3, b"x")].concat();
        for (updated, received, heard) in [(1_000, 0, None), (1_000, 250, Some(250)), (0, 50, Some(1_050))] {
            for size in [1, 8, 1_000] {
                let mut ledger = Ledger { received, updated, ..Ledger::default() };
                ledger.wake();
                let passed: Vec<u8> = said.chunks(size).flat_map(|piece| ledger.filter(piece)).collect();
                let expected = [heard.map_or_else(Vec::new, |increment| update(0, increment)), frame(DATA, 1, 3, b"x")].concat();
                assert_eq!(passed, expected);
                assert_eq!((ledger.updated - ledger.received, ledger.sent, ledger.is_filtering()), (1_000, 1, false));
            }
        }
    }
}
