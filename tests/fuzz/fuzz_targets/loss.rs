//! The text of loss statements over arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| graven_fuzz::loss(input));
