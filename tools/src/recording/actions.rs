//! Carries out what an administrator has asked for when a condition begins. It touches no record of any source.
//!
//! [`Actions::take`] starts what is to be done and returns at once with a record of it, for the trail; a program that was
//! started is looked after by [`Actions::tick`], which records how it ended. Nothing here waits for a program: one that
//! takes longer than it may is killed, with all that it has started in its process group.

use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::recording::system::System;
use graven_writer::clock;
use graven_writer::own::{ERR, Own, RESUME};
use graven_writer::policy::{Action, Alarm, Change, Condition};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Programs that run at once: one a condition, and one that is late.
const RUNNING_MAX: usize = 16;

/// How long the system's own programs may take.
const SYSTEM_TIMEOUT: Duration = Duration::from_secs(60);

/// How long syslog is waited for.
const SYSLOG_TIMEOUT: Duration = Duration::from_millis(200);

/// `daemon` at `alert` and at `notice`, as auditd has it.
const SYSLOG_ALERT: u8 = 3 << 3 | 1;
const SYSLOG_NOTICE: u8 = 3 << 3 | 5;

/// What whoever runs a program gives it for a PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// See the module's documentation.
#[derive(Debug)]
pub struct Actions {
    /// The machine's programs and files.
    pub system: System,
    /// The trail, for messages and programs.
    pub trail: PathBuf,
    /// Who gets mail.
    pub mail_to: String,
    /// How long a program of `exec` may take.
    pub exec_timeout: Duration,
    running: Vec<Job>,
}

/// A program that runs.
#[derive(Debug)]
struct Job {
    child: Child,
    program: PathBuf,
    condition: Condition,
    action: &'static str,
    deadline: Instant,
}

impl Actions {
    /// For the trail in `trail`.
    #[must_use]
    pub fn new(system: System, trail: PathBuf, mail_to: String, exec_timeout: Duration) -> Self {
        Self { system, trail, mail_to, exec_timeout, running: Vec::new() }
    }

    /// Says what has happened and starts what was asked for. What comes back is for the trail, also when it failed.
    #[must_use]
    pub fn take(&mut self, alarm: &Alarm) -> Own {
        let begins = alarm.change == Change::Begins;
        let kind = if begins { ERR } else { RESUME };
        let mut own = Own::new(kind, alarm.condition.op(), clock::now());
        if begins {
            own = own.field("act", alarm.action.name());
        }
        for (name, bytes) in [("free", alarm.free), ("limit", alarm.limit)] {
            if let Some(bytes) = bytes {
                own = own.field(name, bytes);
            }
        }
        if let (Action::Exec(program), true) = (&alarm.action, begins) {
            own = own.text("exe", program.as_os_str().as_encoded_bytes());
        }
        let done = if alarm.action == Action::Ignore { Ok(()) } else { self.act(alarm) };
        match done {
            Ok(()) => own.result(true),
            Err(why) => {
                Diagnostic::error(format!(
                    "{}: the action {} failed: {}",
                    alarm.condition.name(),
                    alarm.action.name(),
                    escape::Escaped(why.to_string().as_bytes())
                ))
                .note("recording goes on")
                .emit();
                own.text("why", why.to_string().as_bytes()).result(false)
            }
        }
    }

    /// Records how programs have ended that were started before.
    #[must_use]
    pub fn tick(&mut self) -> Vec<Own> {
        let now = Instant::now();
        let mut ended = Vec::new();
        self.running.retain_mut(|job| match job.ended(now) {
            Some(own) => {
                ended.push(own);
                false
            }
            None => true,
        });
        ended
    }

