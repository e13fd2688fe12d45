//! One file: what reads see, what the media holds, and what may or may not have reached it.

use super::faults::{Rng, SimFaults};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What a device writes as one, or tears.
pub const SECTOR_BYTES: usize = 512;

pub(super) type Sector = Arc<[u8; SECTOR_BYTES]>;

/// Sectors by number; one that is absent reads as zeros.
pub(super) type Sectors = BTreeMap<u64, Sector>;

/// What became of a sector that no barrier covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The media keeps what it had.
    Dropped,
    /// One of the versions written since has reached the media.
    Kept,
    /// Part of one version and the rest of another.
    Torn,
}

/// A content of one sector that may reach the media at any time.
#[derive(Clone, Debug)]
struct Version {
    /// When it was submitted; the operation's own number among versions.
    stamp: u64,
    /// When its operation completed without a barrier; `None` while that is in flight.
    cached_at: Option<u64>,
    bytes: Sector,
}

/// A change of size that no barrier covers.
#[derive(Clone, Copy, Debug)]
struct Resize {
    stamp: u64,
    to: u64,
    shrinks: bool,
}

/// A file and its possible futures.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// What reads see.
    view: Sectors,
    view_len: u64,
    /// What is durable.
    media: Sectors,
    media_len: u64,
    /// Versions that may reach the media, in the order of submission.
    pending: BTreeMap<u64, Vec<Version>>,
    /// Changes of size in order; a journal applies some first part of them.
    resizes: Vec<Resize>,
}

impl File {
    /// A file that is durable as it is.
    pub(super) fn durable(content: &[u8]) -> Self {
        let mut media = Sectors::new();
        for (number, chunk) in (0..).zip(content.chunks(SECTOR_BYTES)) {
            let mut sector = [0; SECTOR_BYTES];
            sector[..chunk.len()].copy_from_slice(chunk);
            media.insert(number, Arc::new(sector));
        }
        let len = content.len() as u64;
        Self { view: media.clone(), view_len: len, media, media_len: len, ..Self::default() }
    }

    /// The size that reads see.
    pub(super) fn len(&self) -> u64 {
        self.view_len
    }

