//! Sources beside the kernel's own socket: auditd as its plugin, its af_unix socket, the kernel's
//! multicast, and applications.

use crate::daemon::control::Desk;
use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::exit::Exit;
use crate::recording::listen::{self, Listen};
use crate::recording::room::Ending;
use crate::recording::signals::Signals;
use crate::recording::{Failure, TrailArgs};
use graven_writer::source::multicast::{self, Multicast, MulticastError};
use graven_writer::source::plugin::{self, Format, Plugin, PluginError, Trouble};
use graven_writer::{Trail, WriteError, clock};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

/// Where auditd's plugin af_unix listens unless its configuration says otherwise.
const AF_UNIX_DEFAULT: &str = "/run/audit/audispd_events";

/// Malformed pieces that are said before the rest is only counted.
const SAID_MAX: u64 = 20;

/// A source beside the kernel's own socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// auditd's records on standard input, as its plugin.
    Plugin,
    /// auditd's records from the socket of its plugin af_unix.
    AfUnix,
    /// The kernel's multicast.
    Multicast,
    /// Applications' records over a socket of ours.
    Socket,
}

/// How auditd gives its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatArg {
    /// As the first bytes look
    Auto,
    /// Lines: `format = string`
    String,
    /// Headers and records: `format = binary`
    Binary,
}

/// Options of these sources; those of the socket for applications stand in the configuration too, as `[socket]`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BesideArgs {
    /// How auditd gives its records, from plugin and af-unix; auto unless given
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<FormatArg>,
    /// The socket: where auditd's af_unix listens (/run/audit/audispd_events unless given), or where
    /// applications connect
    #[arg(long, value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// With netlink or multicast: also take records of applications, at this socket, to the same trail
    #[arg(long, value_name = "PATH")]
    pub listen: Option<PathBuf>,
    /// Permissions of the socket for applications, octal; who may write to it may connect; 0660 unless given
    #[arg(long, value_name = "MODE", value_parser = listen::parse_mode)]
    pub mode: Option<u32>,
    /// Its group, by name or number
    #[arg(long, value_name = "GROUP", value_parser = listen::parse_group)]
    pub group: Option<u32>,
    /// Applications at once, 1 to 999, 256 unless given; others wait to be accepted
    #[arg(long, value_name = "COUNT", value_parser = listen::parse_clients)]
    pub clients: Option<u16>,
}

impl BesideArgs {
    /// Refuses options that mean nothing to the source; `None` is netlink or standard input, of which
    /// `listens` says whether it takes applications as well.
    ///
    /// # Errors
    /// [`Failure`] that names the option.
    pub fn check(&self, source: Option<Beside>, listens: bool) -> Result<(), Failure> {
        let socket = source == Some(Beside::Socket);
        let auditd = matches!(source, Some(Beside::Plugin | Beside::AfUnix));
        let takes = socket || self.listen.is_some();
        let refused = [
            ("--format", self.format.is_some() && !auditd, "sources plugin and af-unix"),
            (
                "--path",
                self.path.is_some() && !socket && source != Some(Beside::AfUnix),
                "sources af-unix and socket",
            ),
            (
                "--listen",
                self.listen.is_some() && !listens,
                "sources netlink and multicast, and socket.listen of these and source socket",
            ),
            (
                "--mode",
                self.mode.is_some() && !takes,
                "source socket and --listen, as socket.mode is",
            ),
            (
                "--group",
                self.group.is_some() && !takes,
                "source socket and --listen, as socket.group is",
            ),
            (
                "--clients",
                self.clients.is_some() && !takes,
                "source socket and --listen, as socket.clients is",
            ),
        ];
        for (option, is_refused, of) in refused {
            if is_refused {
                return Err(usage(&format!("{option} is an option of {of}")));
            }
        }
        if socket && self.path.is_none() {
            return Err(usage("source socket needs --path, or socket.listen in a configuration"));
        }
        Ok(())
    }

