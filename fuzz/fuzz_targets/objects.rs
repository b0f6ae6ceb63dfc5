//! Any bytes as an object file; what is one is compared with itself.

#![no_main]

use std::sync::Arc;

use invivo_compare::Comparison;
use invivo_image::{Image, ObjectFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let files = [ObjectFile {
        label: "file.o".to_owned(),
        bytes: Arc::from(data),
    }];
    let Ok((base, fixed)) = Image::of_objects(&files, &files) else {
        return;
    };
    let _ = Comparison::new(&base, &fixed);
});
