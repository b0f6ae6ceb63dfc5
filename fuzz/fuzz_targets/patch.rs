//! Any bytes as a patch or a final image: as they are, and with the digest that a forger would fill in.

#![no_main]

use invivo_format::elf::read;
use invivo_format::final_image;
use libfuzzer_sys::fuzz_target;
use object::read::{File, Object as _, ObjectSection as _};
use sha2::{Digest as _, Sha256};

fuzz_target!(|data: &[u8]| {
    let _ = read(data);
    let _ = final_image::read(data);
    let Some(forged) = seal(data) else { return };
    let _ = final_image::read(&forged);
    if let Ok(patch) = read(&forged) {
        patch
            .validate()
            .expect("a patch that is read keeps the invariants");
        invivo_format::elf::write(&patch).expect("and can be written");
    }
});

fn seal(data: &[u8]) -> Option<Vec<u8>> {
    let (start, size) = File::parse(data)
        .ok()?
        .section_by_name(".invivo.digest")?
        .file_range()?;
    let start = usize::try_from(start).ok()?;
    let place = start..start.checked_add(usize::try_from(size).ok()?)?;
    let mut file = data.to_vec();
    file.get_mut(place.clone())?.fill(0);
    let digest = Sha256::digest(&file);
    file.get_mut(place)
        .filter(|place| place.len() == digest.len())?
        .copy_from_slice(&digest);
    Some(file)
}
