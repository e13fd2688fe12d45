//! The bytes that auditd gives its plugins, taken apart: any bytes, cut anywhere, answered without
//! a panic and the same however they are cut.
//!
//! | `format =` of the plugin | what comes |
//! |---|---|
//! | `string` | lines |
//! | `binary` | a header of four u32 of the host's byte order (version, header's length 16, type, size), then the record |
//!
//! auditd before 4.1 writes behind each header 8970 bytes whatever the size is; what is behind the
//! record is left over memory. Which it is shows at the second header.
//!
//! What is neither is [`Piece::Garbage`]: every byte of it is given out, and reading goes on at the next
//! thing that is a header with a record behind it.

#![expect(clippy::host_endian_bytes, reason = "auditd writes its header in the host's byte order")]

use graven_format::consts::RECORD_PAYLOAD_BYTES_MAX;
use memchr::memchr;

/// Bytes of a binary record's header.
pub const HEADER_BYTES: usize = 16;

/// `MAX_AUDIT_MESSAGE_LENGTH`: what auditd before 4.1 writes behind every header.
pub const FIXED_BYTES: usize = 8970;

/// Longest binary record that is believed. auditd's own limit is 8970.
const SIZE_MAX: usize = 64 * 1024;

/// Bytes of what a record begins with that are looked at to tell it from chance.
const LOOK_BYTES: usize = 6;

/// Longest piece of garbage.
const GARBAGE_BYTES: usize = 4096;

const _: () = assert!(SIZE_MAX + 64 <= RECORD_PAYLOAD_BYTES_MAX);

/// How a plugin is given its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As the first bytes look.
    #[default]
    Auto,
    /// Lines.
    String,
    /// Headers and records.
    Binary,
}

/// One thing that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A line, without its line feed.
    Line(&'a [u8]),
    /// The beginning of a line that has no end: the stream ended.
    Unended(&'a [u8]),
    /// A line longer than a record may be, of so many bytes.
    TooLong(u64),
    /// A binary record.
    Binary {
        /// 0: the kernel's text alone; 1: all of the line.
        version: u32,
        /// The header's record type.
        kind: u32,
        /// What followed the header.
        payload: &'a [u8],
    },
    /// Bytes that are no record, or the beginning of one that the stream's end cut off.
    Garbage(&'a [u8]),
}

/// How records follow one another in a binary stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// Not known yet.
    Unknown,
    /// Directly.
    Compact,
    /// Every [`FIXED_BYTES`].
    Fixed,
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first bytes, which tell the format.
    Start,
    Line {
        /// Bytes that were let go of the present line, because it is too long.
        dropped: u64,
    },
    Header,
    /// What fills a fixed record up, if it is one.
    Filling(usize),
    /// The next header, wherever it is. So many bytes are known to be none.
    Searching(usize),
}

/// Takes a stream apart. Give it what was read, in whatever pieces, and at the end say so.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    framing: Framing,
    buf: Vec<u8>,
    /// Of the buffer's first byte in the stream.
    offset: u64,
}

/// One look at the buffer.
enum Step<'a> {
    /// A piece, which used so many bytes.
    Piece(Piece<'a>, usize),
    /// Bytes that say nothing.
    Skip(usize),
    /// There is not enough to say.
    More,
}

impl Decoder {
    /// For a stream of this format.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        let state = match format {
            Format::Auto => State::Start,
            Format::String => State::Line { dropped: 0 },
            Format::Binary => State::Header,
        };
        Self { state, framing: Framing::Unknown, buf: Vec::new(), offset: 0 }
    }

    /// Takes what was read, and gives each piece that is whole now with its offset in the stream.
    ///
    /// # Errors
    /// What `visit` says; then the stream cannot be read on.
    pub fn push<E>(
        &mut self,
        bytes: &[u8],
        visit: &mut dyn FnMut(u64, Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.buf.extend_from_slice(bytes);
        self.run(false, visit)
    }

    /// The stream has ended: what is left is given out.
    ///
    /// # Errors
    /// What `visit` says.
    pub fn finish<E>(
        &mut self,
        visit: &mut dyn FnMut(u64, Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.run(true, visit)
    }

    fn run<E>(
        &mut self,
        ended: bool,
        visit: &mut dyn FnMut(u64, Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        while at < self.buf.len() || matches!(self.state, State::Line { dropped: 1.. }) {
            // A line that is too long began before the buffer does.
            let dropped = if let State::Line { dropped } = self.state { dropped } else { 0 };
            let offset = self.offset + at as u64 - dropped;
            let (state, framing) = (&mut self.state, &mut self.framing);
            match step(&self.buf[at..], state, framing, ended) {
                Step::Piece(piece, used) => {
                    visit(offset, piece)?;
                    at += used;
                }
                Step::Skip(used) => at += used,
                Step::More => break,
            }
        }
        self.offset += at as u64;
        self.buf.drain(..at);
        Ok(())
    }
}

fn step<'a>(rest: &'a [u8], state: &mut State, framing: &mut Framing, ended: bool) -> Step<'a> {
    match *state {
        State::Start => {
            let binary = is_binary_start(rest);
            if binary.is_none() && !ended {
                return Step::More;
            }
            *state = if binary == Some(true) { State::Header } else { State::Line { dropped: 0 } };
            Step::Skip(0)
        }
        State::Line { dropped } => line(rest, state, dropped, ended),
        State::Header => match Header::read(rest) {
            Some(header) if header.is_sound() => match rest.get(HEADER_BYTES..header.end()) {
                Some(payload) => {
                    *state = match (*framing, FIXED_BYTES.saturating_sub(header.size)) {
                        (Framing::Compact, _) | (_, 0) => State::Header,
                        (_, filling) => State::Filling(filling),
                    };
                    let Header { version, kind, .. } = header;
                    Step::Piece(Piece::Binary { version, kind, payload }, header.end())
                }
                None if ended => {
                    *state = State::Searching(1);
                    Step::Skip(0)
                }
                None => Step::More,
            },
            None if !ended => Step::More,
            _ => {
                *state = State::Searching(1);
                Step::Skip(0)
            }
        },
        State::Filling(filling) => fill(rest, filling, state, framing, ended),
        State::Searching(from) => search(rest, from, state, ended),
    }
}

