//! `graven shim`.

use crate::diag::{Diagnostic, Level};
use crate::exit::Exit;
use crate::output;
use crate::recording::module::{self, Choice, IoUring, Loading, NoReader};
use crate::recording::shim::{self, RulesFile, Shim};
use crate::recording::{Failure, self_test};
use graven_writer::source::shim::{Device, Kernel as _, Memory, Status};
use serde::Serialize;
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Arguments of `graven shim`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Load the module
    Load(LoadArgs),
    /// Unload it; nobody may have its device open
    Unload,
    /// Check a file of rules for `record --shim-rules`
    Rules {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Have a child make calls, and look whether their records, which stay for the next session, say what they must
    SelfTest {
        /// Make the calls, in this folder: only graven itself says so
        #[arg(long, hide = true, value_name = "DIR")]
        as_child: Option<PathBuf>,
    },
    /// Say how it is doing
    Status {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct LoadArgs {
    /// The module's file; without, modprobe looks for it where the kernel's modules are
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Rings; as many as there can be processors unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    rings: Option<u32>,
    /// Slots of 256 bytes in each ring, a power of two
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// What a task does that has waited so long for room while nobody reads: `block`, `panic` or `pass`
    #[arg(long, value_enum, value_name = "ACTION")]
    no_reader: Option<NoReader>,
    /// Milliseconds that it waits before that
    #[arg(long, value_name = "MS", default_value_t = 60_000, requires = "no_reader")]
    no_reader_ms: u32,
    /// What becomes of calls of io_uring, whose operations are not seen, where they are recorded
    #[arg(long, value_enum, value_name = "ACTION")]
    io_uring: Option<IoUring>,
    /// Never let it be unloaded
    #[arg(long)]
    pin: bool,
}

const AFTER_HELP: &str = "\
The module records system calls before and after they are made, in memory that `graven record --source shim` and `graven \
run --source shim` read. While there is no room, the calls wait. See docs/kernel-shim.md.

Exit codes:
  0  done
  2  usage, or there is no such module, or a rule is wrong (it is said with its line)
  8  the kernel refuses, the module is not loaded, or it is in use; or it does not see what it should

Examples:
  graven shim load --slots 65536
  graven shim load --module ./graven_shim.ko --no-reader panic --no-reader-ms 5000 --pin
  graven shim rules /etc/graven/shim.rules
  graven shim status --json | jq .waiting";

/// Does what is asked.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let done = match &args.what {
        What::Load(args) => load(args),
        What::Unload => module::unload(),
        What::SelfTest { as_child: Some(dir) } => {
            return if self_test::make_calls(dir).is_ok() {
                Exit::Success
            } else {
                Exit::CannotCheck
            };
        }
        What::Rules { file } => RulesFile::read(file).map(|it| {
            let count = it.rules.count;
            Diagnostic::new(
                Level::Note,
                format!("{count} rules, in the order in which they are asked"),
            )
            .at(crate::escape::path(file))
            .emit();
        }),
        What::SelfTest { as_child: None } => {
            Shim::open_alone().and_then(|shim| self_test::run(&shim).map(drop))
        }
        What::Status { json } => return status(*json),
    };
    done.map_or_else(Failure::emit, |()| Exit::Success)
}

fn load(args: &LoadArgs) -> Result<(), Failure> {
    let LoadArgs { module, rings, slots, no_reader, no_reader_ms, io_uring, pin } = args;
    module::load(&Loading { file: module.clone(), rings: *rings, slots: *slots })?;
    let choice = Choice {
        no_reader: no_reader.map(|action| (action, *no_reader_ms)),
        io_uring: *io_uring,
        pin: *pin,
    };
    if choice == Choice::default() {
        return Ok(());
    }
    choice.apply(&Device::reader().map_err(|why| shim::failure(&why))?)
}

