//! What somebody may do to a trail: to its bytes, its records, its frames, its segments, its files.

use crate::model::{Image, Model, Place, Segment, Stored};
use fastrand::Rng;
use graven_format::checksum::crc32;
use graven_format::note::SecretKey;
use std::fmt;

/// Who changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A disk, or somebody with a hex editor: only bytes are changed.
    Bytes,
    /// The checksum of what was changed is right again.
    Checksum,
    /// The trail was made anew: lengths, checksums, hashes, names. Signatures are what they were.
    Remade,
    /// The same, and every signature and key is gone.
    Stripped,
    /// The same, signed again with the key of the last epoch, which is all that a machine has.
    Resealed,
}

/// A changed trail.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Who has changed it.
    pub who: Who,
    /// What was done, in words that are counted.
    pub what: &'static str,
    /// On which level.
    pub level: &'static str,
    /// The files.
    pub image: Image,
    /// What was changed where, if only bytes of one place were.
    pub place: Option<Place>,
    /// Whether everything behind the change is in another place.
    pub shifts: bool,
    /// The first seq that is not what it was; where the trail ends if nothing else is.
    pub first_seq: u64,
    /// Whether the records are what they were, and only where they stand is not, or more follow.
    pub same_records: bool,
    /// Whether the trail is what it was at an earlier time.
    pub rolled_back: bool,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} {}", self.who, self.level, self.what)?;
        write!(f, ", first seq {}, place {:?}", self.first_seq, self.place)
    }
}

/// A trail, and all that is known of how it came to be.
#[derive(Debug)]
pub struct Original {
    /// Its files.
    pub image: Image,
    /// Its records.
    pub model: Model,
    /// The keys of its epochs; none if it is not signed.
    pub keys: Vec<SecretKey>,
    /// Another trail's segments.
    pub other: Image,
    /// Whether segments were compressed: to make such a trail anew is to make it anew.
    pub compressed: bool,
}

impl Original {
    /// Seq of the first record that the last key signs for.
    #[must_use]
    pub fn last_epoch_from(&self) -> u64 {
        let changes = self.model.records().zip(0..).filter_map(|((_, record), seq)| {
            record.note.as_ref().filter(|(_, next)| next.is_some()).map(|_| seq + 1)
        });
        changes.last().unwrap_or(0)
    }

    /// The checkpoint in the last trailer, as somebody else has kept it; none if it is not signed.
    #[must_use]
    pub fn anchors(&self) -> Vec<Vec<u8>> {
        let last = self.model.segments.last().map(|segment| segment.note.0.clone());
        last.into_iter().filter(|note| !note.is_empty()).collect()
    }

    /// One change, chosen by `random`; `None` if it came out as no change.
    #[must_use]
    pub fn change(&self, random: &mut Rng) -> Option<Changed> {
        let changed = match random.u8(..10) {
            0..4 => self.change_bytes(random),
            4..8 if self.compressed => self.change_bytes(random),
            4..8 => self.change_records(random)?,
            _ => self.change_files(random),
        };
        // The same records, cut into frames and segments anew by who has the key, or some added at
        // their end: nothing is changed.
        let repacked = changed.who == Who::Resealed && changed.same_records;
        (changed.image != self.image && !repacked).then_some(changed)
    }

    /// Seq of the first record of the frame, or whatever it is, at this place.
    fn seq_at(&self, place: &Place) -> u64 {
        let segments = self.image.segments();
        let Some(segment) = segments.iter().position(|file| *file == place.file) else { return 0 };
        let places = self.image.places(place.file);
        let frame = places.iter().position(|it| it == place).unwrap_or(0).saturating_sub(1);
        let before = |(s, f): (usize, usize)| s < segment || (s == segment && f < frame);
        self.model.records().filter(|((s, f, _), _)| before((*s, *f))).count() as u64
    }

