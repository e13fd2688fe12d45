//! `--ack`: tells whoever reads standard output how far the trail is durable.

use graven_writer::Watermark;
use std::io::{self, Write};

/// Writes `durable N` whenever the watermark has moved, where N is the highest seq of which all
/// that are not higher are behind a barrier. Returns when the trail is closed or its storage failed;
/// the last line is then the last watermark.
///
/// # Errors
/// What `out` says: nobody listens any more.
pub fn acknowledge(watermark: &Watermark, out: &mut dyn Write) -> io::Result<()> {
    let mut said = 0;
    loop {
        // What has become durable while the last line was written is one line.
        let waited = watermark.wait_past(said);
        let durable = watermark.durable();
        if durable > said {
            writeln!(out, "durable {}", durable - 1)?;
            out.flush()?;
            said = durable;
        }
        if waited.is_err() {
            return Ok(());
        }
    }
}