/// What `status` says.
#[derive(Debug, Serialize)]
struct Said {
    instance: String,
    rings: u32,
    slots: u32,
    slots_used_max: u64,
    records: u64,
    rules: u32,
    reader: u32,
    absent_ms: u32,
    waiting: u32,
    put_off: u64,
    waited: u64,
    waited_ns: u64,
    passed: u64,
    refused: u64,
    orphans: u32,
    tasks: u32,
    memory_bytes: u64,
    bad_tails: u64,
    hooks_missing: Vec<&'static str>,
    no_reader: &'static str,
    no_reader_ms: u32,
    io_uring: &'static str,
    pinned: bool,
}

fn status(json: bool) -> Exit {
    match look() {
        Ok(said) => output::ended(print(&said, json), Exit::Success),
        Err(failure) => failure.emit(),
    }
}

fn look() -> Result<Said, Failure> {
    let failed = |why| shim::failure(&why);
    let device = Device::observer().map_err(failed)?;
    let status = device.status().map_err(failed)?;
    let memory = Memory::look(device.file()).map_err(failed)?;
    let used = |ring| memory.head(ring).saturating_sub(memory.first(ring));
    let Status { policy: [no_reader, no_reader_ms, io_uring, pinned], .. } = status;
    Ok(Said {
        instance: format!("{:016x}", status.instance),
        rings: memory.rings(),
        slots: memory.control().slots,
        slots_used_max: (0..memory.rings()).map(used).max().unwrap_or(0),
        records: status.order_next,
        rules: status.rules,
        reader: status.reader,
        absent_ms: status.absent_ms,
        waiting: status.waiting,
        put_off: status.skipped,
        waited: status.waited,
        waited_ns: status.waited_ns,
        passed: status.passed,
        refused: status.refused,
        orphans: status.orphans,
        tasks: status.tasks,
        memory_bytes: status.memory_bytes,
        bad_tails: status.bad_tails,
        hooks_missing: shim::hooks(status.hooks_wanted & !status.hooks),
        no_reader: ["block", "panic", "pass"].get(no_reader as usize).copied().unwrap_or("?"),
        no_reader_ms,
        io_uring: ["refuse", "unseen"].get(io_uring as usize).copied().unwrap_or("?"),
        pinned: pinned != 0,
    })
}

fn print(said: &Said, json: bool) -> io::Result<()> {
    let mut out = output::raw();
    if json {
        output::json_line(&mut out, said)?;
        return out.flush();
    }
    let mut fact = |name: &str, text: String| writeln!(out, "{name:<10}{text}");
    fact("instance", said.instance.clone())?;
    fact(
        "reader",
        match said.reader {
            0 => format!("none for {} ms", said.absent_ms),
            pid => format!("process {pid}"),
        },
    )?;
    fact(
        "rings",
        format!(
            "{} of {} slots, the fullest has {} in use",
            said.rings, said.slots, said.slots_used_max
        ),
    )?;
    fact("records", format!("{} with {} rules", said.records, said.rules))?;
    fact(
        "waiting",
        format!(
            "{} tasks now; {} times in all, {:.3} s",
            said.waiting,
            said.waited,
            said.waited_ns as f64 / 1e9
        ),
    )?;
    fact(
        "lost",
        match said.passed {
            0 => "nothing".to_owned(),
            passed => format!("{passed} calls went on unrecorded by policy"),
        },
    )?;
    fact("orphans", said.orphans.to_string())?;
    fact("memory", format!("{} bytes in {} tasks", said.memory_bytes, said.tasks))?;
    fact(
        "policy",
        format!(
            "without a reader {} after {} ms, io_uring {}{}",
            said.no_reader,
            said.no_reader_ms,
            said.io_uring,
            if said.pinned { ", pinned" } else { "" }
        ),
    )?;
    if !said.hooks_missing.is_empty() {
        fact("hooks", format!("missing: {}", said.hooks_missing.join(", ")))?;
    }
    out.flush()
}
