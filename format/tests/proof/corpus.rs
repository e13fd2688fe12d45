//! The fuzzers' kept inputs and mutations of them, with the stable compiler.

use crate::golden;
use crate::proofs;
use graven_format::Source;
use graven_format::lines::Head;
use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::note::{Checkpoint, SecretKey};
use graven_format::proof::text::Document;
use graven_format::trailer::Trailer;
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::PathBuf;

#[allow(unreachable_pub, reason = "the fuzz targets call it as a crate of its own")]
#[path = "../../../tests/fuzz/src/lib.rs"]
mod fuzz;

use fuzz::{FILL, FIX_CRCS, KNOWN_TRAIL, MERKLE};

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target)
}

/// The inputs that are made of golden files: target, name, bytes.
fn made() -> Vec<(&'static str, String, Vec<u8>)> {
    let files: Vec<Vec<u8>> = golden::segments().into_iter().map(|(_, kept, _)| kept).collect();
    let mut inputs = Vec::new();
    for (n, file) in files.iter().enumerate() {
        for flags in [KNOWN_TRAIL | MERKLE, FIX_CRCS | MERKLE, KNOWN_TRAIL | MERKLE | FILL] {
            inputs.push((
                "scan",
                format!("golden-{n}-flags-{flags}"),
                [&[flags, 7], &file[..]].concat(),
            ));
        }
    }
    let flags = KNOWN_TRAIL | MERKLE | FILL | FIX_CRCS;
    for (a, before) in files.iter().enumerate() {
        for (b, last) in files.iter().enumerate() {
            let [low, high] = (before.len() as u16).to_le_bytes();
            let input = [&[flags, low, high], &before[..], &last[..]].concat();
            if a < b && input.len() < 8192 {
                inputs.push(("recovery", format!("golden-{a}-{b}"), input));
            }
        }
    }
    // An unsealed segment and the one after it: an orphan.
    let torn = [&files[2][..files[2].len() - 512], &[0x5A; 512]].concat();
    let input = [&[flags & !FIX_CRCS, 0, 0], &torn[..]].concat();
    inputs.push(("recovery", "torn".into(), input));
    let (records, payload) = golden::compressed_frame();
    let raw_len = records.iter().map(|rec| rec.stored().len() as u32).sum::<u32>();
    let count = records.len() as u16;
    let lengths = [("sound", raw_len), ("short", raw_len - 1), ("long", u32::MAX), ("none", 0)];
    for (name, raw_len) in lengths {
        let input = [&raw_len.to_le_bytes()[..], &count.to_le_bytes(), &payload].concat();
        inputs.push(("compressed", name.into(), input));
    }
    let input = [&raw_len.to_le_bytes()[..], &count.to_le_bytes(), &payload, &payload].concat();
    inputs.push(("compressed", "twice".into(), input));
    for cause in Cause::ALL {
        let statement = LossStatement {
            source: Source::Netlink,
            cause,
            certainty: Certainty::AtLeast,
            count: u64::MAX,
            range: Some((0, u64::MAX)),
            between_ns: Some((1, u64::MAX)),
        };
        inputs.push(("loss", cause.name().into(), statement.encode(u64::MAX)));
    }
    for (name, document) in ["inclusion", "consistency"].into_iter().zip(proofs::documents()) {
        inputs.push(("proof", name.into(), document.to_string().into_bytes()));
        let signed = signed(&document).to_string().into_bytes();
        inputs.push(("proof", format!("{name}-signed"), signed));
    }
    inputs.extend(notes().into_iter().map(|(name, text)| ("note", name.into(), text.into_bytes())));
    for (n, file) in files.iter().enumerate() {
        let Some(len) = file.last_chunk().and_then(|footer: &[u8; 16]| Trailer::footer_len(footer))
        else {
            continue;
        };
        for flags in [0, FIX_CRCS] {
            let input = [&[flags], &file[file.len() - len..]].concat();
            inputs.push(("trailer", format!("golden-{n}-flags-{flags}"), input));
        }
    }
    inputs
}

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed("graven/102132435465768798a9bacbdcedfe0f", &[seed; 32]).expect("a key")
}

/// The same proof, its tree signed.
fn signed(document: &Document) -> Document {
    let checkpoint = Checkpoint { head: document.head().clone(), successor: None, sealed: None };
    let text = secret(1).sign(&checkpoint).into_bytes();
    let mut document = document.clone();
    match &mut document {
        Document::Inclusion { note, .. } | Document::Consistency { note, .. } => *note = Some(text),
    }
    document
}

