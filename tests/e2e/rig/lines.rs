//! Input whose every line follows from its number, so that what comes out of a trail can be checked
//! without keeping what went in: line `n` of the input is the record of seq `n`, or of a later one where
//! checkpoints are among the records ([`lines_acknowledged`]).

use super::random::Random;
use super::{Ran, on};
use std::path::Path;

/// The lines of a test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    pub(crate) seed: u64,
    /// Most bytes of an ordinary line.
    pub(crate) bytes_max: u64,
    /// Once in how many lines there is one of up to 100 KiB; never if 0.
    pub(crate) long_every: u64,
}

impl Lines {
    /// Appends line `number` and its line feed.
    pub(crate) fn write(&self, number: u64, out: &mut Vec<u8>) {
        let mut random = Random::new(self.seed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        let long = self.long_every > 0 && random.one_in(self.long_every);
        let len = random.below(if long { 100 * 1024 } else { self.bytes_max.max(1) }) as usize;
        let start = out.len();
        // Empty lines are records too.
        if len > 0 {
            out.extend_from_slice(format!("{number} ").as_bytes());
        }
        while out.len() < start + len {
            out.extend_from_slice(&random.next().to_le_bytes());
        }
        for byte in &mut out[start..] {
            // Any byte may be in a line, but not its end.
            if *byte == b'\n' {
                *byte = 0;
            }
        }
        out.push(b'\n');
    }

    /// Lines `from..to`.
    pub(crate) fn bytes(&self, from: u64, to: u64) -> Vec<u8> {
        let mut out = Vec::new();
        (from..to).for_each(|number| self.write(number, &mut out));
        out
    }

    /// Checks that `exported` are the first lines, each whole, in order, once, and returns how many.
    #[track_caller]
    pub(crate) fn count(&self, exported: &[u8]) -> u64 {
        let (count, rest) = self.count_and_rest(exported);
        assert!(
            rest.is_empty(),
            "seed {}: record {count} is not what was sent; {} bytes, the first are {:?}",
            self.seed,
            rest.len(),
            String::from_utf8_lossy(&rest[..rest.len().min(40)]),
        );
        count
    }

    /// How many of the first lines `exported` begins with, and what follows them.
    pub(crate) fn count_and_rest<'a>(&self, exported: &'a [u8]) -> (u64, &'a [u8]) {
        let (mut number, mut rest, mut line) = (0, exported, Vec::new());
        while !rest.is_empty() {
            line.clear();
            self.write(number, &mut line);
            let Some(after) = rest.strip_prefix(&line[..]) else { break };
            rest = after;
            number += 1;
        }
        (number, rest)
    }

    /// Exports a trail that is not damaged, checks every record, and returns how many there are.
    #[track_caller]
    pub(crate) fn check(&self, trail: &Path) -> u64 {
        let Ran { stdout, .. } = on("export", trail, &[]).expect(0);
        self.count(&stdout)
    }
}

/// How many lines were acknowledged by a writer whose checkpoints are records too; `before` if it
/// acknowledged nothing.
#[track_caller]
pub(crate) fn lines_acknowledged(trail: &Path, ran: &Ran, before: u64) -> u64 {
    let Some(last) = ran.acknowledged() else { return before };
    let range = format!("..={last}");
    let shown = on("show", trail, &["--json", "--seq", &range]).expect(0).stdout;
    let shown = String::from_utf8_lossy(&shown);
    let checkpoints =
        shown.lines().filter(|line| line.contains(r#""flags":["checkpoint"]"#)).count();
    last + 1 - checkpoints as u64
}
