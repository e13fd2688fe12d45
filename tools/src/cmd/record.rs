//! `graven record`.

mod sources;

use crate::aside;
use crate::config::given::{self, Given};
use crate::config::value::{Bytes, Number, Word};
use crate::config::{Config, read};
use crate::daemon::rules::{Wanted, said_but_the_last};
use crate::daemon::{process, shim};
use crate::exit::Exit;
use crate::kept::writer::Link;
use crate::kept::{self, Inherited, RingFull, guard, keeper};
use crate::recording::beside::{Beside, BesideArgs};
use crate::recording::housekeeping::{self, Housekeeping, Told};
use crate::recording::open::parse_bytes;
use crate::recording::room::{self, Ending, Words};
use crate::recording::signals::Signals;
use crate::recording::{self, Failure, SpaceArgs, TrailArgs, ack, kernel, sealed};
use graven_writer::Trail;
use graven_writer::keeper::{MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, Role};
use graven_writer::rewrite::LEVEL_DEFAULT;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Arguments of `graven record`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP, mut_arg("trail", |it| {
    it.required(false).required_unless_present("config").default_value("/").hide_default_value(true)
}))]
pub struct Args {
    #[command(flatten)]
    given: Given,
    /// Take what is not given here from this file, and be a daemon: `graven config show-default` prints one
    /// that has everything
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    trail: TrailArgs,
    #[command(flatten)]
    space: SpaceArgs,
    /// Where records come from
    #[arg(long, value_enum, required_unless_present = "config", default_value_t = Source::Netlink,
          hide_default_value = true)]
    source: Source,
    /// Print `durable N` whenever every record up to seq N is behind a barrier
    #[arg(long)]
    ack: bool,
    /// Zstandard level, 1 to 19, at which sealed segments are compressed in the background; 0 leaves
    /// them as they are
    #[arg(long, value_name = "LEVEL", default_value_t = LEVEL_DEFAULT,
          value_parser = clap::value_parser!(i32).range(0..=19))]
    compress_sealed: i32,
    /// Bytes of memory that the keeper holds the kernel's records in, 8M to 64G: so much, and about ten times as
    /// much while it is compressed under pressure, is bridged while the writer or its disk stalls
    #[arg(long, value_name = "BYTES", value_parser = parse_ring_bytes, default_value = "256M")]
    keeper_ring: u64,
    /// What to do when that memory is nearly full
    #[arg(long, value_enum, default_value_t = RingFull::Block, value_name = "ACTION")]
    ring_full: RingFull,
    /// A cgroup to freeze then: a directory with cgroup.freeze (v2) or freezer.state (v1); may be given several times. One
    /// that holds a process of graven, or process 1, is left alone
    #[arg(long, value_name = "PATH")]
    freeze_cgroup: Vec<PathBuf>,
    /// A user id of whom no process is ever frozen, whoever he is by now (loginuid): a cgroup that holds one is left alone;
    /// may be given several times
    #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(..=4_294_967_294))]
    freeze_exempt: Vec<u32>,
    /// A file of rules for the source shim, one a line, such as `-a always,exit -F arch=b64 -S execve,openat -F
    /// auid=1000`: docs/kernel-shim.md has all
    #[arg(long, value_name = "FILE")]
    shim_rules: Option<PathBuf>,
    /// Which of its processes this is: only graven itself says so
    #[arg(long, hide = true, value_parser = str::parse::<Inherited>)]
    inherited: Option<Inherited>,
    #[command(flatten)]
    beside: BesideArgs,
}

fn parse_ring_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if (MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("expected 8M to 64G".to_owned())
    }
}

