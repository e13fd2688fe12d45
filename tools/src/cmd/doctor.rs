//! `graven doctor`.

use crate::diag::Diagnostic;
use crate::doctor::{self, Checkup, Place};
use crate::exit::Exit;
use crate::output;
use crate::verify::text::bytes;
use anstyle::Style;
use std::io::{self, Write};
use std::path::PathBuf;

/// Arguments of `graven doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// A trail's directory, or the place where one is to be
    #[arg(long, value_name = "DIR")]
    pub trail: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

const AFTER_HELP: &str = "\
Looks at the kernel, its audit system, this process's rights and, with --trail, at filesystem and device. Changes \
nothing; a nameless file is tried in the directory and gone at once.

Exit codes:
  0  looked; warnings are part of the report
  2  usage, or no trail can be written in the directory

Examples:
  graven doctor --trail /var/lib/graven/trail
  graven doctor --json | jq .audit.daemon";

/// Looks and reports.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let checkup = doctor::look(args.trail.as_deref());
    let unusable = checkup.place.as_ref().is_some_and(|place| place.disk.is_none());
    let exit = if unusable { Exit::CannotCheck } else { Exit::Success };
    output::ended(print(args, &checkup), exit)
}

fn print(args: &Args, checkup: &Checkup) -> io::Result<()> {
    if args.json {
        let mut out = output::raw();
        output::json_line(&mut out, checkup)?;
        return out.flush();
    }
    let mut out = io::BufWriter::new(anstream::stdout().lock());
    write(checkup, &mut out)?;
    out.flush()
}

fn write(checkup: &Checkup, out: &mut dyn Write) -> io::Result<()> {
    fact(out, "graven", checkup.graven)?;
    fact(out, "kernel", &format!("{} on {}", checkup.kernel, checkup.machine))?;
    let process = &checkup.process;
    let session = process.audit_session.map_or("none".to_owned(), |number| number.to_string());
    let missing = match process.capabilities_missing.as_slice() {
        [] => "all that recording from the kernel needs".to_owned(),
        missing => format!("missing {}", missing.join(", ")),
    };
    fact(out, "process", &format!("uid {}, audit session {session}", process.uid))?;
    fact(out, "rights", &missing)?;
    let text = match checkup.io_uring.disabled {
        None | Some(0) => "not restricted",
        Some(1) => "for the privileged only",
        Some(_) => "switched off",
    };
    fact(out, "io_uring", text)?;
    match &checkup.audit {
        None => fact(out, "audit", checkup.audit_error.as_deref().unwrap_or("unknown"))?,
        Some(audit) => {
            let enabled = match audit.enabled {
                0 => "off",
                1 => "on",
                _ => "on and locked",
            };
            let daemon = match &audit.daemon {
                None => "no daemon".to_owned(),
                Some(it) => format!("daemon {} ({})", it.pid, it.comm.as_deref().unwrap_or("gone")),
            };
            let text = format!(
                "{enabled}, {daemon}, backlog {} of {}, lost {}",
                audit.backlog, audit.backlog_limit, audit.lost
            );
            fact(out, "audit", &text)?;
            let text = match &audit.mapping_error {
                None => "left in mapped memory".to_owned(),
                Some(why) => format!("received one by one, which is slower: bpf: {why}"),
            };
            fact(out, "records", &text)?;
        }
    }
    if let Some(place) = &checkup.place {
        write_place(place, out)?;
    }
    for warning in &checkup.warnings {
        writeln!(out)?;
        let diagnostic = Diagnostic::warning(warning.message.clone());
        match &warning.help {
            Some(help) => diagnostic.help(help.clone()).write(out)?,
            None => diagnostic.write(out)?,
        }
    }
    Ok(())
}

fn write_place(place: &Place, out: &mut dyn Write) -> io::Result<()> {
    let made = if place.exists { "" } else { " (a trail below it would be made)" };
    fact(out, "directory", &format!("{}{made}", place.directory))?;
    if let Some(pid) = place.writer_pid {
        fact(out, "writer", &format!("running, pid {pid}"))?;
    }
    if let Some(free) = place.free_bytes {
        fact(out, "free", &bytes(free))?;
    }
    let Some(disk) = &place.disk else { return Ok(()) };
    let how = if disk.direct { "direct" } else { "through the page cache" };
    let registered = match disk.buffers_registered {
        Some(true) => ", buffers registered",
        _ => "",
    };
    fact(out, "driver", &format!("{}, {how}{registered}", disk.driver))?;
    if let Some(linked) = disk.linked_flush {
        let text = if linked { "fdatasync linked to a single write" } else { "RWF_DSYNC" };
        fact(out, "barrier", text)?;
    }
    if let Some(why) = &disk.fallback_reason {
        fact(out, "", &format!("not io_uring: {why}"))?;
    }
    let statx =
        disk.statx_align_bytes.map_or("nothing".to_owned(), |bytes| format!("{bytes} bytes"));
    let text =
        format!("{}, frames of {} bytes, statx says {statx}", disk.filesystem, disk.align_bytes);
    fact(out, "layout", &text)?;
    if let Some(device) = &disk.device {
        let yes = |known: Option<bool>| match known {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        let text = format!(
            "{}, sectors {}/{} bytes, volatile cache {}, FUA {}",
            device.name,
            device.logical_block_bytes,
            device.physical_block_bytes,
            yes(device.volatile_cache),
            yes(device.fua)
        );
        fact(out, "device", &text)?;
    }
    Ok(())
}

fn fact(out: &mut dyn Write, name: &str, text: &str) -> io::Result<()> {
    let strong = Style::new().bold();
    writeln!(out, "{strong}{name:<10}{strong:#}{text}")
}
