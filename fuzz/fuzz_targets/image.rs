//! Any bytes as an image; what is one is compared with itself.

#![no_main]

use std::sync::Arc;

use invivo_compare::Comparison;
use invivo_image::{Image, Lsda};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(image) = Image::parse(Arc::from(data), None) else {
        return;
    };
    for lsda in &image.unwind.lsdas {
        let _ = Lsda::parse(&image, *lsda);
    }
    let _ = Comparison::new(&image, &image);
});
