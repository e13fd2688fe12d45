//! `graven watch`, on a terminal and elsewhere.

use crate::rig::{PATIENCE, Recording, lines};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// `graven watch` on a terminal of its own.
struct Watched {
    child: Child,
    keys: File,
    terminal: File,
    shown: Arc<Mutex<String>>,
    before: String,
}

/// What of a terminal's settings matters.
fn settings(terminal: &File) -> String {
    let Termios { input_modes, output_modes, control_modes, local_modes, .. } =
        tcgetattr(terminal).expect("a terminal");
    format!("{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?}")
}

impl Watched {
    fn start(trail: &Path, no_color: bool) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let path = name.to_str().expect("a name");
        let terminal = File::options().read(true).write(true).open(path).expect("a terminal");
        let before = settings(&terminal);
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("graven"));
        command.args(["watch", "--interval", "100ms"]).arg(trail);
        command.env_remove("NO_COLOR").env("TERM", "xterm-256color");
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let side = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().expect("it starts");
        let keys = File::from(master);
        let mut screen = keys.try_clone().expect("a descriptor");
        let shown = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                seen.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        let watched = Self { child, keys, terminal, shown, before };
        watched.resize(100, 40);
        watched
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.terminal, size).expect("a terminal");
        // It is nobody's controlling terminal here, so the kernel tells nobody.
        self.signal(Signal::WINCH);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// The last whole screen that `is_it`, without what moves the cursor.
    #[track_caller]
    fn screen(&self, is_it: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let shown = self.shown.lock().expect("no panic").clone();
            let screens: Vec<&str> = shown.split("\x1b[H").collect();
            // The last one may be half drawn.
            if let Some(screen) = screens.iter().rev().skip(1).find(|screen| is_it(screen)) {
                return (*screen).to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "{:?}", screens.last());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How it ended; the terminal is as it was.
    #[track_caller]
    fn ended(mut self) -> ExitStatus {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(settings(&self.terminal), self.before, "the terminal is what it was");
        let left = |it: &Self| it.shown.lock().expect("no panic").ends_with("\x1b[?1049l");
        while !left(&self) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let shown = self.shown.lock().expect("no panic").clone();
        assert!(shown.ends_with("\x1b[?7h\x1b[?25h\x1b[?1049l"), "{shown:?}");
        assert!(!shown.contains("panicked"), "{shown}");
        status
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The screen without any escape sequence.
fn bare(screen: &str) -> String {
    let mut out = String::new();
    let mut rest = screen;
    while let Some((text, behind)) = rest.split_once("\x1b[") {
        out.push_str(text);
        let end = behind.find(|c: char| c.is_ascii_alphabetic()).expect("a whole sequence");
        rest = &behind[end + 1..];
    }
    out + rest
}

#[test]
fn it_draws_follows_and_quits() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut recording = Recording::start(&dir.path().join("trail"), &["--no-key"]);
    let mut watched = Watched::start(&recording.trail, false);
    watched.screen(|it| bare(it).contains("0 of the trail"));
    recording.feed(&lines(1234), 1233);
    let screen = watched.screen(|it| bare(it).contains("1,234 of the trail"));
    let text = bare(&screen);
    for part in [
        "recording stdin as pid",
        "rate ",
        "ring ",
        "space ",
        "waits ",
        "p99.9",
        "lost ",
        "q quits",
    ] {
        assert!(text.contains(part), "{part} is not on the screen:\n{text}");
    }
    assert!(screen.contains("\x1b[1;32m"), "it has colours: {screen:?}");
    assert!(text.contains('█'), "{text}");
    // Nothing is wider or longer than the terminal, whatever its size.
    for (columns, rows) in [(40, 10), (20, 3), (1, 1), (200, 60)] {
        watched.resize(columns, rows);
        let fits = |it: &str| {
            let text = bare(it);
            let lines: Vec<_> = text.split("\r\n").collect();
            lines.len() <= usize::from(rows)
                && lines.iter().all(|line| line.chars().count() <= usize::from(columns))
        };
        watched.shown.lock().expect("no panic").clear();
        watched.screen(|it| it.contains('\x1b') && fits(it));
    }
    watched.keys.write_all(b"q").expect("it reads");
    assert_eq!(watched.ended().code(), Some(0));
    assert_eq!(recording.end(), (0, String::new()));
}

#[test]
fn it_waits_for_a_writer_and_has_no_colours_if_none_are_wanted() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    Recording::start(&trail, &["--no-key"]).end();
    let mut watched = Watched::start(&trail, true);
    watched.screen(|it| bare(it).contains("no writer runs"));
    let recording = Recording::start(&trail, &["--no-key"]);
    let screen = watched.screen(|it| bare(it).contains("recording stdin"));
    // What is left is the end of each line, and of the screen.
    assert!(
        !screen.replace("\x1b[0m", "").contains('m') || !screen.contains("\x1b[1"),
        "{screen:?}"
    );
    assert!(!screen.contains("\x1b[3"), "{screen:?}");
    assert_eq!(recording.end().0, 0);
    watched.screen(|it| bare(it).contains("it is asked again"));
    watched.keys.write_all(&[3]).expect("it reads");
    assert_eq!(watched.ended().code(), Some(0));
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let recording = Recording::start(&dir.path().join("trail"), &["--no-key"]);
    for signal in [Signal::TERM, Signal::HUP] {
        let watched = Watched::start(&recording.trail, false);
        watched.screen(|it| bare(it).contains("recording stdin"));
        watched.signal(signal);
        assert_eq!(watched.ended().signal(), Some(signal.as_raw()));
    }
    assert_eq!(recording.end(), (0, String::new()));
}

#[test]
fn elsewhere_it_is_a_line_an_interval() {
    let dir = tempfile::tempdir().expect("a directory");
    let recording = Recording::start(&dir.path().join("trail"), &["--no-key"]);
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("graven"))
        .args(["watch", "--interval", "100ms"])
        .arg(&recording.trail)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    for _ in 0..3 {
        let mut line = String::new();
        out.read_line(&mut line).expect("it tells");
        assert!(line.contains("Z ok · 0 records/s"), "{line}");
        assert!(!line.contains('\x1b'), "{line:?}");
    }
    drop(out);
    // Whoever has read enough has got what they wanted.
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!(recording.end(), (0, String::new()));
}
