//! What `show` and `export` share: records to standard output, everything else to standard error.

use crate::diag::Diagnostic;
use crate::escape;
use crate::exit::Exit;
use crate::output;
use crate::range::SeqRange;
use crate::trail::stream::{self, Item};
use crate::trail::{SegmentFile, TrailDir};
use graven_format::{Class, Record};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

/// Problems that are said before the rest is only counted.
const SAID_MAX: u64 = 20;

/// What was met besides records.
#[derive(Default)]
struct Met {
    damage: u64,
    unread: u64,
}

impl Met {
    fn say(&mut self, grave: bool, diagnostic: Diagnostic) {
        let count = if grave { &mut self.damage } else { &mut self.unread };
        *count += 1;
        if self.damage + self.unread <= SAID_MAX {
            diagnostic.emit();
        }
    }

    fn exit(&self) -> Exit {
        let unsaid = (self.damage + self.unread).saturating_sub(SAID_MAX);
        if unsaid > 0 {
            Diagnostic::error(format!("{unsaid} more problems"))
                .help("`graven verify` lists all of them")
                .emit();
        }
        match self {
            Self { damage: 1.., .. } => Exit::Damage,
            Self { unread: 1.., .. } => Exit::CannotCheck,
            Self { .. } => Exit::Success,
        }
    }
}

/// What writes records, in order of their seq.
pub(crate) trait Printer {
    /// Writes one, or keeps it until what belongs to it has come.
    fn record(&mut self, out: &mut dyn Write, seq: u64, record: &Record<'_>) -> io::Result<()>;

    /// Writes what was kept: no record follows.
    fn end(&mut self, out: &mut dyn Write) -> io::Result<()>;
}

/// What writes each record at once.
pub(crate) struct AtOnce<F>(pub(crate) F);

impl<F: FnMut(&mut dyn Write, u64, &Record<'_>) -> io::Result<()>> Printer for AtOnce<F> {
    fn record(&mut self, out: &mut dyn Write, seq: u64, record: &Record<'_>) -> io::Result<()> {
        self.0(out, seq, record)
    }

    fn end(&mut self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

/// Writes every intact record of the range through `printer`.
#[must_use]
pub(crate) fn run(
    path: &Path,
    range: &SeqRange,
    out: &mut dyn Write,
    printer: &mut dyn Printer,
) -> Exit {
    let Some(dir) = super::open(path) else { return Exit::CannotCheck };
    let mut met = Met::default();
    let mut written = Ok(());
    if !matches!(dir.identity, Some(Ok(_))) {
        let what = match &dir.identity {
            Some(Err(why)) => why.to_string(),
            _ => "the trail has no identity".to_owned(),
        };
        let place = escape::path(&dir.path.join(graven_format::name::IDENTITY));
        met.say(true, Diagnostic::error(what).at(place));
    }
    stream::stream(&dir, &range.0, &mut |item| {
        if let Item::Record { seq, record, .. } = &item {
            written = printer.record(out, *seq, record);
            return match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
        }
        let (grave, diagnostic) = explain(&dir, &item);
        met.say(grave, diagnostic);
        ControlFlow::Continue(())
    });
    written = written.and_then(|()| printer.end(out)).and_then(|()| out.flush());
    output::ended(written, met.exit())
}

/// Whether the item is damage, and what to say of it.
fn explain(dir: &TrailDir, item: &Item<'_>) -> (bool, Diagnostic) {
    let place = |file: &SegmentFile| escape::path(&dir.path.join(file.name()));
    match item {
        Item::Record { .. } => (false, Diagnostic::error("not a problem")),
        Item::Finding { file, finding, class } => {
            let place =
                format!("{}: offset {:#x}, seq {}", place(file), finding.offset, finding.seq);
            let mut diagnostic = Diagnostic::error(finding.to_string()).at(place);
            if finding.missing > 0 {
                diagnostic =
                    diagnostic.note(format!("{} records are missing here", finding.missing));
            }
            (
                *class == Class::Damage,
                diagnostic.note("every intact record after it is written too"),
            )
        }
        Item::Missing { seqs } => {
            let text = format!("seq {} to {} are missing", seqs.start, seqs.end - 1);
            (true, Diagnostic::error(text).help("`graven verify` says who says so"))
        }
        Item::Unreadable { file, why } => {
            let grave = why.kind() == io::ErrorKind::InvalidInput;
            (grave, Diagnostic::error(format!("cannot read the segment: {why}")).at(place(file)))
        }
    }
}
