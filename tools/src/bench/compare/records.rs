//! The records of a run, each with its number, so that what is read back can be told apart and counted.

use super::super::audit::Seen;
use super::super::process::Trouble;
use super::super::workload::text;

/// Bytes of a record's number: its producer, its place among that one's, and a space.
pub const NUMBER_BYTES: usize = 14;

/// Producers that there may be.
pub const PRODUCERS_MAX: u16 = 64;

/// What producers send: sizes in turn, and text that looks like audit's behind the number.
#[derive(Clone, Debug)]
pub struct Records {
    sizes: Vec<usize>,
    text: Vec<u8>,
}

impl Records {
    /// Of these sizes; one that has no room for a number is as long as a number.
    #[must_use]
    pub fn new(sizes: &[usize]) -> Self {
        let sizes: Vec<_> = sizes.iter().map(|it| (*it).max(NUMBER_BYTES)).collect();
        let longest = sizes.iter().copied().max().unwrap_or(NUMBER_BYTES);
        Self { sizes, text: text(longest) }
    }

    /// Sizes in turn.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// What stands behind the number, as much of it as there is room for.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The longest.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.text.len()
    }

    fn size(&self, n: u64) -> usize {
        self.sizes[(n % self.sizes.len() as u64) as usize]
    }

    /// Appends the `n`th record of a producer to `out`.
    pub fn write(&self, producer: usize, n: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[b' '; NUMBER_BYTES]);
        let (first, rest) = out[start..].split_at_mut(2);
        hex(producer as u64, first);
        hex(n, &mut rest[1..NUMBER_BYTES - 3]);
        out.extend_from_slice(&self.text[..self.size(n) - NUMBER_BYTES]);
    }

    /// Bytes of the first `n` records of a producer.
    #[must_use]
    pub fn bytes(&self, n: u64) -> u64 {
        let count = self.sizes.len() as u64;
        let all: usize = self.sizes.iter().sum();
        let rest: usize = self.sizes[..(n % count) as usize].iter().sum();
        n / count * all as u64 + rest as u64
    }

    /// Whose record it is and which, if it is one to the byte.
    fn number(&self, bytes: &[u8]) -> Option<(usize, u64)> {
        let (number, rest) = bytes.split_at_checked(NUMBER_BYTES)?;
        let number = str::from_utf8(number).ok()?.strip_suffix(' ')?;
        let (producer, n) = number.split_once(' ')?;
        let n = u64::from_str_radix(n, 16).ok()?;
        let is_whole = bytes.len() == self.size(n) && self.text.starts_with(rest);
        is_whole.then_some(())?;
        Some((usize::from_str_radix(producer, 16).ok()?, n))
    }
}

fn hex(mut value: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 0xF) as usize];
        value >>= 4;
    }
}

/// What has been read back.
#[derive(Debug)]
pub struct Tally<'a> {
    records: &'a Records,
    /// Records that each producer has sent.
    sent: &'a [u64],
    seen: Vec<Seen>,
}

impl<'a> Tally<'a> {
    /// Nothing yet, of so many records of each producer.
    #[must_use]
    pub fn new(records: &'a Records, sent: &'a [u64]) -> Self {
        Self { records, sent, seen: sent.iter().map(|_| Seen::default()).collect() }
    }

    /// Takes a record.
    ///
    /// # Errors
    /// It is none that was sent, or is there twice.
    pub fn see(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let found = self
            .records
            .number(bytes)
            .filter(|(producer, n)| self.sent.get(*producer).is_some_and(|sent| n < sent));
        let Some((producer, n)) = found else {
            return Err(Trouble::Said(format!("it has a record that was not sent: {}", shown())));
        };
        let n = u32::try_from(n).map_err(|_| Trouble::said("too many records"))?;
        if !self.seen[producer].insert(n) {
            return Err(Trouble::Said(format!("it has a record twice: {}", shown())));
        }
        Ok(())
    }

    /// How many there are, each once.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.seen.iter().map(Seen::count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(records: &Records, producer: usize, n: u64) -> Vec<u8> {
        let mut out = Vec::new();
        records.write(producer, n, &mut out);
        out
    }

    #[test]
    fn a_record_is_as_long_as_it_should_be_and_says_its_number() {
        let records = Records::new(&[300, 1, 40]);
        let text = |n| String::from_utf8(record(&records, 7, n)).expect("text");
        assert!(text(0x1e).starts_with("07 000000001e arch=c0"), "{}", text(0x1e));
        assert_eq!([0, 1, 2, 3].map(|n| text(n).len()), [300, NUMBER_BYTES, 40, 300]);
        assert_eq!([0, 1, 2, 3, 4].map(|n| records.bytes(n)), [0, 300, 314, 354, 654]);
    }

    #[test]
    fn what_is_read_back_is_counted_once_and_what_is_not_as_it_was_sent_is_refused() {
        let records = Records::new(&[300, 40]);
        let sent = [3, 2];
        let mut tally = Tally::new(&records, &sent);
        for (producer, n) in [(0, 2), (1, 1), (0, 0)] {
            tally.see(&record(&records, producer, n)).expect("it was sent");
        }
        assert_eq!(tally.found(), 3);
        let twice = tally.see(&record(&records, 1, 1)).expect_err("twice").to_string();
        assert!(twice.contains("twice: 01 0000000001"), "{twice}");
        let mut changed = record(&records, 0, 1);
        changed[30] ^= 1;
        let cut = &record(&records, 0, 1)[..39];
        for wrong in [
            &record(&records, 0, 3),
            &record(&records, 2, 0),
            &changed,
            cut,
            b"",
            b"Journal started",
        ] {
            assert!(tally.see(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(tally.found(), 3);
    }
}
