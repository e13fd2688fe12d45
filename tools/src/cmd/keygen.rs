//! `graven keygen`.

use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::output;
use graven_writer::dir::random_id;
use graven_writer::{clock, keys::files};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Arguments of `graven keygen`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The file that the private key is written to; it must not exist
    #[arg(long, value_name = "FILE", default_value = "graven.key")]
    pub out: PathBuf,
}

const AFTER_HELP: &str = "\
Makes the first key of a trail that does not exist yet, and the trail's id with it. Standard output is the \
public key: keep it where those who will verify the trail find it, and where those who write it cannot change it. \
The private key is for `graven record --key FILE` or `graven run --key FILE`, which make the trail, move the key \
into it and erase the file.

A trail that is made without --key gets a first key of its own, whose public half is said when it is made.

Exit codes:
  0  the key was written, the public key is on standard output
  2  usage, or the file exists or cannot be written

Examples:
  graven keygen --out /root/audit.key > audit.pub
  graven record --trail /var/lib/graven/trail --source netlink --key /root/audit.key";

/// Makes the key.
#[must_use]
pub fn run(args: &Args) -> Exit {
    match make(&args.out) {
        Ok(public) => {
            let mut out = output::raw();
            output::ended(writeln!(out, "{public}").and_then(|()| out.flush()), Exit::Success)
        }
        Err(why) => {
            let failed = Diagnostic::error(format!("cannot write the key: {why}"))
                .at(escape::path(&args.out));
            let exists = why.kind() == io::ErrorKind::AlreadyExists;
            let help = if exists { "name another file: a key is never written over" } else { "" };
            if exists { failed.help(help) } else { failed }.emit();
            Exit::CannotCheck
        }
    }
}

fn make(out: &Path) -> io::Result<String> {
    if out.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let key = files::generate(random_id()?, 0, clock::now().realtime_ns, 0)?;
    files::write(out, &key)?;
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(key.key.public().to_string())
}
