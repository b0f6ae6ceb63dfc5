//! Any bytes as a Windows image with hot-patch metadata; as metadata alone; and what can be
//! read is written again.

#![no_main]

use std::sync::Arc;

use invivo_format::hpat::{Options, place, read, read_metadata, validate, write};
use invivo_format::{final_image, hotp1};
use invivo_image::pe::PeImage;
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
        written.expect("what is read can be written");
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
