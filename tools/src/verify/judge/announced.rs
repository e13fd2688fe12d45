//! What is known to have been announced before anything of the trail is read.

use crate::trail::{TrailDir, ends};
use crate::verify::Options;
use crate::verify::anchors::Anchor;
use crate::verify::witnesses::Cosigners;
use graven_format::lines::origin;
use graven_format::note::{Note, PublicKey, Signed};
use graven_format::signer::Signer;

/// Records that somebody knows to have been announced, a checkpoint being made of nothing else, and who.
pub(super) fn known(dir: &TrailDir, options: &Options<'_>) -> (u64, String) {
    let origin = dir.trail_id().map(origin);
    // One that was changed since it was signed proves nothing, as far as that can be said here.
    let key = last_header_key(dir);
    let forged = |anchor: &Anchor| {
        Cosigners::of_anchor(anchor, options.witnesses.keys).forged.is_some()
            || key.as_ref().is_some_and(|key| {
                Note::parse(&anchor.text).is_ok_and(|note| note.verify(key) == Signed::Forged)
            })
    };
    let is_own = |anchor: &&Anchor| Some(&anchor.head.origin) == origin.as_ref();
    let mut own: Vec<&Anchor> = options.anchors.iter().filter(is_own).collect();
    own.sort_by_key(|anchor| std::cmp::Reverse(anchor.head.size));
    let durable = options.durable.map(|seq| (seq.saturating_add(1), "--durable".to_owned()));
    let anchored = own.into_iter().find(|anchor| !forged(anchor)).map(|anchor| {
        let Anchor { file, line, head, .. } = anchor;
        (head.size, format!("the checkpoint in {file}, line {line}"))
    });
    let known = durable.into_iter().chain(anchored);
    known.max_by_key(|(announced, _)| *announced).unwrap_or_default()
}

/// The key in the header of the last segment.
fn last_header_key(dir: &TrailDir) -> Option<PublicKey> {
    let opened = dir.open_segment(dir.segments.last()?).ok()?;
    let header = ends::header(&opened).ok()?.ok()?;
    Signer::of(&header).ok()?.key
}