    fn change_bytes(&self, random: &mut Rng) -> Changed {
        let mut image = self.image.clone();
        let segments = image.segments();
        let file = segments[random.usize(..segments.len())];
        let places = image.places(file);
        let place = places[random.usize(..places.len())].clone();
        let at = random.usize(place.bytes.clone());
        let len = (1 + random.usize(..64)).min(place.bytes.end - at);
        let bytes = &mut image.files[file].1;
        let mut shifts = false;
        let what = match random.u8(..8) {
            0..2 => {
                bytes[at] ^= 1 << random.u8(..8);
                "flip a bit"
            }
            2 => {
                bytes[at..at + len].fill_with(|| random.u8(..));
                "overwrite"
            }
            3 => {
                shifts = true;
                bytes.drain(at..at + len);
                "delete"
            }
            4 => {
                shifts = true;
                let twice = bytes[at..at + len].to_vec();
                drop(bytes.splice(at..at, twice));
                "duplicate"
            }
            5 => {
                shifts = true;
                let new: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
                drop(bytes.splice(at..at, new));
                "insert"
            }
            6 => {
                let (other, len) = (random.usize(place.bytes.clone()), len / 2);
                let (low, high) = (at.min(other), at.max(other));
                if low + len <= high && high + len <= place.bytes.end {
                    (0..len).for_each(|n| bytes.swap(low + n, high + n));
                }
                "swap"
            }
            _ => {
                shifts = true;
                bytes.truncate(at);
                "truncate"
            }
        };
        let who = if !shifts && random.bool() && fix_checksum(bytes, &place) {
            Who::Checksum
        } else {
            Who::Bytes
        };
        let first_seq = self.seq_at(&place);
        let (place, level, same_records, rolled_back) = (Some(place), "byte", false, false);
        Changed { who, what, level, image, place, shifts, first_seq, same_records, rolled_back }
    }

    fn change_records(&self, random: &mut Rng) -> Option<Changed> {
        let mut model = self.model.clone();
        let all: Vec<_> = self.model.records().map(|(place, _)| place).collect();
        let at = random.usize(..all.len());
        let (s, f, r) = all[at];
        let (level, what) = if random.bool() {
            ("record", change_record(&mut model.segments[s].frames[f], r, random)?)
        } else {
            ("frame", change_frame(&mut model.segments, (s, f), random)?)
        };
        Some(self.remade(model, level, what, random))
    }

    /// The changed records as a trail, made by somebody with or without a key.
    fn remade(
        &self,
        mut model: Model,
        level: &'static str,
        what: &'static str,
        random: &mut Rng,
    ) -> Changed {
        let same = |((_, now), (_, then)): &((_, &Stored), (_, &Stored))| now.bytes == then.bytes;
        let first_seq = model.records().zip(self.model.records()).take_while(same).count() as u64;
        let count = |model: &Model| model.records().count() as u64;
        let same_records = count(&self.model) == first_seq && count(&model) >= first_seq;
        let last = self.keys.len().saturating_sub(1);
        let (who, image) = match random.u8(..3) {
            0 => (Who::Remade, model.encode(|_| None)),
            1 => {
                model.strip();
                (Who::Stripped, model.encode(|_| None))
            }
            _ => (
                Who::Resealed,
                model.encode(|epoch| self.keys.get(epoch).filter(|_| epoch == last)),
            ),
        };
        let (place, shifts, rolled_back) = (None, false, false);
        Changed { who, what, level, image, place, shifts, first_seq, same_records, rolled_back }
    }