    /// The socket for applications, if there is to be one.
    #[must_use]
    pub fn listening(&self, source: Option<Beside>) -> Option<Listen> {
        let path = if source == Some(Beside::Socket) { &self.path } else { &self.listen };
        let listen = Listen::at(path.clone()?);
        Some(Listen {
            mode: self.mode.unwrap_or(listen.mode),
            group: self.group.or(listen.group),
            clients_max: self.clients.unwrap_or(listen.clients_max),
            ..listen
        })
    }
}

fn usage(text: &str) -> Failure {
    Failure::new(Exit::CannotCheck, text).help("`graven record --help` says what each source takes")
}

impl Beside {
    /// What a full disk means to those who make records.
    #[must_use]
    pub const fn producers_without_room(self) -> &'static str {
        match self {
            Self::Plugin | Self::AfUnix => {
                "auditd keeps what it has for us until its own queue is full, and then drops for us alone; what \
                 it dropped becomes a loss statement"
            }
            Self::Multicast => {
                "nobody waits for this reader: the kernel drops what does not fit its socket, and that \
                 becomes a loss statement"
            }
            Self::Socket => "applications wait in their writes; nothing is dropped",
        }
    }
}

/// Records until the source ends or a signal comes, and closes the trail. What signals ask for besides
/// goes to the desk.
///
/// # Errors
/// [`Failure`], of the trail before any other.
pub fn record(
    source: Beside,
    args: &BesideArgs,
    trail_args: &TrailArgs,
    trail: Trail,
    (signals, desk): (Signals, Desk),
    ending: Arc<Ending>,
) -> Result<Exit, Failure> {
    let quiet = trail_args.quiet;
    let (stopped, stop) = listen::pair()?;
    signals
        .watch(ending, desk, || drop(stop))
        .map_err(|why| Failure::thread(Exit::CannotCheck, &why).note("no record was taken"))?;
    let listen = args.listening(Some(source));
    let recorded = match source {
        Beside::Socket => match &listen {
            Some(listen) => applications(listen, &trail, &stopped, quiet),
            None => Err(usage("source socket needs --path")),
        },
        Beside::Plugin | Beside::AfUnix => auditd(source, args, &trail, &stopped, quiet),
        Beside::Multicast => listen::while_served(listen.as_ref(), &trail, quiet, || {
            from_kernel(&trail, &stopped, quiet)
        }),
    };
    closed(trail.close().map(drop), recorded)
}

/// Storage that failed is why recording failed, if it did.
fn closed(
    closed: Result<(), WriteError>,
    recorded: Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    match closed {
        Ok(()) => recorded,
        Err(error) => Err(Failure::from(error)),
    }
}

fn applications(
    listen: &Listen,
    trail: &Trail,
    stopped: &UnixStream,
    quiet: bool,
) -> Result<Exit, Failure> {
    let listener = listen.bind()?;
    let served = listen::record(listen, &listener, trail, stopped, quiet)?;
    if !quiet {
        listen::say(&served);
    }
    Ok(Exit::Success)
}

fn from_kernel(trail: &Trail, stopped: &UnixStream, quiet: bool) -> Result<Exit, Failure> {
    let failure = |why: MulticastError| {
        let failure = Failure::new(Exit::KernelAudit, &why.to_string());
        match why {
            MulticastError::NotPermitted => failure.help("be root, or have CAP_AUDIT_READ"),
            _ => failure,
        }
    };
    let socket = Multicast::join().map_err(failure)?;
    if !quiet {
        Diagnostic::new(
            Level::Note,
            "reading the kernel's multicast of audit records, best effort",
        )
        .note("the kernel drops what does not fit; gaps in the serials become loss statements")
        .emit();
    }
    let received = socket.receive(trail, stopped.as_fd(), &clock::now).map_err(failure)?;
    if !quiet {
        let multicast::Summary { records, overruns, lost_events, statements } = received;
        Diagnostic::new(Level::Note, format!("{records} records, best effort"))
            .note(format!(
                "{lost_events} events are known to be missing, the socket was full {overruns} times: \
                 {statements} loss statements"
            ))
            .emit();
    }
    Ok(Exit::Success)
}

