//! Any bytes as a PDB file.

#![no_main]

use invivo_image::pe::Pdb;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Pdb::parse(data);
});
