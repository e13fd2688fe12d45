//! The text of proofs over arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| graven_fuzz::proof(input));
