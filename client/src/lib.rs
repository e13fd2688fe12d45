//! Puts an application's own records into a Graven audit trail over the Unix socket of
//! `graven record --source socket` (or `--listen`), and says when each is durable.
//!
//! ```no_run
//! # fn main() -> Result<(), graven_client::ClientError> {
//! let mut client = graven_client::Client::connect("/run/graven/socket")?;
//! let seq = client.record(b"door 7 opened")?; // returns when it survives a power cut
//! # Ok(()) }
//! ```
//!
//! Waiting for every single record costs a barrier each. [`Client::send`] does not wait, and
//! [`Client::answer`] gives the answers in the order of the records.
//!
//! The protocol is in `docs/socket.md`; its layout is in [`wire`], and nowhere else.

pub mod wire;

use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use wire::{
    ANSWER_BYTES, Answer, Hello, RECORD_HEADER_BYTES, RecordHeader, VERSION, WELCOME_BYTES, Welcome,
};

/// Bytes of records that are gathered before they are sent.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// Why a record is not known to be durable.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The system said no.
    #[error("cannot {operation} the trail's socket: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Whoever listens there does not speak this protocol.
    #[error("whoever listens on this socket is no graven")]
    NotGraven,
    /// It speaks another version of the protocol.
    #[error("graven speaks version {theirs} of the protocol, this client version {VERSION}")]
    Version {
        /// Its version.
        theirs: u32,
    },
    /// The record is longer than the trail takes. It was not sent.
    #[error("record of {len} bytes is over the trail's limit of {max}")]
    TooLong {
        /// Its bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// As many records as may be are unanswered. The record was not sent: take an answer first.
    #[error("{0} records are unanswered: take an answer before sending more")]
    Unanswered(usize),
    /// There is no answer to wait for.
    #[error("every record that was sent has been answered")]
    NothingSent,
    /// Graven refused the record, and says so in the trail. It ends the connection.
    #[error("record {id} was refused: it is too long")]
    Refused {
        /// The record's id.
        id: u64,
    },
    /// An answer is for another record than the oldest unanswered one.
    #[error("answer to record {got} where record {expected} is the oldest unanswered one")]
    OutOfOrder {
        /// The id that was answered.
        got: u64,
        /// The id that was next.
        expected: u64,
    },
    /// Graven ended the connection. What was unanswered may or may not be in the trail.
    #[error("graven ended the connection; {unanswered} records were unanswered")]
    Ended {
        /// How many.
        unanswered: usize,
    },
}

/// A connection to the writer of a trail. It is for one thread; connect as often as there are.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    welcome: Welcome,
    /// Records that were gathered and not sent yet.
    gathered: Vec<u8>,
    /// Ids of the records that are unanswered, oldest first.
    unanswered: std::collections::VecDeque<u64>,
    next_id: u64,
}

impl Client {
    /// Connects, and waits until the trail takes this client.
    ///
    /// # Errors
    /// [`ClientError`]; a socket that may not be used is `Io` with `PermissionDenied`.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path)
            .map_err(|source| ClientError::Io { operation: "connect to", source })?;
        Self::greet(stream)
    }

    /// The same over a connection that somebody else has made.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn greet(stream: UnixStream) -> Result<Self, ClientError> {
        let hello = Hello { version: VERSION }.encode();
        (&stream)
            .write_all(&hello)
            .map_err(|source| ClientError::Io { operation: "write to", source })?;
        let mut stream = BufReader::with_capacity(16 * 1024, stream);
        let mut bytes = [0; WELCOME_BYTES];
        read(&mut stream, &mut bytes, 0)?;
        let welcome = Welcome::decode(&bytes).ok_or(ClientError::NotGraven)?;
        if welcome.version != VERSION {
            return Err(ClientError::Version { theirs: welcome.version });
        }
        Ok(Self {
            stream,
            welcome,
            gathered: Vec::new(),
            unanswered: std::collections::VecDeque::new(),
            next_id: 1,
        })
    }

    /// What the writer said of itself and of this connection.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Records that were sent and not answered yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Whether [`Client::send`] takes another record before an answer was taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.unanswered.len() >= self.welcome.unanswered_max as usize
    }

    /// Sends one record, waits until it and all before it are durable, and returns its seq in the
    /// trail. Answers to records before it are passed over: they are durable as well.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn record(&mut self, bytes: &[u8]) -> Result<u64, ClientError> {
        while self.is_full() {
            self.answer()?;
        }
        let id = self.next_id;
        self.send(id, bytes)?;
        loop {
            let answer = self.answer()?;
            if self.unanswered.is_empty() {
                return Ok(answer.seq);
            }
        }
    }

    /// Sends one record under the application's own number for it, which the trail keeps beside it
    /// and the answer names. It does not wait for the answer, and may gather records before it
    /// writes them: [`Client::answer`] and [`Client::flush`] do.
    ///
    /// # Errors
    /// [`ClientError::Unanswered`] if [`Client::is_full`], [`ClientError::TooLong`]: the record was
    /// not sent. [`ClientError::Io`]: the connection is over.
    pub fn send(&mut self, id: u64, bytes: &[u8]) -> Result<(), ClientError> {
        let max = self.welcome.record_bytes_max as usize;
        let len = match u32::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= max => len,
            _ => return Err(ClientError::TooLong { len: bytes.len(), max }),
        };
        if self.is_full() {
            return Err(ClientError::Unanswered(self.unanswered.len()));
        }
        self.gathered.reserve(RECORD_HEADER_BYTES + bytes.len());
        self.gathered.extend_from_slice(&RecordHeader { id, len }.encode());
        self.gathered.extend_from_slice(bytes);
        self.unanswered.push_back(id);
        self.next_id = id.wrapping_add(1);
        if self.gathered.len() >= GATHERED_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// [`ClientError::Io`]: the connection is over.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        // As many answers as may be unanswered fit the socket, so that Graven goes on reading and
        // this does not wait for somebody who waits for us.
        let written = self.stream.get_ref().write_all(&self.gathered);
        self.gathered.clear();
        match written {
            Err(why)
                if matches!(
                    why.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                // A refusal that explains it may be there to be read.
                Ok(())
            }
            written => written.map_err(|source| ClientError::Io { operation: "write to", source }),
        }
    }

    /// Waits for the next answer: the record of this id, and every one that was sent before it, is
    /// durable.
    ///
    /// # Errors
    /// [`ClientError`]; after each but [`ClientError::NothingSent`] the connection is over.
    pub fn answer(&mut self) -> Result<Answer, ClientError> {
        let expected = *self.unanswered.front().ok_or(ClientError::NothingSent)?;
        self.flush()?;
        let mut bytes = [0; ANSWER_BYTES];
        read(&mut self.stream, &mut bytes, self.unanswered.len())?;
        let answer = Answer::decode(&bytes);
        if answer.id != expected {
            return Err(ClientError::OutOfOrder { got: answer.id, expected });
        }
        self.unanswered.pop_front();
        if answer.is_refused() { Err(ClientError::Refused { id: answer.id }) } else { Ok(answer) }
    }
}

