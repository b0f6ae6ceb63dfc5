//! Images for ARM64: compared by meaning, and made final images, which others read. Nothing of them is
//! run: no machine that can is at hand.

use std::sync::Arc;

use invivo_compare::{Comparison, Severity};
use invivo_format::hpat::{ChunkKind, read};
use invivo_image::pe::{Pdb, PeImage};
use invivo_image::x86_64::decode;
use invivo_image::{EntityKind, Image, Rva};
use windows_tests::{Build, Folder, Library, build, final_image, readobj};

fn base() -> Build {
    Build::base().arm64()
}

fn hot(c: &Comparison<'_>) -> Vec<String> {
    let mut names: Vec<String> = c.hot.iter().map(|hot| hot.name.clone()).collect();
    names.sort();
    names
}

fn view(library: &Library) -> Image {
    library.view().expect("read")
}

#[test]
fn a_build_that_is_made_again_has_nothing_hot() {
    for program in ["arm", "service", "privates", "inlined"] {
        for words in ["-O2", "-O0", "-O1 -fno-omit-frame-pointer", "-Oz"] {
            let folder = Folder::new(&format!("arm-again-{program}-{}", words.len()));
            let how = base().with(words);
            let one = view(&build(&folder, "one", program, &how).expect("built"));
            let c = Comparison::new(&one, &one);
            assert!(
                c.is_unchanged(),
                "{program} {words}: {:?} {:#?}",
                hot(&c),
                c.findings
            );
            // All of it lies elsewhere.
            let mut other = how.clone();
            other.reversed = true;
            let other = view(&build(&folder, "other", program, &other).expect("built"));
            let c = Comparison::new(&one, &other);
            assert!(
                c.is_unchanged(),
                "{program} {words}: {:?} {:#?}",
                hot(&c),
                c.findings
            );
            let moved = one.entities.iter().filter(|entity| {
                let mut others = other.entities.iter();
                let same = others.find(|other| other.name() == entity.name());
                same.is_some_and(|same| same.addr != entity.addr)
            });
            assert!(moved.count() > 4, "{program}");
        }
    }
}

#[test]
fn what_changed_is_hot_and_nothing_else() {
    let folder = Folder::new("arm-changes");
    for words in ["-O2", "-O0"] {
        let one = view(&build(&folder, "base", "arm", &base().with(words)).expect("built"));
        for change in [
            "constant", "literal", "branch", "call", "tail", "page", "part", "stored", "text",
            "address", "table", "square", "loop", "bit", "atomic",
        ] {
            let define = match change {
                "square" => "SQUARES".to_owned(),
                change => change.to_uppercase(),
            };
            let how = base().with(words).with(&format!("-D{define}"));
            for reversed in [false, true] {
                let mut how = how.clone();
                how.reversed = reversed;
                let other = view(&build(&folder, change, "arm", &how).expect("built"));
                let c = Comparison::new(&one, &other);
                assert_eq!(hot(&c), [change], "{words} {reversed}: {:#?}", c.findings);
            }
        }
    }
}

/// Bits of instructions are turned round, one at a time: the function is found each time.
#[test]
fn each_bit_of_the_code_counts() {
    let folder = Folder::new("arm-bits");
    let library = build(&folder, "base", "arm", &base().with("-O2")).expect("built");
    let one = view(&library);
    let pe = library.image().expect("read");
    let pdb = Pdb::parse(&std::fs::read(&library.pdb).expect("a file")).expect("read");
    let functions = one
        .entity_ids()
        .filter(|(_, entity)| entity.kind == EntityKind::Function && entity.size > 0);
    let (mut turned, mut missed) = (0, Vec::new());
    for (_, entity) in functions {
        let rva = one.rva(entity.addr).expect("in the image");
        let place = pe.file_place(rva).expect("in the file").start;
        for byte in 0..usize::try_from(entity.size).expect("small") {
            // Every fifth bit, so that each of the 32 has its turn in some instruction.
            for bit in (0..8).filter(|bit| (8 * byte + bit) % 5 == 0) {
                let mut file = pe.file().to_vec();
                file[place + byte] ^= 1 << bit;
                let Ok(other) = PeImage::parse(Arc::from(file)) else {
                    continue;
                };
                let Ok(other) = Image::from_pe(&other, &pdb) else {
                    continue;
                };
                turned += 1;
                let c = Comparison::new(&one, &other);
                if c.is_unchanged() {
                    missed.push(format!("{}+{byte:#x} bit {bit}", entity.name()));
                }
            }
        }
    }
    assert!(turned > 1000, "{turned}");
    assert!(
        missed.is_empty(),
        "{} of {turned}: {missed:?}",
        missed.len()
    );
}

