//! `graven keys`.

use crate::cmd::key;
use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::keys::{self, KeysError};
use crate::output;
use crate::trail::TrailDir;
use graven_format::note::PublicKey;
use serde::Serialize;
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Version of the JSON lines that `keys --json` prints.
const SCHEMA_VERSION: u32 = 1;

/// Arguments of `graven keys`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The trail's directory
    pub dir: PathBuf,
    /// The key that the trail must begin with, or @FILE that holds it
    #[arg(long, value_name = "KEY", value_parser = key::parse)]
    pub key: Option<PublicKey>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

const AFTER_HELP: &str = "\
One line a key: how many keys came before it, the number of records from which on it signs, and the key as \
`graven check-proof --key` takes it. Each key has signed the one after it in its last checkpoint, so whoever trusts the first may \
trust all. Without --key the first one is the trail's own word.

Reads the headers and trailers of all segments, and the records of those in which a key changed or that are not sealed. Whether the records are \
those that were signed is for `graven verify` to say.

Exit codes:
  0  every key follows from the first
  1  a key does not follow, or the trail does not begin with the one given; those before it are printed
  2  usage, not a trail, not signed, or a part could not be read or is of a later format version

Examples:
  graven keys /var/lib/graven/trail --key @first.vkey
  graven keys /var/lib/graven/trail --json | jq -r .key";

/// Prints the keys.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let Some(dir) = super::open(&args.dir) else { return Exit::CannotCheck };
    let mut out = output::raw();
    let mut written = Ok(());
    let followed = keys::follow(&dir, args.key.as_ref(), |it| {
        let line = Line {
            schema_version: SCHEMA_VERSION,
            epoch: it.epoch,
            from: it.from,
            key: it.key.to_string(),
        };
        if written.is_ok() {
            written = if args.json {
                output::json_line(&mut out, &line)
            } else {
                writeln!(out, "{} {} {}", line.epoch, line.from, line.key)
            };
        }
    });
    let exit = match followed {
        Ok(()) => Exit::Success,
        Err(why) => refuse(&dir, &why),
    };
    output::ended(written.and_then(|()| out.flush()), exit)
}

#[derive(Serialize)]
struct Line {
    schema_version: u32,
    epoch: u64,
    from: u64,
    key: String,
}

fn refuse(dir: &TrailDir, why: &KeysError) -> Exit {
    let error = Diagnostic::error(why.to_string());
    let (file, exit) = match why {
        KeysError::Empty | KeysError::Unsigned => (None, Exit::CannotCheck),
        KeysError::Trusted(_) => (None, Exit::Damage),
        KeysError::Header { file, why } if why.is_unsupported() => (Some(file), Exit::CannotCheck),
        KeysError::Header { file, .. }
        | KeysError::Signature { file, .. }
        | KeysError::Broken { file } => (Some(file), Exit::Damage),
        KeysError::Unreadable { file, why } => {
            let grave = why.kind() == io::ErrorKind::InvalidInput;
            (Some(file), if grave { Exit::Damage } else { Exit::CannotCheck })
        }
    };
    let error = match file {
        Some(file) => error.at(escape::path(&dir.path.join(file.name()))),
        None => error.at(escape::path(&dir.path)),
    };
    match exit {
        Exit::Damage => error.help("`graven verify` says what is wrong").emit(),
        _ => error.emit(),
    }
    exit
}
