//! Which numbers have been seen, each once.

use super::super::process::{Process, Trouble};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Numbers: a bit each, in pages that are made as they are needed.
#[derive(Debug, Default)]
pub struct Seen {
    pages: BTreeMap<u32, Vec<u64>>,
    count: u64,
}

impl Seen {
    /// Whether it is new.
    pub fn insert(&mut self, number: u32) -> bool {
        let page = self.pages.entry(number >> 16).or_insert_with(|| vec![0; 1 << 10]);
        let word = &mut page[(number as usize & 0xFFFF) / 64];
        let bit = 1 << (number % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(new);
        new
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes the serials of a log of auditd's: of PATH records of `/dev/null`, of which each event of a storm has one.
    ///
    /// # Errors
    /// It cannot be read, or an event is there twice.
    pub fn read_log(&mut self, lines: impl BufRead) -> Result<(), Trouble> {
        self.read(lines, |line| {
            line.starts_with(b"type=PATH ") && holds(line, b"name=\"/dev/null\"")
        })
    }

    /// The same of a trail, as `program`, which is graven, exports it.
    ///
    /// # Errors
    /// As [`Seen::read_log`].
    pub fn read_trail(&mut self, program: &Path, trail: &Path) -> Result<(), Trouble> {
        let mut command = Command::new(program);
        command.args(["export", "--format", "raw"]).arg(trail).stdin(Stdio::null());
        let mut export = Process::start("graven export", command.stdout(Stdio::piped()))?;
        let out = export.child().stdout.take().ok_or_else(|| Trouble::said("no pipe"))?;
        self.read_log(BufReader::new(out))?;
        export.ended()
    }

    /// The same of LAUREL's log, which has a JSON object an event.
    ///
    /// # Errors
    /// As [`Seen::read_log`].
    pub fn read_laurel(&mut self, lines: impl BufRead) -> Result<(), Trouble> {
        self.read(lines, |line| holds(line, b"\"name\":\"/dev/null\""))
    }

    fn read(
        &mut self,
        mut lines: impl BufRead,
        is_event: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Trouble> {
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).map_err(Trouble::io("a log cannot be read"))? > 0 {
            if is_event(&line) {
                let serial = serial(&line).ok_or_else(|| {
                    Trouble::Said(format!("no serial: {}", String::from_utf8_lossy(&line)))
                })?;
                if !self.insert(serial) {
                    return Err(Trouble::Said(format!("event {serial} is there twice")));
                }
            }
            line.clear();
        }
        Ok(())
    }
}

fn holds(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|it| it == part)
}

/// The serial in `msg=audit(1732.123:SERIAL):` or `{"ID":"1732.123:SERIAL",`.
fn serial(line: &[u8]) -> Option<u32> {
    let mut parts = line.split(|byte| matches!(byte, b'(' | b')' | b'"'));
    let stamp = parts.find(|it| it.first().is_some_and(u8::is_ascii_digit))?;
    str::from_utf8(stamp).ok()?.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_once() {
        let path = |serial: u32| {
            format!(
                "type=PATH msg=audit(1732.123:{serial}): item=0 name=\"/dev/null\" inode=4\n\
                 type=CWD msg=audit(1732.123:{serial}): cwd=\"/\"\n"
            )
        };
        let mut seen = Seen::default();
        for serial in [7, u32::MAX, 65_535, 65_536, 0] {
            seen.read_log(path(serial).as_bytes()).unwrap();
        }
        assert_eq!(seen.count(), 5);
        assert!(seen.read_log(path(65_536).as_bytes()).is_err());
        assert!(seen.read_log(&b"type=PATH name=\"/dev/null\"\n"[..]).is_err());
    }

    #[test]
    fn an_event_of_laurels_counts_once() {
        let event = |serial: u32, name: &str| {
            format!(
                "{{\"ID\":\"1732.123:{serial}\",\"SYSCALL\":{{\"ARCH\":\"x86_64\"}},\
                 \"PATH\":[{{\"item\":0,\"name\":\"{name}\"}}]}}\n"
            )
        };
        let mut seen = Seen::default();
        seen.read_laurel(event(7, "/dev/null").as_bytes()).unwrap();
        seen.read_laurel(event(8, "/etc/ld.so.cache").as_bytes()).unwrap();
        assert_eq!(seen.count(), 1);
        assert!(seen.read_laurel(event(7, "/dev/null").as_bytes()).is_err());
    }
}
