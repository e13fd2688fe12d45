//! `graven show`.

use crate::cmd::reading;
use crate::escape::Escaped;
use crate::exit::Exit;
use crate::output;
use crate::range::SeqRange;
use crate::shim;
use crate::time::rfc3339;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use graven_format::kind::{self, Kind};
use graven_format::{Flags, Record, Source};
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

/// Version of the JSON lines that `show --json` prints.
const SCHEMA_VERSION: u32 = 1;

/// Arguments of `graven show`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The trail's directory
    pub dir: PathBuf,
    /// Which records: A..B (without B), A..=B, A.., ..B, or A alone
    #[arg(long, value_name = "RANGE", default_value = "..", hide_default_value = true)]
    pub seq: SeqRange,
    /// Print one JSON object a record
    #[arg(long)]
    pub json: bool,
}

const AFTER_HELP: &str = "\
Prints seq, time, source, type and payload, one record a line. A record of source `socket` has the number of the \
application's connection for a type: who it was is in the DAEMON_ACCEPT record with that number before it. What is of \
source `import` came through auditd or by multicast, best effort. Bytes that could confuse a terminal are escaped, on \
a pipe too; `graven export` gives them as they are. A record of source `shim` is one part of a record of the kernel shim; its call \
and items are printed, and in JSON it is bytes. In JSON the payload is {\"text\": …}, or {\"bytes\": …} in \
base64 if it is no UTF-8.

Only the segments that hold the range are read. What is intact is printed even if something else is damaged. \
Records that were written but never announced durable, after the end of a trail whose writer died, are not part of \
it and are not printed.

Exit codes:
  0  every record of the range was printed
  1  damage was met; every intact record of the range was printed
  2  usage, not a trail, or a part could not be read or is of a later format version

Examples:
  graven show /var/lib/graven/trail --seq 918000..
  graven show /var/lib/graven/trail --json | jq -r 'select(.type == \"EXECVE\").payload.text'";

/// Prints the records.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let mut out = output::raw();
    let json = args.json;
    let write = |out: &mut dyn Write, seq: u64, record: &Record<'_>| {
        if json { write_json(out, seq, record) } else { write_text(out, seq, record) }
    };
    reading::run(&args.dir, &args.seq, &mut out, &mut reading::AtOnce(write))
}

/// One record for people.
pub(crate) fn write_text(out: &mut dyn Write, seq: u64, record: &Record<'_>) -> io::Result<()> {
    let time = rfc3339(record.realtime_ns);
    write!(out, "{seq} {time} {} ", record.source.name())?;
    if record.source == Source::Shim {
        return writeln!(out, "{}", shim::text::Line(record.bytes));
    }
    match (record.source, record.kind) {
        // What has no type shows none.
        (_, 0) => write!(out, "-")?,
        (Source::Socket, client) => write!(out, "client[{client}]")?,
        (_, kind) => write!(out, "{}", Kind(kind))?,
    }
    writeln!(out, " {}", Escaped(record.bytes))
}

/// One record as JSON.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    schema_version: u32,
    seq: u64,
    time: String,
    boottime_ns: u64,
    source: &'static str,
    source_seq: u64,
    /// The type's name, or null if it has none.
    #[serde(rename = "type")]
    kind: Option<&'static str>,
    type_number: u16,
    flags: Vec<&'static str>,
    payload: Payload<'a>,
}

/// Text if it is text, base64 if not: JSON holds no other bytes.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Payload<'a> {
    Text(&'a str),
    Bytes(String),
}

fn write_json(out: &mut dyn Write, seq: u64, record: &Record<'_>) -> io::Result<()> {
    output::json_line(out, &json(seq, record))
}

/// One record as JSON.
pub(crate) fn json<'a>(seq: u64, record: &Record<'a>) -> Line<'a> {
    let flags = [
        (Flags::LOSS, "loss"),
        (Flags::UNTERMINATED, "unterminated"),
        (Flags::CHECKPOINT, "checkpoint"),
    ];
    Line {
        schema_version: SCHEMA_VERSION,
        seq,
        time: rfc3339(record.realtime_ns),
        boottime_ns: record.boottime_ns,
        source: record.source.name(),
        source_seq: record.source_seq,
        kind: kind::name(record.kind).filter(|_| record.source != Source::Socket),
        type_number: record.kind,
        flags: flags
            .into_iter()
            .filter_map(|(flag, name)| record.flags.contains(flag).then_some(name))
            .collect(),
        payload: match std::str::from_utf8(record.bytes) {
            Ok(text) => Payload::Text(text),
            Err(_) => Payload::Bytes(BASE64.encode(record.bytes)),
        },
    }
}
