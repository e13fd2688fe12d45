//! A witness for tests, written after <https://c2sp.org/tlog-witness> with nothing of Graven: notes are read
//! by `signed_note`, proofs checked by `tlog_tiles`. It can also misbehave.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};
use signed_note::{Note, StandardVerifier, VerifierList};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tlog_tiles::{Checkpoint, Hash, check_tree};

/// What it does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Its work.
    Well,
    /// Accepts connections and says nothing, for this time.
    Hangs(Duration),
    /// A byte of a good answer at a time, with this pause.
    Drips(Duration),
    /// Always this status, with this body.
    Says(u16, &'static str),
    /// No HTTP at all.
    Garbage,
    /// A body that does not end.
    Endless,
    /// An endless header.
    EndlessHeader,
    /// Closes each connection at once.
    Closes,
    /// Signs with another key, under its own name and id.
    WrongKey,
    /// Signs one time and says another.
    WrongTime,
    /// Signs for another name.
    OtherName,
    /// Time 0, which the specification forbids.
    NoTime,
    /// A long line of an unknown algorithm in front of its own, which is to be ignored.
    Stranger,
}

/// The last checkpoint that it has cosigned of a log.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub size: u64,
    pub root: [u8; 32],
    /// The note as it hands it out: what it has verified, and its own signature.
    pub note: String,
}

#[derive(Default)]
struct State {
    /// Verifier keys by origin.
    logs: HashMap<String, String>,
    seen: HashMap<String, Seen>,
    mood: Option<Mood>,
    /// Status of each answer, in order.
    answered: Vec<u16>,
    /// Old size of each request.
    asked_from: Vec<u64>,
    connections: u64,
}

/// A running witness. Its thread ends with the test's process.
#[derive(Clone)]
pub struct Witness {
    state: Arc<Mutex<State>>,
    pub name: String,
    key: SigningKey,
    pub port: u16,
}

