#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::set_cookie_build(data));
