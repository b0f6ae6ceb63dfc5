//! Any bytes as a PDB file.

#![no_main]

use std::sync::Once;

use invivo_image::pe::Pdb;
use libfuzzer_sys::fuzz_target;

/// The reader turns failed assertions of its library into errors; the fuzzer's own hook would
/// end at them. What the reader lets through still ends the run.
static HOOK: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let _ = Pdb::parse(data);
});
