//! Loading a file of rules, by the system's `auditctl`, and what the kernel is asked for beside them.
//!
//! `auditctl` reads the rules, because it is what people wrote them for: names of fields, calls and users mean what they
//! mean there. Graven lists the kernel's rules before and after, so that it puts back exactly what was, and keeps from
//! `auditctl` what the file says to the kernel as a whole (see [`rules_file`]).

use super::records;
use super::rules_file::{self, Line, RulesFile};
use crate::config::NetlinkSection;
use crate::config::read::{ConfigError, read_bounded};
use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::recording::{Failure, kernel};
use graven_writer::source::Sink;
use graven_writer::source::kaudit::{self, Daemon, Options};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where `auditctl` is, if it is not on the path.
const PLACES: [&str; 2] = ["/usr/sbin/auditctl", "/sbin/auditctl"];

/// What is asked of the kernel.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The queue's limits and what is done on a loss.
    pub options: Options,
    /// The rules, if there is a file of them.
    pub rules: Option<Rules>,
}

/// A file of rules that was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Where it is.
    pub path: PathBuf,
    /// All of it.
    pub text: Vec<u8>,
    /// What it says.
    pub file: RulesFile,
}

impl Wanted {
    /// What the configuration asks for. Nothing is changed by asking.
    ///
    /// # Errors
    /// [`Failure`] with [`Exit::CannotCheck`]: the file of rules cannot be read, or a line of it is refused. All but the
    /// last such line have been said.
    pub fn read(section: &NetlinkSection) -> Result<Self, Failure> {
        let failure = section.failure.map(|failure| failure.0);
        let rules =
            section.rules.as_deref().map(|path| read(path, failure == Some(2))).transpose()?;
        let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
        let file = rules.as_ref().map(|rules| &rules.file);
        let options = Options {
            backlog_limit: file
                .and_then(|file| file.backlog_limit)
                .unwrap_or(number(section.backlog_limit.0)),
            backlog_wait: file
                .and_then(|file| file.backlog_wait_ticks)
                .map_or(section.backlog_wait_time.0, kaudit::time_of),
            failure: file.and_then(|file| file.failure).or(failure.map(number)),
            receive_buffer_bytes: usize::try_from(section.receive_buffer.0).unwrap_or(usize::MAX),
            ..Options::default()
        };
        Ok(Self { options, rules })
    }
}

fn read(path: &Path, may_panic: bool) -> Result<Rules, Failure> {
    let shown = escape::path(path);
    let text = read_bounded(path, rules_file::FILE_BYTES_MAX).map_err(|why| {
        Failure::new(Exit::CannotCheck, &format!("cannot read the rules: {why}"))
            .at(shown.to_string())
            .help("name another file with netlink.rules, or none")
    })?;
    match rules_file::parse(&String::from_utf8_lossy(&text), may_panic) {
        Ok(file) => Ok(Rules { path: path.to_owned(), text, file }),
        Err(errors) => Err(said_but_the_last(path, errors)),
    }
}

/// Says all but the last error, which becomes the failure.
#[must_use]
pub fn said_but_the_last(file: &Path, mut errors: Vec<ConfigError>) -> Failure {
    let last = errors.pop();
    errors.iter().for_each(|error| error.diagnostic(file).emit());
    let diagnostic = last.map_or_else(
        || Diagnostic::error("the configuration is wrong"),
        |error| error.diagnostic(file),
    );
    Failure { exit: Exit::CannotCheck, diagnostic }
}

/// Loads the rules, in place of those that this daemon loaded before, and records it. If that fails the rules are as
/// they were before.
///
/// # Errors
/// [`Failure`]: `auditctl` is not there, refuses a line, or the kernel is locked.
pub fn load(daemon: &Daemon, rules: &Rules, sink: &dyn Sink) -> Result<(), Failure> {
    if daemon.is_locked() {
        return Err(kernel::failure(
            "the audit configuration is locked (enabled 2), so that no rules can be loaded; help: only a reboot unlocks \
             it: have these rules loaded before it is locked, and leave netlink.rules away",
        ));
    }
    let loaded = daemon
        .load_rules(rules.file.clear, || auditctl(rules))
        .map_err(|why| kernel::failure(&format!("loading rules: {why}")))?;
    let counts = match daemon.loaded().filter(|_| loaded.is_ok()) {
        Some(change) => (change.added(), change.removed()),
        None => (0, 0),
    };
    let _ = records::rules(&rules.path, &rules.text, counts, loaded.is_ok()).append(sink);
    loaded
}

/// Has `auditctl` load the lines that are for it, one at a time: of a whole file it would tell its errors to syslog.
fn auditctl(rules: &Rules) -> Result<(), Failure> {
    let place = |line: &Line| format!("{}:{}", escape::path(&rules.path), line.number);
    for line in &rules.file.lines {
        let output = run(&line.words).map_err(|why| {
            let failure = Failure::new(Exit::CannotCheck, &format!("cannot run auditctl: {why}"));
            let failure = failure.at(place(line)).note("the rules are as they were");
            if why.kind() == io::ErrorKind::NotFound {
                return failure.help(
                    "install auditctl, which reads rules: the package auditd on Debian, audit on Fedora and SUSE; or \
                     leave netlink.rules away",
                );
            }
            failure
        })?;
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        // A rule that is there already is in force, and stays whose it is.
        let refused = !output.status.success() && !said.contains("Rule exists");
        let said = escape::Escaped(said.as_bytes()).to_string();
        if refused && !line.may_fail {
            let why = format!("auditctl does not take a rule: {said}");
            return Err(Failure::new(Exit::CannotCheck, &why)
                .at(place(line))
                .note("the rules are as they were")
                .help("see auditctl(8), or the line in `auditctl -l` on a machine that takes it"));
        }
        if refused || (output.status.success() && !said.is_empty()) {
            Diagnostic::warning(format!("auditctl says: {said}")).at(place(line)).emit();
        }
    }
    for line in &rules.file.for_good {
        Diagnostic::warning("this stays until the next boot, also when recording has ended")
            .at(format!("{}:{line}", escape::path(&rules.path)))
            .emit();
    }
    Ok(())
}

fn run(words: &[String]) -> io::Result<Output> {
    let run = |program: &str| Command::new(program).args(words).stdin(Stdio::null()).output();
    let mut ran = run("auditctl");
    for place in PLACES {
        match ran {
            Err(why) if why.kind() == io::ErrorKind::NotFound => ran = run(place),
            ran => return ran,
        }
    }
    ran
}

/// Changes the queue's limits and what is done on a loss.
///
/// # Errors
/// [`Failure`]; nothing was changed then.
pub fn set_limits(daemon: &Daemon, options: &Options) -> Result<(), Failure> {
    daemon.set_limits(options).map_err(|why| kernel::failure(&why.to_string()))
}

/// Takes back the rules that were loaded.
///
/// # Errors
/// [`Failure`]: what the kernel refused is tried again when recording ends.
pub fn unload(daemon: &Daemon) -> Result<(), Failure> {
    daemon.remove_rules().map_err(|why| kernel::failure(&format!("taking rules back: {why}")))
}
