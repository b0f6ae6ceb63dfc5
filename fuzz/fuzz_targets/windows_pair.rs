//! Two hostile Windows images with their PDB file, compared: good ones with bytes of the input in them.
//! Also any bytes as an object file of a compiler for Windows.
//!
//! The files in `parts/windows` are what `clang-22 -O2 -g -gcodeview -c` makes of `shapes.c` for
//! `x86_64-pc-windows-msvc` and `i686-pc-windows-msvc`, linked by `lld-link-22 /dll /debug`.

#![no_main]

use std::sync::{Arc, Once};

use invivo_compare::Comparison;
use invivo_image::Image;
use invivo_image::pe::{HotPatchObject, Pdb, PeImage};
use libfuzzer_sys::fuzz_target;

const BUILDS: [[&[u8]; 2]; 2] = [
    [
        include_bytes!("../parts/windows/x86_64.dll"),
        include_bytes!("../parts/windows/x86_64.pdb"),
    ],
    [
        include_bytes!("../parts/windows/i686.dll"),
        include_bytes!("../parts/windows/i686.pdb"),
    ],
];

/// As in the target `pdb`: the reader turns failed assertions of its library into errors, and what it
/// lets through still ends the run.
static HOOK: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let Some((which, changes)) = data.split_first() else {
        return;
    };
    if which % 4 == 3 {
        let _ = HotPatchObject::parse(changes);
        return;
    }
    // Where, in which of the files, what.
    let [image, pdb] = BUILDS[usize::from(which % 2)];
    let (mut base, mut fixed, mut pdb) = (image.to_vec(), image.to_vec(), pdb.to_vec());
    for change in changes.chunks_exact(6).take(64) {
        let files = [&mut base, &mut fixed, &mut pdb];
        let [.., file, value] = *change else { return };
        let bytes = files.into_iter().nth(usize::from(file) % 3);
        let place: [u8; 4] = change[..4].try_into().expect("four bytes");
        if let Some(bytes) = bytes {
            let place = u32::from_le_bytes(place) as usize % bytes.len();
            bytes[place] = value;
        }
    }
    let Ok(pdb) = Pdb::parse(&pdb) else { return };
    let view = |file: Vec<u8>| {
        let image = PeImage::parse(Arc::from(file)).ok()?;
        Image::from_pe(&image, &pdb).ok()
    };
    let (Some(base), Some(fixed)) = (view(base), view(fixed)) else {
        return;
    };
    let _ = Comparison::new(&base, &fixed);
    let _ = Comparison::new(&fixed, &base);
});