fn auditd(
    source: Beside,
    args: &BesideArgs,
    trail: &Trail,
    stopped: &UnixStream,
    quiet: bool,
) -> Result<Exit, Failure> {
    let mut malformed = 0;
    let mut trouble = |trouble: Trouble| {
        if matches!(trouble, Trouble::Malformed { .. }) {
            malformed += 1;
        }
        if malformed <= SAID_MAX {
            say(trouble);
        }
    };
    let plugin = Plugin {
        sink: trail,
        now: &clock::now,
        format: match args.format {
            None | Some(FormatArg::Auto) => Format::Auto,
            Some(FormatArg::String) => Format::String,
            Some(FormatArg::Binary) => Format::Binary,
        },
        stopped: stopped.as_fd(),
        trouble: &mut trouble,
    };
    let read = if source == Beside::Plugin {
        plugin::read(plugin, rustix::stdio::stdin())
    } else {
        let path = args.path.clone().unwrap_or_else(|| AF_UNIX_DEFAULT.into());
        let address = listen::address(&path)?;
        let place = escape::path(&path);
        plugin::follow(plugin, &address, &mut |errno| say_waiting(&place, errno))
    };
    let summary = read.map_err(|why| {
        let failure = Failure::new(Exit::CannotCheck, &why.to_string());
        match why {
            PluginError::Read { .. } => {
                failure.note("everything before is in the trail, and a loss statement behind it")
            }
            PluginError::Connect(_) => {
                failure.help("af_unix's socket is for root unless its args say another mode")
            }
            PluginError::Append(_) => failure,
        }
    })?;
    if malformed > SAID_MAX {
        let more = malformed - SAID_MAX;
        Diagnostic::warning(format!("{more} more pieces were no records of auditd's")).emit();
    }
    if !quiet {
        say_auditd(&summary);
    }
    Ok(if summary.too_long > 0 { Exit::Refused } else { Exit::Success })
}

fn say(trouble: Trouble) {
    match trouble {
        Trouble::Malformed { offset, bytes, seq } => Diagnostic::warning("this is no record of auditd's")
            .at(format!("offset {offset:#x}, {bytes} bytes"))
            .note(format!("it was kept as it came, as record {seq}"))
            .help("look at `format` in the plugin's configuration, and at --format here"),
        Trouble::TooLong { offset, bytes } => Diagnostic::error("a line is too long for a record")
            .at(format!("offset {offset:#x}, {bytes} bytes"))
            .note("it was not recorded; a loss statement stands in its place"),
        Trouble::Cut { offset } => {
            Diagnostic::warning("auditd cuts the last 16 bytes of the kernel's records")
                .at(format!("offset {offset:#x}"))
                .note("they were cut before they came, and are kept as they came; loss statements say how many")
                .help("auditd 4.2 and 4.2.1 do this with log_format = RAW: use 4.2.2, or ENRICHED")
        }
    }
    .emit();
}

fn say_waiting(place: &str, errno: Errno) {
    let why = io::Error::from(errno);
    Diagnostic::new(Level::Note, format!("waiting for auditd's socket: {why}")).at(place).emit();
}

fn say_auditd(summary: &plugin::Summary) {
    let records = summary.records;
    let mut note =
        Diagnostic::new(Level::Note, format!("{records} records of auditd, best effort"));
    let counts = [
        (summary.malformed, "were none of its records"),
        (summary.cut, "had lost their end"),
        (summary.lost_events, "events are missing by their serials"),
        (summary.reconnects, "times its socket was gone and came again"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        note = note.note(format!("{count} {what}"));
    }
    note.emit();
}
