//! `legacy` for libFuzzer; what it does is in `xferry_fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xferry_fuzz::legacy::run(data));