/// Notes of all kinds, and keys.
fn notes() -> Vec<(&'static str, String)> {
    let head = Head { origin: secret(1).public().name().into(), size: 20_852_332, root: [3; 32] };
    let (plain, last) = (
        Checkpoint { head: head.clone(), successor: None, sealed: None },
        Checkpoint { head, successor: Some(secret(2).public().clone()), sealed: Some([7; 32]) },
    );
    let one = secret(1).sign(&plain);
    let other = secret(2).sign(&plain);
    let (_, line) = other.rsplit_once("\n\n").expect("an empty line");
    let (text, own) = one.rsplit_once("\n\n").expect("an empty line");
    vec![
        ("plain", one.clone()),
        ("successor", secret(1).sign(&last)),
        ("row", one.clone() + &other + &one),
        ("cosigned", format!("{one}{line}")),
        ("twice", format!("{one}{own}")),
        ("extension", format!("{text}\nanother line\n\n{own}")),
        ("witnessed", include_str!("../public-witnesses.note").into()),
        ("witness-key", fuzz::WITNESS.into()),
        ("public-key", secret(1).public().to_string()),
        ("private-key", secret(1).to_text().to_string()),
    ]
}

#[test]
fn the_corpus_holds_the_golden_files() {
    for (target, name, bytes) in made() {
        let path = corpus(target).join(&name);
        if std::env::var_os(golden::REGENERATE).is_some() {
            std::fs::create_dir_all(corpus(target)).expect("the corpus is writable");
            std::fs::write(&path, &bytes).expect("the corpus is writable");
        }
        assert!(std::fs::read(&path).ok() == Some(bytes), "{target}/{name} is not as made");
    }
}

/// Every kept input of a target.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(corpus(target)).expect("the corpus is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

#[test]
fn every_kept_input_holds() {
    for input in kept("scan") {
        fuzz::scan(&input);
    }
    for input in kept("recovery") {
        fuzz::recovery(&input);
    }
    for input in kept("compressed") {
        fuzz::compressed(&input);
    }
    for input in kept("loss") {
        fuzz::loss(&input);
    }
    for input in kept("proof") {
        fuzz::proof(&input);
    }
    for input in kept("note") {
        fuzz::note(&input);
    }
    for input in kept("trailer") {
        fuzz::trailer(&input);
    }
}

/// A change at a place given as a part of the input's length.
#[derive(Clone, Debug)]
enum Change {
    Bit(f64, u8),
    Byte(f64, u8),
    Copy(f64, f64, usize),
    Cut(f64),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0.0..1.0f64;
    prop_oneof![
        (at(), 0u8..8).prop_map(|(at, bit)| Change::Bit(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (at(), at(), 1usize..1024).prop_map(|(from, to, len)| Change::Copy(from, to, len)),
        at().prop_map(Change::Cut),
    ]
}

fn changed(input: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for change in changes {
        let at = |part: f64| ((bytes.len() as f64 * part) as usize).min(bytes.len() - 1);
        match *change {
            Change::Bit(part, bit) => {
                let at = at(part);
                bytes[at] ^= 1 << bit;
            }
            Change::Byte(part, byte) => {
                let at = at(part);
                bytes[at] = byte;
            }
            Change::Copy(from, to, len) => {
                let (from, to) = (at(from), at(to));
                let len = len.min(bytes.len() - from).min(bytes.len() - to);
                bytes.copy_within(from..from + len, to);
            }
            Change::Cut(part) => bytes.truncate(at(part).max(4)),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_inputs_hold(
        which in any::<prop::sample::Index>(),
        flags in 0u8..16,
        changes in vec(change(), 1..8),
    ) {
        let mut inputs = kept("scan");
        let mut input = changed(&inputs.swap_remove(which.index(inputs.len())), &changes);
        input[0] = flags;
        fuzz::scan(&input);
        let mut inputs = kept("recovery");
        let mut input = changed(&inputs.swap_remove(which.index(inputs.len())), &changes);
        input[0] = flags;
        fuzz::recovery(&input);
        let mut inputs = kept("compressed");
        fuzz::compressed(&changed(&inputs.swap_remove(which.index(inputs.len())), &changes));
        let mut inputs = kept("loss");
        fuzz::loss(&changed(&inputs.swap_remove(which.index(inputs.len())), &changes));
        let mut inputs = kept("proof");
        fuzz::proof(&changed(&inputs.swap_remove(which.index(inputs.len())), &changes));
        let mut inputs = kept("note");
        fuzz::note(&changed(&inputs.swap_remove(which.index(inputs.len())), &changes));
        let mut inputs = kept("trailer");
        let mut input = changed(&inputs.swap_remove(which.index(inputs.len())), &changes);
        input[0] = flags;
        fuzz::trailer(&input);
    }
}
