//! `graven check-proof`.

use crate::cmd::{key, show};
use crate::diag::Diagnostic;
use crate::escape::{self, Escaped};
use crate::exit::Exit;
use crate::output;
use crate::verify::report::hex;
use crate::verify::witnesses::{Cosigner, Cosigners};
use graven_format::Record;
use graven_format::cosignature::WitnessKey;
use graven_format::lines::parse_hash;
use graven_format::merkle::Hash;
use graven_format::note::{Note, PublicKey, Signed};
use graven_format::proof::text::{Document, TEXT_BYTES_MAX};
use serde::Serialize;
use std::io::{self, Read as _, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};

/// Version of the JSON object that `check-proof --json` prints.
const SCHEMA_VERSION: u32 = 1;

/// Arguments of `graven check-proof`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The proof, as `graven prove` wrote it; `-` is standard input
    pub file: PathBuf,
    /// The key that must have signed the proof's checkpoint, or @FILE that holds it
    ///
    /// Written as `graven keys` prints it: name+id+base64. A proof over a tree that a later key has signed needs that
    /// key.
    #[arg(long, value_name = "KEY", value_parser = key::parse)]
    pub key: Option<PublicKey>,
    /// The key of a witness whose cosignature on the proof's checkpoint counts, or @FILE that holds it; may be given more
    /// than once
    #[arg(long, value_name = "VKEY", value_parser = key::parse_witness)]
    pub witness_key: Vec<WitnessKey>,
    /// How many of these witnesses must have cosigned it; default 1
    #[arg(long, value_name = "N", requires = "witness_key")]
    pub witnesses: Option<NonZero<usize>>,
    /// The root that the proof must lead to: 64 hexadecimal digits, or base64 as in a checkpoint
    #[arg(long, value_name = "HASH", value_parser = hash)]
    pub root: Option<Hash>,
    /// How many records the tree with that root has
    ///
    /// A root alone does not tell how many: keep both.
    #[arg(long, value_name = "RECORDS")]
    pub size: Option<u64>,
    /// The root that a proof of growth must lead from
    #[arg(long, value_name = "HASH", value_parser = hash)]
    pub from_root: Option<Hash>,
    /// How many records the tree with that earlier root has
    #[arg(long, value_name = "RECORDS")]
    pub from: Option<u64>,
    /// Print what was proven as one JSON object
    #[arg(long)]
    pub json: bool,
}

const AFTER_HELP: &str = "\
Needs no trail. Prints what the proof proves, and the record with its bytes escaped as `graven show` does.

A proof is worth as much as the root that it leads to. With --key the root and size are what this key has signed \
in the checkpoint that the proof ends with, and the origin is the key's name. Without it give a root, and its size, that you have from elsewhere than \
the proof: `graven verify` prints them. Without any of these it is only checked that the proof leads to the root that it \
states itself, which whoever made it could choose; the root is then printed to be compared with a copy kept \
elsewhere, and the origin is what the file says.

A proof may end with a checkpoint that witnesses have cosigned (`graven prove --checkpoint`). With --witness-key it is checked that they have: then it cannot be of a tree that was shown to the one who has the proof alone.

A trail's keys change. `graven keys DIR --key FIRST` prints all of them, each proven from the first: keep \
them with the first one, or with the proof from somebody who has.

Exit codes:
  0  proven
  1  not proven: the proof is wrong, or does not lead to the roots and sizes that were given
  2  usage, or the file cannot be read or is no proof

Examples:
  graven check-proof record.tlog-proof --key @trail.vkey
  graven check-proof record.tlog-proof --key @trail.vkey --witness-key @w1.vkey
  graven check-proof record.tlog-proof --root 4f1c…e9 --size 1000000
  graven check-proof grown.proof --from-root 4f1c…e9 --from 1000000
  graven prove DIR --seq 7 | graven check-proof - --json | jq .record.payload";

/// Reads a root.
fn hash(text: &str) -> Result<Hash, String> {
    parse_hash(text).ok_or_else(|| "no hash: 64 hexadecimal digits, or base64".to_owned())
}

