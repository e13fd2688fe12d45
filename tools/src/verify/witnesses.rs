//! What witnesses say: which of them has cosigned an anchor, and up to where enough of them have seen the trail.

use crate::time::rfc3339;
use crate::verify::anchors::{Anchor, Anchors, Status};
use crate::verify::report::{Class, Problem};
use graven_format::cosignature::{Cosigned, WitnessKey};
use graven_format::note::Note;
use serde::Serialize;

/// The witnesses whose word counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trusted<'a> {
    /// Their keys.
    pub keys: &'a [WitnessKey],
    /// How many of them must have seen something of the trail.
    pub needed: usize,
}

/// A cosignature that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cosigner {
    /// The witness.
    pub name: String,
    /// When, as the witness says.
    pub time: String,
    /// Which of the trusted keys it is.
    #[serde(skip)]
    pub(crate) index: usize,
}

/// What the signatures of one anchor say of witnesses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cosigners {
    /// Those whose keys were given.
    pub(crate) known: Vec<Cosigner>,
    /// The names of others than the log itself.
    pub(crate) unknown: Vec<String>,
    /// The name, and the line of the note, of a cosignature that is not of the key that it names.
    pub(crate) forged: Option<(String, usize)>,
}

impl Cosigners {
    /// Of a note, by the keys that were given.
    pub(crate) fn of(note: &Note<'_>, keys: &[WitnessKey]) -> Self {
        let mut all = Self::default();
        for (index, key) in keys.iter().enumerate() {
            match note.cosigned(key) {
                Cosigned::At(time_s) => {
                    let time = rfc3339(time_s.saturating_mul(1_000_000_000));
                    all.known.push(Cosigner { name: key.name().to_owned(), time, index });
                }
                Cosigned::Forged(line) => {
                    all.forged.get_or_insert_with(|| (key.name().to_owned(), line));
                }
                Cosigned::No => {}
            }
        }
        for (name, id) in note.signers() {
            let known = keys.iter().any(|key| key.name() == name && key.id() == id);
            let own = name == note.checkpoint.head.origin;
            if !known && !own && !all.unknown.iter().any(|it| it == name) {
                all.unknown.push(name.to_owned());
            }
        }
        all
    }

    /// Of an anchor.
    pub(crate) fn of_anchor(anchor: &Anchor, keys: &[WitnessKey]) -> Self {
        Note::parse(&anchor.text).map(|note| Self::of(&note, keys)).unwrap_or_default()
    }
}

/// What one witness has seen.
#[derive(Clone, Debug, Serialize)]
pub struct WitnessReport {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: String,
    /// Checkpoints that fit the trail and that it has cosigned.
    pub checkpoints: u64,
    /// Records that the largest of these covers.
    pub size: Option<u64>,
    /// When it has cosigned that one, as it says.
    pub time: Option<String>,
}

/// What each of the trusted witnesses has seen of a trail that the anchors of `all` were compared with.
pub(crate) fn reports(trusted: Trusted<'_>, all: &Anchors) -> Vec<WitnessReport> {
    let report = |(index, key): (usize, &WitnessKey)| {
        let mut report = WitnessReport {
            name: key.name().to_owned(),
            key: key.to_string(),
            checkpoints: 0,
            size: None,
            time: None,
        };
        // They stand in the order of their sizes.
        for anchor in all.checked.iter().filter(|it| fits(it.status)) {
            let Some(cosigner) = anchor.cosigned.iter().find(|it| it.index == index) else {
                continue;
            };
            report.checkpoints += 1;
            if report.size != Some(anchor.size) {
                (report.size, report.time) = (Some(anchor.size), Some(cosigner.time.clone()));
            }
        }
        report
    };
    trusted.keys.iter().enumerate().map(report).collect()
}

/// Records that at least so many of the witnesses have seen; a witness that has seen more has seen these too.
pub(crate) fn seen_by(needed: usize, reports: &[WitnessReport]) -> Option<u64> {
    let mut sizes: Vec<u64> = reports.iter().filter_map(|it| it.size).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.get(needed.checked_sub(1)?).copied()
}

/// That fewer witnesses than are needed have seen anything.
pub(crate) fn too_few(trusted: Trusted<'_>, reports: &[WitnessReport]) -> Option<Problem> {
    let count = reports.iter().filter(|it| it.size.is_some()).count();
    (count < trusted.needed).then(|| {
        let needed = trusted.needed;
        let message = format!("{count} of the witnesses have seen this trail, and {needed} must");
        Problem::new(Class::Unchecked, "witnesses", message)
            .note("the checkpoints that were given have no other cosignatures of their keys")
            .help("give checkpoints that they have cosigned with --checkpoint")
    })
}

const fn fits(status: Status) -> bool {
    matches!(status, Status::Consistent | Status::Gone)
}
