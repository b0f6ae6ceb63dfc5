//! Windows files that are patched on disk: they run fixed from their first instruction, others read
//! them, and hot patches for the file before fit them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use invivo_apply::ApplyError;
use invivo_apply::hotp1::{COLD_PATCH_VALID, PatchedModule};
use invivo_compare::Comparison;
use invivo_format::hotp1::{self, ColdError, Finding, HookShape, cold, validate_cold};
use invivo_image::pe::{PeImage, checksum, directory};
use invivo_patch::FinalPlan;
use object::read::pe::PeFile64;
use object::read::{ExportTarget, NameOrOrdinal};
use object::{Object, ObjectSection};
use windows_tests::native::{Here, Mapped};
use windows_tests::{Build, Folder, Library, build, readobj};

fn library(folder: &Path, name: &str, program: &str, how: Build) -> Library {
    build(folder, name, program, &how.roomy()).expect("it is built")
}

fn plan(base: &Library, fixed: &Library) -> FinalPlan {
    let (old, new) = (base.view().expect("a view"), fixed.view().expect("a view"));
    invivo_patch::plan_cold(&Comparison::new(&old, &new)).expect("nothing is refused")
}

fn module(base: &Library, fixed: &Library, plan: &FinalPlan, shape: HookShape) -> PeImage {
    let [base, fixed] = [base, fixed].map(|library| library.image().expect("a Windows image"));
    let file = hotp1::build(&base, &fixed, plan, "target.dll", Some(shape)).expect("there is room");
    PeImage::parse(file).expect("a Windows image")
}

fn patched(base: &Library, fixed: &Library, shape: HookShape) -> PeImage {
    let plan = plan(base, fixed);
    let module = module(base, fixed, &plan, shape);
    let base = base.image().expect("a Windows image");
    let made = || {
        cold(&base, &module, Some(&plan))
            .expect("there is room")
            .file
    };
    let file = made();
    assert_eq!(file, made(), "the same input gives the same bytes");
    let image = PeImage::parse(file).expect("a Windows image");
    assert_eq!(validate_cold(&image, Some(&base)), []);
    image
}

#[test]
fn a_file_that_was_patched_runs_fixed() {
    let folder = Folder::new("cold");
    let base = library(&folder, "base", "steady", Build::base());
    let fixed = library(&folder, "fixed", "steady", Build::fixed("count,weigh"));
    for shape in HookShape::ALL {
        if shape == HookShape::Middle {
            continue;
        }
        let image = patched(&base, &fixed, shape);
        let here = Here::new().expect("a target");
        let mapped = Mapped::new(&here, image).expect("it can be mapped");
        let call = |name: &str| mapped.call(name, 5).expect("it is exported");
        assert_eq!([call("count"), call("weigh")], [81, 81], "{shape}");
        // The state is the base's, and what did not change is the base's, too.
        let state = ["get_counted", "get_weighed", "get_helped"].map(call);
        assert_eq!(state, [1, 1, 1], "{shape}");
    }
}

/// The same where the begin has no room, and a long instruction in the middle gives way.
#[test]
fn a_file_that_was_patched_in_the_middle_runs_fixed() {
    let folder = Folder::new("cold-middle");
    let plain = Build::default().with("-Os -falign-functions=1");
    let base = build(&folder, "base", "begins", &plain).expect("it is built");
    let how = Build::fixed("digits,both").with("-Os");
    let fixed = library(&folder, "fixed", "begins", how);
    let image = patched(&base, &fixed, HookShape::Middle);
    let here = Here::new().expect("a target");
    let mapped = Mapped::new(&here, image).expect("it can be mapped");
    let call = |name: &str| mapped.call(name, 5).expect("it is exported");
    assert_eq!([call("digits"), call("both")], [4000, 84]);
    assert_eq!(call("get_helped"), 1, "by the base's own function");
}