    /// Whether a program that was started still runs.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    fn act(&mut self, alarm: &Alarm) -> io::Result<()> {
        let title = line(alarm, &self.trail);
        say(alarm, &self.trail);
        let logged = self.syslog(alarm, &title);
        if alarm.change == Change::Ends {
            return Ok(());
        }
        match &alarm.action {
            Action::Ignore | Action::Block | Action::Drop => Ok(()),
            // Without syslog it was said on standard error all the same; only who asked for no more has nothing else.
            Action::Log => logged,
            Action::Email => self.mail(alarm, &title),
            Action::Exec(program) => {
                let mut command = Command::new(program);
                command.arg(alarm.condition.name());
                let number = |it: Option<u64>| it.map_or(String::new(), |it| it.to_string());
                command
                    .env("GRAVEN_CONDITION", alarm.condition.name())
                    .env("GRAVEN_TRAIL", &self.trail)
                    .env("GRAVEN_FREE_BYTES", number(alarm.free))
                    .env("GRAVEN_LIMIT_BYTES", number(alarm.limit));
                self.run(command, alarm, self.exec_timeout).map(drop)
            }
            Action::Single => self.change_level("1", &["isolate", "rescue.target"], alarm),
            Action::Halt => self.change_level("0", &["poweroff"], alarm),
            Action::Panic => std::fs::write(self.system.path("proc/sysrq-trigger")?, b"c"),
        }
    }

    /// As `init` of this machine has it: systemd's own command where systemd runs, `telinit` or `init` elsewhere.
    fn change_level(&mut self, level: &str, systemd: &[&str], alarm: &Alarm) -> io::Result<()> {
        let mut command;
        if self.system.path("run/systemd/system")?.is_dir() {
            command = Command::new(self.system.program(&["usr/bin/systemctl", "bin/systemctl"])?);
            command.arg("--no-block").args(systemd);
        } else {
            command = Command::new(self.system.program(&["sbin/telinit", "sbin/init"])?);
            command.arg(level);
        }
        self.run(command, alarm, SYSTEM_TIMEOUT).map(drop)
    }

    /// As auditd's: to sendmail, whose subject evaluators look for.
    fn mail(&mut self, alarm: &Alarm, title: &str) -> io::Result<()> {
        // An address begins no option and ends no header.
        let is_address = |it: &str| {
            it.bytes().all(|byte| byte.is_ascii_graphic()) && !it.is_empty() && !it.starts_with('-')
        };
        if !is_address(&self.mail_to) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "action_mail_acct is no address",
            ));
        }
        let mut command =
            Command::new(self.system.program(&["usr/sbin/sendmail", "usr/lib/sendmail"])?);
        command.arg("-t").stdin(Stdio::piped());
        let subject = match alarm.condition {
            Condition::SpaceLeft => "Audit Disk Space Alert",
            Condition::AdminSpaceLeft | Condition::DiskFull => "Audit Admin Disk Space Alert",
            _ => "Audit Alert",
        };
        let to = &self.mail_to;
        let text = format!("To: {to}\nFrom: root\nSubject: {subject}\n\n{title}\n");
        let job = self.run(command, alarm, SYSTEM_TIMEOUT)?;
        // So few bytes fit the pipe, whether they are read or not.
        job.child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()))
    }

    /// One line to syslog.
    fn syslog(&self, alarm: &Alarm, title: &str) -> io::Result<()> {
        let begins = alarm.change == Change::Begins;
        let priority = if begins { SYSLOG_ALERT } else { SYSLOG_NOTICE };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SYSLOG_TIMEOUT))?;
        let text = format!("<{priority}>graven[{}]: {title}", std::process::id());
        let path = self.system.path("dev/log")?;
        let named =
            |why: io::Error| io::Error::new(why.kind(), format!("{}: {why}", path.display()));
        socket.send_to(text.as_bytes(), &path).map(drop).map_err(named)
    }

    /// Starts a program in a process group of its own.
    fn run(
        &mut self,
        mut command: Command,
        alarm: &Alarm,
        timeout: Duration,
    ) -> io::Result<&mut Job> {
        if self.running.len() >= RUNNING_MAX {
            return Err(io::Error::other(format!("{RUNNING_MAX} programs run already")));
        }
        let program = PathBuf::from(command.get_program());
        let is_piped = program.file_name() == Some(OsStr::new("sendmail"));
        if !is_piped {
            command.stdin(Stdio::null());
        }
        command.env("PATH", PATH).current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.process_group(0).spawn()?;
        self.running.push(Job {
            child,
            program,
            condition: alarm.condition,
            action: alarm.action.name(),
            deadline: Instant::now() + timeout,
        });
        Ok(self.running.last_mut().expect("it was just pushed"))
    }
}