/// Whether a stream that begins so is a binary one; `None` if it may be.
fn is_binary_start(bytes: &[u8]) -> Option<bool> {
    let matches = |version: u32| {
        let start = [version.to_ne_bytes(), (HEADER_BYTES as u32).to_ne_bytes()].concat();
        let len = bytes.len().min(start.len());
        (bytes[..len] == start[..len]).then_some(len == start.len())
    };
    match [matches(0), matches(1)].into_iter().flatten().max() {
        None => Some(false),
        Some(true) => Some(true),
        Some(false) => None,
    }
}

fn line<'a>(rest: &'a [u8], state: &mut State, dropped: u64, ended: bool) -> Step<'a> {
    let (text, used) = match memchr(b'\n', rest) {
        Some(feed) => (&rest[..feed], feed + 1),
        None if ended => (rest, rest.len()),
        None if dropped > 0 || rest.len() > RECORD_PAYLOAD_BYTES_MAX => {
            *state = State::Line { dropped: dropped + rest.len() as u64 };
            // Nothing of it will be kept.
            return if rest.is_empty() { Step::More } else { Step::Skip(rest.len()) };
        }
        None => return Step::More,
    };
    *state = State::Line { dropped: 0 };
    let len = dropped + text.len() as u64;
    if len > RECORD_PAYLOAD_BYTES_MAX as u64 {
        return Step::Piece(Piece::TooLong(len), used);
    }
    match used > text.len() {
        true => Step::Piece(Piece::Line(text), used),
        false => Step::Piece(Piece::Unended(text), used),
    }
}

/// Behind a record: the next one, or what fills this one up.
fn fill<'a>(
    rest: &'a [u8],
    filling: usize,
    state: &mut State,
    framing: &mut Framing,
    ended: bool,
) -> Step<'a> {
    if *framing == Framing::Unknown {
        let directly = looks_like_record(rest);
        let later = rest.get(filling..).map_or(Some(false), looks_like_record);
        *framing = match (directly, later) {
            (Some(true), _) => Framing::Compact,
            (None, _) if !ended => return Step::More,
            (_, Some(true)) => Framing::Fixed,
            // The last record of a stream is filled up as well.
            _ if ended && rest.len() == filling => Framing::Fixed,
            _ if ended || rest.len() >= filling + HEADER_BYTES + LOOK_BYTES => Framing::Compact,
            _ => return Step::More,
        };
    }
    if *framing == Framing::Compact {
        *state = State::Header;
        return Step::Skip(0);
    }
    if rest.len() < filling && !ended {
        return Step::More;
    }
    *state = State::Header;
    Step::Skip(filling.min(rest.len()))
}

/// The next record behind bytes that are none; of these the first `from` were looked at.
fn search<'a>(rest: &'a [u8], from: usize, state: &mut State, ended: bool) -> Step<'a> {
    for at in from..rest.len() {
        let found = looks_like_record(&rest[at..]);
        if found == Some(true) {
            *state = State::Header;
            return Step::Piece(Piece::Garbage(&rest[..at]), at);
        }
        if found.is_none() && !ended {
            *state = State::Searching(at);
            return Step::More;
        }
        if at == GARBAGE_BYTES {
            *state = State::Searching(1);
            return Step::Piece(Piece::Garbage(&rest[..at]), at);
        }
    }
    if !ended {
        *state = State::Searching(rest.len().max(1));
        return Step::More;
    }
    *state = State::Header;
    Step::Piece(Piece::Garbage(rest), rest.len())
}

/// Whether a header stands here with what looks like a record behind it; `None` if that may be and
/// more bytes will tell.
fn looks_like_record(bytes: &[u8]) -> Option<bool> {
    // Most bytes are none already by their first four.
    let version = bytes.iter().take(4).copied();
    let possible =
        |wanted: u32| version.clone().eq(wanted.to_ne_bytes().into_iter().take(bytes.len().min(4)));
    if !possible(0) && !possible(1) {
        return Some(false);
    }
    let header = Header::read(bytes)?;
    if !header.is_sound() {
        return Some(false);
    }
    let starts: &[&[u8]] = if header.version == 0 { &[b"audit("] } else { &[b"type=", b"node="] };
    let behind = &bytes[HEADER_BYTES..];
    let may = starts.iter().any(|start| {
        let len = start.len().min(behind.len()).min(header.size);
        start[..len] == behind[..len]
    });
    if may && behind.len() < LOOK_BYTES.min(header.size) { None } else { Some(may) }
}

/// `struct audit_dispatcher_header`.
#[derive(Clone, Copy, Debug)]
struct Header {
    version: u32,
    header_len: u32,
    kind: u32,
    size: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let words = bytes.get(..HEADER_BYTES)?.as_chunks::<4>().0;
        let [version, header_len, kind, size] = *words else { return None };
        let word = u32::from_ne_bytes;
        Some(Self {
            version: word(version),
            header_len: word(header_len),
            kind: word(kind),
            size: word(size) as usize,
        })
    }

    fn is_sound(&self) -> bool {
        self.version <= 1
            && self.header_len as usize == HEADER_BYTES
            && self.kind <= u32::from(u16::MAX)
            && self.size <= SIZE_MAX
    }

    const fn end(&self) -> usize {
        HEADER_BYTES + self.size
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
