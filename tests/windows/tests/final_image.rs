//! Real images are read as others read them, and a final image is one that
//! others can read.

use invivo_format::hpat::{
    Base, Chunk, ChunkKind, HotPatch, Options, Record, Weight, base_flags, place, read, validate,
};
use invivo_image::pe::{Pdb, PeImage, PeMachine, checksum};
use invivo_image::{Image, Rva};
use windows_tests::{Build, Folder, Library, build, final_image, readobj};

fn pair(folder: &Folder) -> (Library, Library) {
    let base = build(folder, "base", "service", &Build::base()).expect("the base is built");
    let fixed = Build::fixed("answer");
    let fixed = build(folder, "fixed", "service", &fixed).expect("the fixed one is built");
    (base, fixed)
}

/// A number that another reader prints after `name: `.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
    let value = line.and_then(|rest| rest.strip_prefix(": ")).expect(name);
    let value = value.split_whitespace().next_back().expect("a value");
    let value = value.trim_matches(|c| c == '(' || c == ')');
    match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).expect(name),
        None => value.parse().expect(name),
    }
}

#[test]
fn an_image_is_read_as_others_read_it() {
    let folder = Folder::new("read");
    let (base, _) = pair(&folder);
    let image = base.image().expect("a Windows image");
    let told = readobj(
        &[
            "--file-headers",
            "--coff-load-config",
            "--coff-exports",
            "--coff-basereloc",
            "--unwind",
        ],
        &base.path,
    );
    let told = told.expect("llvm-readobj reads it");
    assert_eq!(image.machine, PeMachine::Amd64);
    assert_eq!(u64::from(image.time_stamp), number(&told, "TimeDateStamp"));
    assert_eq!(u64::from(image.checksum), number(&told, "CheckSum"));
    assert_eq!(u64::from(image.size), number(&told, "SizeOfImage"));
    assert_eq!(image.entry_point.0, number(&told, "AddressOfEntryPoint"));
    assert_eq!(image.sections.len() as u64, number(&told, "SectionCount"));
    let exports: Vec<&str> = image
        .exports
        .iter()
        .flat_map(|e| &e.names)
        .map(String::as_str)
        .collect();
    for name in ["answer", "callback", "get_total"] {
        assert!(
            exports.contains(&name) && told.contains(&format!("Name: {name}")),
            "{name}"
        );
    }
    let relocations = told.matches("Type: DIR64").count();
    assert_eq!(image.relocations.len(), relocations);
    assert_eq!(
        image.functions.len(),
        told.matches("RuntimeFunction {").count()
    );
    assert_eq!(image.load_config.expect("it has one").size, 0x140);
    assert!(image.is_hot_patch_compatible());
    assert_eq!(
        image.checksum,
        checksum(image.file(), image.header_places().checksum)
    );
    let view = image.code_view().expect("it names its PDB");
    assert_eq!(view.path, "service.pdb");
}

#[test]
fn other_machines_are_read_too() {
    for (target, machine, code) in [
        ("aarch64-windows-msvc", PeMachine::Arm64, "0xAA64"),
        ("i686-windows-msvc", PeMachine::I386, "0x14C"),
    ] {
        let how = Build {
            compile: vec![format!("--target={target}")],
            ..Build::default()
        };
        let folder = Folder::new(target);
        let library = build(&folder, "base", "service", &how).expect("it is built");
        let image = library.image().expect("a Windows image");
        let told = readobj(
            &["--file-headers", "--coff-exports", "--coff-basereloc"],
            &library.path,
        );
        let told = told.expect("llvm-readobj reads it");
        assert_eq!(image.machine, machine);
        assert!(told.contains(code), "{told}");
        assert_eq!(u64::from(image.size), number(&told, "SizeOfImage"));
        assert_eq!(image.exports.len(), told.matches("Export {").count());
        let pointers = told.matches("Type: DIR64").count() + told.matches("Type: HIGHLOW").count();
        assert_eq!(image.relocations.len(), pointers);
        // They can be compared, too.
        let pdb = Pdb::parse(&std::fs::read(&library.pdb).expect("a PDB file"));
        let view = Image::from_pe(&image, &pdb.expect("a PDB file")).expect("read");
        assert_eq!(view.machine.name(), machine.name());
    }
}

fn export(image: &PeImage, name: &str) -> u32 {
    let mut exports = image.exports.iter();
    let found = exports.find(|export| export.names.iter().any(|known| known == name));
    let at = found.and_then(|export| export.at).expect(name);
    u32::try_from(at.0).expect("an RVA")
}

#[test]
fn a_final_image_is_sound_and_others_read_it() {
    let folder = Folder::new("placed");
    let (base, fixed) = pair(&folder);
    let (base, fixed_image) = (base.image().expect("read"), fixed.image().expect("read"));
    let (old, new) = (export(&base, "answer"), export(&fixed_image, "answer"));
    let expected: [u8; 4] = base.array(Rva(old.into())).expect("code");
    let record = Record {
        source: old,
        target: new,
        extra: vec![u32::from_le_bytes(expected)],
    };
    let patch = HotPatch {
        version: 4,
        sequence: 1,
        extra_words: 1,
        bases: vec![Base {
            sequence: 1,
            flags: base_flags::AMD64,
            time_stamp: base.time_stamp,
            checksum: base.checksum,
            chunks: vec![Chunk::new(false, ChunkKind::Function, vec![record])],
            ..Base::default()
        }],
        ..HotPatch::default()
    };
    let placed = place(&fixed_image, &patch).expect("there is room");
    let path = fixed.path.with_file_name("service_hotpatch.dll");
    std::fs::write(&path, &placed.file).expect("it can be written");
    let made = PeImage::parse(placed.file.clone()).expect("a Windows image");
    assert_eq!(read(&made).expect("it has metadata").patch, patch);
    let options = Options {
        base: Some(&base),
        capacity: None,
    };
    let report = validate(&made, &options);
    let refused = report
        .findings
        .iter()
        .find(|found| found.weight == Weight::Refused);
    assert_eq!(
        refused, None,
        "a compiler's own padding and alignment are good enough"
    );

    let told = readobj(
        &["--file-headers", "--sections", "--coff-load-config"],
        &path,
    );
    let told = told.expect("llvm-readobj reads it");
    assert_eq!(u64::from(made.checksum), number(&told, "CheckSum"));
    assert_eq!(u64::from(made.size), number(&told, "SizeOfImage"));
    assert!(told.contains(".hpat"), "{told}");
    assert_eq!(placed.at.0, number(&told, "HotPatchTableOffset"));
}

#[test]
fn an_image_that_was_not_made_for_it_is_known() {
    let folder = Folder::new("plain");
    let plain = build(&folder, "base", "service", &Build::default());
    let image = plain
        .expect("it is built")
        .image()
        .expect("a Windows image");
    assert!(!image.is_hot_patch_compatible());
}

/// The same two builds make the same file, whoever makes it.
#[test]
fn the_same_builds_make_the_same_file() {
    let folder = Folder::new("same");
    let (base, fixed) = pair(&folder);
    let made = || final_image(&base, &fixed, 3).expect("nothing stands in the way");
    let first = made();
    assert_eq!(first.machine, PeMachine::Amd64);
    assert!(
        first.file() == made().file(),
        "the same input gives the same bytes"
    );
    let other = final_image(&base, &fixed, 4).expect("nothing stands in the way");
    assert!(
        first.file() != other.file(),
        "another sequence is another file"
    );
}