/// Checks the proof, says what it proves, and returns whether it does.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let cannot = |why: String| {
        Diagnostic::error(why).at(escape::path(&args.file)).emit();
        Exit::CannotCheck
    };
    let bytes = match read(&args.file) {
        Ok(bytes) => bytes,
        Err(why) => return cannot(format!("cannot read the proof: {why}")),
    };
    let document = match Document::parse(&bytes) {
        Ok(document) => document,
        Err(why) => return cannot(why.to_string()),
    };
    if matches!(document, Document::Inclusion { .. })
        && (args.from_root.is_some() || args.from.is_some())
    {
        return cannot(
            "--from and --from-root are for proofs of growth; this is of a record".into(),
        );
    }
    let refused = refusal(args, &document);
    let exit = match &refused {
        None => Exit::Success,
        Some(why) => {
            Diagnostic::error(format!("not proven: {why}")).at(escape::path(&args.file)).emit();
            Exit::Damage
        }
    };
    let mut out = output::raw();
    let written = match (args.json, &refused) {
        (true, _) => output::json_line(&mut out, &report(args, &document, refused.as_deref())),
        (false, None) => print(args, &document, &mut out),
        (false, Some(_)) => Ok(()),
    };
    output::ended(written.and_then(|()| out.flush()), exit)
}

/// The file, or one byte more than a proof can have.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = TEXT_BYTES_MAX as u64 + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Why the proof does not prove what was asked for.
fn refusal(args: &Args, document: &Document) -> Option<String> {
    let differs = |what: &str, given: String, stated: String| {
        Some(format!("its {what} is {stated}, and {given} was given"))
    };
    let head = document.head();
    if !document.holds() {
        return Some(match document {
            Document::Inclusion { .. } => {
                "the record and the hashes do not lead to the root".into()
            }
            Document::Consistency { .. } => {
                "the hashes do not lead from the earlier root to the later one".into()
            }
        });
    }
    if let Some(root) = args.root.filter(|root| *root != head.root) {
        return differs("root", hex(&root), hex(&head.root));
    }
    if let Some(size) = args.size.filter(|size| *size != head.size) {
        return differs("size", size.to_string(), head.size.to_string());
    }
    if let Some(key) = &args.key
        && let Some(why) = not_signed(document, key)
    {
        return Some(why);
    }
    if let Some(why) = not_witnessed(args, document) {
        return Some(why);
    }
    let Document::Consistency { from_root, proof, .. } = document else { return None };
    if let Some(root) = args.from_root.filter(|root| root != from_root) {
        return differs("earlier root", hex(&root), hex(from_root));
    }
    if let Some(from) = args.from.filter(|from| *from != proof.from) {
        return differs("earlier size", from.to_string(), proof.from.to_string());
    }
    None
}

/// Why the proof's checkpoint is not one that `key` has signed for its own log.
fn not_signed(document: &Document, key: &PublicKey) -> Option<String> {
    let Some(note) = document.note() else { return Some("it is not signed".into()) };
    let note = match Note::parse(note) {
        Ok(note) => note,
        Err(why) => return Some(why.to_string()),
    };
    if note.checkpoint.head.origin != key.name() {
        return Some(format!("its origin is not the key's name, {}", key.name()));
    }
    match note.verify(key) {
        Signed::Yes => None,
        Signed::Forged => Some("its signature is not the key's: it is forged".into()),
        Signed::No => Some(
            "the key has not signed its checkpoint; if the trail's key has changed since, `graven keys` prints \
             the later ones"
                .into(),
        ),
    }
}

/// What the proof's checkpoint says of the witnesses whose keys were given.
fn cosigners(args: &Args, document: &Document) -> Cosigners {
    let note = document.note().and_then(|note| Note::parse(note).ok());
    note.map(|note| Cosigners::of(&note, &args.witness_key)).unwrap_or_default()
}

/// Why too few of the witnesses have cosigned the proof's checkpoint.
fn not_witnessed(args: &Args, document: &Document) -> Option<String> {
    if args.witness_key.is_empty() {
        return None;
    }
    let needed = args.witnesses.map_or(1, NonZero::get);
    let cosigners = cosigners(args, document);
    if let Some((name, _)) = &cosigners.forged {
        let name = Escaped(name.as_bytes());
        return Some(format!(
            "a cosignature is forged: the key of the witness {name} did not make it"
        ));
    }
    let count = cosigners.known.len();
    (count < needed).then(|| {
        format!("{count} of the witnesses have cosigned its checkpoint, and {needed} must")
    })
}