/// What only the fixed build exports is found by its name, and what both do where it was.
#[test]
fn what_is_newly_exported_is_found() {
    let folder = Folder::new("cold-exports");
    let base = library(&folder, "base", "service", Build::base());
    let more = Build::fixed("answer").with("-DEXPORTS");
    let fixed = library(&folder, "fixed", "service", more);
    let image = patched(&base, &fixed, HookShape::Short);
    let path = folder.join("patched.dll");
    std::fs::write(&path, image.file()).expect("it is written");
    let told = readobj(&["--coff-exports"], &path).expect("llvm-readobj reads it");
    assert!(told.contains("Name: get_limit"), "{told}");
    let file = PeFile64::parse(image.file()).expect("another reader");
    let others = file.exports().expect("its exports");
    let others: Vec<_> = others.collect::<Result<_, _>>().expect("its exports");
    let old = base.image().expect("a Windows image");
    let end = u64::from(old.size);
    for export in &others {
        let (NameOrOrdinal::Name(name), ExportTarget::Address { address }) =
            (export.name(), export.target())
        else {
            panic!("{export:?}")
        };
        let name = String::from_utf8_lossy(name);
        let mut known = old.exports.iter();
        let known = known.find(|one| one.names.iter().any(|known| *known == name));
        let at = address - image.image_base;
        match known {
            Some(known) => assert_eq!(known.at.map(|at| at.0), Some(at), "{name}"),
            None => assert!(name == "get_limit" && at >= end, "{name} at {at:#x}"),
        }
    }
    assert_eq!(others.len(), old.exports.len() + 1);
    let here = Here::new().expect("a target");
    let mapped = Mapped::new(&here, image).expect("it can be mapped");
    assert_eq!(mapped.call("get_limit", 0).expect("it is exported"), 9);
    // Its code was not looked at by a plan that knows of no exports.
    let (view, new) = (base.view().expect("a view"), fixed.view().expect("a view"));
    let plan = invivo_patch::plan_final(&Comparison::new(&view, &new)).expect("it is sound");
    let module = module(&base, &fixed, &plan, HookShape::Short);
    let error = cold(&old, &module, Some(&plan)).expect_err("it is not known");
    assert!(error.to_string().contains("get_limit"), "{error}");
}

