//! Readers of others see in a final image what they see in the fixed build, and, where it differs,
//! what we say: every field that they know is held against ours.

use std::collections::BTreeMap;
use std::path::PathBuf;

use invivo_format::hpat::{
    self, Base, Chunk, ChunkKind, HotPatch, Options, Record, place, validate,
};
use invivo_image::Rva;
use invivo_image::pe::{PeImage, PeMachine};
use object::LittleEndian as LE;
use object::read::pe::{ImageNtHeaders, PeFile64};
use object::read::{Object, ObjectSection};
use windows_tests::{Build, Folder, Library, build, final_image, readobj};

/// All that llvm-readobj tells of an image.
const ALL: [&str; 10] = [
    "--file-headers",
    "--sections",
    "--coff-load-config",
    "--coff-exports",
    "--coff-imports",
    "--coff-basereloc",
    "--coff-debug-directory",
    "--coff-tls-directory",
    "--coff-resources",
    "--unwind",
];

/// What llvm-readobj prints as names with values: blocks are part of the names, and what comes
/// more than once is numbered.
fn fields(text: &str) -> BTreeMap<String, String> {
    let (mut found, mut blocks) = (BTreeMap::new(), Vec::<String>::new());
    let mut counts = BTreeMap::<String, usize>::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if matches!(line, "}" | "]" | ")") {
            blocks.pop();
            continue;
        }
        let opens = line.contains(" {") || line.contains(" [");
        let cut = if opens { [" {", " ["] } else { [": ", " ("] };
        let at = cut.iter().filter_map(|cut| line.find(cut)).min();
        let (name, value) = line.split_at(at.unwrap_or(line.len()));
        let path = format!("{}/{name}", blocks.last().cloned().unwrap_or_default());
        let count = counts.entry(path.clone()).or_default();
        *count += 1;
        let path = match *count {
            1 => path,
            more => format!("{path}#{more}"),
        };
        let closes = line.ends_with(['}', ']']);
        found.insert(path.clone(), value.to_owned());
        if opens && !closes {
            blocks.push(path);
        }
    }
    found.remove("/File");
    found
}

/// The number that stands in a field.
fn value(fields: &BTreeMap<String, String>, name: &str) -> u64 {
    let text = fields.get(name).expect(name);
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let last = words.rfind(|word| !word.is_empty()).expect(name);
    match last.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).expect(name),
        None => last.parse().expect(name),
    }
}

fn told(path: &std::path::Path) -> BTreeMap<String, String> {
    fields(&readobj(&ALL, path).expect("llvm-readobj reads it"))
}

/// Two builds, and the final image as a file.
fn story(folder: &Folder) -> (Library, Library, PathBuf, PeImage) {
    let base = build(folder, "base", "service", &Build::base()).expect("built");
    let fixed = build(folder, "fixed", "service", &Build::fixed("answer")).expect("built");
    let made = final_image(&base, &fixed, 7).expect("nothing stands in the way");
    let path = fixed.path.with_file_name("service_hotpatch.dll");
    std::fs::write(&path, made.file()).expect("it can be written");
    (base, fixed, path, made)
}

