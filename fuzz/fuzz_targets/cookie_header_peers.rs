#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::cookie_header_peers(data));
