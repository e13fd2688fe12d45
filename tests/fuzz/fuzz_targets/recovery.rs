//! Recovery's decision over two arbitrary files, and what is left when it was carried out.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| graven_fuzz::recovery(input));