/// Where records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// Lines of standard input, one record each, until it ends
    Stdin,
    /// The kernel's audit messages, as its one audit daemon, until a signal comes
    Netlink,
    /// auditd's records on standard input, as its plugin, until it ends; best effort
    Plugin,
    /// auditd's records from the socket of its plugin af_unix, until a signal comes; best effort
    AfUnix,
    /// What the kernel sends to whoever listens, beside auditd, until a signal comes; best effort
    Multicast,
    /// Records of applications over a Unix socket, until a signal comes
    Socket,
    /// System calls from Graven's kernel module, by the rules of --shim-rules, until a signal comes
    Shim,
}

impl Source {
    const fn beside(self) -> Option<Beside> {
        match self {
            Self::Stdin | Self::Netlink | Self::Shim => None,
            Self::Plugin => Some(Beside::Plugin),
            Self::AfUnix => Some(Beside::AfUnix),
            Self::Multicast => Some(Beside::Multicast),
            Self::Socket => Some(Beside::Socket),
        }
    }
}

impl Source {
    /// What its records say of where they come from.
    fn of_records(self) -> graven_format::Source {
        match self {
            Self::Stdin => graven_format::Source::Stdin,
            Self::Netlink => graven_format::Source::Netlink,
            Self::Plugin | Self::AfUnix | Self::Multicast => graven_format::Source::Import,
            Self::Socket => graven_format::Source::Socket,
            Self::Shim => graven_format::Source::Shim,
        }
    }
}

const AFTER_HELP: &str = "\
From netlink, graven takes the place of auditd: it needs root and that no other audit daemon is \
running, records every message byte for byte, turns auditing on, and gives everything back as it was \
when SIGTERM or SIGINT ends it. Rules are left to auditctl, unless the configuration names a file of them. What the \
kernel lost becomes a loss statement. It is two processes: a keeper, which takes from the kernel into memory, and a \
writer. Each starts the other again if it is killed, and nothing is lost by that; a signal may go to either. While the \
storage fails the keeper holds the records, and the writer is started again and again: see --keeper-ring and --ring-full. That recording began and ended, and what it was told meanwhile and by whom, is \
in the trail as auditd has it: DAEMON_START, DAEMON_END and others.

With --config, SIGHUP has the file, and the rules that it names, read again: what can be changed without a restart is, what cannot is named, and \
a file that is wrong changes nothing. Without, SIGHUP ends recording as SIGTERM does. SIGUSR1 seals the segment in \
use and begins another, SIGUSR2 goes on with what was suspended.

From standard input, each line is one record, whatever bytes are in it. A line over 131072 bytes is refused: its \
number is said, and a loss statement stands in its place. At the end of input, or on a signal that ends it, what \
was read is made durable and the trail is sealed. While there is no room, which is said, that has to wait, and so does the end: it is \
said how many records wait, and only another signal after that ends without them. What was acknowledged \
is never among them. kill -9 costs nothing that was acknowledged either.

From plugin and af-unix, each record is the line that auditd writes to its log. What is no record of auditd's is kept as it \
came, and its offset is said. auditd may drop what its queue for plugins does not hold, and the kernel what does not fit the \
socket of multicast: events that are missing by their serials become loss statements, and the trail says that these sources are \
best effort. A plugin ends when auditd closes its input; SIGHUP and SIGUSR1 do nothing to it.

From shim, system calls wait in Graven's kernel module (`graven shim`) while there is no room, and while nobody reads: killed, \
this process has lost nothing, and the next one goes on. Ended by a signal, it removes the rules and records what had begun and \
ended by then. With --config, the module is loaded if it is not there.

Over the socket, each record is answered when it is durable: docs/socket.md has the protocol. With --listen, applications and the kernel \
write to one trail.

`durable N` on standard output means that the records 0 to N survive whatever happens next. Lines may be coalesced; \
the last one is always printed. If nobody reads them any more, recording goes on and the exit code is 2.

