//! Any bytes as a Windows image with hot-patch metadata, or as a patch module of older Windows; as metadata
//! alone; and what can be read is written again, and comes back.

#![no_main]

#[path = "../../crates/format/tests/scene/mod.rs"]
mod scene;

use std::sync::Arc;

use invivo_format::hpat::{Options, place, read, read_metadata, validate, write};
use invivo_format::{final_image, hotp1};
use invivo_image::pe::{PeImage, PeMachine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(parsed) = read_metadata(data)
        && let Ok(written) = write(&parsed.patch)
    {
        let again = read_metadata(&written).expect("what is written can be read");
        assert_eq!(again.patch, parsed.patch);
    }
    let Ok(image) = PeImage::parse(Arc::from(data)) else {
        return;
    };
    if let Ok(Some(legacy)) = hotp1::read(&image) {
        let _ = hotp1::validate(&image, &legacy, Some(&image));
        let written = hotp1::write(&legacy, image.machine, 0x1000);
        let written = written.expect("what is read can be written");
        let module = module(image.machine, written);
        assert_eq!(hotp1::read(&module), Ok(Some(legacy)));
        let _ = hotp1::cold(&image, &image, None);
    }
    let _ = hotp1::validate_cold(&image, Some(&image));
    let _ = final_image::read(data);
    let options = Options {
        base: Some(&image),
        capacity: None,
    };
    let _ = validate(&image, &options);
    let Ok(parsed) = read(&image) else {
        return;
    };
    // The same metadata in a copy whose configuration names none yet.
    let mut file = data.to_vec();
    let field = image
        .load_config
        .and_then(|config| image.file_place(config.hot_patch_field(image.machine)));
    if let Some(place) = field.and_then(|place| file.get_mut(place.start..place.start + 4)) {
        place.fill(0);
    }
    if let Ok(bare) = PeImage::parse(file.into())
        && let Ok(placed) = place(&bare, &parsed.patch)
    {
        let made = PeImage::parse(placed.file).expect("what is placed can be read");
        assert_eq!(read(&made).expect("with its metadata").patch, parsed.patch);
    }
});

/// A module that has nothing but this section.
fn module(machine: PeMachine, section: Vec<u8>) -> PeImage {
    let size = u32::try_from(section.len()).expect("no larger than a few inputs");
    let recipe = scene::Recipe {
        wide: machine != PeMachine::I386,
        parts: vec![(hotp1::SECTION, 0x1000, section, 0x4000_0040)],
        directories: Vec::new(),
        image_size: 0x1000 + size.next_multiple_of(0x1000),
    };
    scene::parse(&recipe.file())
}
