//! A record of the shim as the records of one event that the kernel's audit would have made.
//!
//! `docs/kernel-shim.md`, "As audit's records", gives the reason for each choice.

use super::execve;
use super::gather::Event;
use super::value::{Hex, Untrusted, until_zero};
use graven_format::Record;
use graven_shim_abi::decode::{Body, DecodeError, ItemKind, ItemView};
use graven_shim_abi::{
    CAPTURED_ARGS, CAPTURED_AUID, CAPTURED_COMM, CAPTURED_CREDENTIALS, CAPTURED_END,
    CAPTURED_PERSONALITY, CAPTURED_RESULT, CAPTURED_SESSION, CAPTURED_START, CAPTURED_TASK, Call,
    GAP_NO_READER, Gap, PART_NO_RETURN, ROLE_NEW, ROLE_OLD, ROLE_PARENT, ROLE_TARGET, ROLE_TEXT,
};
use graven_writer::source::calls;
use std::fmt;
use std::io::{self, Write};

/// `ausearch` takes lines of up to 8,970 bytes: a value of so many bytes fits, in digits and beside all else.
const VALUE_BYTES_MAX: usize = 4096;
/// Audit's "nobody", which its tools print as `unset`.
const UNSET: u32 = u32::MAX;

/// What every record of one event has in common: `audit(SECONDS.MILLISECONDS:SERIAL): `.
struct Stamp {
    realtime_ns: u64,
    order: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ms) = (self.realtime_ns / 1_000_000_000, self.realtime_ns / 1_000_000 % 1000);
        // Audit's serials begin with 1.
        write!(f, "msg=audit({s}.{ms:03}:{}): ", self.order.saturating_add(1))
    }
}

/// A number, or what audit's tools write where there is none.
struct Known<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Known<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("?"),
        }
    }
}

/// Somebody else's bytes, or `(null)` if they are not there.
struct Text<'a>(Option<&'a [u8]>);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => Untrusted(limited(until_zero(bytes))).fmt(f),
            None => f.write_str("(null)"),
        }
    }
}

fn limited(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(VALUE_BYTES_MAX)]
}

/// Its bytes, if they were had.
fn captured<'a>(item: &ItemView<'a>) -> Option<&'a [u8]> {
    item.is_captured().then_some(item.bytes)
}