Exit codes:
  0  everything that was read is durable
  1  the trail is damaged, and recovery refuses to write over it; or everything that was read is durable, and a
     witness has seen another trail than this one
  2  usage, or something in the configuration or its rules is wrong (it is said with file, line and key), or the trail \
     cannot be opened (permission, no directory, locked, foreign), or standard input cannot be read,
     or a thread cannot be started
  5  storage failed; the last `durable N` holds
  6  no room: for the first segment, or later if `--on-full end` was given or a second signal gave up the wait; the
     last `durable N` holds, and what was accepted and not made durable is counted
  7  some input was refused (a line that is too long); everything else is durable
  8  kernel audit or the kernel module is not available, or another process holds it

Sealed segments are compressed in the background, when nothing else wants the processor or the disk. Frames are \
compressed on their way to the disk while that is too slow: see --compress.

Examples:
  graven record --config /etc/graven/graven.toml
  graven record --trail /var/lib/graven/trail --source netlink
  graven record --trail /mnt/usb/trail --source netlink --compress always
  graven record --trail /var/lib/graven/trail --source netlink --listen /run/graven/socket --group adm
  graven record --trail /var/lib/graven/app --source socket --path /run/graven/socket
  graven record --trail DIR --source netlink --checkpoint-to /mnt/elsewhere/checkpoints --witness @/etc/graven/w1
  graven record --trail /var/lib/graven/trail --source shim --shim-rules /etc/graven/shim.rules
  tail -F app.log | graven record --trail /var/lib/graven/app --source stdin
  producer | graven record --trail DIR --source stdin --ack | while read _ seq; do release $seq; done";

/// What is to be done, with all that the configuration says.
struct Settled {
    args: Args,
    config: Config,
    /// Who watches space, if anybody does.
    told: Option<Told>,
}

impl Args {
    /// These arguments and the configuration of this text, each with what the other says.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn settled(&self, text: Option<&str>) -> Result<(Self, Config), Failure> {
        let mut args = self.clone();
        let config = match (&self.config, text) {
            (Some(file), Some(text)) => {
                read::parse(text).map_err(|errors| said_but_the_last(file, errors))?
            }
            _ => Config::default(),
        };
        let config = args.settle(config);
        Ok((args, config))
    }

    /// Options of the keeper and of the module are for the sources that have them.
    fn check_source(&self) -> Result<(), Failure> {
        const OPTIONS: [&str; 4] = ["keeper_ring", "ring_full", "freeze_cgroup", "freeze_exempt"];
        let given = OPTIONS.into_iter().find(|option| self.given.has(option));
        match given {
            Some(option) if self.source != Source::Netlink => {
                let title = format!("--{} is for the source netlink", option.replace('_', "-"));
                Err(Failure::new(Exit::CannotCheck, &title)
                    .help("no other source has a keeper: leave it out"))
            }
            _ if self.source != Source::Shim && self.given.has("shim_rules") => {
                Err(Failure::new(Exit::CannotCheck, "--shim-rules is for the source shim")
                    .help("no other source reads them: leave it out"))
            }
            _ => Ok(()),
        }
    }

    /// Whether space is watched: a daemon does, and who asked for it.
    fn watches_space(&self) -> bool {
        self.config.is_some() || self.space.is_given()
    }

    /// Puts what was given into `config`, and the rest of it here.
    fn settle(&mut self, mut config: Config) -> Config {
        given::settle(&mut config, &mut self.trail, &self.given);
        if self.given.has("source") {
            config.trail.source = Word(self.source);
        }
        if self.given.has("compress_sealed") {
            config.trail.compress_sealed = Number(self.compress_sealed.into());
        }
        let netlink = &mut config.netlink;
        if self.given.has("keeper_ring") {
            netlink.keeper_ring = Bytes(self.keeper_ring);
        }
        if self.given.has("ring_full") {
            netlink.ring_full = Word(self.ring_full);
        }
        if self.given.has("freeze_cgroup") {
            netlink.freeze_cgroups.clone_from(&self.freeze_cgroup);
        }
        if self.given.has("freeze_exempt") {
            netlink.freeze_exempt =
                self.freeze_exempt.iter().map(|uid| Number((*uid).into())).collect();
        }
        if self.given.has("shim_rules") {
            config.shim.rules.clone_from(&self.shim_rules);
        }
        config.space = self.space.over(&config.space);
        self.source = config.trail.source.0;
        config.socket.settle(&mut self.beside, self.source.beside());
        self.compress_sealed = i32::try_from(config.trail.compress_sealed.0).unwrap_or_default();
        config
    }
}

