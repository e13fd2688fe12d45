//! What a trail says of itself, checked by programs that others wrote: `signed_note` and `tlog_tiles`
//! are ports of Go's `sumdb/note` and `sumdb/tlog`. Nothing of Graven reads the notes and proofs here.

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::{Maker, on};
use graven_format::note::{Note as OurNote, Signed};
use graven_format::trailer::SealReason;
use signed_note::{Note, Signer as _, StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::{
    Checkpoint, Error, Hash, HashReader, check_record, check_tree, prove_record, prove_tree,
    record_hash, stored_hashes, tree_hash,
};

/// Every hash that their tree stores, in their order.
struct Stored(Vec<Hash>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

impl Stored {
    /// Their tree of the records as `graven show` gives them.
    fn of(maker: &Maker) -> Self {
        let mut tree = Self(Vec::new());
        for (seq, stored) in (0..).zip(&maker.stored) {
            let hashes = stored_hashes(seq, stored, &tree).expect("their hashes");
            tree.0.extend(hashes);
        }
        tree
    }

    fn root(&self, size: u64) -> Hash {
        tree_hash(size, self).expect("their root")
    }
}

/// Records in the segments of the trail that the tests have in common: some with whole blocks of 1024.
const LENGTHS: [u64; 6] = [37, 2501, 1, 1023, 3077, 640];

/// As many segments of other lengths, from none to several blocks.
fn random_lengths(seed: u64) -> [u64; 6] {
    let mut state = seed;
    LENGTHS.map(|_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = 1 + (state >> 33) % 12;
        (state >> 40) % (1 << bits)
    })
}

/// Sealed segments of so many records, and a checkpoint in each; the second key begins in the fourth.
fn trail(lengths: [u64; 6]) -> Maker {
    let mut maker = Maker::new();
    maker.key = Some(maker.secret(1));
    for (index, records) in lengths.into_iter().enumerate() {
        let payloads: Vec<String> = (0..records).map(|n| format!("{index} {n}")).collect();
        for payloads in payloads.chunks(1000) {
            let records: Vec<_> =
                payloads.iter().map(|it| common::stdin(7, it.as_bytes())).collect();
            maker.frame(&records);
        }
        maker.checkpoint((index == 3).then(|| maker.secret(2)));
        maker.seal(SealReason::Full);
    }
    maker
}

/// Their verifier of the keys that `graven keys` prints.
fn verifiers(maker: &Maker) -> VerifierList {
    let keys = on("keys", maker.path(), &[]).text();
    let keys = keys.lines().map(|line| line.rsplit(' ').next().expect("a key").to_owned());
    VerifierList::new(
        keys.map(|key| Box::new(StandardVerifier::new(&key).expect("a key of theirs")) as Box<_>)
            .collect(),
    )
}

/// Checks a note by their code alone, and returns size and root.
fn checked(note: &[u8], maker: &Maker) -> (u64, Hash) {
    let note = Note::from_bytes(note).expect("a note of theirs");
    let (signed, unknown) = note.verify(&verifiers(maker)).expect("signed");
    assert_eq!((signed.len(), unknown.len()), (1, 0));
    let checkpoint = Checkpoint::from_bytes(note.text()).expect("a checkpoint of theirs");
    assert_eq!(checkpoint.origin(), format!("graven/{}", maker.trail_id));
    assert_eq!(checkpoint.origin(), signed[0].name());
    (checkpoint.size(), *checkpoint.hash())
}

fn hash(line: &str) -> Hash {
    Hash(BASE64.decode(line).expect("base64").try_into().expect("32 bytes"))
}

#[test]
fn every_checkpoint_of_a_trail_is_one_of_theirs() {
    let (maker, mut notes) = (trail(LENGTHS), 0);
    let tree = Stored::of(&maker);
    let shown = on("show", maker.path(), &["--json"]).text();
    for line in shown.lines().filter(|line| line.contains("\\n\\n")) {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let note = record["payload"]["text"].as_str().expect("text");
        let (size, root) = checked(note.as_bytes(), &maker);
        assert_eq!(Some(size), record["seq"].as_u64());
        assert_eq!(root, tree.root(size));
        notes += 1;
    }
    assert_eq!(notes, 6, "one a segment");
}

#[test]
fn proofs_of_records_are_theirs_byte_for_byte() {
    let maker = trail(LENGTHS);
    let end = maker.next_seq;
    let edges =
        [0, 36, 37, 38, 1023, 1024, 2047, 2048, 2539, 2540, 2541, 3566, 4095, 4096, 6143, end - 1];
    records(&maker, (0..60).map(|step| step * 7919 % end).chain(edges));
    for seed in 0..8 {
        let maker = trail(random_lengths(seed));
        let end = maker.next_seq;
        records(&maker, (0..12).map(|step| step * 7919 % end).chain([0, end - 1]));
    }
}

/// The proof of each of these records is theirs.
fn records(maker: &Maker, seqs: impl Iterator<Item = u64>) {
    let (tree, end) = (Stored::of(maker), maker.next_seq);
    for seq in seqs {
        let ran = on("prove", maker.path(), &["--seq", &seq.to_string()]);
        assert_eq!(ran.code, 0, "{seq}: {}", ran.stderr);
        assert!(ran.stdout.len() <= 3072);
        let text = ran.text();
        let (proof, note) = text.split_once("\n\n").expect("an empty line");
        let (size, root) = checked(note.as_bytes(), maker);
        assert_eq!((size, root), (end, tree.root(end)));
        let mut lines = proof.lines();
        assert_eq!(lines.next(), Some("c2sp.org/tlog-proof@v1"));
        let record = lines.next().and_then(|line| line.strip_prefix("extra ")).expect("the record");
        let record = BASE64.decode(record).expect("base64");
        assert_eq!(record, maker.stored[seq as usize]);
        assert_eq!(lines.next(), Some(format!("index {seq}").as_str()));
        let path: Vec<Hash> = lines.map(hash).collect();
        assert_eq!(path, prove_record(size, seq, &tree).expect("their proof"), "{seq}");
        check_record(&path, size, root, seq, record_hash(&record)).expect("they accept it");
    }
}

#[test]
fn proofs_of_growth_are_theirs_byte_for_byte() {
    let maker = trail(LENGTHS);
    let end = maker.next_seq;
    let edges = [1, 37, 38, 1024, 2048, 2540, 4096, end - 1, end];
    growth(&maker, (0..60).map(|step| 1 + step * 7907 % end).chain(edges));
    for seed in 0..8 {
        let maker = trail(random_lengths(seed));
        let end = maker.next_seq;
        growth(&maker, (0..12).map(|step| 1 + step * 7907 % end).chain([1, end]));
    }
}

/// The proof from each of these sizes is theirs.
fn growth(maker: &Maker, sizes: impl Iterator<Item = u64>) {
    let tree = Stored::of(maker);
    for from in sizes {
        let ran = on("prove", maker.path(), &["--from", &from.to_string()]);
        assert_eq!(ran.code, 0, "{from}: {}", ran.stderr);
        let text = ran.text();
        let (proof, note) = text.split_once("\n\n").expect("an empty line");
        let (size, root) = checked(note.as_bytes(), maker);
        let mut lines = proof.lines().skip(1);
        assert_eq!(lines.next(), Some(format!("old {from}").as_str()));
        let old = hash(lines.next().and_then(|line| line.strip_prefix("root ")).expect("a root"));
        assert_eq!(old, tree.root(from));
        let path: Vec<Hash> = lines.map(hash).collect();
        if from == size {
            assert!(path.is_empty());
            continue;
        }
        let theirs = prove_tree(size, from, &tree).expect("their proof");
        assert_eq!(path, theirs, "{from}");
        check_tree(&path, size, root, from, old).expect("they accept it");
    }
}

#[test]
fn keys_and_signatures_are_theirs_both_ways() {
    let maker = Maker::new();
    let ours = maker.secret(5);
    let theirs = StandardSigner::new(&ours.to_text()).expect("a private key of theirs");
    assert_eq!(theirs.name(), ours.public().name());
    let id = format!("+{:08x}+", theirs.key_id());
    assert!(ours.public().to_string().contains(&id));
    let text = format!("graven/{}\n7\n{}\n", maker.trail_id, BASE64.encode([3; 32]));
    let mut note = Note::new(text.as_bytes(), &[]).expect("a text of theirs");
    note.add_sigs(&[&theirs]).expect("their signature");
    let bytes = note.to_bytes();
    let read = OurNote::parse(&bytes).expect("a note of ours");
    assert_eq!(read.verify(ours.public()), Signed::Yes);
    // Ed25519 has one signature of a text: ours is the same, byte for byte.
    assert_eq!(ours.sign(&read.checkpoint).as_bytes(), bytes);
}
