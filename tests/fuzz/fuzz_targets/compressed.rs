//! Compressed frames with arbitrary payloads and stated lengths.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| graven_fuzz::compressed(input));
