//! A hostile file among those of one build whose debug data are in files of their own: the image, its
//! debug file, what the compiler left outside (`.dwo`), or a package of such files (`.dwp`).
//!
//! The files in `parts/attached` are what `gcc -O2 -g -nostdlib -static -no-pie -Wl,--build-id` makes of
//! `debugged.c`: parted by `objcopy`, and once with `-gsplit-dwarf`; `llvm-dwp` made the package.

#![no_main]

use std::sync::Arc;

use invivo_compare::Comparison;
use invivo_image::{DebugSections, Image};
use libfuzzer_sys::fuzz_target;

const IMAGE: &[u8] = include_bytes!("../parts/attached/image");
const DEBUG: &[u8] = include_bytes!("../parts/attached/debug");
const SKELETON: &[u8] = include_bytes!("../parts/attached/skeleton");
const OUTSIDE: &[u8] = include_bytes!("../parts/attached/debugged.dwo");

fuzz_target!(|data: &[u8]| {
    // The first byte says which file the rest stands for.
    let Some((which, file)) = data.split_first() else {
        return;
    };
    let (image, attached) = match which % 5 {
        0 => (file, DEBUG),
        1 => (IMAGE, file),
        2 => (file, OUTSIDE),
        _ => (SKELETON, file),
    };
    let Ok(mut image) = Image::parse(Arc::from(image), None) else {
        return;
    };
    let _ = image.debug_link();
    let _ = image.supplementary_link();
    let attached: Arc<[u8]> = Arc::from(attached);
    if which % 5 < 2 {
        let _ = image.attach_debug(Arc::clone(&attached));
        let _ = image.attach_supplementary(attached);
    } else if let Ok(missing) = image.missing_split_units() {
        let _ = image.attach_split(attached, &missing);
        let _ = image.missing_split_units();
    }
    if let Ok(Some(sections)) = DebugSections::of(&image)
        && let Ok(debug) = sections.open()
    {
        for entity in image.entities.iter().take(100) {
            let _ = debug.place_of(entity.addr);
            let _ = debug.compiled_at(entity.addr);
            let _ = debug.function(entity.addr);
        }
    }
    let _ = Comparison::new(&image, &image);
});
