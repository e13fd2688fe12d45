//! rsyslog and systemd's journal, each an instance of its own behind a datagram socket: a full socket makes producers wait, and
//! nobody is told when a record is durable.

use super::super::process::{Process, Trouble, Usage};
use super::super::units::now_ns;
use super::library::Ran;
use super::load::{Client, Group, Load, push};
use super::records::{Records, Tally};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A file that has not grown for so long will not.
const QUIET: Duration = Duration::from_secs(1);

/// A syslog message's priority: user, informational.
const PRIORITY: &[u8] = b"<14>";

/// The journal's namespace, which is that of its files only.
const NAMESPACE: &str = "graven-bench";

const JOURNALD: &str = "/usr/lib/systemd/systemd-journald";

struct Datagrams {
    socket: UnixDatagram,
    before: &'static [u8],
    after: &'static [u8],
    message: Vec<u8>,
}

impl Datagrams {
    fn connect(
        path: &Path,
        (before, after): (&'static [u8], &'static [u8]),
    ) -> Result<Box<dyn Client>, Trouble> {
        let socket = UnixDatagram::unbound().and_then(|it| it.connect(path).map(|()| it));
        let socket = socket.map_err(Trouble::io("its socket"))?;
        Ok(Box::new(Self { socket, before, after, message: Vec::new() }))
    }
}

impl Client for Datagrams {
    fn push(&mut self, group: &Group) -> Result<(), Trouble> {
        for record in group.records() {
            self.message.clear();
            self.message.extend_from_slice(self.before);
            self.message.extend_from_slice(record);
            self.message.extend_from_slice(self.after);
            self.socket.send(&self.message).map_err(Trouble::io("its socket"))?;
        }
        Ok(())
    }
}

