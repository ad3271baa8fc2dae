#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::astra_open(data));