fn read(
    stream: &mut BufReader<UnixStream>,
    bytes: &mut [u8],
    unanswered: usize,
) -> Result<(), ClientError> {
    stream.read_exact(bytes).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            ClientError::Ended { unanswered }
        }
        _ => ClientError::Io { operation: "read from", source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::REFUSED;

    /// A server of one client, told what to do.
    fn served(serve: impl FnOnce(UnixStream) + Send + 'static) -> Result<Client, ClientError> {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        std::thread::spawn(move || serve(theirs));
        Client::greet(ours)
    }

    fn welcomed(stream: &mut UnixStream, version: u32) {
        let mut hello = [0; wire::HELLO_BYTES];
        stream.read_exact(&mut hello).expect("a hello");
        assert_eq!(Hello::decode(&hello), Some(Hello { version: VERSION }));
        let welcome = Welcome {
            version,
            record_bytes_max: 100,
            trail_id: [7; 16],
            client: 3,
            unanswered_max: 2,
        };
        stream.write_all(&welcome.encode()).expect("written");
    }

    fn one_record(stream: &mut UnixStream) -> (u64, Vec<u8>) {
        let mut header = [0; RECORD_HEADER_BYTES];
        stream.read_exact(&mut header).expect("a header");
        let RecordHeader { id, len } = RecordHeader::decode(&header);
        let mut bytes = vec![0; len as usize];
        stream.read_exact(&mut bytes).expect("a record");
        (id, bytes)
    }

    #[test]
    fn records_are_answered_in_their_order() {
        let mut client = served(|mut stream| {
            welcomed(&mut stream, VERSION);
            for seq in 40..43 {
                let (id, _) = one_record(&mut stream);
                stream.write_all(&Answer { id, seq }.encode()).expect("written");
            }
        })
        .expect("welcome");
        assert_eq!(client.welcome().client, 3);
        assert_eq!(client.record(b"a").expect("durable"), 40);
        client.send(9, b"b").expect("sent");
        client.send(5, b"").expect("sent");
        assert!(client.is_full());
        assert!(matches!(client.send(6, b"c"), Err(ClientError::Unanswered(2))));
        assert_eq!(client.answer().expect("durable"), Answer { id: 9, seq: 41 });
        assert_eq!(client.answer().expect("durable"), Answer { id: 5, seq: 42 });
        assert!(matches!(client.answer(), Err(ClientError::NothingSent)));
        let long = [0; 101];
        assert!(matches!(client.send(1, &long), Err(ClientError::TooLong { len: 101, max: 100 })));
        assert!(matches!(client.record(b"x"), Err(ClientError::Ended { unanswered: 1 })));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let mut client = served(|mut stream| {
            welcomed(&mut stream, VERSION);
            let (id, _) = one_record(&mut stream);
            stream.write_all(&Answer { id, seq: REFUSED }.encode()).expect("written");
        })
        .expect("welcome");
        assert!(matches!(client.record(b"a"), Err(ClientError::Refused { id: 1 })));
        let mut client = served(|mut stream| {
            welcomed(&mut stream, VERSION);
            stream.write_all(&Answer { id: 77, seq: 0 }.encode()).expect("written");
        })
        .expect("welcome");
        let answer = client.record(b"a");
        assert!(matches!(answer, Err(ClientError::OutOfOrder { got: 77, expected: 1 })));
        let other = served(|mut stream| welcomed(&mut stream, 9));
        assert!(matches!(other, Err(ClientError::Version { theirs: 9 })));
        let other = served(|mut stream| drop(stream.write_all(&[b'x'; 100])));
        assert!(matches!(other, Err(ClientError::NotGraven)));
        assert!(matches!(
            served(drop),
            Err(ClientError::Ended { unanswered: 0 } | ClientError::Io { .. })
        ));
    }
}
