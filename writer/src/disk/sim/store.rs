//! The directory: names as reads see them, names on the media, and changes in between.

use super::faults::Rng;
use super::file::File;
use std::collections::BTreeMap;

/// A file's identity below its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ino(u64);

/// A change of names that no barrier covers.
#[derive(Clone, Debug)]
struct NameOp {
    stamp: u64,
    ino: Ino,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String),
    Move { from: String, to: String },
    Unlink(String),
}

/// The directory and its files.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) files: BTreeMap<Ino, File>,
    next_ino: u64,
    /// Names as reads see them.
    names: BTreeMap<String, Ino>,
    /// Durable names.
    media_names: BTreeMap<String, Ino>,
    pending: Vec<NameOp>,
}

impl Store {
    /// The file of this name, as reads see it.
    pub(super) fn lookup(&self, name: &str) -> Option<Ino> {
        self.names.get(name).copied()
    }

    /// Names and files as reads see them, sorted by name.
    pub(super) fn listing(&self) -> impl Iterator<Item = (&String, Ino, &File)> {
        self.names.iter().map(|(name, ino)| (name, *ino, &self.files[ino]))
    }

    /// Durable names and their files, sorted by name.
    pub(super) fn durable_listing(&self) -> impl Iterator<Item = (&String, Ino, &File)> {
        self.media_names.iter().map(|(name, ino)| (name, *ino, &self.files[ino]))
    }

    /// Bytes that the files take, as if all of each were allocated.
    pub(super) fn used_bytes(&self) -> u64 {
        self.listing().map(|(_, _, file)| file.len()).sum()
    }

    /// Puts a file in place, durable in name and content; a file of that name is replaced.
    pub(super) fn put(&mut self, name: &str, content: &[u8]) {
        let ino = self.new_file(File::durable(content));
        self.names.insert(name.to_owned(), ino);
        self.media_names.insert(name.to_owned(), ino);
    }

    /// A new file under a new name.
    pub(super) fn create(&mut self, name: &str, now: u64) -> Ino {
        let ino = self.new_file(File::default());
        self.names.insert(name.to_owned(), ino);
        self.pending.push(NameOp { stamp: now, ino, change: Change::Link(name.to_owned()) });
        ino
    }

    /// Renames a file that exists.
    pub(super) fn rename(&mut self, from: &str, to: &str, now: u64) {
        let Some(ino) = self.names.remove(from) else { return };
        self.names.insert(to.to_owned(), ino);
        let change = Change::Move { from: from.to_owned(), to: to.to_owned() };
        self.pending.push(NameOp { stamp: now, ino, change });
    }

    /// Removes a name that exists.
    pub(super) fn remove(&mut self, name: &str, now: u64) {
        let Some(ino) = self.names.remove(name) else { return };
        self.pending.push(NameOp { stamp: now, ino, change: Change::Unlink(name.to_owned()) });
    }

    /// A barrier of the directory submitted at `upto` has succeeded.
    pub(super) fn sync(&mut self, upto: u64) {
        for op in self.take_pending(upto) {
            self.apply(op);
        }
    }

    /// The same barrier has failed: what it should have covered is settled by chance, and no
    /// later barrier covers it.
    pub(super) fn fail_sync(&mut self, upto: u64, rng: &mut Rng) {
        let ops = self.take_pending(upto);
        self.settle(ops, rng);
    }

    /// What a crash leaves of the names: reads see the media again, and files without a name
    /// are gone. The files' own content is not settled here.
    pub(super) fn crash_names(&mut self, rng: &mut Rng) {
        let ops = std::mem::take(&mut self.pending);
        self.settle(ops, rng);
        self.names.clone_from(&self.media_names);
        let named: Vec<_> = self.names.values().copied().collect();
        self.files.retain(|ino, _| named.contains(ino));
    }

    /// Applies of each file's changes some first part. Files are independent of each other, but
    /// a journal keeps the order of one: a rename leaves the old name or the new, never neither
    /// and never a file that was not created.
    fn settle(&mut self, ops: Vec<NameOp>, rng: &mut Rng) {
        let mut left: BTreeMap<Ino, usize> = BTreeMap::new();
        for op in &ops {
            *left.entry(op.ino).or_default() += 1;
        }
        for count in left.values_mut() {
            *count = rng.index(*count + 1);
        }
        for op in ops {
            let Some(count) = left.get_mut(&op.ino).filter(|count| **count > 0) else { continue };
            *count -= 1;
            self.apply(op);
        }
    }

    /// One change has reached the media.
    fn apply(&mut self, op: NameOp) {
        // Another file may own the name by now, if the changes of that one came through first.
        let gone = match &op.change {
            Change::Move { from, .. } => Some(from),
            Change::Unlink(name) => Some(name),
            Change::Link(_) => None,
        };
        if let Some(name) = gone.filter(|name| self.media_names.get(*name) == Some(&op.ino)) {
            self.media_names.remove(name);
        }
        if let Change::Link(name) | Change::Move { to: name, .. } = op.change {
            self.media_names.insert(name, op.ino);
        }
    }

    fn take_pending(&mut self, upto: u64) -> Vec<NameOp> {
        let covered = self.pending.iter().take_while(|op| op.stamp <= upto).count();
        self.pending.drain(..covered).collect()
    }

    fn new_file(&mut self, file: File) -> Ino {
        let ino = Ino(self.next_ino);
        self.next_ino += 1;
        self.files.insert(ino, file);
        ino
    }
}
