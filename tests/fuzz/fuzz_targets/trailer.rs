//! Trailers over arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| graven_fuzz::trailer(input));