/// What rsyslog says of itself, if it is installed.
///
/// # Errors
/// Why not.
pub fn rsyslog_version() -> Result<String, String> {
    let output = Command::new("rsyslogd").arg("-v").output();
    let output = output.map_err(|why| format!("rsyslogd: {why}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().nth(1).unwrap_or("unknown").to_owned())
}

/// Runs rsyslog with omfile, with a barrier behind each batch or as it comes, without.
///
/// # Errors
/// [`Trouble`]
pub fn run_rsyslog(dir: &Path, sync: bool, load: &Load<'_>) -> Result<Ran, Trouble> {
    let place = tempfile::tempdir().map_err(Trouble::io("a directory for a socket"))?;
    let (socket, config) = (place.path().join("s"), place.path().join("rsyslog.conf"));
    let log = dir.join("log");
    fs::write(&config, rsyslog_config(&socket, &log, sync, load.records))
        .map_err(Trouble::io("rsyslog's configuration"))?;
    let mut command = Command::new("rsyslogd");
    command.arg("-n").arg("-f").arg(&config).arg("-i").arg(place.path().join("pid"));
    let mut process =
        Process::start("rsyslogd", command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    process
        .wait_until(|_| Ok(UnixDatagram::unbound().is_ok_and(|it| it.connect(&socket).is_ok())))?;
    let clients = (0..load.producers).map(|_| Datagrams::connect(&socket, (PRIORITY, b"")));
    let clients = clients.collect::<Result<_, _>>()?;
    let (before, start_ns) = (Usage::own().and(process.usage()), now_ns());
    let mut pushed = push(load, clients)?;
    // A line each, with its priority and a line feed.
    let line_bytes = PRIORITY.len() as u64 + 1;
    let expected = pushed.sent.iter().map(|it| load.records.bytes(*it) + it * line_bytes).sum();
    pushed.took_ns = grown(&log, expected, load)? - start_ns;
    let usage = Usage::own().and(process.usage()).since(before);
    process.end()?;
    Ok(Ran { pushed, usage })
}

/// When the file had grown to so many bytes, or grew last.
fn grown(log: &Path, expected: u64, load: &Load<'_>) -> Result<u64, Trouble> {
    let (mut last, mut last_ns, mut seen) = (Instant::now(), now_ns(), 0);
    loop {
        let bytes = fs::metadata(log).map_or(0, |it| it.len());
        if bytes != seen {
            (last, last_ns, seen) = (Instant::now(), now_ns(), bytes);
        }
        if bytes >= expected || last.elapsed() > QUIET {
            return Ok(last_ns);
        }
        if load.stop.load(Ordering::Relaxed) {
            return Err(Trouble::Stopped);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads rsyslog's file.
///
/// # Errors
/// It has what was not sent.
pub fn read_rsyslog(dir: &Path, tally: &mut Tally<'_>) -> Result<(), Trouble> {
    let file = match File::open(dir.join("log")) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(Trouble::io("rsyslog's file"))?,
    };
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(Trouble::io("rsyslog's file"))?;
        tally.see(line.strip_prefix(PRIORITY).unwrap_or(&line))?;
    }
    Ok(())
}

fn rsyslog_config(socket: &Path, log: &Path, sync: bool, records: &Records) -> String {
    let (socket, log) = (socket.display(), log.display());
    let sync = if sync { "on" } else { "off" };
    let message_bytes = records.bytes_max() + 1024;
    // A full queue waits instead of dropping after two seconds, and nothing is limited by rate.
    format!(
        "global(net.enableDNS=\"off\" processInternalMessages=\"off\" maxMessageSize=\"{message_bytes}\")\n\
         module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{socket}\" UseSpecialParser=\"off\" ParseHostname=\"off\" RateLimit.Interval=\"0\")\n\
         template(name=\"record\" type=\"string\" string=\"%rawmsg%\\n\")\n\
         main_queue(queue.timeoutEnqueue=\"600000\" queue.timeoutShutdown=\"60000\")\n\
         action(type=\"omfile\" file=\"{log}\" template=\"record\" sync=\"{sync}\" fileCreateMode=\"0600\")\n"
    )
}

/// What systemd's journal says of itself, if it is installed and this process may run an instance of its own.
///
/// # Errors
/// Why not.
pub fn journald_version() -> Result<String, String> {
    if !Path::new(JOURNALD).exists() {
        return Err(format!("{JOURNALD}: it is not there"));
    }
    let output = Command::new("journalctl").arg("--version").output();
    let output = output.map_err(|why| format!("journalctl: {why}"))?;
    let mount = Command::new("unshare").args(["-m", "true"]).output();
    if !mount.is_ok_and(|it| it.status.success()) {
        return Err("it needs root, and a mount namespace of its own".to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().nth(1).unwrap_or("unknown").to_owned())
}

/// Lays our directories over those where the journal has its configuration and its files, for this process alone.
const JOURNALD_SCRIPT: &str =
    "mount --bind \"$1\" /etc/systemd && mount --bind \"$2\" /var/log && exec \"$3\" \"$4\"";

/// Runs systemd's journal; at the end it is asked to write what it has, as `journalctl --sync` does.
///
/// # Errors
/// [`Trouble`]
pub fn run_journald(dir: &Path, load: &Load<'_>) -> Result<Ran, Trouble> {
    let place = tempfile::tempdir().map_err(Trouble::io("a directory for a socket"))?;
    let (config, logs) = (place.path().join("etc"), dir.join("log"));
    // It would keep a share of the filesystem free, and forget what is old for it; and it would set kernel audit, which is not ours,
    // unless that is empty.
    let text = "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\nForwardToSyslog=no\n\
                SystemMaxUse=16G\nSystemKeepFree=1M\nAudit=\n";
    let made = fs::create_dir(&config)
        .and_then(|()| fs::create_dir(&logs))
        .and_then(|()| fs::write(config.join(format!("journald@{NAMESPACE}.conf")), text));
    made.map_err(Trouble::io("the journal's configuration"))?;
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", JOURNALD_SCRIPT, "sh"]);
    command.args([&config, &logs]).args([JOURNALD, NAMESPACE]);
    command.env("RUNTIME_DIRECTORY", place.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut process = Process::start("systemd-journald", &mut command)?;
    let (socket, varlink) = (place.path().join("socket"), place.path().join("io.systemd.journal"));
    process.wait_until(|_| Ok(UnixStream::connect(&varlink).is_ok()))?;
    synchronize(&varlink)?;
    let clients =
        (0..load.producers).map(|_| Datagrams::connect(&socket, (b"PRIORITY=6\nMESSAGE=", b"\n")));
    let clients = clients.collect::<Result<_, _>>()?;
    let (before, start_ns) = (Usage::own().and(process.usage()), now_ns());
    let mut pushed = push(load, clients)?;
    synchronize(&varlink)?;
    pushed.took_ns = now_ns() - start_ns;
    let usage = Usage::own().and(process.usage()).since(before);
    process.end()?;
    Ok(Ran { pushed, usage })
}

/// Waits until it has taken all that was sent.
fn synchronize(varlink: &Path) -> Result<(), Trouble> {
    let ask = || {
        let mut stream = UnixStream::connect(varlink)?;
        stream.write_all(b"{\"method\":\"io.systemd.Journal.Synchronize\"}\0")?;
        let mut reply = Vec::new();
        BufReader::new(stream).read_until(0, &mut reply)?;
        Ok(String::from_utf8_lossy(&reply).into_owned())
    };
    let reply = ask().map_err(Trouble::io("the journal does not answer"))?;
    if reply.is_empty() || reply.contains("\"error\"") {
        return Err(Trouble::Said(format!("the journal does not synchronize: {reply}")));
    }
    Ok(())
}

/// Reads the journal's files.
///
/// # Errors
/// They cannot be read, or have what was not sent.
pub fn read_journald(dir: &Path, tally: &mut Tally<'_>) -> Result<(), Trouble> {
    let mut command = Command::new("journalctl");
    // Without what it says itself.
    command.args(["--quiet", "--no-pager", "-o", "cat", "_TRANSPORT=journal", "--directory"]);
    command.arg(journal_files(&dir.join("log/journal"))?).stdout(Stdio::piped());
    let mut process = Process::start("journalctl", &mut command)?;
    let out = process.child().stdout.take();
    for line in out.into_iter().flat_map(|it| BufReader::new(it).split(b'\n')) {
        tally.see(&line.map_err(Trouble::io("the journal's files"))?)?;
    }
    process.ended()
}

/// The directory of the namespace, whose name begins with the machine's number.
fn journal_files(journal: &Path) -> Result<PathBuf, Trouble> {
    let entries = fs::read_dir(journal).map_err(Trouble::io("the journal's files"))?;
    let found = entries
        .flatten()
        .map(|it| it.path())
        .find(|it| it.file_name().is_some_and(|name| name.to_string_lossy().ends_with(NAMESPACE)));
    found.ok_or_else(|| Trouble::said("the journal has no files"))
}
