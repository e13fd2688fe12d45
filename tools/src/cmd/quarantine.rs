//! `graven quarantine`.

use crate::escape;
use crate::exit::Exit;
use crate::output;
use crate::quarantine::{self, Quarantined};
use crate::trail::dir::name_text;
use crate::verify::report::{Verdict, hex};
use crate::verify::text::{bytes, count};
use anstyle::Style;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

/// Version of the JSON that `quarantine --json` prints.
const SCHEMA_VERSION: u32 = 1;

/// Arguments of `graven quarantine`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The trail's directory
    pub dir: PathBuf,
    /// The directory of the copy, which must not exist
    pub dest: PathBuf,
    /// Rename DIR to DIR.quarantined once the copy is complete, so that `record` can start a new trail there
    #[arg(long = "move")]
    pub move_aside: bool,
    /// Print what was done as one JSON object
    #[arg(long)]
    pub json: bool,
}

const AFTER_HELP: &str = "\
For a trail that `verify` calls damaged or `record` refuses to open. Every regular file of DIR is copied byte for byte, \
holes are kept, and each copy is read back from the device and compared by SHA-256. DEST then also holds SHA256SUMS, which `sha256sum -c` \
checks, and report.json, what `verify --json` says of DIR. DEST has its name only once all that is so; until then it is \
called DEST.partial. Nothing in DIR is changed.

The private keys (`key`, `key.next`, `key.witness`) are secrets, and are never copied: they stay in DIR, or go with it to DIR.quarantined. \
What is no regular file is not copied either. Each file that was left out is said.

No writer may run on DIR, and none can start meanwhile.

Exit codes:
  0  the copy is complete and equal, and DIR was renamed if that was asked for
  1  a copy is not what was written to it
  2  usage, not a trail, a running writer, DEST exists, or something cannot be read, written or renamed
  5  the device of DEST failed
  6  no room for the copy

Examples:
  graven quarantine /var/lib/graven/trail /mnt/evidence/trail-2026-11-24
  graven quarantine --move /var/lib/graven/trail /mnt/evidence/trail-2026-11-24
  cd /mnt/evidence/trail-2026-11-24 && sha256sum -c SHA256SUMS";

/// Copies the trail and says what was done.
#[must_use]
pub fn run(args: &Args) -> Exit {
    match quarantine::quarantine(&args.dir, &args.dest, args.move_aside) {
        Ok(done) => output::ended(print(args, &done), Exit::Success),
        Err(failure) => failure.emit(),
    }
}

#[derive(Serialize)]
struct Json<'a> {
    schema_version: u32,
    trail: String,
    trail_id: Option<&'a str>,
    /// What `verify` says of it.
    verdict: Verdict,
    dest: String,
    files: Vec<JsonFile>,
    left_out: Vec<JsonLeftOut>,
    moved_to: Option<String>,
}

#[derive(Serialize)]
struct JsonFile {
    file: String,
    bytes: u64,
    sha256: String,
}

#[derive(Serialize)]
struct JsonLeftOut {
    file: String,
    why: &'static str,
}

fn json(args: &Args, done: &Quarantined) -> io::Result<()> {
    let files = done.files.iter().map(|it| JsonFile {
        file: name_text(&it.name),
        bytes: it.bytes,
        sha256: hex(&it.sha256),
    });
    let left_out =
        done.left_out.iter().map(|it| JsonLeftOut { file: name_text(&it.name), why: it.why });
    let json = Json {
        schema_version: SCHEMA_VERSION,
        trail: escape::path(&args.dir),
        trail_id: done.report.trail_id.as_deref(),
        verdict: done.report.verdict,
        dest: escape::path(&args.dest),
        files: files.collect(),
        left_out: left_out.collect(),
        moved_to: done.moved.as_deref().map(escape::path),
    };
    let mut out = output::raw();
    output::json_line(&mut out, &json)?;
    out.flush()
}

fn print(args: &Args, done: &Quarantined) -> io::Result<()> {
    if args.json {
        return json(args, done);
    }
    let mut out = io::BufWriter::new(anstream::stdout().lock());
    let strong = Style::new().bold();
    let mut fact = |name: &str, text: String| writeln!(out, "{strong}{name:<10}{strong:#}{text}");
    let id = done.report.trail_id.as_deref().unwrap_or("unknown");
    fact("trail", format!("{}, id {id}", escape::path(&args.dir)))?;
    fact("verdict", done.report.verdict.words().to_owned())?;
    let total = done.files.iter().map(|file| file.bytes).sum();
    let files = count(done.files.len() as u64, "file");
    fact("copied", format!("{files}, {}, each read back and equal", bytes(total)))?;
    for file in &done.left_out {
        fact("left out", format!("{}: {}", name_text(&file.name), file.why))?;
    }
    let dest = escape::path(&args.dest);
    fact("copy", format!("{dest}, with SHA256SUMS and report.json"))?;
    match &done.moved {
        Some(moved) => fact("original", format!("moved to {}", escape::path(moved)))?,
        None => fact("original", "as it was, where it was".to_owned())?,
    }
    fact("next", format!("graven salvage {dest} NEW"))?;
    out.flush()
}
