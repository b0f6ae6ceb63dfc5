//! A hostile file among those of a patch for a program that was linked of object files: an object
//! file of either build, or the program. What can be bound is written, unless a
//! hostile relocation is in it, and read again.
//!
//! The files in `parts` are what `cc -O2 -g -fno-pie` makes of `part.c` and `rest.c`, the first one
//! with `<=` and `<` for `BEHIND`, and a program linked of it and the second one with a build id.

#![no_main]

use std::sync::Arc;

use invivo_compare::Comparison;
use invivo_format::elf;
use invivo_image::{Image, ObjectFile};
use invivo_patch::{Options, bind_to_program, plan};
use libfuzzer_sys::fuzz_target;

const PARTS: [&[u8]; 3] = [
    include_bytes!("../parts/base.o"),
    include_bytes!("../parts/fixed.o"),
    include_bytes!("../parts/program"),
];

fuzz_target!(|data: &[u8]| {
    // The first byte says which file the rest stands for.
    let Some((which, file)) = data.split_first() else {
        return;
    };
    let mut parts = PARTS;
    parts[usize::from(*which) % parts.len()] = file;
    let [base, fixed, program] = parts;
    let object = |bytes: &[u8]| {
        [ObjectFile {
            label: "part.o".to_owned(),
            bytes: Arc::from(bytes),
        }]
    };
    let Ok((base, fixed)) = Image::of_objects(&object(base), &object(fixed)) else {
        return;
    };
    let Ok(program) = Image::parse(Arc::from(program), None) else {
        return;
    };
    let comparison = Comparison::new(&base, &fixed);
    let options = Options {
        name: "patch".to_owned(),
        creator: "fuzz".to_owned(),
        file_name: "program".to_owned(),
        ..Options::default()
    };
    let Ok(planned) = plan(&comparison, &options) else {
        return;
    };
    let Ok(bound) = bind_to_program(&comparison, planned, &program) else {
        return;
    };
    // A relocation behind the end of its section is found by who writes, and refused.
    let Ok(written) = elf::write(&bound) else {
        return;
    };
    let again = elf::read(&written).expect("and read again");
    assert_eq!(again, bound);
});