    /// Reads what reads see.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        read(&self.view, self.view_len, offset, buf)
    }

    /// All that is durable.
    pub(super) fn durable_content(&self) -> Vec<u8> {
        let mut content = vec![0; self.media_len as usize];
        read(&self.media, self.media_len, 0, &mut content);
        content
    }

    /// A write of `data` at sector `first` is submitted: from now on any part of it may have
    /// reached the media.
    pub(super) fn stage(&mut self, first: u64, data: &[u8], stamp: u64) {
        for (number, chunk) in (first..).zip(data.chunks_exact(SECTOR_BYTES)) {
            let mut sector = [0; SECTOR_BYTES];
            sector.copy_from_slice(chunk);
            let version = Version { stamp, cached_at: None, bytes: Arc::new(sector) };
            self.pending.entry(number).or_default().push(version);
        }
    }

    /// Zeros are submitted. Sectors that never held anything are zero in every future.
    pub(super) fn stage_zeros(&mut self, range: Range<u64>, stamp: u64) {
        let zeros: Sector = Arc::new([0; SECTOR_BYTES]);
        let range = || range.clone();
        let mut numbers: Vec<u64> = self.media.range(range()).map(|(&number, _)| number).collect();
        numbers.extend(self.view.range(range()).map(|(&number, _)| number));
        numbers.extend(self.pending.range(range()).map(|(&number, _)| number));
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let version = Version { stamp, cached_at: None, bytes: Arc::clone(&zeros) };
            self.pending.entry(number).or_default().push(version);
        }
    }

    /// The write `stamp` is durable in these sectors, and so is what is needed to read them.
    pub(super) fn make_durable(&mut self, range: Range<u64>, stamp: u64, now: u64) {
        let end = range.end * SECTOR_BYTES as u64;
        self.reach(end, now);
        for number in range {
            let Some(bytes) = self.take_version(number, stamp) else { continue };
            // Cached versions from before it are overwritten; those in flight may still come.
            self.discard(number, |version| version.cached_at.is_some() && version.stamp < stamp);
            self.media.insert(number, Arc::clone(&bytes));
            self.view.insert(number, bytes);
        }
        self.persist_len(end);
    }

    /// The zeros `stamp` have been written, under no barrier.
    pub(super) fn make_cached(&mut self, range: Range<u64>, stamp: u64, now: u64) {
        self.reach(range.end * SECTOR_BYTES as u64, now);
        for (&number, versions) in self.pending.range_mut(range) {
            for version in versions.iter_mut().filter(|version| version.stamp == stamp) {
                version.cached_at = Some(now);
                self.view.insert(number, Arc::clone(&version.bytes));
            }
        }
    }

    /// The write `stamp` has failed: each of its sectors is on the media, or not, or in part,
    /// and never will be again. Reads through a page cache go on to see it.
    pub(super) fn fail_write(&mut self, range: Range<u64>, stamp: u64, luck: &mut Luck<'_>) {
        for number in range {
            let Some(bytes) = self.take_version(number, stamp) else { continue };
            self.settle(number, &[Arc::clone(&bytes)], luck);
            if luck.direct {
                restore(&mut self.view, number, self.media.get(&number));
            } else {
                self.view.insert(number, bytes);
            }
        }
    }

    /// The operation `stamp` has failed before it reached the device.
    pub(super) fn withdraw(&mut self, range: Range<u64>, stamp: u64) {
        for number in range {
            self.take_version(number, stamp);
        }
    }

    /// Sets the size that reads see; the media follows when it pleases, or at a barrier.
    pub(super) fn resize(&mut self, to: u64, now: u64) {
        if to == self.view_len {
            return;
        }
        let shrinks = to < self.view_len;
        if shrinks {
            cut(&mut self.view, to);
        }
        self.view_len = to;
        self.resizes.push(Resize { stamp: now, to, shrinks });
    }

    /// A barrier submitted at `upto` has succeeded: all that had completed by then is durable.
    pub(super) fn sync(&mut self, upto: u64) {
        let resizes = self.resizes_until(upto);
        self.commit_resizes(resizes);
        for (number, versions) in self.take_cached(upto) {
            if let Some(last) = versions.into_iter().last() {
                self.media.insert(number, last);
            }
        }
    }

    /// The same barrier has failed: what it should have covered is on the media or not, and the
    /// kernel has marked it clean, so no later barrier will bring it there. Changes of size are
    /// the journal's: what it has taken on it will write, or fail for good.
    pub(super) fn fail_sync(&mut self, upto: u64, luck: &mut Luck<'_>) {
        for (number, versions) in self.take_cached(upto) {
            self.settle(number, &versions, luck);
        }
    }

    /// Reads come from the media again, except where something is still to be written.
    pub(super) fn drop_clean(&mut self) {
        let clean: Vec<u64> =
            self.view.keys().copied().filter(|number| !self.pending.contains_key(number)).collect();
        for number in clean {
            restore(&mut self.view, number, self.media.get(&number));
        }
    }

    /// What is left of the file after a crash, and what became of the sectors at risk.
    pub(super) fn crash(&self, luck: &mut Luck<'_>) -> (Self, Vec<(u64, Fate)>) {
        let mut file = self.clone();
        let resizes = luck.rng.index(file.resizes.len() + 1);
        file.commit_resizes(resizes);
        let mut fates = Vec::with_capacity(file.pending.len());
        for (number, versions) in std::mem::take(&mut file.pending) {
            let versions: Vec<_> = versions.into_iter().map(|version| version.bytes).collect();
            fates.push((number, file.settle(number, &versions, luck)));
        }
        // Sectors behind the end may have been written; the size says that they are not there.
        cut(&mut file.media, file.media_len);
        let (view, view_len) = (file.media.clone(), file.media_len);
        (Self { view, view_len, resizes: Vec::new(), ..file }, fates)
    }

    /// Changes one bit of what is durable and of what reads see.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        let (number, at) = (offset / SECTOR_BYTES as u64, (offset % SECTOR_BYTES as u64) as usize);
        for sectors in [&mut self.media, &mut self.view] {
            let sector = sectors.entry(number).or_insert_with(|| Arc::new([0; SECTOR_BYTES]));
            Arc::make_mut(sector)[at] ^= 1 << (bit % 8);
        }
    }

    /// A sector of the media that was written, as an offset, if there is one.
    pub(super) fn any_durable_sector(&self, rng: &mut Rng) -> Option<u64> {
        let number = *self.media.keys().nth(rng.index(self.media.len()))?;
        Some(number * SECTOR_BYTES as u64)
    }

    /// Something at `..len` has begun to reach the file, which is therefore at least that long.
    pub(super) fn reach(&mut self, len: u64, now: u64) {
        if len > self.view_len {
            self.resize(len, now);
        }
    }

    /// The media's size covers `end`, in every future. A journal cannot skip a truncation that
    /// came before, so one that is pending is durable with it; growth beyond `end` is not.
    fn persist_len(&mut self, end: u64) {
        if self.resizes.iter().any(|resize| resize.shrinks && resize.to < end) {
            self.commit_resizes(self.resizes.len());
        }
        self.media_len = self.media_len.max(end);
        for resize in &mut self.resizes {
            resize.to = resize.to.max(end);
        }
    }

    /// How many changes of size had completed by `upto`.
    fn resizes_until(&self, upto: u64) -> usize {
        self.resizes.iter().take_while(|resize| resize.stamp <= upto).count()
    }

    /// The first `count` changes of size have reached the media.
    fn commit_resizes(&mut self, count: usize) {
        let resizes: Vec<_> = self.resizes.drain(..count).collect();
        for Resize { stamp, to, shrinks } in resizes {
            self.media_len = to;
            if !shrinks {
                continue;
            }
            cut(&mut self.media, to);
            let older = |version: &Version| version.cached_at.is_some_and(|at| at < stamp);
            let behind = to.div_ceil(SECTOR_BYTES as u64);
            let numbers: Vec<_> = self.pending.range(behind..).map(|(&number, _)| number).collect();
            for number in numbers {
                self.discard(number, older);
            }
            let within = (to % SECTOR_BYTES as u64) as usize;
            if within > 0 {
                let last = self.pending.get_mut(&(to / SECTOR_BYTES as u64)).into_iter().flatten();
                for version in last.filter(|version| older(version)) {
                    Arc::make_mut(&mut version.bytes)[within..].fill(0);
                }
            }
        }
    }

    /// Takes the versions that a barrier submitted at `upto` covers, oldest first.
    fn take_cached(&mut self, upto: u64) -> Vec<(u64, Vec<Sector>)> {
        let covered = |version: &Version| version.cached_at.is_some_and(|at| at <= upto);
        let mut taken = Vec::new();
        for (&number, versions) in &self.pending {
            let bytes: Vec<_> = versions
                .iter()
                .filter(|version| covered(version))
                .map(|version| Arc::clone(&version.bytes))
                .collect();
            if !bytes.is_empty() {
                taken.push((number, bytes));
            }
        }
        for &(number, _) in &taken {
            self.discard(number, covered);
        }
        taken
    }

    /// Takes the version `stamp` of a sector, if it is still pending.
    fn take_version(&mut self, number: u64, stamp: u64) -> Option<Sector> {
        let versions = self.pending.get(&number)?;
        let bytes = versions.iter().find(|version| version.stamp == stamp)?.bytes.clone();
        self.discard(number, |version| version.stamp == stamp);
        Some(bytes)
    }

    /// Drops some versions of a sector.
    fn discard(&mut self, number: u64, which: impl Fn(&Version) -> bool) {
        if let Some(versions) = self.pending.get_mut(&number) {
            versions.retain(|version| !which(version));
            if versions.is_empty() {
                self.pending.remove(&number);
            }
        }
    }

    /// Decides what the media holds of a sector that had `versions` in flight or in the cache.
    fn settle(&mut self, number: u64, versions: &[Sector], luck: &mut Luck<'_>) -> Fate {
        let old = self.media.get(&number).cloned();
        let old = old.unwrap_or_else(|| Arc::new([0; SECTOR_BYTES]));
        let newer = luck.rng.index(versions.len());
        let torn = luck.rng.chance(luck.torn_ppm);
        let survives = luck.rng.chance(luck.survive_ppm);
        if torn {
            // Torn between this version and any state before it, at any byte, either way round.
            let older = luck.rng.index(newer + 1);
            let before = if older == 0 { &old } else { &versions[older - 1] };
            let split = 1 + luck.rng.index(SECTOR_BYTES - 1);
            let (head, tail) = if luck.rng.chance(500_000) {
                (&versions[newer], before)
            } else {
                (before, &versions[newer])
            };
            let mut sector = **head;
            sector[split..].copy_from_slice(&tail[split..]);
            self.media.insert(number, Arc::new(sector));
            Fate::Torn
        } else if survives {
            self.media.insert(number, Arc::clone(&versions[newer]));
            Fate::Kept
        } else {
            Fate::Dropped
        }
    }
}