/// Records until the source ends or a signal comes.
#[must_use]
pub fn run(args: &Args) -> Exit {
    aside::begin();
    in_its_role(args).unwrap_or_else(Failure::emit)
}

/// Does what this process is for: from the kernel, recording is more than one.
fn in_its_role(args: &Args) -> Result<Exit, Failure> {
    let inherited = match args.inherited {
        None => None,
        Some(Inherited::Guard { end }) => return guard::guard(end, &args.freeze_cgroup),
        Some(Inherited::Peer { role, fds }) => Some((role, kept::open(fds)?)),
    };
    // What has begun goes on by the configuration that was in force, whatever its file says by now.
    let in_force = match &inherited {
        None => None,
        Some((_, (shared, _))) => kept::config(shared)?,
    };
    let text = match (&args.config, in_force) {
        (None, _) => None,
        (Some(_), Some(text)) => Some(text),
        (Some(file), None) => {
            Some(read::text(file).map_err(|errors| said_but_the_last(file, errors))?)
        }
    };
    let (args, config) = args.settled(text.as_deref())?;
    let settled = Settled { args, config, told: None };
    let Settled { args, config, .. } = &settled;
    args.check_source()?;
    let memory_bytes = args.trail.memory_bytes();
    let keeper = keeper::Options { config, text: text.as_deref(), memory_bytes };
    match (args.source, inherited) {
        (Source::Netlink, None) => {
            args.beside.check(args.source.beside(), true)?;
            // What is wrong is said before anything is changed.
            if args.watches_space() {
                housekeeping::check(&config.space, &args.trail)?;
            }
            keeper::begin(&keeper)
        }
        (Source::Netlink, Some((Role::Keeper, shared))) => keeper::go_on(&keeper, shared),
        (Source::Netlink, Some((Role::Writer, shared))) => {
            let link = Link::new(shared)?;
            let exit = record(settled, Some(&link)).unwrap_or_else(Failure::emit);
            link.end(exit);
            Ok(exit)
        }
        _ => record(settled, None),
    }
}