/// What is not seen as a whole address is never the same: here `adrp` lost the instruction that went
/// with it.
#[test]
fn half_an_address_has_no_meaning() {
    let folder = Folder::new("arm-half");
    let library = build(&folder, "base", "arm", &base().with("-O2")).expect("built");
    let pe = library.image().expect("read");
    let pdb = Pdb::parse(&std::fs::read(&library.pdb).expect("a file")).expect("read");
    let one = view(&library);
    let entity = |name: &str| {
        let mut all = one.entities.iter();
        all.find(|entity| entity.name() == name)
            .expect("it is there")
    };
    // `address` is `adrp x0`, `add x0, x0`, `ret`.
    let address = entity("address");
    let place = pe
        .file_place(one.rva(address.addr).expect("in it"))
        .expect("in the file");
    const NOP: [u8; 4] = [0x1f, 0x20, 0x03, 0xd5];
    let lines = decode(&one, address).expect("code");
    assert!(lines.iter().all(|line| line.is_known()), "{lines:?}");
    let add = lines
        .iter()
        .position(|line| line.address.is_some())
        .expect("an address");
    let mut file = pe.file().to_vec();
    let at = place.start + 4 * add;
    file[at..at + 4].copy_from_slice(&NOP);
    let half = PeImage::parse(Arc::from(file)).expect("an image");
    let half = Image::from_pe(&half, &pdb).expect("read");
    let lines = decode(&half, address).expect("code");
    assert!(lines.iter().any(|line| !line.is_known()), "{lines:?}");
    // Even compared with itself.
    let c = Comparison::new(&half, &half);
    assert_eq!(hot(&c), ["address"]);
}

/// Where instructions lead is what llvm-objdump says, too.
#[test]
fn others_see_the_same_places() {
    let folder = Folder::new("arm-others");
    for words in ["-O2", "-O0", "-Oz"] {
        let library = build(&folder, "base", "arm", &base().with(words)).expect("built");
        let image = view(&library);
        let text = disassembly(&library);
        let mut seen = 0;
        for entity in image
            .entities
            .iter()
            .filter(|one| one.kind == EntityKind::Function)
        {
            for line in decode(&image, entity).into_iter().flatten() {
                let told = &text[&line.at().0];
                let word = line.word.expect("of ARM64");
                assert!(line.is_known(), "{told}");
                let (name, operands) = told.split_once('\t').unwrap_or((told, ""));
                let branch = ["b", "bl", "cbz", "cbnz", "tbz", "tbnz"].contains(&name)
                    || name.starts_with("b.");
                if branch || name == "adr" {
                    let target = line.address.expect("it leads somewhere").target;
                    assert!(
                        operands.contains(&format!("{:#x}", target.0)),
                        "{target} {told}"
                    );
                    seen += 1;
                } else if let Some(reference) = line.address {
                    assert!(
                        name == "add" || name.starts_with("ld") || name.starts_with("st"),
                        "{told}"
                    );
                    assert!(image.section_at(reference.target).is_some(), "{told}");
                    seen += 1;
                }
                let ends = ["b", "br", "ret", "udf", "brk"].contains(&name);
                assert_eq!(word.flow.ends(), ends, "{told}");
            }
        }
        assert!(seen > 50, "{seen}");
    }
}

/// What llvm-objdump says of each instruction, by its address.
fn disassembly(library: &Library) -> std::collections::BTreeMap<u64, String> {
    let output = std::process::Command::new("llvm-objdump-22")
        .args(["-d", "--no-show-raw-insn", "--print-imm-hex"])
        .arg(&library.path)
        .output()
        .expect("llvm-objdump-22 is installed; cargo xtask test installs it");
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter_map(|line| {
        let (at, rest) = line.trim_start().split_once(':')?;
        let at = u64::from_str_radix(at, 16).ok()?;
        Some((at, rest.trim().to_owned()))
    });
    lines.collect()
}