    fn change_files(&self, random: &mut Rng) -> Changed {
        let mut image = self.image.clone();
        let segments = image.segments();
        let (one, two) = (random.usize(..segments.len()), random.usize(..segments.len()));
        let (file, last) = (segments[one], segments.len() - 1);
        let mut rolled_back = false;
        let firsts = |segment: usize| {
            self.model.records().filter(|((s, ..), _)| *s < segment).count() as u64
        };
        let mut first_seq = firsts(one);
        let kinds = if self.compressed { 7 } else { 8 };
        let what = match random.u8(..kinds) {
            0 => {
                rolled_back = one == last;
                image.files.remove(file);
                "delete a segment"
            }
            1 => {
                let content = image.files[segments[two]].1.clone();
                image.files[segments[two]].1 = std::mem::replace(&mut image.files[file].1, content);
                first_seq = firsts(one.min(two));
                "swap two segments"
            }
            2 => {
                image.files[file].1 = image.files[segments[two]].1.clone();
                "replay another segment in its place"
            }
            3 => {
                let from = self.other.segments();
                let from = from[one.min(from.len() - 1)];
                image.files[file].1 = self.other.files[from].1.clone();
                "splice a segment of another trail"
            }
            4 => {
                rolled_back = true;
                segments[one..].iter().rev().for_each(|file| drop(image.files.remove(*file)));
                "roll back"
            }
            5 => {
                image.files[file].1.clear();
                "empty a segment"
            }
            7 => {
                let mut model = self.model.clone();
                model.segments.truncate(one + 1);
                let frames = &mut model.segments[one].frames;
                frames.truncate(1.max(frames.len() - 1));
                return self.remade(model, "segment", "end it earlier", random);
            }
            _ => {
                first_seq = 0;
                let identity = image.files.iter().position(|(name, _)| name == "identity");
                let bytes = &mut image.files[identity.expect("it has one")].1;
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
                "change the identity"
            }
        };
        let (who, level, place, shifts, same_records) = (Who::Bytes, "file", None, false, false);
        Changed { who, what, level, image, place, shifts, first_seq, same_records, rolled_back }
    }
}

/// Makes the checksum of the frame, header or trailer at `place` right; false if it has none.
fn fix_checksum(file: &mut [u8], place: &Place) -> bool {
    let bytes = &mut file[place.bytes.clone()];
    let at = |magic: &[u8]| bytes.starts_with(magic);
    let (field, covered) = if at(b"GRVF") {
        let len = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
        (4, 8..len.clamp(8, bytes.len()))
    } else if at(b"GRAVENSG") {
        (8, 12..bytes.len())
    } else if at(b"GRAVENTR") {
        (8, 12..bytes.len() - 16)
    } else {
        return false;
    };
    let crc = crc32(&bytes[covered]).to_le_bytes();
    bytes[field..field + 4].copy_from_slice(&crc);
    if bytes.starts_with(b"GRAVENTR") {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&crc);
    }
    true
}

fn change_record(frame: &mut Vec<Stored>, at: usize, random: &mut Rng) -> Option<&'static str> {
    let other = random.usize(..frame.len());
    Some(match random.u8(..5) {
        0 if frame.len() > 1 => {
            frame.remove(at);
            "delete"
        }
        1 => {
            frame.insert(other, frame[at].clone());
            "duplicate"
        }
        2 => {
            let mut new = frame[at].clone();
            new.note = None;
            flip_in(&mut new.bytes, random);
            new.bytes[7] = 0;
            frame.insert(at, new);
            "insert"
        }
        3 if frame[at].bytes != frame[other].bytes => {
            frame.swap(at, other);
            "swap"
        }
        _ if frame[at].note.is_none() => {
            flip_in(&mut frame[at].bytes, random);
            "change"
        }
        _ => return None,
    })
}

/// Changes a record's time, source's number or payload.
fn flip_in(stored: &mut [u8], random: &mut Rng) {
    let at = random.usize(8..stored.len());
    stored[at] ^= 1 << random.u8(..8);
}

fn change_frame(
    segments: &mut [Segment],
    (s, f): (usize, usize),
    random: &mut Rng,
) -> Option<&'static str> {
    let to = random.usize(..segments.len());
    let frame = segments[s].frames[f].clone();
    Some(match random.u8(..4) {
        0 if segments[s].frames.len() > 1 => {
            segments[s].frames.remove(f);
            "delete"
        }
        1 => {
            segments[to].frames.push(frame);
            "duplicate"
        }
        2 if to != s => {
            let other = random.usize(..segments[to].frames.len());
            let taken = std::mem::replace(&mut segments[to].frames[other], frame);
            segments[s].frames[f] = taken;
            "swap"
        }
        3 if segments[s].frames.len() > 1 && to != s => {
            segments[s].frames.remove(f);
            segments[to].frames.insert(0, frame);
            "move"
        }
        _ => return None,
    })
}
