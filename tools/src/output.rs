//! Standard output as data: buffered, and a reader that has had enough is no error.

use crate::diag::Diagnostic;
use crate::exit::Exit;
use std::io::{self, BufWriter, StdoutLock, Write};

const BUFFER_BYTES: usize = 256 * 1024;

/// Standard output, byte for byte.
#[must_use]
pub fn raw() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock())
}

/// What a command ends with when writing its data ended with `written` and it would otherwise end
/// with `exit`. Whoever closes the pipe, `head` for instance, has got what they wanted.
#[must_use]
pub fn ended(written: io::Result<()>, exit: Exit) -> Exit {
    match written {
        Ok(()) => exit,
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
        Err(why) => {
            Diagnostic::error(format!("cannot write to standard output: {why}"))
                .note("the trail is not touched by this")
                .emit();
            Exit::CannotCheck
        }
    }
}

/// Writes `value` as one line of JSON.
///
/// # Errors
/// What `out` says.
pub fn json_line(out: &mut dyn Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")
}
