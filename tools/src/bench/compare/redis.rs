//! A Redis server of its own, whose replies wait for its append-only file.

use super::super::process::{Process, Trouble, Usage};
use super::library::Ran;
use super::load::{Client, Group, Load, push};
use super::records::Tally;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The list that records are appended to.
const LIST: &[u8] = b"records";

/// Records that are read back at once.
const READ_RECORDS: u64 = 10_000;

/// What it says of itself, if it is installed.
///
/// # Errors
/// Why not.
pub fn version() -> Result<String, String> {
    let output = Command::new("redis-server").arg("--version").output();
    let output = output.map_err(|why| format!("redis-server: {why}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(version.unwrap_or("unknown").to_owned())
}

struct Server {
    process: Process,
    socket: PathBuf,
    /// A socket's path is short.
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(dir: &Path) -> Result<Self, Trouble> {
        let place = tempfile::tempdir().map_err(Trouble::io("a directory for a socket"))?;
        let socket = place.path().join("s");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--daemonize", "no", "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--unixsocketperm", "600", "--unixsocket"]);
        command.arg(&socket).arg("--dir").arg(dir);
        let mut process =
            Process::start("redis-server", command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        // While it reads its file it answers with an error.
        process.wait_until(|_| Ok(Connection::open(&socket).is_ok_and(|mut it| it.ping())))?;
        Ok(Self { process, socket, _dir: place })
    }

    fn connect(&self) -> Result<Connection, Trouble> {
        Connection::open(&self.socket).map_err(Trouble::io("redis cannot be reached"))
    }
}

/// Runs it, and kills it.
///
/// # Errors
/// [`Trouble`]
pub fn run(dir: &Path, load: &Load<'_>) -> Result<Ran, Trouble> {
    let server = Server::start(dir)?;
    let clients: Vec<Box<dyn Client>> = (0..load.producers)
        .map(|_| Ok(Box::new(server.connect()?) as Box<dyn Client>))
        .collect::<Result<_, Trouble>>()?;
    let before = Usage::own().and(server.process.usage());
    let pushed = push(load, clients)?;
    let usage = Usage::own().and(server.process.usage()).since(before);
    server.process.kill()?;
    Ok(Ran { pushed, usage })
}

/// Starts it again on its file, and reads the list.
///
/// # Errors
/// It does not start, or has what was not sent.
pub fn read(dir: &Path, tally: &mut Tally<'_>) -> Result<(), Trouble> {
    let server = Server::start(dir)?;
    let mut connection = server.connect()?;
    for first in (0..).step_by(READ_RECORDS as usize) {
        let (from, to) = (first.to_string(), (first + READ_RECORDS - 1).to_string());
        let request = request(&[b"LRANGE", LIST, from.as_bytes(), to.as_bytes()]);
        let count = connection.ask(&request).map_err(Trouble::io("redis"))?;
        for _ in 0..count {
            tally.see(&connection.bulk().map_err(Trouble::io("redis"))?)?;
        }
        if count < READ_RECORDS {
            break;
        }
    }
    drop(connection);
    server.process.end()
}

/// A request of Redis' protocol: an array of strings.
fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, words);
    out
}

fn append(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

struct Connection {
    stream: BufReader<UnixStream>,
    request: Vec<u8>,
    line: String,
}

impl Connection {
    fn open(socket: &Path) -> io::Result<Self> {
        let stream = BufReader::new(UnixStream::connect(socket)?);
        Ok(Self { stream, request: Vec::new(), line: String::new() })
    }

    fn ping(&mut self) -> bool {
        let asked = self.stream.get_mut().write_all(&request(&[b"PING"]));
        asked.and_then(|()| self.read_line()).is_ok_and(|line| line == "+PONG")
    }

    fn read_line(&mut self) -> io::Result<&str> {
        self.line.clear();
        self.stream.read_line(&mut self.line)?;
        self.line
            .strip_suffix("\r\n")
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the server has gone"))
    }

    /// Reads a reply that is a number: of an integer, or of the parts of an array.
    fn number(&mut self) -> io::Result<u64> {
        let line = self.read_line()?;
        let number = line.strip_prefix([':', '*', '$']).and_then(|it| it.parse().ok());
        number.ok_or_else(|| io::Error::other(line.to_owned()))
    }

    fn ask(&mut self, request: &[u8]) -> io::Result<u64> {
        self.stream.get_mut().write_all(request)?;
        self.number()
    }

    fn bulk(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.number()?).unwrap_or(0) + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(bytes.len() - 2);
        Ok(bytes)
    }
}

impl Client for Connection {
    fn push(&mut self, group: &Group) -> Result<(), Trouble> {
        self.request.clear();
        for record in group.records() {
            append(&mut self.request, &[b"RPUSH", LIST, record]);
        }
        self.stream.get_mut().write_all(&self.request).map_err(Trouble::io("redis"))?;
        for _ in 0..group.len() {
            self.number().map_err(Trouble::io("redis"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_an_array_of_strings() {
        assert_eq!(
            request(&[b"RPUSH", b"l", b"a\r\n"]),
            b"*3\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n$3\r\na\r\n\r\n"
        );
    }

    #[test]
    fn a_reply_is_a_number_a_string_or_why_not() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs
            .write_all(b":42\r\n*2\r\n$3\r\na\r\n\r\n$0\r\n\r\n-OOM no memory\r\n")
            .expect("room");
        drop(theirs);
        let stream = BufReader::new(ours);
        let mut it = Connection { stream, request: Vec::new(), line: String::new() };
        assert_eq!((it.number().expect("42"), it.number().expect("2")), (42, 2));
        assert_eq!(it.bulk().expect("bytes"), b"a\r\n");
        assert_eq!(it.bulk().expect("bytes"), b"");
        assert!(it.number().expect_err("an error").to_string().contains("OOM"));
        assert_eq!(it.number().expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
    }
}
