//! A Windows file and a patch module for it, each with bytes of the input in it, made one file: its
//! exports, imports, relocations and unwind data are written anew from both.

#![no_main]

use std::sync::Arc;

use invivo_format::hotp1::cold;
use invivo_image::pe::PeImage;
use invivo_patch::FinalPlan;
use libfuzzer_sys::fuzz_target;

/// The service of the tests of Windows images, which imports a function, and the module that its fixed
/// build becomes, which exports one more.
const FILES: [&[u8]; 2] = [
    include_bytes!("../parts/service.dll"),
    include_bytes!("../parts/fix.dll"),
];

fuzz_target!(|data: &[u8]| {
    let mut files = FILES.map(<[u8]>::to_vec);
    for change in data.chunks_exact(5) {
        let place: [u8; 4] = change[..4].try_into().expect("four bytes");
        let place = u32::from_le_bytes(place) as usize;
        let file = &mut files[place & 1];
        let place = (place >> 1) % file.len();
        file[place] = change[4];
    }
    let images = files.map(|file| PeImage::parse(Arc::from(file)));
    let [Ok(base), Ok(module)] = images else {
        return;
    };
    // As if all of the module's code were known to run.
    let code = module.sections.iter().filter(|s| s.is_executable());
    let plan = FinalPlan {
        code: code.map(|section| section.range.clone()).collect(),
        ..FinalPlan::default()
    };
    for plan in [None, Some(&plan)] {
        let made = cold(&base, &module, plan);
        // What is made of broken files is held against the rules, and is not made where it breaks one.
        assert!(
            plan.is_some() || !data.is_empty() || made.is_ok(),
            "the files as they are"
        );
    }
});