#[test]
fn a_final_image_is_made_and_others_read_it() {
    let folder = Folder::new("arm-final");
    let library = |name: &str, how: Build| {
        let how = how.arm64().with("-DIMPORTS").importing(&["GetTickCount"]);
        build(&folder, name, "service", &how).expect("built")
    };
    let base = library("base", Build::base());
    let fixed = library("fixed", Build::fixed("answer"));
    let c = (view(&base), view(&fixed));
    let c = Comparison::new(&c.0, &c.1);
    assert_eq!(hot(&c), ["answer"]);
    let refused = c
        .findings
        .iter()
        .filter(|found| found.severity == Severity::Refuse);
    assert_eq!(refused.count(), 0, "{:#?}", c.findings);
    let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    let again = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    assert!(
        made.file() == again.file(),
        "the same input gives the same bytes"
    );
    let metadata = read(&made).expect("it has metadata").patch;
    const ARM64: u32 = 8;
    assert_eq!(metadata.bases[0].flags, ARM64);
    let count = |kind: ChunkKind, inverse: bool| {
        let chunks = metadata.bases[0].chunks.iter();
        let of = chunks.filter(|chunk| chunk.kind == kind && chunk.inverse == inverse);
        of.map(|chunk| chunk.records.len()).sum::<usize>()
    };
    // `answer` itself; `twice`; what `answer` uses; GetTickCount.
    assert_eq!(count(ChunkKind::Function, false), 1);
    assert_eq!(count(ChunkKind::Function, true), 1);
    assert_eq!(count(ChunkKind::Absolute, true), 4);
    assert_eq!(count(ChunkKind::Indirect, true), 1);
    // What is expected at the function is its first instruction.
    let (old, image) = (base.image().expect("read"), view(&base));
    let forward = metadata.bases[0].chunks.iter().find(|chunk| !chunk.inverse);
    let record = &forward.expect("one").records[0];
    let first: [u8; 4] = old.array(Rva(record.source.into())).expect("code");
    assert_eq!(record.extra, [u32::from_le_bytes(first)]);
    let answer = image
        .entities
        .iter()
        .find(|one| one.name() == "answer")
        .expect("it is there");
    assert_eq!(image.rva(answer.addr), Some(Rva(record.source.into())));
    let path = folder.join("service_hotpatch.dll");
    std::fs::write(&path, made.file()).expect("it can be written");
    let told = readobj(&["--file-headers", "--coff-load-config", "--unwind"], &path);
    let told = told.expect("llvm-readobj reads it");
    assert!(told.contains("IMAGE_FILE_MACHINE_ARM64"), "{told}");
    let field = told
        .lines()
        .find(|line| line.contains("HotPatchTableOffset"));
    assert!(field.is_some_and(|line| !line.ends_with(": 0x0")), "{told}");
}

/// What stands in the way of a patch.
fn refused(name: &str, program: &str, base: Build, fixed: Build) -> String {
    let folder = Folder::new(name);
    let base = build(&folder, "base", program, &base.arm64()).expect("the base is built");
    let fixed = build(&folder, "fixed", program, &fixed.arm64()).expect("the fixed one is built");
    let refused = final_image(&base, &fixed, 1).expect_err("it must be refused");
    format!("{refused:#}")
}

#[test]
fn the_rules_serve_for_arm64() {
    let why = refused("arm-direct", "service", Build::base(), Build::fixed(""));
    assert!(why.contains("-fms-secure-hotpatch-functions-list"), "{why}");
    for (define, rule, subject) in [
        ("GROWN", "Layout", "state"),
        ("INITIAL", "InitialValue", "total"),
        ("WIDER", "Signature", "answer"),
        ("EXPORTS", "exported by one of the builds only", ""),
    ] {
        let fixed = Build::fixed("answer").with(&format!("-D{define}"));
        let why = refused(&format!("arm-{define}"), "service", Build::base(), fixed);
        assert!(why.contains(rule) && why.contains(subject), "{why}");
    }
    let base = Build::base().with("-DTHREAD");
    let why = refused(
        "arm-thread",
        "service",
        base,
        Build::fixed("answer").with("-DTHREAD"),
    );
    assert!(
        why.contains("thread") || why.contains("no variable"),
        "{why}"
    );
    // Two machines are no pair.
    let folder = Folder::new("arm-machines");
    let one = build(&folder, "one", "service", &Build::base()).expect("built");
    let other = build(&folder, "other", "service", &Build::fixed("answer").arm64()).expect("built");
    let why = format!(
        "{:#}",
        final_image(&one, &other, 1).expect_err("two machines")
    );
    assert!(why.contains("x86-64") && why.contains("ARM64"), "{why}");
}

/// A variable of a thread that new code reaches without a pointer of the compiler's.
#[test]
fn variables_of_threads_are_seen() {
    let base = Build::base().with("-DTHREAD");
    // Not named for it, the function takes the way of all code.
    let why = refused(
        "arm-own",
        "service",
        base,
        Build::fixed("").with("-DTHREAD"),
    );
    assert!(why.contains("uses thread-local storage"), "{why}");
}