impl Witness {
    pub fn start(name: &str, seed: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let key = SigningKey::from_bytes(&[seed; 32]);
        let witness = Self { state: Arc::default(), name: name.to_owned(), key, port };
        let served = witness.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let witness = served.clone();
                witness.state().connections += 1;
                thread::spawn(move || while witness.serve(&stream).is_some() {});
            }
        });
        witness
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test thread panicked in it")
    }

    /// Its verifier key.
    pub fn vkey(&self) -> String {
        vkey(&self.name, 4, self.key.verifying_key().as_bytes())
    }

    /// The option's value.
    pub fn option(&self) -> String {
        format!("{}@http://127.0.0.1:{}/prefix", self.vkey(), self.port)
    }

    pub fn knows(&self, origin: &str, vkey: &str) {
        self.state().logs.insert(origin.to_owned(), vkey.to_owned());
    }

    /// Knows the trail in this directory, by the key in its file.
    pub fn knows_trail(&self, trail: &std::path::Path) {
        let text = std::fs::read_to_string(trail.join("key.witness")).expect("its key");
        let private = text.trim_end().strip_prefix("PRIVATE+KEY+").expect("a private key");
        let [name, _, seed] = private.splitn(3, '+').collect::<Vec<_>>()[..] else {
            panic!("three parts")
        };
        let seed = BASE64.decode(seed).expect("base64");
        let key = SigningKey::from_bytes(seed[1..].try_into().expect("32 bytes")).verifying_key();
        let vkey = vkey(name, 1, key.as_bytes());
        self.knows(name, &vkey);
    }

    pub fn is(&self, mood: Mood) {
        self.state().mood = Some(mood);
    }

    pub fn seen(&self, origin: &str) -> Seen {
        self.state().seen.get(origin).cloned().unwrap_or_default()
    }

    pub fn any_seen(&self) -> Seen {
        self.state().seen.values().next().cloned().unwrap_or_default()
    }

    pub fn forget(&self) {
        self.state().seen.clear();
    }

    pub fn answered(&self) -> Vec<u16> {
        self.state().answered.clone()
    }

    pub fn asked_from(&self) -> Vec<u64> {
        self.state().asked_from.clone()
    }

    pub fn connections(&self) -> u64 {
        self.state().connections
    }

    /// One request of a connection; `None` ends the connection.
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mood = self.state().mood.unwrap_or(Mood::Well);
        if mood == Mood::Closes {
            return None;
        }
        let body = read_request(stream)?;
        // What it is at this moment, not when the connection was made.
        let mood = self.state().mood.unwrap_or(Mood::Well);
        let mut out = stream;
        let (status, kind, answer) = match mood {
            Mood::Hangs(time) => {
                thread::sleep(time);
                return None;
            }
            Mood::Says(status, body) => (status, "text/plain", body.to_owned()),
            Mood::Garbage => {
                out.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n\0\0").ok()?;
                return None;
            }
            Mood::Endless => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n").ok()?;
                while out.write_all(&[b'x'; 4096]).is_ok() {}
                return None;
            }
            Mood::EndlessHeader => {
                out.write_all(b"HTTP/1.1 200 OK\r\nX: ").ok()?;
                while out.write_all(&[b'x'; 4096]).is_ok() {}
                return None;
            }
            mood => self.add_checkpoint(&body, mood),
        };
        self.state().answered.push(status);
        let text = format!(
            "HTTP/1.1 {status} Whatever\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        match mood {
            Mood::Drips(pause) => {
                for byte in text.as_bytes() {
                    out.write_all(&[*byte]).ok()?;
                    thread::sleep(pause);
                }
            }
            _ => out.write_all(text.as_bytes()).ok()?,
        }
        Some(())
    }

    /// As the specification has it, check by check.
    fn add_checkpoint(&self, body: &str, mood: Mood) -> (u16, &'static str, String) {
        let plain = |status| (status, "text/plain", "no\n".to_owned());
        let Some((head, note)) = body.split_once("\n\n") else { return plain(400) };
        let mut lines = head.lines();
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let Some(old) = old.filter(|it| *it == "0" || !it.starts_with('0')) else {
            return plain(400);
        };
        let Ok(old) = old.parse::<u64>() else { return plain(400) };
        let hash = |line: &str| Some(Hash(BASE64.decode(line).ok()?.try_into().ok()?));
        let Some(proof) = lines.map(hash).collect::<Option<Vec<Hash>>>() else { return plain(400) };
        if proof.len() > 63 || !note.ends_with('\n') {
            return plain(400);
        }
        let Ok(parsed) = Note::from_bytes(note.as_bytes()) else { return plain(400) };
        let Ok(checkpoint) = Checkpoint::from_bytes(parsed.text()) else { return plain(400) };
        // The check and the change are one.
        let mut state = self.state();
        state.asked_from.push(old);
        let Some(vkey) = state.logs.get(checkpoint.origin()) else { return plain(404) };
        let verifier = StandardVerifier::new(vkey).expect("a key");
        let Ok((trusted, _)) = parsed.verify(&VerifierList::new(vec![Box::new(verifier)])) else {
            return plain(403);
        };
        let size = checkpoint.size();
        if old > size {
            return plain(400);
        }
        let seen = state.seen.get(checkpoint.origin()).cloned().unwrap_or_default();
        if old != seen.size {
            return (409, "text/x.tlog.size", format!("{}\n", seen.size));
        }
        let consistent = match old {
            0 => proof.is_empty(),
            old if old == size => proof.is_empty() && seen.root == checkpoint.hash().0,
            old => check_tree(&proof, size, *checkpoint.hash(), old, Hash(seen.root)).is_ok(),
        };
        if !consistent {
            return plain(422);
        }
        let text = String::from_utf8(parsed.text().to_vec()).expect("a note is UTF-8");
        let line = self.cosign(&text, mood);
        let signed = String::from_utf8(trusted[0].to_bytes()).expect("a line");
        let note = format!("{text}\n{signed}{line}");
        let root = checkpoint.hash().0;
        state.seen.insert(checkpoint.origin().to_owned(), Seen { size, root, note });
        (200, "text/plain", line)
    }

    /// A cosignature line over a note's text.
    pub fn cosign(&self, text: &str, mood: Mood) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let time = if mood == Mood::NoTime { 0 } else { now };
        let stated = if mood == Mood::WrongTime { time + 1 } else { time };
        let wrong = SigningKey::from_bytes(&[99; 32]);
        let key = if mood == Mood::WrongKey { &wrong } else { &self.key };
        let signature = key.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
        let time = (0..8).rev().map(|byte| (stated >> (8 * byte)) as u8).collect::<Vec<_>>();
        let bytes = [
            &key_id(&self.name, 4, self.key.verifying_key().as_bytes())[..],
            &time,
            &signature.to_bytes(),
        ]
        .concat();
        let name = if mood == Mood::OtherName { "somebody.example" } else { &self.name };
        let line = format!("\u{2014} {name} {}\n", BASE64.encode(bytes));
        match mood {
            // As long as one of ML-DSA-44.
            Mood::Stranger => format!("\u{2014} pq.example/w {}\n{line}", BASE64.encode([7; 2432])),
            _ => line,
        }
    }
}

fn key_id(name: &str, kind: u8, key: &[u8; 32]) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', kind]).chain_update(key);
    hash.finalize()[..4].try_into().expect("four bytes")
}

/// A verifier key.
fn vkey(name: &str, kind: u8, key: &[u8; 32]) -> String {
    let id: String = key_id(name, kind, key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}+{id}+{}", BASE64.encode([&[kind], &key[..]].concat()))
}

/// The body of a POST to the witness's path.
fn read_request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    if !line.starts_with("POST /prefix/add-checkpoint HTTP/1.1") {
        return None;
    }
    let mut len = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            len = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}