#[test]
fn others_read_it_as_it_was_meant() {
    let folder = Folder::new("cold-read");
    let imports = |how: Build| how.importing(&["GetTickCount"]).with("-DIMPORTS");
    let base = library(&folder, "base", "service", imports(Build::base()));
    let fixed = library(&folder, "fixed", "service", imports(Build::fixed("answer")));
    let image = patched(&base, &fixed, HookShape::Short);
    let [base, fixed] = [base, fixed].map(|library| library.image().expect("a Windows image"));
    let path = folder.join("cold.dll");
    std::fs::write(&path, image.file()).expect("it can be written");
    let words = [
        "--file-headers",
        "--sections",
        "--coff-debug-directory",
        "--coff-basereloc",
        "--coff-imports",
        "--coff-exports",
        "--unwind",
    ];
    let told = readobj(&words, &path).expect("llvm-readobj reads it");
    for word in [".text_CP", ".idat_CP", ".DBG_POR", "GetTickCount"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let count = |word: &str| told.matches(word).count();
    assert_eq!(count("DIR64"), image.relocations.len());
    assert!(image.relocations.len() > base.relocations.len());
    // It looks for a section `.pdata`, not for the directory as Windows does.
    assert_eq!(count("RuntimeFunction {"), base.functions.len());
    let [.., last] = &image.functions[..] else {
        panic!("no unwind data")
    };
    assert_eq!(
        image.functions.len(),
        base.functions.len() + 1,
        "`answer` alone"
    );
    assert_eq!(image.section_name(last.code.start), ".text_CP");
    assert_eq!(
        image.section_name(last.unwind.expect("it has some")),
        ".idat_CP"
    );
    assert_eq!(count("Import {"), 2, "the base's and the patch's");
    assert_eq!(count("Symbol: GetTickCount"), 2);
    assert_eq!(image.imports.len(), 2);
    assert_eq!(count("Export {"), base.exports.len());
    // The rest of the file is counted by others as it is here.
    let file = PeFile64::parse(image.file()).expect("the library `object` reads it");
    let headers = file.nt_headers().optional_header;
    let value = |field: object::U32<object::LittleEndian>| field.get(object::LittleEndian);
    assert_eq!(value(headers.check_sum), image.checksum);
    let sum = checksum(image.file(), image.header_places().checksum);
    assert_eq!(image.checksum, sum);
    assert!(
        file.pdb_info().expect("it is sound").is_some(),
        "the base's own"
    );
    assert!(
        told.contains("0xA)") && told.contains("SizeOfData: 0x14"),
        "{told}"
    );
    let mark = image
        .debug
        .iter()
        .find(|entry| entry.kind == 10)
        .expect("the mark");
    let data = file.section_by_name(".DBG_POR").expect("it is there");
    let data = data
        .data_range(mark.at.0 + image.image_base, 20)
        .expect("it is in the file");
    let data = data.expect("it is there");
    assert_eq!(data[2..4], 0xd202_u16.to_le_bytes());
    assert_eq!(data[12..16], base.checksum.to_le_bytes());
    let place = mark.file_offset as usize;
    assert_eq!(&image.file()[place..place + 20], data);
    // Windows wants each section right behind the one before it.
    for pair in image.sections.windows(2) {
        let end = pair[0]
            .range
            .end
            .0
            .next_multiple_of(image.section_alignment.into());
        assert_eq!(end, pair[1].range.start.0, "{:?}", pair[1].name);
    }
    // Only pages that the loader fills can be written.
    let slots = image.imports[1].thunks[0].slot;
    let section = image.section_at(slots).expect("a section");
    assert!(
        section.is_writable() && !section.is_executable(),
        "{section:?}"
    );
    assert_eq!(
        image.imports[1].thunks[0].symbol,
        fixed.imports[0].thunks[0].symbol
    );
}

/// A hot patch for the file before is applied onto the file that was patched on disk: a jump may be
/// where a jump was put; where an address was put, nobody knows whose it is.
#[test]
fn a_hot_patch_fits_the_patched_file() {
    let folder = Folder::new("cold-hot");
    let base = library(&folder, "base", "steady", Build::base());
    let first = library(&folder, "first", "steady", Build::fixed("count,weigh"));
    let second = |name: &str, list: &str| {
        let how = format!("-DSECOND -fms-secure-hotpatch-functions-list={list}");
        library(&folder, name, "steady", Build::base().with(&how))
    };
    let (second, both) = (second("second", "count"), second("both", "count,weigh"));
    let later = plan(&base, &second);
    for (on_disk, hot, fits) in [
        (HookShape::Short, HookShape::Short, true),
        (HookShape::Jump, HookShape::Jump, true),
        (HookShape::Short, HookShape::Triple, false),
        (HookShape::Indirect, HookShape::Indirect, false),
    ] {
        let here = Here::new().expect("a target");
        let image = patched(&base, &first, on_disk);
        let target = Mapped::new(&here, image).expect("it can be mapped");
        let patch = module(&base, &second, &later, hot);
        let patch = Mapped::new(&here, patch).expect("it can be mapped");
        let (mut here, mut list) = (here, PatchedModule::new(target.loaded.clone()));
        let before = target.fixed_bytes();
        let calls = || ["count", "weigh"].map(|name| target.call(name, 5).expect("exported"));
        assert_eq!(calls(), [81, 81]);
        let done = list.apply(&mut here, &patch.loaded);
        if !fits {
            let text = done.expect_err("an address is there").to_string();
            assert!(text.contains("0xc000003e"), "{on_disk} {hot}: {text}");
            assert!(
                target.fixed_bytes() == before,
                "{on_disk} {hot}: nothing is written"
            );
            continue;
        }
        done.expect("it is for this file");
        assert_eq!(list.list()[0].flags, COLD_PATCH_VALID);
        assert_eq!(calls(), [82, 81], "{on_disk} {hot}: the later fix");
        list.remove(&mut here, patch.loaded.at)
            .expect("it is active");
        assert_eq!(calls(), [81, 81], "{on_disk} {hot}: as on disk");
        assert!(
            target.fixed_bytes() == before,
            "{on_disk} {hot}: byte for byte"
        );
        // Each call was counted once, by whoever answered it.
        assert_eq!(target.call("get_counted", 0).expect("exported"), 3);
    }
    // One for another file is not taken for one that fits.
    let here = Here::new().expect("a target");
    let image = patched(&base, &first, HookShape::Short);
    let target = Mapped::new(&here, image).expect("it can be mapped");
    let other = plan(&first, &both);
    let patch = module(&first, &both, &other, HookShape::Short);
    let patch = Mapped::new(&here, patch).expect("it can be mapped");
    let list = PatchedModule::new(target.loaded.clone());
    let refused = list
        .preflight(&here, &patch.loaded)
        .expect_err("another file");
    assert!(matches!(&refused, ApplyError::Refused(_)), "{refused}");
    assert!(refused.to_string().contains("0xc0000059"), "{refused}");
}

/// What is not the base but for the patch is told, and what cannot be patched so is refused.
#[test]
fn what_is_something_else_is_refused() {
    let folder = Folder::new("cold-refused");
    let base = library(&folder, "base", "steady", Build::base());
    let fixed = library(&folder, "fixed", "steady", Build::fixed("count,weigh"));
    let image = patched(&base, &fixed, HookShape::Short);
    let (plan, base_image) = (plan(&base, &fixed), base.image().expect("a Windows image"));
    let section = |name: &str| {
        let mut sections = image.sections.iter();
        let found = sections.find(|s| s.name == name).expect("it is there");
        found.file_start().expect("in the file")
    };
    let mark = image
        .debug
        .iter()
        .find(|entry| entry.kind == 10)
        .expect("the mark");
    let mark = mark.file_offset as usize;
    let mut forged: Vec<(&str, usize, u8)> = vec![
        ("no hook", section(".rdata") + 0x40, 0x55),
        ("other signature", mark + 2, 1),
        ("another file", mark + 12, 0x55),
    ];
    let entry = image.header_places().section_table;
    forged.push(("another section of the base", entry, b'x'));
    for (what, at, value) in forged {
        let mut file = image.file().to_vec();
        file[at] ^= value;
        let place = image.header_places().checksum;
        let sum = checksum(&file, place);
        file[place..place + 4].copy_from_slice(&sum.to_le_bytes());
        let forged = PeImage::parse(Arc::from(file)).expect("a Windows image");
        let found = validate_cold(&forged, Some(&base_image));
        assert!(!found.is_empty(), "{what}");
    }
    let mut file = image.file().to_vec();
    file[0x50] ^= 1;
    let forged = PeImage::parse(Arc::from(file)).expect("a Windows image");
    assert_eq!(
        validate_cold(&forged, Some(&base_image)).len(),
        1,
        "the checksum"
    );

    let module = module(&base, &fixed, &plan, HookShape::Short);
    let again = cold(&image, &module, Some(&plan)).expect_err("it was patched already");
    assert!(
        again.to_string().contains("patched on disk already"),
        "{again}"
    );
    let other = cold(&module, &module, None).expect_err("not its target");
    assert!(other.to_string().contains("breaks 3 rules"), "{other}");
    let none = cold(&base_image, &base_image, None).expect_err("no patch module");
    assert!(none.to_string().contains("no section .hotp1"), "{none}");
    let guarded = {
        let mut file = base_image.file().to_vec();
        let flags = base_image.header_places().checksum + 6;
        file[flags + 1] |= 0x40;
        PeImage::parse(Arc::from(file)).expect("a Windows image")
    };
    let guard = cold(&guarded, &module, None).expect_err("control-flow guard");
    assert!(guard.to_string().contains("control-flow guard"), "{guard}");
}

/// Broken files are refused before anything is made of them, with the place in what was given.
#[test]
fn broken_files_are_refused_by_their_place() {
    let folder = Folder::new("cold-broken");
    // Both functions call something, and so have unwind data.
    let how = |how: Build| how.with("-Os -DINSIDE");
    let base = library(&folder, "base", "begins", how(Build::base()));
    let fixed = library(&folder, "fixed", "begins", how(Build::fixed("digits,both")));
    let plan = plan(&base, &fixed);
    let module = module(&base, &fixed, &plan, HookShape::Short);
    let base = base.image().expect("a Windows image");
    let forge = |image: &PeImage, at: invivo_image::Rva, words: &[u32]| {
        let mut file = image.file().to_vec();
        let start = image.file_place(at).expect("in the file").start;
        for (place, word) in (start..).step_by(4).zip(words) {
            file[place..place + 4].copy_from_slice(&word.to_le_bytes());
        }
        PeImage::parse(Arc::from(file)).expect("a Windows image")
    };
    let refused = |base: &PeImage, module: &PeImage, plan: Option<&FinalPlan>, words: &[&str]| {
        let error = cold(base, module, plan).expect_err("it is broken");
        assert!(matches!(error, ColdError::Image(_)), "{error:?}");
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    };
    // The second name is the first one again.
    let table = |image: &PeImage, index| image.directory(index).expect("it is there").at;
    let exports = table(&base, directory::EXPORT);
    let names = base
        .word(invivo_image::Rva(exports.0 + 32))
        .expect("a table");
    let names = invivo_image::Rva(names.into());
    let first = base.word(names).expect("a name");
    let twice = forge(&base, invivo_image::Rva(names.0 + 4), &[first]);
    for plan in [None, Some(&plan)] {
        refused(
            &twice,
            &module,
            plan,
            &["the base exports", "twice, as numbers", "/export"],
        );
    }
    // Two entries change their places.
    let unwind = table(&base, directory::EXCEPTION);
    let entry = |number: u64| -> Vec<u32> {
        let words = (0..3).map(|word| unwind.0 + 12 * number + 4 * word);
        let words = words.map(|at| base.word(invivo_image::Rva(at)));
        words.map(|word| word.expect("an entry")).collect()
    };
    let swapped = [entry(1), entry(0)].concat();
    let swapped = forge(&base, unwind, &swapped);
    refused(
        &swapped,
        &module,
        None,
        &["of the base is not in order", "link it again"],
    );
    // An entry about what is behind all that is carried.
    let unwind = table(&module, directory::EXCEPTION);
    let last = module.functions.len() as u64 - 1;
    let behind = forge(
        &module,
        invivo_image::Rva(unwind.0 + 12 * last),
        &[module.size - 16, module.size],
    );
    refused(
        &base,
        &behind,
        None,
        &["an entry for", "do not all come into the new file"],
    );
}

/// Whether all that is wrong with a patched file is a place that no hook accounts for.
fn is_no_hook(findings: &[Finding]) -> bool {
    let mut all = findings.iter();
    all.all(|finding| finding.to_string().contains("and no hook"))
}

/// Whatever stands in either file, what comes of it is a patched file or a refusal that names a place in
/// what was given, and never one of what was made.
#[test]
fn any_word_of_either_file_may_be_anything() {
    let folder = Folder::new("cold-hostile");
    let imports = |how: Build| how.importing(&["GetTickCount"]).with("-DIMPORTS");
    let base = library(&folder, "base", "service", imports(Build::base()));
    let fixed = library(&folder, "fixed", "service", imports(Build::fixed("answer")));
    let plan = plan(&base, &fixed);
    let module = module(&base, &fixed, &plan, HookShape::Triple);
    let base = base.image().expect("a Windows image");
    let both = [&base, &module];
    for (which, file) in ["base", "module"].into_iter().zip(both) {
        let (mut made, mut refused, mut broken) = (0, 0, BTreeSet::new());
        for at in (0..file.file().len()).step_by(4) {
            for value in [0, 1, 0xffff_fff0, 0x7fff_ffff, 0x2000] {
                let mut bytes = file.file().to_vec();
                let word: u32 = value;
                bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
                let Ok(forged) = PeImage::parse(Arc::from(bytes)) else {
                    continue;
                };
                let [base, module] = match which {
                    "base" => [&forged, &module],
                    _ => [&base, &forged],
                };
                for plan in [None, Some(&plan)] {
                    match cold(base, module, plan) {
                        Ok(_) => made += 1,
                        // What is written over code without a jump to it, because the hook that
                        // was the jump says now that it is none, is seen in the result alone; the
                        // place that is named is one of the base.
                        Err(ColdError::Result(told)) if is_no_hook(&told) => refused += 1,
                        // A file that nobody can read, or that is not what it should be.
                        Err(error @ (ColdError::Unreadable(_) | ColdError::Result(_))) => {
                            broken.insert(format!("{value:#x} at {at:#x}: {error}"));
                        }
                        Err(_) => refused += 1,
                    }
                }
            }
        }
        assert!(broken.is_empty(), "{which}: {broken:#?}");
        assert!(
            made > 100 && refused > 100,
            "{which}: {made} made, {refused} refused"
        );
    }
}