/// Writes the lines of an event, in the order in which the kernel gives them out.
///
/// # Errors
/// What `out` says.
pub fn write(out: &mut dyn Write, event: &Event<'_>) -> io::Result<()> {
    for part in &event.parts {
        if let Body::Gap(gap) = &part.body {
            write_gap(out, event, gap)?;
        }
    }
    let call = event.parts.iter().find_map(|part| part.call());
    let realtime_ns = call.and_then(ended_ns).unwrap_or(event.realtime_ns);
    let stamp = Stamp { realtime_ns, order: event.order };
    let all = || event.parts.iter().flat_map(|part| part.items());
    let of = |kind| all().filter(move |item: &ItemView<'_>| item.kind() == kind);
    if let Some(call) = call {
        write!(out, "type=SYSCALL {stamp}")?;
        let returned = !event.parts.iter().any(|part| part.has(PART_NO_RETURN));
        write_call(out, call, returned, of(ItemKind::Name).count())?;
        let tty = of(ItemKind::Tty).next().and_then(|item| captured(&item));
        let exe = of(ItemKind::Exe).next().and_then(|item| captured(&item));
        write_program(out, call, tty, exe)?;
    }
    for record in execve::records(all()) {
        writeln!(out, "type=EXECVE {stamp}{record}")?;
    }
    for item in of(ItemKind::Sockaddr).filter(|item| !item.bytes.is_empty()) {
        writeln!(out, "type=SOCKADDR {stamp}saddr={}", Hex(limited(item.bytes)))?;
    }
    for item in of(ItemKind::Cwd) {
        writeln!(out, "type=CWD {stamp}cwd={}", Text(captured(&item)))?;
    }
    for item in of(ItemKind::Name) {
        write!(out, "type=PATH {stamp}")?;
        write_path(out, call, &item)?;
    }
    for item in of(ItemKind::Proctitle) {
        let title = captured(&item).map(trimmed).filter(|title| !title.is_empty());
        let title = limited(title.unwrap_or(b"(null)"));
        writeln!(out, "type=PROCTITLE {stamp}proctitle={}", Untrusted(title))?;
    }
    Ok(())
}

/// When the call ended, or else began.
fn ended_ns(call: &Call) -> Option<u64> {
    let has = |bit| call.captured & bit != 0;
    let start = has(CAPTURED_START).then_some(call.start_ns);
    if has(CAPTURED_END) { Some(call.end_ns) } else { start }
}

/// The outcome as the kernel's audit says it.
fn exit_code(result: i64) -> i64 {
    match result {
        // The kernel's own codes for "restart it", which no program sees: audit says EINTR.
        -514..=-512 | -516 => -4,
        other => other,
    }
}

fn write_call(out: &mut dyn Write, call: &Call, returned: bool, names: usize) -> io::Result<()> {
    let has = |bit| call.captured & bit != 0;
    // Audit takes the number for a signed one.
    write!(out, "arch={:x} syscall={}", call.arch, call.nr.cast_signed())?;
    if has(CAPTURED_PERSONALITY) && call.personality != 0 {
        write!(out, " per={:x}", call.personality)?;
    }
    if returned && has(CAPTURED_RESULT) {
        let exit = exit_code(call.result);
        let success = if (-4095..0).contains(&exit) { "no" } else { "yes" };
        write!(out, " success={success} exit={exit}")?;
    }
    for (n, arg) in (0..4).zip(call.args) {
        if has(CAPTURED_ARGS) {
            write!(out, " a{n}={arg:x}")?;
        } else {
            write!(out, " a{n}=?")?;
        }
    }
    let task = |id: u32| Known(has(CAPTURED_TASK).then_some(id));
    write!(out, " items={names} ppid={} pid={}", task(call.ppid), task(call.pid))?;
    write!(out, " auid={}", if has(CAPTURED_AUID) { call.auid } else { UNSET })?;
    for (name, id) in [
        ("uid", call.uid),
        ("gid", call.gid),
        ("euid", call.euid),
        ("suid", call.suid),
        ("fsuid", call.fsuid),
        ("egid", call.egid),
        ("sgid", call.sgid),
        ("fsgid", call.fsgid),
    ] {
        write!(out, " {name}={}", if has(CAPTURED_CREDENTIALS) { id } else { UNSET })?;
    }
    Ok(())
}

/// The rest of a SYSCALL line.
fn write_program(
    out: &mut dyn Write,
    call: &Call,
    tty: Option<&[u8]>,
    exe: Option<&[u8]>,
) -> io::Result<()> {
    // The kernel gives its own word for a terminal as it is; nothing else may end the field.
    let tty =
        tty.map(until_zero).filter(|tty| tty.len() <= 64 && tty.iter().all(u8::is_ascii_graphic));
    let tty = tty.filter(|tty| !tty.is_empty()).map(String::from_utf8_lossy);
    let session = if call.captured & CAPTURED_SESSION == 0 { UNSET } else { call.session };
    write!(out, " tty={} ses={session}", tty.as_deref().unwrap_or("(none)"))?;
    let comm = (call.captured & CAPTURED_COMM != 0).then_some(&call.comm[..]);
    writeln!(out, " comm={} exe={} key=(null)", Text(comm), Text(exe))
}

fn write_path(out: &mut dyn Write, call: Option<&Call>, item: &ItemView<'_>) -> io::Result<()> {
    write!(out, "item={} name={}", item.header.index, Text(captured(item)))?;
    if let Some(object) = &item.object {
        let mode = object.mode & 0xffff;
        write!(
            out,
            " inode={} dev={:02x}:{:02x}",
            object.inode, object.dev_major, object.dev_minor
        )?;
        write!(out, " mode={}{mode:o}", if mode == 0 { "" } else { "0" })?;
        write!(out, " ouid={} ogid={}", object.uid, object.gid)?;
        write!(out, " rdev={:02x}:{:02x}", object.rdev_major, object.rdev_minor)?;
    }
    writeln!(out, " nametype={}", name_type(call, item))
}

/// What the call has to do with the name. The role and the call's name say it, also if the call failed; of an open, whether
/// it made the file.
fn name_type(call: Option<&Call>, item: &ItemView<'_>) -> &'static str {
    let call = call.and_then(|call| calls::name(call.arch, call.nr)).unwrap_or_default();
    let found = if item.object.is_some() { "NORMAL" } else { "UNKNOWN" };
    match item.header.role {
        ROLE_PARENT => "PARENT",
        ROLE_NEW => "CREATE",
        ROLE_OLD if call.starts_with("rename") => "DELETE",
        ROLE_TARGET => match call {
            "unlink" | "unlinkat" | "rmdir" => "DELETE",
            "mkdir" | "mkdirat" | "mknod" | "mknodat" => "CREATE",
            _ if item.is_made() => "CREATE",
            _ => found,
        },
        // It is not looked up.
        ROLE_TEXT => "UNKNOWN",
        _ => found,
    }
}

/// Without the zeros and other unprintable bytes at its end, as the kernel does it.
fn trimmed(title: &[u8]) -> &[u8] {
    let printable = |byte: &u8| matches!(byte, 0x20..=0x7e | 0xa0..);
    title.iter().rposition(printable).map_or(&[][..], |last| &title[..=last])
}

/// A gap, in the form of Graven's statements of loss.
fn write_gap(out: &mut dyn Write, event: &Event<'_>, gap: &Gap) -> io::Result<()> {
    // The same moment by both clocks, which the trail has, tells when it was by the other.
    let realtime = |boot_ns: u64| {
        let before_ns = event.boottime_ns.saturating_sub(boot_ns);
        let after_ns = boot_ns.saturating_sub(event.boottime_ns);
        event.realtime_ns.saturating_sub(before_ns).saturating_add(after_ns)
    };
    let stamp = Stamp { realtime_ns: realtime(gap.to_ns), order: event.order };
    let reason = match gap.reason {
        GAP_NO_READER => "no-reader".to_owned(),
        other => other.to_string(),
    };
    write!(
        out,
        "type=DAEMON_ERR {stamp}op=shim-gap source=shim cause={reason} count={} unit=calls",
        gap.count
    )?;
    for (name, boot_ns) in [("from", gap.from_ns), ("to", gap.to_ns)] {
        let ns = realtime(boot_ns);
        write!(out, " {name}={}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)?;
    }
    writeln!(out)
}

/// What is of the shim by its source and no part that this version reads: where it is, so that nothing is left out.
///
/// # Errors
/// What `out` says.
pub fn write_unreadable(
    out: &mut dyn Write,
    seq: u64,
    record: &Record<'_>,
    why: Option<DecodeError>,
) -> io::Result<()> {
    let stamp = Stamp { realtime_ns: record.realtime_ns, order: record.source_seq };
    write!(out, "type=DAEMON_ERR {stamp}op=shim-unreadable source=shim seq={seq}")?;
    match why {
        Some(why) => writeln!(out, " offset={}", why.offset()),
        // Of a kind that a later version made.
        None => writeln!(out, " kind={}", record.kind),
    }
}