impl Job {
    /// How it ended, if it has; its time may be over.
    fn ended(&mut self, now: Instant) -> Option<Own> {
        let own = Own::new(ERR, self.condition.op(), clock::now())
            .field("act", self.action)
            .text("exe", self.program.as_os_str().as_encoded_bytes());
        match self.child.try_wait() {
            Ok(None) if now < self.deadline => None,
            Ok(None) => {
                if let Ok(pid) = i32::try_from(self.child.id())
                    && let Some(pid) = Pid::from_raw(pid)
                {
                    // It may have ended since.
                    let _ = kill_process_group(pid, Signal::KILL);
                }
                let _ = self.child.wait();
                Diagnostic::error(format!(
                    "{}: a program took too long and was killed",
                    self.condition.name()
                ))
                .at(escape::path(&self.program))
                .emit();
                Some(own.field("why", "timeout").result(false))
            }
            Ok(Some(status)) => {
                let code = status.code().map_or("signal".to_owned(), |code| code.to_string());
                Some(own.field("exit", code).result(status.success()))
            }
            Err(why) => Some(own.text("why", why.to_string().as_bytes()).result(false)),
        }
    }
}

/// An alarm in one line, with the words that those who watch auditd look for.
fn line(alarm: &Alarm, trail: &Path) -> String {
    let name = alarm.condition.name();
    let trail = escape::path(trail);
    if alarm.change == Change::Ends {
        return format!("{name} is over for {trail}");
    }
    let words = match alarm.condition {
        Condition::SpaceLeft => "Audit daemon is low on disk space for logging",
        Condition::AdminSpaceLeft => {
            "Audit daemon is low on disk space for logging and only admin space is left"
        }
        Condition::DiskFull => "Audit daemon has no space left on logging partition",
        condition => condition.title(),
    };
    format!("{name}: {words}: {trail}{}: {}", measured(alarm), alarm.action)
}

fn measured(alarm: &Alarm) -> String {
    match (alarm.free, alarm.limit) {
        (Some(free), Some(limit)) => format!(" ({free} bytes free, limit {limit})"),
        (Some(free), None) => format!(" ({free} bytes free)"),
        _ => String::new(),
    }
}

