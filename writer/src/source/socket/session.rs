//! One client: what it has sent goes to the trail, what is durable is answered.

use super::inbox::{Inbox, Piece};
use super::line::{Line, State};
use super::peer::Peer;
use crate::clock::Now;
use crate::own::{self, Own};
use crate::source::{AppendError, Sink};
use graven_client::wire::{Hello, VERSION, Welcome};
use graven_format::consts::RECORD_PAYLOAD_BYTES_MAX;
use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::{Flags, Record, Source, TrailId};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Records of one client that wait for the disk or for the client to take their answers. It is read
/// from again when there are fewer.
const UNANSWERED_MAX: usize = 4096;

/// What a client is told that it may leave unanswered. Answers to so many fit the kernel's smallest
/// buffer of a socket, so that a client which reads no answers while it sends never waits for us
/// while we wait for it.
const UNANSWERED_TOLD: u32 = 1024;

const _: () = assert!((UNANSWERED_TOLD as usize) < UNANSWERED_MAX);

impl<S> Clone for Common<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Common<'_, S> {}

/// How a connection ends; a word in its closing record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The client has closed, or has said that nothing follows.
    Eof,
    /// The connection failed.
    Error,
    /// It did not begin as the protocol says.
    Stranger,
    /// It said nothing for too long.
    Silent,
    /// It speaks another version.
    Version,
    /// It sent the header of a record that is too long.
    TooLong,
    /// Recording ends.
    Stop,
}

impl Reason {
    const fn word(self) -> &'static str {
        match self {
            Self::Eof => "eof",
            Self::Error => "error",
            Self::Stranger => "stranger",
            Self::Silent => "silent",
            Self::Version => "version",
            Self::TooLong => "too-long",
            Self::Stop => "stop",
        }
    }
}

/// What all clients share.
pub(super) struct Common<'a, S> {
    pub(super) sink: &'a dyn Sink,
    /// Is told of each record that is on the line now and awaits its answer.
    pub(super) awaits: &'a dyn Fn(&Line<S>, u64),
    pub(super) now: &'a dyn Fn() -> Now,
    pub(super) trail_id: TrailId,
}

#[derive(Debug)]
pub(super) struct Session<S> {
    pub(super) line: Arc<Line<S>>,
    /// 1 to 999, as no other connection has now.
    pub(super) number: u16,
    peer: Peer,
    /// When it connected, nanoseconds since boot.
    since_ns: u64,
    inbox: Inbox,
    /// Whether the opening record was made.
    greeted: bool,
    /// Nothing is read any more, for this reason.
    ending: Option<Reason>,
    records: u64,
    refused: u64,
}