/// Records until the source ends. From the kernel through `link`, to the keeper.
fn record(settled: Settled, link: Option<&Link>) -> Result<Exit, Failure> {
    let Settled { args, config, .. } = &settled;
    let beside = args.source.beside();
    let listens = matches!(args.source, Source::Netlink | Source::Multicast);
    args.beside.check(beside, listens)?;
    let signals = match (args.source, link) {
        (Source::Plugin, _) => Signals::catch_as_plugin(),
        (_, Some(_)) => Signals::catch_those_that_waited(args.config.is_some()),
        (_, None) => Signals::catch(args.config.is_some()),
    };
    let mut signals = signals
        .map_err(|why| Failure::new(Exit::CannotCheck, &format!("cannot catch signals: {why}")))?;
    if let Some(link) = link {
        signals = signals.passed_on_by(link.session().clone());
    }
    // All that is asked of the kernel is looked at before anything is changed.
    let wanted = match args.source {
        Source::Netlink => Some(wanted(config, link)?),
        _ => None,
    };
    let module = match args.source {
        Source::Shim => Some(shim::Wanted::read(&config.shim)?),
        _ => None,
    };
    if args.watches_space() {
        housekeeping::check(&config.space, &args.trail)?;
    }
    if args.config.is_some() {
        if let Some(module) = &module {
            module.load_module()?;
        }
        process::settle(config, args.trail.memory_bytes());
    }
    let trail = args.trail.open()?;
    let level = Some(args.compress_sealed).filter(|level| *level > 0);
    // It ends after the trail was closed, at its next frame.
    let _compressing =
        level.and_then(|level| sealed::in_background(&args.trail.trail, &trail, level));
    let waits = beside.map_or("", Beside::producers_without_room);
    let (source, producers) = match args.source {
        Source::Stdin => ("stdin", "whoever writes the input waits; nothing is dropped"),
        Source::Netlink => ("netlink", kernel::PRODUCERS_WITHOUT_ROOM),
        Source::Plugin => ("plugin", waits),
        Source::AfUnix => ("af-unix", waits),
        Source::Multicast => ("multicast", waits),
        Source::Socket => ("socket", waits),
        Source::Shim => ("shim", recording::shim::PRODUCERS_WITHOUT_ROOM),
    };
    let words = Words {
        producers,
        source,
        no_thread: Exit::CannotCheck,
        given_up: Exit::NoRoom,
        disagreed: Some(Exit::Damage),
    };
    let housekeeping = args
        .watches_space()
        .then(|| Housekeeping::start(&config.space, &args.trail, args.source.of_records(), &trail));
    let housekeeping = housekeeping.transpose()?;
    let told = housekeeping.as_ref().map(|it| it.told(&args.trail));
    let settled = &Settled { told, ..settled };
    let recorded = room::while_told(&settled.args.trail, trail, words, |trail, ending| {
        acknowledged(settled, link.zip(wanted), module, trail, signals, ending)
    });
    if let Some(housekeeping) = housekeeping {
        let failed = matches!(&recorded, Err(failure) if failure.exit == Exit::Storage);
        housekeeping.end(failed);
    }
    recorded
}

/// What is asked of the kernel. A writer that goes on where another stopped does not need the file of rules: they are
/// loaded.
fn wanted(config: &Config, link: Option<&Link>) -> Result<Wanted, Failure> {
    let read = Wanted::read(&config.netlink);
    match (read, link) {
        (Err(failure), Some(link)) if link.is_opened() => {
            let _ = failure.note("the rules that are loaded stay in force").emit();
            let mut without = config.netlink.clone();
            without.rules = None;
            Wanted::read(&without)
        }
        (read, _) => read,
    }
}

/// Records beside the thread that acknowledges, if one was asked for.
fn acknowledged(
    settled: &Settled,
    kernel: Option<(&Link, Wanted)>,
    module: Option<shim::Wanted>,
    trail: Trail,
    signals: Signals,
    ending: Arc<Ending>,
) -> Result<Exit, Failure> {
    let watermark = trail.watermark();
    std::thread::scope(|scope| {
        let acknowledger = if settled.args.ack {
            let watermark = &watermark;
            let acknowledge = move || ack::acknowledge(watermark, &mut io::stdout().lock());
            let builder = std::thread::Builder::new().name("graven-ack".to_owned());
            Some(builder.spawn_scoped(scope, acknowledge).map_err(|why| {
                Failure::thread(Exit::CannotCheck, &why).note("no record was taken")
            })?)
        } else {
            None
        };
        let recorded = match (settled.args.source.beside(), kernel) {
            (Some(source), _) => sources::beside_auditd(settled, source, trail, signals, ending),
            (None, None) => match module {
                Some(module) => sources::shim(settled, module, trail, signals, ending),
                None => sources::stdin(settled, trail, signals, ending),
            },
            (None, Some(kernel)) => sources::netlink(settled, kernel, trail, signals, ending),
        };
        // The watermark has ended with the trail, so this thread has too, or will at once.
        let acknowledged = acknowledger.map_or(Ok(()), |thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let exit = recorded?;
        acknowledged.map_err(|why| {
            Failure::new(Exit::CannotCheck, &format!("cannot write acknowledgements: {why}"))
                .note("every record that was read is durable all the same")
        })?;
        Ok(exit)
    })
}