/// The dice for what reaches the media.
pub(super) struct Luck<'a> {
    pub(super) rng: &'a mut Rng,
    torn_ppm: u32,
    survive_ppm: u32,
    /// Whether writes bypass the page cache.
    direct: bool,
}

impl<'a> Luck<'a> {
    pub(super) fn new(rng: &'a mut Rng, faults: &SimFaults, direct: bool) -> Self {
        let (torn_ppm, survive_ppm) = (faults.torn_sector_ppm, faults.survive_ppm);
        Self { rng, torn_ppm, survive_ppm, direct }
    }

    /// A crash in one of its moods: everything at risk is lost, everything has survived, or
    /// each sector is on its own. The first two are too rare to be met by independent sectors.
    pub(super) fn with_mood(mut self) -> Self {
        match self.rng.below(8) {
            0 => (self.torn_ppm, self.survive_ppm) = (0, 0),
            1 => (self.torn_ppm, self.survive_ppm) = (0, 1_000_000),
            _ => {}
        }
        self
    }
}

/// Drops what is behind `len`, also inside the last sector, as a filesystem zeroes it.
fn cut(sectors: &mut Sectors, len: u64) {
    sectors.split_off(&len.div_ceil(SECTOR_BYTES as u64));
    let within = (len % SECTOR_BYTES as u64) as usize;
    if let Some(last) = sectors.get_mut(&(len / SECTOR_BYTES as u64)) {
        Arc::make_mut(last)[within..].fill(0);
    }
}

/// Makes `sectors` hold `sector` at `number`, or nothing.
fn restore(sectors: &mut Sectors, number: u64, sector: Option<&Sector>) {
    match sector {
        Some(sector) => sectors.insert(number, Arc::clone(sector)),
        None => sectors.remove(&number),
    };
}

/// Reads up to `buf.len()` bytes at `offset`; returns how many there were.
fn read(sectors: &Sectors, len: u64, offset: u64, buf: &mut [u8]) -> usize {
    let count = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
    let mut done = 0;
    while done < count {
        let at = offset + done as u64;
        let within = (at % SECTOR_BYTES as u64) as usize;
        let part = (SECTOR_BYTES - within).min(count - done);
        let to = &mut buf[done..done + part];
        match sectors.get(&(at / SECTOR_BYTES as u64)) {
            Some(sector) => to.copy_from_slice(&sector[within..within + part]),
            None => to.fill(0),
        }
        done += part;
    }
    count
}