#[test]
fn what_handles_exceptions_is_followed() {
    let folder = Folder::new("arm-handled");
    let library = |name: &str, how: Build, words: &str| {
        let how = how
            .arm64()
            .importing(&["__C_specific_handler", "GetTickCount"]);
        build(&folder, name, "handled", &how.with(words)).expect("it is built")
    };
    let base = library("base", Build::base(), "");
    let image = view(&base);
    assert!(
        !image
            .handling_in(&(image.sections[0].range.start..image.sections[0].range.end))
            .is_empty()
    );
    assert!(Comparison::new(&image, &image).is_unchanged());
    let fixed = library("fixed", Build::fixed("answer"), "");
    let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    let metadata = read(&made).expect("it has metadata").patch;
    let mut chunks = metadata.bases[0].chunks.iter();
    assert!(
        chunks.any(|chunk| chunk.kind == ChunkKind::Indirect),
        "the routine is the base's"
    );
    let direct = library("direct", Build::fixed("answer"), "-DDIRECT");
    let why = format!(
        "{:#}",
        final_image(&base, &direct, 1).expect_err("a filter's variable")
    );
    assert!(why.contains("reaches the variable seen directly"), "{why}");
}

#[test]
fn what_catches_in_cpp_is_followed() {
    let folder = Folder::new("arm-caught");
    let library = |name: &str, how: Build, words: &str| {
        let mut how = how
            .arm64()
            .with("-fexceptions -fcxx-exceptions")
            .with(words);
        how.runtime
            .extend(["__CxxFrameHandler3", "_CxxThrowException"]);
        build(&folder, name, "caught", &how).expect("it is built")
    };
    let base = library("base", Build::base(), "");
    let image = view(&base);
    assert!(Comparison::new(&image, &image).is_unchanged());
    let fixed = library("fixed", Build::fixed("answer"), "");
    let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    let metadata = read(&made).expect("it has metadata").patch;
    let mut chunks = metadata.bases[0].chunks.iter();
    assert!(
        chunks.any(|chunk| chunk.kind == ChunkKind::Indirect),
        "the routine is the base's"
    );
    let counts = library("counts", Build::fixed("answer"), "-DTHROWS -DCOUNTS");
    let why = format!(
        "{:#}",
        final_image(&base, &counts, 1).expect_err("a constructor's variable")
    );
    assert!(why.contains("refused directly"), "{why}");
}

/// Code that is no code at all is read without harm, and is never the same as code.
#[test]
fn code_of_any_bytes_is_read() {
    let folder = Folder::new("arm-any");
    let library = build(&folder, "base", "arm", &base().with("-O2")).expect("built");
    let pe = library.image().expect("read");
    let pdb = Pdb::parse(&std::fs::read(&library.pdb).expect("a file")).expect("read");
    let one = view(&library);
    let text = one.section_named(".text").expect("code").range.clone();
    let start = pe
        .file_place(one.rva(text.start).expect("in it"))
        .expect("in the file")
        .start;
    let size = usize::try_from(text.end.0 - text.start.0).expect("small");
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..40 {
        let mut file = pe.file().to_vec();
        for word in file[start..start + size / 4 * 4].chunks_exact_mut(4) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Some rounds spoil a few words, others all.
            if round % 4 == 0 || state.is_multiple_of(16) {
                word.copy_from_slice(&((state >> 32) as u32).to_le_bytes());
            }
        }
        let other = PeImage::parse(Arc::from(file)).expect("the headers are whole");
        let other = Image::from_pe(&other, &pdb).expect("read");
        for entity in other
            .entities
            .iter()
            .filter(|one| one.kind == EntityKind::Function)
        {
            let lines = decode(&other, entity);
            let lines = lines.map_or(0, |lines| lines.len() as u64);
            assert!(lines == entity.size / 4, "{}", entity.name());
        }
        assert!(!Comparison::new(&one, &other).is_unchanged(), "{round}");
    }
}

/// Rust, as far as it goes without a library.
#[test]
fn functions_of_rust_become_a_patch() {
    let folder = Folder::new("arm-rust");
    let library = |name: &str, how: Build| {
        let mut how = how.arm64();
        how.link.push("/export:answer".to_owned());
        build(&folder, name, "bare", &how).expect("built")
    };
    let base = library("base", Build::base());
    let image = view(&base);
    assert!(Comparison::new(&image, &image).is_unchanged());
    let fixed = library("fixed", Build::fixed("answer"));
    let (old, new) = (view(&base), view(&fixed));
    let c = Comparison::new(&old, &new);
    assert_eq!(hot(&c), ["answer"], "{:#?}", c.findings);
    let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    let metadata = read(&made).expect("it has metadata").patch;
    let mut chunks = metadata.bases[0].chunks.iter();
    assert!(
        chunks.any(|chunk| chunk.kind == ChunkKind::Absolute),
        "TOTAL is the base's"
    );
}