/// What is said behind a value that the caller gave, that the key has signed, or neither.
fn trust(given: bool, signed: bool) -> &'static str {
    match (given, signed) {
        (true, _) => ", as given",
        (_, true) => ", as signed",
        _ => ", to be compared with a copy kept elsewhere",
    }
}

/// Who has signed, as far as that is known.
fn signature(args: &Args, document: &Document) -> String {
    match (&args.key, document.note()) {
        (Some(key), Some(_)) => format!("by {key}"),
        (_, None) => "none".into(),
        (None, Some(_)) => "there, not checked: give the key with --key".into(),
    }
}

fn print(args: &Args, document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let head = document.head();
    match document {
        Document::Inclusion { proof, .. } => {
            writeln!(out, "proven    record {} is in the tree below", proof.seq)?;
        }
        Document::Consistency { proof, from_root, .. } => {
            let from = proof.from;
            writeln!(out, "proven    the tree below begins with the tree of {from} records")?;
            writeln!(
                out,
                "from root {}{}",
                hex(from_root),
                trust(args.from_root.is_some(), false)
            )?;
            writeln!(out, "from size {from}{}", trust(args.from.is_some(), false))?;
        }
    }
    writeln!(
        out,
        "root      {}{}",
        hex(&head.root),
        trust(args.root.is_some(), args.key.is_some())
    )?;
    let size = trust(args.size.is_some(), args.key.is_some());
    writeln!(out, "size      {}{size}", head.size)?;
    writeln!(out, "origin    {}", Escaped(head.origin.as_bytes()))?;
    writeln!(out, "signed    {}", signature(args, document))?;
    for Cosigner { name, time, .. } in cosigners(args, document).known {
        writeln!(out, "witness   {} at {time}", Escaped(name.as_bytes()))?;
    }
    if let Document::Inclusion { record, proof, .. } = document {
        write!(out, "record    ")?;
        match decode(record) {
            Some(record) => show::write_text(out, proof.seq, &record)?,
            None => writeln!(out, "{} bytes that this version cannot read", record.len())?,
        }
    }
    Ok(())
}

/// The record that these bytes are, if they are one and nothing else.
fn decode(stored: &[u8]) -> Option<Record<'_>> {
    Record::decode(stored).ok().filter(|(_, rest)| rest.is_empty()).map(|(record, _)| record)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    schema_version: u32,
    proven: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Tree>,
    tree: Tree,
    origin: &'a str,
    /// The key that was given and has signed; null if none was given, or nothing is proven.
    signed_by: Option<String>,
    /// The witnesses whose keys were given and that have cosigned it; none if nothing is proven.
    witnessed: Vec<Cosigner>,
    /// Null if this version cannot read it, or if nothing is proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Option<show::Line<'a>>>,
}

/// A tree, and which of its values the caller gave.
#[derive(Serialize)]
struct Tree {
    size: u64,
    root: String,
    size_given: bool,
    root_given: bool,
}

fn report<'a>(args: &Args, document: &'a Document, why: Option<&'a str>) -> Report<'a> {
    let head = document.head();
    let tree = |size, root: &Hash, size_given: Option<u64>, root_given: Option<Hash>| Tree {
        size,
        root: hex(root),
        size_given: size_given.is_some(),
        root_given: root_given.is_some(),
    };
    let (kind, seq, from, record) = match document {
        Document::Inclusion { record, proof, .. } => {
            let proven = decode(record).filter(|_| why.is_none());
            let line = proven.map(|record| show::json(proof.seq, &record));
            ("inclusion", Some(proof.seq), None, Some(line))
        }
        Document::Consistency { from_root, proof, .. } => {
            let from = tree(proof.from, from_root, args.from, args.from_root);
            ("consistency", None, Some(from), None)
        }
    };
    Report {
        schema_version: SCHEMA_VERSION,
        proven: why.is_none(),
        why,
        kind,
        seq,
        from,
        tree: tree(head.size, &head.root, args.size, args.root),
        origin: &head.origin,
        signed_by: args.key.as_ref().filter(|_| why.is_none()).map(ToString::to_string),
        witnessed: if why.is_none() { cosigners(args, document).known } else { Vec::new() },
        record,
    }
}
