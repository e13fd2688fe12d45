//! Public keys on the command line.

use graven_format::cosignature::WitnessKey;
use graven_format::note::{KeyError, PublicKey};
use std::io::Read as _;

/// Longest file that is read for a key.
const FILE_BYTES_MAX: u64 = 1024;

/// Reads a key, or with an `@` in front the file that holds it on a line of its own.
///
/// # Errors
/// What is wrong, for the command line to say.
pub(crate) fn parse(text: &str) -> Result<PublicKey, String> {
    read(text, PublicKey::parse)
}

/// The same for the key of a witness.
///
/// # Errors
/// What is wrong, for the command line to say.
pub(crate) fn parse_witness(text: &str) -> Result<WitnessKey, String> {
    read(text, WitnessKey::parse)
}

fn read<K>(text: &str, parse: impl Fn(&str) -> Result<K, KeyError>) -> Result<K, String> {
    let public = |text: &str| {
        if text.starts_with("PRIVATE+KEY+") {
            let text = "that is a private key: give the public one, and keep that one secret";
            return Err(text.to_owned());
        }
        parse(text).map_err(|why| why.to_string())
    };
    let Some(path) = text.strip_prefix('@') else { return public(text) };
    let mut held = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut held));
    read.map_err(|why| format!("cannot read {path}: {why}"))?;
    if held.len() as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "{path} is longer than {FILE_BYTES_MAX} bytes: it holds more than a key"
        ));
    }
    public(held.trim_end()).map_err(|why| format!("{path}: {why}"))
}