/// The same on standard error.
fn say(alarm: &Alarm, trail: &Path) {
    let name = alarm.condition.name();
    let diagnostic = match alarm.change {
        Change::Begins => {
            Diagnostic::warning(format!("{name}: {}{}", alarm.condition.title(), measured(alarm)))
                .note(format!(
                    "the action is {}",
                    escape::Escaped(alarm.action.to_string().as_bytes())
                ))
        }
        Change::Ends => Diagnostic::new(Level::Note, format!("{name} is over{}", measured(alarm))),
    };
    diagnostic.at(escape::path(trail)).emit();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    struct Rig {
        root: tempfile::TempDir,
        actions: Actions,
    }

    impl Rig {
        fn new() -> Self {
            let root = tempfile::tempdir().expect("a directory");
            for dir in ["sbin", "usr/sbin", "dev", "proc"] {
                std::fs::create_dir_all(root.path().join(dir)).expect("a directory");
            }
            let actions = Actions::new(
                System::at(root.path()),
                "/trail".into(),
                "root".to_owned(),
                Duration::from_millis(500),
            );
            Self { root, actions }
        }

        fn script(&self, name: &str, text: &str) -> PathBuf {
            let path = self.root.path().join(name);
            let out = self.root.path().join("out");
            let text = format!("#!/bin/sh\nout={}\n{text}\n", out.display());
            std::fs::write(&path, text).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))
                .expect("a mode");
            path
        }

        fn text(own: &Own) -> String {
            String::from_utf8_lossy(own.record().bytes).into_owned()
        }

        fn take(&mut self, action: Action) -> String {
            let (condition, change) = (Condition::SpaceLeft, Change::Begins);
            let alarm = Alarm { condition, change, action, free: Some(5), limit: Some(6) };
            Self::text(&self.actions.take(&alarm))
        }

        /// What was recorded when the one program had ended.
        fn ended(&mut self) -> String {
            loop {
                if let [own] = &self.actions.tick()[..] {
                    return Self::text(own);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }

        fn out(&self) -> String {
            std::fs::read_to_string(self.root.path().join("out")).expect("it wrote something")
        }
    }

    #[test]
    fn a_program_gets_the_condition_and_its_end_is_recorded() {
        let mut rig = Rig::new();
        let program = rig.script(
            "script",
            "echo $1 $GRAVEN_CONDITION $GRAVEN_TRAIL $GRAVEN_FREE_BYTES > $out; exit 3",
        );
        let text = rig.take(Action::Exec(program));
        assert!(
            text.contains("op=space-left act=exec free=5 limit=6 exe=")
                && text.ends_with("res=success"),
            "{text}"
        );
        let text = rig.ended();
        assert!(text.ends_with("exit=3 res=failed"), "{text}");
        assert_eq!(rig.out(), "space_left space_left /trail 5\n");
        assert!(!rig.actions.is_busy());
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_with_what_it_started() {
        let mut rig = Rig::new();
        let program = rig.script("script", "sleep 1000 & echo $! > $out; wait");
        let _ = rig.take(Action::Exec(program));
        let text = rig.ended();
        assert!(text.ends_with("why=timeout res=failed"), "{text}");
        let stat = format!("/proc/{}/stat", rig.out().trim());
        let gone =
            |stat: &str| std::fs::read_to_string(stat).map_or(true, |it| it.contains(") Z "));
        while !gone(&stat) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_is_not_there_is_a_failure_that_is_recorded() {
        let mut rig = Rig::new();
        for action in [
            Action::Exec("/nowhere/x".into()),
            Action::Halt,
            Action::Single,
            Action::Email,
            Action::Log,
        ] {
            let text = rig.take(action);
            assert!(text.contains(" why=") && text.ends_with("res=failed"), "{text}");
        }
        for action in [Action::Ignore, Action::Block, Action::Drop] {
            assert!(rig.take(action).ends_with("res=success"));
        }
    }

    #[test]
    fn levels_are_changed_as_init_has_it() {
        let mut rig = Rig::new();
        rig.script("sbin/telinit", "echo telinit $* >> $out");
        for (action, told) in
            [(Action::Single, "telinit 1\n"), (Action::Halt, "telinit 1\ntelinit 0\n")]
        {
            assert!(rig.take(action).ends_with("res=success"));
            assert!(rig.ended().ends_with("exit=0 res=success"));
            assert_eq!(rig.out(), told);
        }
        std::fs::create_dir_all(rig.root.path().join("run/systemd/system")).expect("a directory");
        std::fs::create_dir_all(rig.root.path().join("usr/bin")).expect("a directory");
        rig.script("usr/bin/systemctl", "echo $* > $out");
        assert!(rig.take(Action::Halt).ends_with("res=success"));
        assert!(rig.ended().ends_with("exit=0 res=success"));
        assert_eq!(rig.out(), "--no-block poweroff\n");
    }

    #[test]
    fn mail_and_syslog_have_the_words_that_evaluators_look_for() {
        let mut rig = Rig::new();
        let log = UnixDatagram::bind(rig.root.path().join("dev/log")).expect("a socket");
        rig.script("usr/sbin/sendmail", "echo $* > $out; cat >> $out");
        assert!(rig.take(Action::Email).ends_with("res=success"));
        assert!(rig.ended().ends_with("exit=0 res=success"));
        assert!(
            rig.out().starts_with("-t\nTo: root\n")
                && rig.out().contains("\nSubject: Audit Disk Space Alert\n")
        );
        let mut bytes = [0; 1000];
        let len = log.recv(&mut bytes).expect("a message");
        let text = String::from_utf8_lossy(&bytes[..len]);
        assert!(
            text.starts_with("<25>graven[")
                && text.contains("Audit daemon is low on disk space for logging"),
            "{text}"
        );
        rig.actions.mail_to = "-t x".to_owned();
        assert!(rig.take(Action::Email).ends_with("res=failed"));
    }

    #[test]
    fn a_panic_is_the_kernels_own_switch() {
        let mut rig = Rig::new();
        assert!(rig.take(Action::Panic).ends_with("res=success"));
        let trigger = rig.root.path().join("proc/sysrq-trigger");
        assert_eq!(std::fs::read(trigger).expect("it was written"), b"c");
    }
}