#[test]
fn every_field_that_llvm_prints() {
    let folder = Folder::new("every-field");
    let (_, fixed, path, made) = story(&folder);
    let (before, after) = (told(&fixed.path), told(&path));
    assert!(before.len() > 300, "{} fields", before.len());

    // What it prints of the fixed build stays, but for these, of which ours is right.
    let metadata = made.load_config.and_then(|config| config.hot_patch);
    let metadata = metadata.expect("it has metadata").0;
    let changed = [
        ("/ImageFileHeader/SectionCount", made.sections.len() as u64),
        ("/ImageOptionalHeader/SizeOfImage", made.size.into()),
        ("/ImageOptionalHeader/CheckSum", made.checksum.into()),
        ("/LoadConfig/HotPatchTableOffset", metadata),
    ];
    let added = made.sections.last().expect("it has sections");
    let size = added.range.end.0 - added.range.start.0;
    let start = made
        .file_place(added.range.start)
        .expect("it is in the file")
        .start;
    for (name, old) in &before {
        let new = after.get(name).unwrap_or_else(|| panic!("{name} is gone"));
        match changed.iter().find(|(changed, _)| changed == name) {
            Some((_, ours)) => {
                assert_ne!(old, new, "{name}");
                assert_eq!(value(&after, name), *ours, "{name}");
            }
            None if name == "/ImageOptionalHeader/SizeOfInitializedData" => {
                let grown = value(&after, name) - value(&before, name);
                assert_eq!(grown, added.file_size(), "{name}");
            }
            None => assert_eq!(old, new, "{name}"),
        }
    }
    // What is new is the section, every field of which is ours.
    let block = format!("/Sections/Section#{}", made.sections.len());
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        assert!(name.starts_with(&block), "{name}");
    }
    let ours = [
        ("Number", made.sections.len() as u64),
        ("VirtualSize", size),
        ("VirtualAddress", added.range.start.0),
        ("RawDataSize", added.file_size()),
        ("PointerToRawData", start as u64),
        ("PointerToRelocations", 0),
        ("PointerToLineNumbers", 0),
        ("RelocationCount", 0),
        ("LineNumberCount", 0),
    ];
    for (field, ours) in ours {
        assert_eq!(value(&after, &format!("{block}/{field}")), ours, "{field}");
    }
    assert!(after[&format!("{block}/Name")].contains(".hpat"));
    let flags = &after[&format!("{block}/Characteristics")];
    assert!(flags.contains("0x40000040"), "{flags}");
}

/// What is read of any image is what llvm-readobj prints of it.
#[test]
fn every_field_that_is_read() {
    let folder = Folder::new("fields-read");
    let guarded = Build::base().guarded();
    for library in [
        build(&folder, "plain", "service", &Build::base()).expect("built"),
        build(&folder, "guarded", "guarded", &guarded).expect("built"),
    ] {
        let (image, told) = (library.image().expect("read"), told(&library.path));
        let header = |name: &str| value(&told, &format!("/ImageOptionalHeader/{name}"));
        assert_eq!(image.image_base, header("ImageBase"));
        assert_eq!(u64::from(image.size), header("SizeOfImage"));
        assert_eq!(u64::from(image.headers_size), header("SizeOfHeaders"));
        assert_eq!(
            u64::from(image.section_alignment),
            header("SectionAlignment")
        );
        assert_eq!(u64::from(image.file_alignment), header("FileAlignment"));
        assert_eq!(image.entry_point.0, header("AddressOfEntryPoint"));
        assert_eq!(u64::from(image.checksum), header("CheckSum"));
        let flags = &told["/ImageOptionalHeader/Characteristics"];
        assert!(
            flags.contains(&format!("0x{:X}", image.dll_characteristics)),
            "{flags}"
        );
        let directories = [
            "ExportTable",
            "ImportTable",
            "ResourceTable",
            "ExceptionTable",
            "CertificateTable",
            "BaseRelocationTable",
            "Debug",
            "Architecture",
            "GlobalPtr",
            "TLSTable",
            "LoadConfigTable",
            "BoundImport",
            "IAT",
            "DelayImportDescriptor",
            "CLRRuntimeHeader",
        ];
        for (name, ours) in directories.iter().zip(&image.directories) {
            let field = |what: &str| {
                value(
                    &told,
                    &format!("/ImageOptionalHeader/DataDirectory/{name}{what}"),
                )
            };
            assert_eq!(ours.at.0, field("RVA"), "{name}");
            assert_eq!(u64::from(ours.size), field("Size"), "{name}");
        }
        for (number, section) in image.sections.iter().enumerate() {
            let block = match number {
                0 => "/Sections/Section".to_owned(),
                more => format!("/Sections/Section#{}", more + 1),
            };
            let field = |name: &str| value(&told, &format!("{block}/{name}"));
            let name = &told[&format!("{block}/Name")];
            assert!(name.contains(&section.name), "{name}");
            assert_eq!(section.range.start.0, field("VirtualAddress"));
            let size = section.range.end.0 - section.range.start.0;
            assert_eq!(size, field("VirtualSize"), "{name}");
            let flags = &told[&format!("{block}/Characteristics")];
            assert!(flags.contains(&format!("0x{:X}", section.flags)), "{flags}");
        }
        let config = image.load_config.expect("it has one");
        let field = |name: &str| value(&told, &format!("/LoadConfig/{name}"));
        assert_eq!(u64::from(config.size), field("Size"));
        assert_eq!(config.guard_table, field("GuardCFFunctionTable"));
        assert_eq!(config.guard_count, field("GuardCFFunctionCount"));
        assert_eq!(u64::from(config.guard_flags), field("GuardFlags"));
        assert_eq!(config.chpe, field("CHPEMetadataPointer"));
        assert_eq!(config.hot_patch, Some(Rva(field("HotPatchTableOffset"))));
        let listed: Vec<u64> = told
            .keys()
            .filter_map(|name| name.strip_prefix("/GuardFidTable/0x"))
            .map(|hex| u64::from_str_radix(hex, 16).expect("an address") - image.image_base)
            .collect();
        let targets = image.guard_targets().expect("a table");
        let targets: Vec<u64> = targets.iter().map(|target| target.at.0).collect();
        assert_eq!(targets, listed);
        assert_eq!(targets.len() as u64, config.guard_count);
    }
}