impl<S> Session<S>
where
    for<'s> &'s S: Read + Write,
{
    pub(super) fn new(stream: S, number: u16, peer: Peer, since_ns: u64) -> Self {
        Self {
            line: Arc::new(Line::new(stream)),
            number,
            peer,
            since_ns,
            inbox: Inbox::new(),
            greeted: false,
            ending: None,
            records: 0,
            refused: 0,
        }
    }

    /// Whether there is room for what it may send.
    pub(super) fn wants_more(&self) -> bool {
        self.ending.is_none() && self.line.state().unanswered < UNANSWERED_MAX
    }

    /// Whether nothing more can happen.
    pub(super) fn is_over(&self) -> bool {
        let State { unanswered, has_answers, broken, .. } = self.line.state();
        broken || self.ending.is_some() && unanswered == 0 && !has_answers
    }

    /// When it connected, if it has said nothing since.
    pub(super) const fn silent_since_ns(&self) -> Option<u64> {
        if self.greeted || self.ending.is_some() { None } else { Some(self.since_ns) }
    }

    /// Reads nothing more. What was taken is answered.
    pub(super) fn end(&mut self, reason: Reason) {
        self.ending.get_or_insert(reason);
    }

    /// Reads once and appends what it brought.
    ///
    /// # Errors
    /// The trail takes no more records. That the client fails is no error of ours.
    pub(super) fn read(&mut self, common: Common<'_, S>) -> Result<(), AppendError> {
        match self.inbox.read(&mut &self.line.stream) {
            Ok(0) => self.end(Reason::Eof),
            Ok(_) => {}
            Err(why) if is_no_news(&why) => return Ok(()),
            Err(_) => {
                self.line.fail();
                self.end(Reason::Error);
            }
        }
        let now = (common.now)();
        while self.ending.is_none()
            && let Some(piece) = self.inbox.take()
        {
            match piece {
                Piece::Record { id, bytes } => {
                    let record = Record {
                        source: Source::Socket,
                        kind: self.number,
                        flags: Flags::NONE,
                        realtime_ns: now.realtime_ns,
                        boottime_ns: now.boottime_ns,
                        source_seq: id,
                        bytes,
                    };
                    let seq = common.sink.append(&record)?;
                    self.records += 1;
                    self.line.push(id, seq, false);
                    (common.awaits)(&self.line, seq);
                }
                Piece::TooLong { id, .. } => {
                    let seq = state_refused(common.sink, id, now)?;
                    self.refused += 1;
                    self.line.push(id, seq, true);
                    (common.awaits)(&self.line, seq);
                    self.end(Reason::TooLong);
                }
                Piece::Hello(hello) => self.greet(hello, common, now)?,
                Piece::Stranger => self.end(Reason::Stranger),
            }
        }
        Ok(())
    }

    fn greet(&mut self, hello: Hello, common: Common<'_, S>, now: Now) -> Result<(), AppendError> {
        if hello.version == VERSION {
            // Before its first record.
            self.about(own::ACCEPT, "socket-connect", now).result(true).append(common.sink)?;
            self.greeted = true;
        } else {
            self.end(Reason::Version);
        }
        let welcome = Welcome {
            version: VERSION,
            record_bytes_max: RECORD_PAYLOAD_BYTES_MAX as u32,
            trail_id: common.trail_id.0,
            client: self.number.into(),
            unanswered_max: UNANSWERED_TOLD,
        };
        self.line.greet(&welcome.encode());
        Ok(())
    }

    /// Says in the trail how it ended.
    ///
    /// # Errors
    /// The trail takes no more records.
    pub(super) fn close(&self, common: Common<'_, S>) -> Result<(), AppendError> {
        let now = (common.now)();
        let state = self.line.state();
        let reason = match self.ending {
            _ if state.broken => Reason::Error,
            ending => ending.unwrap_or(Reason::Stop),
        };
        let (kind, op) = match self.greeted {
            true => (own::CLOSE, "socket-close"),
            // It was never a client.
            false => (own::ERR, "socket-refuse"),
        };
        self.about(kind, op, now)
            .field("reason", reason.word())
            .field("records", self.records)
            .field("refused", self.refused)
            .field("unanswered", state.unanswered)
            .field("unfinished-bytes", self.inbox.left())
            .result(matches!(reason, Reason::Eof | Reason::Stop) && self.greeted)
            .append(common.sink)
            .map(drop)
    }

    pub(super) const fn counts(&self) -> (bool, u64, u64) {
        (self.greeted, self.records, self.refused)
    }

    fn about(&self, kind: u16, op: &str, now: Now) -> Own {
        let Peer { pid, uid, gid, auid, session } = self.peer;
        Own::new(kind, op, now)
            .field("client", self.number)
            .field("pid", pid)
            .field("uid", uid)
            .field("gid", gid)
            .field("auid", auid)
            .field("ses", session)
    }
}

fn is_no_news(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A record of this id was too long: its place is taken by a statement.
fn state_refused(sink: &dyn Sink, id: u64, now: Now) -> Result<u64, AppendError> {
    let statement = LossStatement {
        source: Source::Socket,
        cause: Cause::InputTooLong,
        certainty: Certainty::Exactly,
        count: 1,
        range: Some((id, id)),
        between_ns: None,
    };
    let payload = statement.encode(now.realtime_ns);
    sink.append(&LossStatement::record(&payload, now.realtime_ns, now.boottime_ns))
}
