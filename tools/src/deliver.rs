//! Copying checkpoints elsewhere: to a file, behind a barrier, or to a command.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take with one checkpoint.
pub const COMMAND_MAX: Duration = Duration::from_secs(60);

/// How often a command is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Where checkpoints go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Appended to this file.
    File(PathBuf),
    /// Given to this command of the shell on standard input.
    Command(String),
}

impl Target {
    /// The name for messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => crate::escape::path(path),
            Self::Command(command) => {
                format!("`{}`", crate::escape::Escaped(command.as_bytes()))
            }
        }
    }

    /// Delivers one checkpoint. A file has it behind a barrier; a command has ended with 0.
    ///
    /// # Errors
    /// What the system says, or how the command ended.
    pub fn deliver(&self, note: &str) -> io::Result<()> {
        match self {
            Self::File(path) => append(path, note),
            Self::Command(command) => execute(command, note),
        }
    }
}

/// Appends a note in one write. Notes stand one behind the other: each begins with its origin.
fn append(path: &Path, note: &str) -> io::Result<()> {
    let is_new = !path.try_exists()?;
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(note.as_bytes())?;
    file.sync_data()?;
    if is_new {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn execute(command: &str, note: &str) -> io::Result<()> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        // Standard output is data of the command that records.
        .stdout(Stdio::null())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A note is smaller than any pipe: this does not wait. Who reads none of it says so by its end.
        match input.write_all(note.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let status = wait(&mut child)?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(io::Error::other(format!("it ended with {code}"))),
        (None, signal) => {
            Err(io::Error::other(format!("signal {} ended it", signal.unwrap_or_default())))
        }
    }
}

fn wait(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > COMMAND_MAX {
            child.kill()?;
            child.wait()?;
            let text = format!("it did not end within {} s", COMMAND_MAX.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        thread::sleep(LOOK_EVERY);
    }
}
