//! See `access_ledger_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| access_ledger_tests::fuzz::run("evidence", bytes));