/// The same for the crate `object`: all that it reads of the fixed build is in the final image.
#[test]
fn what_the_crate_object_reads() {
    let folder = Folder::new("object");
    let (_, fixed, _, made) = story(&folder);
    let old = std::fs::read(&fixed.path).expect("a file");
    let old = PeFile64::parse(&*old).expect("object reads it");
    let new = PeFile64::parse(made.file()).expect("object reads it");
    let optional = new.nt_headers().optional_header();
    assert_eq!(optional.size_of_image.get(LE), made.size);
    assert_eq!(optional.check_sum.get(LE), made.checksum);
    assert_eq!(new.entry(), old.entry());
    for (number, (one, other)) in old
        .data_directories()
        .iter()
        .zip(new.data_directories().iter())
        .enumerate()
    {
        let place =
            |one: &object::pe::ImageDataDirectory| (one.virtual_address.get(LE), one.size.get(LE));
        assert_eq!(place(one), place(other), "directory {number}");
    }
    let config = made.load_config.expect("it has one");
    let field = config.hot_patch_field(PeMachine::Amd64).0 - config.directory.at.0;
    let field = usize::try_from(field).expect("a place");
    let mut theirs = new.sections();
    for section in old.sections() {
        let same = theirs.next().expect("as many");
        assert_eq!(
            section.name().expect("a name"),
            same.name().expect("a name")
        );
        assert_eq!(
            (section.address(), section.size()),
            (same.address(), same.size())
        );
        let (one, mut other) = (
            section.data().expect("bytes"),
            same.data().expect("bytes").to_vec(),
        );
        let start = section.address() - made.image_base;
        if let Some(at) = config.directory.at.0.checked_sub(start)
            && at < section.size()
        {
            let at = usize::try_from(at).expect("a place") + field;
            assert_eq!(
                other[at..at + 4],
                config.hot_patch.expect("set").0.to_le_bytes()[..4]
            );
            other[at..at + 4].fill(0);
        }
        assert!(
            *one == other,
            "the bytes of {:?} are the same",
            section.name()
        );
    }
    let hpat = theirs.next().expect("one more");
    assert_eq!(hpat.name().expect("a name"), ".hpat");
    let at = Rva(hpat.address() - made.image_base);
    assert_eq!(config.hot_patch, Some(at));
    assert!(theirs.next().is_none());
    let exports = |file: &PeFile64| {
        let all = file.exports().expect("exports");
        all.map(|one| one.expect("an export"))
            .map(|one| format!("{one:?}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(exports(&old), exports(&new));
    assert!(!exports(&new).is_empty());
    let relocations = |file: &PeFile64| {
        let blocks = file
            .data_directories()
            .relocation_blocks(file.data(), &file.section_table());
        let mut blocks = blocks.expect("a table").expect("a table");
        let mut all = Vec::new();
        while let Some(block) = blocks.next().expect("a block") {
            all.extend(block.map(|one| (one.virtual_address, one.typ)));
        }
        all
    };
    assert_eq!(relocations(&old), relocations(&new));
    assert_eq!(relocations(&new).len(), made.relocations.len());
}

/// x86 and ARM64: metadata are written and held against every rule. Nothing of them is run.
#[test]
fn metadata_of_other_machines() {
    for (target, machine) in [
        ("i686-windows-msvc", PeMachine::I386),
        ("aarch64-windows-msvc", PeMachine::Arm64),
    ] {
        let folder = Folder::new(&format!("metadata-{target}"));
        let target = format!("--target={target}");
        let library = |name: &str, how: Build| {
            build(&folder, name, "service", &how.with(&target)).expect("it is built")
        };
        let base = library("base", Build::base());
        let fixed = library("fixed", Build::base().with("-DFIXED"));
        let (base, image) = (base.image().expect("read"), fixed.image().expect("read"));
        assert_eq!(image.machine, machine);
        let export = |image: &PeImage, name: &str| {
            let mut exports = image.exports.iter();
            let found = exports.find(|export| export.names.iter().any(|known| known == name));
            let at = found.and_then(|export| export.at).expect(name);
            u32::try_from(at.0).expect("an RVA")
        };
        let expected = |image: &PeImage, at: u32| {
            u32::from_le_bytes(image.array(Rva(at.into())).expect("code"))
        };
        let function = |from: &PeImage, to: &PeImage, name: &str| {
            let source = export(from, name);
            Record {
                source,
                target: export(to, name),
                extra: vec![expected(from, source)],
            }
        };
        let variable = Record {
            source: export(&image, "callback"),
            target: export(&base, "callback"),
            extra: vec![0],
        };
        let patch = HotPatch {
            version: 4,
            sequence: 3,
            extra_words: 1,
            bases: vec![Base {
                sequence: 3,
                flags: hpat::machine_flag(machine),
                time_stamp: base.time_stamp,
                checksum: base.checksum,
                chunks: vec![
                    Chunk::new(
                        true,
                        ChunkKind::Function,
                        vec![function(&image, &base, "halve")],
                    ),
                    Chunk::new(true, ChunkKind::Absolute, vec![variable]),
                    Chunk::new(
                        false,
                        ChunkKind::Function,
                        vec![function(&base, &image, "answer")],
                    ),
                ],
                ..Base::default()
            }],
            ..HotPatch::default()
        };
        let options = Options {
            base: Some(&base),
            capacity: None,
        };
        let placed = place(&image, &patch).expect("there is room");
        let again = place(&image, &patch).expect("there is room");
        assert!(
            placed.file == again.file,
            "the same input gives the same bytes"
        );
        let made = PeImage::parse(placed.file.clone()).expect("a Windows image");
        assert_eq!(hpat::read(&made).expect("it has metadata").patch, patch);
        let report = validate(&made, &options);
        assert!(report.is_sound(), "{machine:?}: {:#?}", report.findings);
        let path = fixed.path.with_file_name("service_hotpatch.dll");
        std::fs::write(&path, &placed.file).expect("it can be written");
        let told = readobj(&["--file-headers", "--coff-load-config"], &path);
        let told = fields(&told.expect("llvm-readobj reads it"));
        assert_eq!(placed.at.0, value(&told, "/LoadConfig/HotPatchTableOffset"));
        assert_eq!(
            u64::from(made.checksum),
            value(&told, "/ImageOptionalHeader/CheckSum")
        );

        // What is wrong is told for these machines, too.
        let broken = |change: &dyn Fn(&mut Base)| {
            let mut patch = patch.clone();
            change(&mut patch.bases[0]);
            let placed = place(&image, &patch).expect("there is room");
            let made = PeImage::parse(placed.file).expect("a Windows image");
            let report = validate(&made, &options);
            assert!(!report.is_sound(), "{machine:?}");
            let told: Vec<String> = report.findings.iter().map(|f| f.rule.to_string()).collect();
            told.join(" ")
        };
        let rules = broken(&|base| base.flags = hpat::machine_flag(PeMachine::Amd64));
        assert!(rules.contains("A08"), "{rules}");
        let rules = broken(&|base| base.chunks[2].records[0].extra[0] ^= 1);
        assert!(rules.contains("A24"), "{rules}");
        let rules = broken(&|base| base.chunks[1].records[0].target = image.size);
        assert!(rules.contains("A16"), "{rules}");
        if machine == PeMachine::Arm64 {
            let rules = broken(&|base| base.chunks[2].records[0].source += 2);
            assert!(rules.contains("A23"), "{rules}");
        }
        let rules = broken(&|base| base.time_stamp ^= 1);
        assert!(rules.contains("A28"), "{rules}");
    }
}
