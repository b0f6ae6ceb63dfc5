//! Two builds for x86 become patches, which are run in a process of 32 bits; what is not proved is
//! refused.

use std::path::Path;
use std::sync::Arc;

use invivo_apply::hotp1::PatchedModule;
use invivo_apply::hpat::PatchedImage;
use invivo_apply::{Loaded, Target};
use invivo_compare::Comparison;
use invivo_format::hotp1::{self, FixupKind, Hook, HookKind, HookShape, cold, read, validate_cold};
use invivo_format::hpat::{self, ChunkKind};
use invivo_image::pe::{Pdb, PeImage, directory};
use invivo_image::{EntityKind, Image, LiveAddr, Rva};
use invivo_patch::{Refused, plan_cold, plan_final, plan_module};
use windows_tests::narrow::running::Running;
use windows_tests::native::running::until_quiet;
use windows_tests::older::patch_module;
use windows_tests::{Build, Folder, Library, build, by_hand, final_image};

/// Where both are: not where they were linked.
const TARGET: u64 = 0x2300_0000;
const PATCH: u64 = 0x3400_0000;

/// As such code was when these patches were made.
const PLAIN: &str = "-mno-sse";

fn base() -> Build {
    Build::base().narrow()
}

fn fixed() -> Build {
    base().with("-DFIXED")
}

/// As code is that nobody thought of patching.
fn unprepared() -> Build {
    Build::default().narrow().with("-fno-omit-frame-pointer")
}

fn elder(folder: &Path, name: &str, how: &Build) -> Library {
    build(folder, name, "elder", how).expect("it is built")
}

/// Names of what is to be replaced, and of what is new.
fn hot(base: &Library, fixed: &Library) -> (Vec<String>, Vec<String>) {
    let (base, fixed) = (base.view().expect("read"), fixed.view().expect("read"));
    let c = Comparison::new(&base, &fixed);
    assert!(!c.is_refused(), "{:#?}", c.findings);
    let hot = c.hot.iter().map(|hot| hot.name.clone()).collect();
    let added = c.added.iter().map(|id| fixed.entity(*id).name().to_owned());
    (hot, added.collect())
}

/// Why there is no patch.
fn refused(base: &Library, fixed: &Library) -> String {
    let (base, fixed) = (base.view().expect("read"), fixed.view().expect("read"));
    match plan_module(&Comparison::new(&base, &fixed)) {
        Err(Refused::Findings(findings)) => format!("{findings:#?}"),
        other => format!("{other:#?}"),
    }
}

fn place(image: &PeImage, name: &str) -> u64 {
    by_hand::place_of(image, name).into()
}

/// What `answer(5)`, `choose(2)`, `keep(1)`, `choose(3)` and `leap(2)` say.
fn answers(running: &Running) -> [i32; 5] {
    let choose = running.call("choose", 2);
    [
        running.call("answer", 5),
        choose,
        running.call("keep", 1),
        running.call("choose", 3),
        running.call("leap", 2),
    ]
}

// 5 * 16, 5 - 3, 5 + 4, table[1], before[1]; keep asks answer(1).
const OLD: [i32; 5] = [80 + 2 + 9 + 20 + 2, 36, 16 - 2 + 5 + 20 + 2, 2, 30];
const NEW: [i32; 5] = [OLD[0] + 1, OLD[1] + 1, OLD[2] + 2, OLD[3], OLD[4] + 1];

#[test]
fn only_what_changed_is_hot() {
    let folder = Folder::new("x86-hot");
    let old = elder(&folder, "base", &base());
    let new = elder(&folder, "fixed", &fixed());
    let (hot, added) = hot(&old, &new);
    assert_eq!(hot, ["_answer", "_choose", "_keep", "_leap"]);
    assert_eq!(added, [""; 0]);
    let (old, new) = (old.view().expect("read"), new.view().expect("read"));
    assert!(Comparison::new(&old, &old).is_unchanged());
    // A new variable is in front of others, which have other addresses now.
    let place = |image: &invivo_image::Image, name: &str| {
        let mut entities = image.entities.iter();
        let found = entities.find(|entity| entity.name() == name);
        found.expect("it has a name").addr
    };
    assert!(new.entities.iter().any(|entity| entity.name() == "repairs"));
    assert_ne!(
        place(&old, "helped"),
        place(&new, "helped"),
        "it did not move"
    );
}

/// Both kinds of base, and each hook that the functions have room for.
#[test]
fn patches_of_two_builds_are_run() {
    let folder = Folder::new("x86-hotp1");
    // Some are compiled for the metadata of modern Windows, which does no harm.
    let list = "-fms-secure-hotpatch-functions-list=answer,choose,keep,leap";
    let cases = [
        ("prepared", base(), "", vec![]),
        ("listed", base(), list, vec![HookShape::Short]),
        ("unprepared", unprepared(), "", vec![HookShape::Jump]),
        // By chance there is padding before them.
        (
            "semi",
            unprepared().with("-falign-functions=64"),
            "",
            vec![],
        ),
    ];
    for (name, how, more, shapes) in cases {
        let old = elder(&folder, name, &how.clone().with(PLAIN));
        let how = how.with(PLAIN).with("-DFIXED").with(more);
        let new = elder(&folder, "fixed", &how);
        for shape in shapes.into_iter().map(Some).chain([None]) {
            let patch = patch_module(&old, &new, shape);
            if name == "semi" {
                is_semi_hotpatchable(&old, &patch);
            }
            let target = old.image().expect("a Windows image");
            let images = [(target, TARGET), (patch, PATCH)];
            let mut running = Running::new(&folder, &images);
            let before = running.narrow.fixed_bytes(0);
            let mut module = PatchedModule::new(running.loaded[0].clone());
            let patch = running.loaded[1].clone();
            assert_eq!(answers(&running), OLD, "{name} {shape:?}: old");
            until_quiet(|| module.apply(&mut running.narrow, &patch));
            assert_eq!(answers(&running), NEW, "{name} {shape:?}: new");
            // The state is the base's, and what new code gives away is the base's function.
            assert_eq!(running.call("get_calls", 0), 2 * 2 + 2 * 3, "{name}");
            assert_eq!(running.call("get_pair", 0), 7 + 2 * 4, "{name}");
            assert_eq!(running.call("get_last", 0), i32::from(b'a'), "{name}");
            assert_eq!(running.call("get_helped", 0), 2 * (3 + 1 + 3), "{name}");
            let kept = running.call("call_kept", 1);
            assert_eq!(kept, OLD[2] + 1, "{name}: the new one");
            assert_eq!(running.call("answer", 2000), -1, "{name}");
            until_quiet(|| module.remove(&mut running.narrow, patch.at));
            assert_eq!(answers(&running), OLD, "{name} {shape:?}: removed");
            assert!(
                running.narrow.fixed_bytes(0) == before,
                "{name} {shape:?}: byte for byte"
            );
            while_called(&mut running, &mut module, &patch);
            assert!(
                running.narrow.fixed_bytes(0) == before,
                "{name} {shape:?}: byte for byte"
            );
        }
    }
}

/// The usual begin of functions that nobody made for hot patching (`push ebp; mov ebp, esp`) gives way
/// to the short jump, and padding before it to the long one: chosen, and not asked for.
fn is_semi_hotpatchable(base: &Library, patch: &PeImage) {
    let target = base.image().expect("a Windows image");
    let model = read(patch).expect("it can be read").expect("it has one");
    let hooks = model.hooks.iter().map(|hook| (hook.kind, hook.length()));
    let pair = [(HookKind::X86Jmp, 5), (HookKind::Jmp2B, 3)];
    let mut with_frames = 0;
    let hooks: Vec<_> = hooks.collect();
    for (pair_of, hook) in hooks.chunks(2).zip(model.hooks.chunks(2)) {
        let kinds = [pair_of[0].0, pair_of[1].0];
        assert_eq!(kinds, pair.map(|(kind, _)| kind));
        let begin: [u8; 3] = target.array(Rva(hook[1].at.into())).expect("code");
        if begin == [0x55, 0x89, 0xe5] {
            assert_eq!(pair_of, pair);
            with_frames += 1;
        }
    }
    assert!(with_frames >= 3, "{hooks:?}");
}

/// Functions whose begin takes no hook, as it holds an address that the loader changes: a jump over
/// one long instruction in the middle, which may be a call, of two builds.
#[test]
fn a_long_instruction_in_the_middle_is_found_and_run() {
    let folder = Folder::new("x86-long");
    let how = Build::default()
        .narrow()
        .with(PLAIN)
        .with("-Os -falign-functions=1");
    let old = build(&folder, "base", "begins", &how).expect("it is built");
    let new = build(&folder, "fixed", "begins", &how.with("-DFIXED")).expect("it is built");
    let target = old.image().expect("a Windows image");
    let at = |name: &str| u32::try_from(place(&target, name)).expect("it is small");
    for shape in [None, Some(HookShape::Middle)] {
        let patch = patch_module(&old, &new, shape);
        let model = read(&patch).expect("it can be read").expect("it has one");
        let hook = |name: &str, from| {
            let mut hooks = model.hooks.iter();
            let place = at(name) + from;
            let hook = hooks.find(|hook| hook.at == place);
            hook.map(|hook| (hook.kind, hook.length()))
        };
        assert_eq!(hook("scaled", 9), Some((HookKind::X86Jmp, 6)));
        assert_eq!(hook("asked", 10), Some((HookKind::X86Jmp, 5)), "a call");
        // Others have room at their begin.
        assert_eq!(hook("both", 4).is_some(), shape.is_some());
        let images = [(target.clone(), TARGET), (patch, PATCH)];
        let mut running = Running::new(&folder, &images);
        let mut module = PatchedModule::new(running.loaded[0].clone());
        let patch = running.loaded[1].clone();
        let before = running.narrow.fixed_bytes(0);
        let answers = |running: &Running| {
            ["scaled", "asked", "digits", "both"].map(|name| running.call(name, 5))
        };
        let (was, is) = ([7000, 16 * 7 + 3, 2000, 83], [14000, 16 * 7 + 4, 4000, 84]);
        assert_eq!(answers(&running), was, "old");
        until_quiet(|| module.apply(&mut running.narrow, &patch));
        assert_eq!(answers(&running), is, "new");
        assert_eq!(running.call("set_scale", 3), 3);
        assert_eq!(running.call("scaled", 5), 16000, "the base's variable");
        assert_eq!(running.call("set_scale", 2), 2);
        until_quiet(|| module.remove(&mut running.narrow, patch.at));
        assert_eq!(answers(&running), was, "removed");
        assert_eq!(running.call("get_helped", 0), 6);
        for (name, known) in [("scaled", [was[0], is[0]]), ("asked", [was[1], is[1]])] {
            let known = known.map(i32::cast_unsigned);
            let function = running.at(0, name);
            running
                .narrow
                .begin(function, 5, known)
                .expect("it answers");
            for _ in 0..20 {
                until_quiet(|| module.apply(&mut running.narrow, &patch));
                std::thread::sleep(std::time::Duration::from_micros(300));
                until_quiet(|| module.remove(&mut running.narrow, patch.at));
            }
            let (calls, wrong) = running.narrow.end();
            assert_eq!(wrong, 0, "{name}: an answer of nobody");
            assert!(calls > 1000, "{name}: {calls} calls");
        }
        assert!(running.narrow.fixed_bytes(0) == before, "byte for byte");
    }
}

/// Threads call what is patched and put back.
fn while_called(running: &mut Running, module: &mut PatchedModule, patch: &Loaded) {
    let known = [OLD[0], NEW[0]].map(i32::cast_unsigned);
    let answer = running.at(0, "answer");
    running.narrow.begin(answer, 5, known).expect("it answers");
    for _ in 0..20 {
        until_quiet(|| module.apply(&mut running.narrow, patch));
        std::thread::sleep(std::time::Duration::from_micros(300));
        until_quiet(|| module.remove(&mut running.narrow, patch.at));
    }
    let (calls, wrong) = running.narrow.end();
    assert_eq!(wrong, 0, "an answer of nobody");
    assert!(calls > 1000, "{calls} calls");
}

/// A pointer of four bytes in data (`VA32`), by hand: no planner changes data.
#[test]
fn a_pointer_in_data_is_run() {
    let folder = Folder::new("x86-pointer");
    let base = build(&folder, "base", "places", &Build::base().narrow()).expect("it is built");
    let target = base.image().expect("a Windows image");
    let [pointer, other] = ["pointer", "other"].map(|name| by_hand::place_of(&target, name));
    let hook = Hook {
        kind: HookKind::Va32,
        options: 4,
        at: pointer,
        to: other,
        validation: None,
    };
    let images = [
        (target, TARGET),
        (by_hand::module(&base, &[], &[hook], None), PATCH),
    ];
    let mut running = Running::new(&folder, &images);
    let mut module = PatchedModule::new(running.loaded[0].clone());
    let patch = running.loaded[1].clone();
    let word = |running: &Running| {
        let mut word = [0; 4];
        let at = LiveAddr(TARGET + u64::from(pointer));
        running.narrow.read(at, &mut word).expect("it is there");
        u64::from(u32::from_le_bytes(word))
    };
    let before = word(&running);
    assert_eq!(running.call("through", 5), 35, "old");
    until_quiet(|| module.apply(&mut running.narrow, &patch));
    assert_eq!(running.call("through", 5), 40, "new");
    assert_eq!(word(&running), PATCH + u64::from(other));
    until_quiet(|| module.remove(&mut running.narrow, patch.at));
    assert_eq!(running.call("through", 5), 35, "removed");
    let through = running.at(0, "through");
    running
        .narrow
        .begin(through, 5, [35, 40])
        .expect("it answers");
    for _ in 0..50 {
        until_quiet(|| module.apply(&mut running.narrow, &patch));
        until_quiet(|| module.remove(&mut running.narrow, patch.at));
    }
    let (calls, wrong) = running.narrow.end();
    assert_eq!(wrong, 0, "an answer of nobody");
    assert!(calls > 1000, "{calls} calls");
    assert_eq!(word(&running), before, "byte for byte");
}

/// What the module is made of: each operand that leads to the base has a fixup of its own.
#[test]
fn each_operand_is_led_to_the_base() {
    let folder = Folder::new("x86-fixups");
    let old = elder(&folder, "base", &base());
    let new = elder(&folder, "fixed", &fixed());
    let patch = patch_module(&old, &new, None);
    let model = read(&patch).expect("it can be read").expect("it has one");
    let kinds: Vec<FixupKind> = model
        .fixups
        .iter()
        .flat_map(|region| region.fixups.iter().map(|fixup| fixup.kind))
        .filter(|kind| *kind != FixupKind::None)
        .collect();
    let count = |kind| kinds.iter().filter(|known| **known == kind).count();
    assert!(count(FixupKind::Va32) > 10, "{kinds:?}");
    assert!(count(FixupKind::Pc32) >= 6, "{kinds:?}");
    assert_eq!(count(FixupKind::Va32) + count(FixupKind::Pc32), kinds.len());
    let hooks: Vec<HookKind> = model.hooks.iter().map(|hook| hook.kind).collect();
    assert_eq!(hooks, [HookKind::X86Jmp, HookKind::Jmp2B].repeat(4));
    // The loader adds nothing to a word that is an address of the target.
    for region in &model.fixups {
        for fixup in region.fixups.iter().filter(|f| f.kind == FixupKind::Va32) {
            let at = Rva(u64::from(region.page << 12 | u32::from(fixup.offset)));
            assert!(patch.relocations.iter().all(|one| one.at != at), "{at}");
        }
    }
}

#[test]
fn files_of_two_builds_are_run() {
    let folder = Folder::new("x86-cold");
    for (name, how) in [("prepared", base()), ("unprepared", unprepared())] {
        let old = elder(&folder, name, &how.clone().with(PLAIN));
        let new = elder(&folder, "fixed", &how.with(PLAIN).with("-DFIXED"));
        let (view, other) = (old.view().expect("read"), new.view().expect("read"));
        let plan = plan_cold(&Comparison::new(&view, &other)).expect("nothing is refused");
        let [target, fixed] = [&old, &new].map(|library| library.image().expect("an image"));
        let module = hotp1::build(&target, &fixed, &plan, "elder.dll", None);
        let module = PeImage::parse(module.expect("there is room")).expect("an image");
        let made = || {
            cold(&target, &module, Some(&plan))
                .expect("there is room")
                .file
        };
        assert_eq!(
            made(),
            made(),
            "{name}: the same input gives the same bytes"
        );
        let on_disk = PeImage::parse(made()).expect("a Windows image");
        assert_eq!(validate_cold(&on_disk, Some(&target)), [], "{name}");
        let running = Running::new(&folder, &[(on_disk, TARGET)]);
        assert_eq!(answers(&running), NEW, "{name}");
        assert_eq!(running.call("get_calls", 0), 2 + 3, "{name}");
        assert_eq!(running.call("get_helped", 0), 3 + 1 + 3, "{name}");
        assert_eq!(running.call("call_kept", 1), OLD[2] + 1, "{name}");
    }
}

#[test]
fn what_is_not_proved_is_refused() {
    let folder = Folder::new("x86-refused");
    let cases = [
        ("-DTHREADS", "", "thread-local storage"),
        ("-DHANDLERS", "", "handles exceptions"),
        ("-DKEPT", "-DCONVENTION -DKEPT", "_changed"),
        ("-DCOUNTED", "-DBETWEEN", "do not lie in the base"),
    ];
    for (words, only_fixed, wanted) in cases {
        let old = elder(&folder, "base", &base().with(words));
        let new = elder(&folder, "fixed", &fixed().with(words).with(only_fixed));
        let why = refused(&old, &new);
        assert!(why.contains(wanted), "{words}: {why}");
    }
    // Callers of what is called in another way are replaced, where all of them are known.
    let old = elder(&folder, "base", &base());
    let new = elder(&folder, "fixed", &base().with("-DCONVENTION"));
    let (hot, added) = hot(&old, &new);
    assert_eq!(
        (hot, added),
        (vec!["_through".to_owned()], vec!["_changed@4".to_owned()])
    );
}

/// A number is an address where the loader says so, and nowhere else.
#[test]
fn an_address_without_a_relocation() {
    let folder = Folder::new("x86-relocations");
    let old = elder(&folder, "base", &base());
    let new = elder(&folder, "fixed", &fixed());
    let image = new.image().expect("a Windows image");
    let (at, end) = (place(&image, "answer"), place(&image, "answer") + 40);
    let mut inside = image.relocations.iter();
    let first = inside.find(|one| at < one.at.0 && one.at.0 < end);
    drop_relocation(&new, first.expect("it has operands").at);
    let why = refused(&old, &new);
    assert!(why.contains("no relocation says"), "{why}");
    // An image of which nothing is known.
    let mut file = image.file().to_vec();
    let places = image.header_places();
    let directory = places.directories + 8 * directory::BASE_RELOCATION;
    file[directory..directory + 8].fill(0);
    std::fs::write(&new.path, file).expect("it is written");
    let error = new.view().expect_err("nothing tells what is an address");
    assert!(error.to_string().contains("/fixed"), "{error}");
}

/// Takes the relocation of a word away.
fn drop_relocation(library: &Library, word: Rva) {
    let image = library.image().expect("a Windows image");
    let mut file = image.file().to_vec();
    let table = image
        .directory(directory::BASE_RELOCATION)
        .expect("it has some");
    let start = image.file_place(table.at).expect("in the file").start;
    let get = |file: &[u8], at: usize| {
        u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]])
    };
    let (mut at, end) = (start, start + table.size as usize);
    let mut dropped = 0;
    while at < end {
        let (page, size) = (get(&file, at), get(&file, at + 4) as usize);
        for entry in (at + 8..at + size).step_by(2) {
            let value = u16::from_le_bytes([file[entry], file[entry + 1]]);
            if value >> 12 == 3 && u64::from(page) + u64::from(value & 0xfff) == word.0 {
                file[entry..entry + 2].fill(0);
                dropped += 1;
            }
        }
        at += size;
    }
    assert_eq!(dropped, 1, "{word}");
    std::fs::write(&library.path, file).expect("it is written");
}

/// Each byte of each function, variable and constant is changed, and each change is seen.
#[test]
fn no_changed_byte_is_missed() {
    let folder = Folder::new("x86-bytes");
    let library = elder(&folder, "base", &base().with("-DCOUNTED"));
    let pe = library.image().expect("a Windows image");
    let pdb = Pdb::parse(&std::fs::read(&library.pdb).expect("its PDB file")).expect("sound");
    let base = Image::from_pe(&pe, &pdb).expect("read");
    let mut places: Vec<(String, u64)> = Vec::new();
    for entity in &base.entities {
        let start = entity.addr.0 - pe.image_base;
        // What the loader and debuggers alone read is no part of the view.
        let own = entity.kind == EntityKind::Object && entity.name().contains("load_config");
        let bytes = base.bytes(entity.addr, entity.size).map_or(0, <[u8]>::len) as u64;
        if !own {
            places.extend((start..start + bytes).map(|at| (entity.name().to_owned(), at)));
        }
    }
    let file = pe.file();
    for text in ["answer\0", "choose\0", "nobody\0"] {
        let mut found = file.windows(text.len()).enumerate();
        let found = found
            .find(|(_, bytes)| *bytes == text.as_bytes())
            .expect("it has the text");
        let section = pe.sections.iter().find(|section| {
            let start = section.file_start().unwrap_or(usize::MAX);
            (start..start + section.file_size() as usize).contains(&found.0)
        });
        let section = section.expect("it is in a section");
        let start = section.file_start().expect("in the file");
        let at = section.range.start.0 + (found.0 - start) as u64;
        places.extend((at..at + text.len() as u64 - 1).map(|at| (text.to_owned(), at)));
    }
    let mut missed = Vec::new();
    for (name, at) in &places {
        let place = pe.file_place(Rva(*at)).expect("in the file").start;
        for bit in 0..8 {
            let mut changed = file.to_vec();
            changed[place] ^= 1 << bit;
            let changed = PeImage::parse(Arc::from(changed)).expect("still a Windows image");
            let changed = Image::from_pe(&changed, &pdb).expect("read");
            // Another prefix before the `nop` that hooks replace: it does nothing, either.
            let prefix = matches!(file[place] ^ 1 << bit, 0x26 | 0x64 | 0x67);
            let nothing = prefix && file[place..].starts_with(&[0x66, 0x90]);
            if !nothing && Comparison::new(&base, &changed).is_unchanged() {
                missed.push(format!("{name} {at:#x} ^ {:#x}", 1 << bit));
            }
        }
    }
    assert!(places.len() > 500, "{}", places.len());
    assert_eq!(missed, [""; 0], "of {}", places.len());
}

/// The metadata of modern Windows are written for x86, too, and keep its rules.
#[test]
fn metadata_of_modern_windows_is_written() {
    let folder = Folder::new("x86-hpat");
    let old = build(&folder, "base", "service", &base()).expect("it is built");
    let listed = Build::fixed("answer").narrow();
    let new = build(&folder, "fixed", "service", &listed).expect("it is built");
    let (one, other) = (old.view().expect("read"), new.view().expect("read"));
    let plan = plan_final(&Comparison::new(&one, &other)).expect("nothing is refused");
    let mut names: Vec<&str> = plan.variables.iter().map(|link| &*link.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["callback", "service_state", "sum", "total"]);
    assert!(plan.unchanged.iter().any(|link| link.name == "_twice"));
    let made = final_image(&old, &new, 1).expect("it keeps all rules");
    let patch = hpat::read(&made).expect("it has some").patch;
    let kinds = patch.bases.iter().flat_map(|base| &base.chunks);
    let kinds: Vec<ChunkKind> = kinds.map(|chunk| chunk.kind).collect();
    assert!(kinds.contains(&ChunkKind::Function), "{kinds:?}");
    // Without the list nothing leads the operands back.
    let plain = build(&folder, "plain", "service", &fixed()).expect("it is built");
    let why = final_image(&old, &plain, 1).expect_err("it is refused");
    let why = format!("{why:#}");
    assert!(why.contains("-fms-secure-hotpatch-functions-list"), "{why}");
}

/// A final image for x86 is made live and taken back while threads call: state and what did not change
/// are the base's, and no thread is stopped where no function begins one byte before a boundary.
#[test]
fn a_final_image_is_run() {
    let folder = Folder::new("x86-final");
    let old = build(&folder, "base", "steady", &base().with(PLAIN)).expect("it is built");
    let how = Build::fixed("count,weigh").narrow().with(PLAIN);
    let new = build(&folder, "fixed", "steady", &how).expect("it is built");
    let made = final_image(&old, &new, 1).expect("it keeps all rules");
    let target = old.image().expect("a Windows image");
    let mut running = Running::new(&folder, &[(target, TARGET), (made, PATCH)]);
    let patch = running.loaded[1].clone();
    let mut image = PatchedImage::new(running.loaded[0].clone());
    let before = running.narrow.fixed_bytes(0);
    let calls = |running: &Running| ["count", "weigh"].map(|name| running.call(name, 5));
    assert_eq!(calls(&running), [80, 80], "old");
    let done = until_quiet(|| image.apply(&mut running.narrow, &patch));
    assert_eq!((done.fresh, done.stopped.is_zero()), (2, true));
    assert_eq!(calls(&running), [81, 81], "new");
    until_quiet(|| image.revert(&mut running.narrow));
    assert_eq!(calls(&running), [80, 80], "taken back");
    let count = running.at(0, "count");
    running
        .narrow
        .begin(count, 5, [80, 81])
        .expect("it answers");
    for _ in 0..20 {
        until_quiet(|| image.apply(&mut running.narrow, &patch));
        std::thread::sleep(std::time::Duration::from_micros(300));
        until_quiet(|| image.revert(&mut running.narrow));
    }
    let (called, wrong) = running.narrow.end();
    assert_eq!(wrong, 0, "an answer of nobody");
    assert!(called > 1000, "{called} calls");
    // The jumps that nothing leads to any more go when nobody is on the way.
    until_quiet(|| image.revert(&mut running.narrow));
    assert!(running.narrow.fixed_bytes(0) == before, "byte for byte");
    let counted = ["get_counted", "get_weighed", "get_helped"].map(|name| running.call(name, 0));
    let called = called.cast_signed() + 3;
    assert_eq!(counted, [called, 3, called], "the base's state");
}

/// A relocation that no instruction has in an operand of its own: nothing is known of that code.
#[test]
fn a_relocation_that_is_no_operand() {
    let folder = Folder::new("x86-shifted");
    let library = elder(&folder, "base", &base());
    let pe = library.image().expect("a Windows image");
    let pdb = Pdb::parse(&std::fs::read(&library.pdb).expect("its PDB file")).expect("sound");
    let old = Image::from_pe(&pe, &pdb).expect("read");
    let table = pe
        .directory(directory::BASE_RELOCATION)
        .expect("it has some");
    let start = pe.file_place(table.at).expect("in the file").start;
    let of_code = |one: &&invivo_image::pe::BaseRelocation| {
        let section = pe.section_at(one.at);
        section.is_some_and(|section| section.is_executable())
    };
    let count = pe.relocations.iter().filter(of_code).count();
    let mut seen = 0;
    // The first page is that of the code.
    for entry in 0..count {
        let at = start + 8 + 2 * entry;
        for value in [1_u16.wrapping_neg(), 1] {
            let mut file = pe.file().to_vec();
            let word = u16::from_le_bytes([file[at], file[at + 1]]).wrapping_add(value);
            file[at..at + 2].copy_from_slice(&word.to_le_bytes());
            let changed = PeImage::parse(Arc::from(file)).expect("still a Windows image");
            let changed = Image::from_pe(&changed, &pdb).expect("read");
            seen += usize::from(!Comparison::new(&old, &changed).is_unchanged());
        }
    }
    assert!(count > 20, "{count}");
    assert_eq!(seen, 2 * count);
}

/// Whatever stands in the files, there is a patch or a reason.
#[test]
fn any_word_of_either_build_may_be_anything() {
    let folder = Folder::new("x86-hostile");
    let (old, new) = (
        elder(&folder, "base", &base()),
        elder(&folder, "fixed", &fixed()),
    );
    let pdb = |library: &Library| {
        let bytes = std::fs::read(&library.pdb).expect("its PDB file");
        Pdb::parse(&bytes).expect("it is sound")
    };
    let pdbs = [pdb(&old), pdb(&new)];
    let images = [&old, &new].map(|library| library.image().expect("a Windows image"));
    let attempt = |files: [&PeImage; 2]| {
        let view = |number: usize| Image::from_pe(files[number], &pdbs[number]).ok();
        let (Some(base), Some(fixed)) = (view(0), view(1)) else {
            return;
        };
        let Ok(plan) = plan_cold(&Comparison::new(&base, &fixed)) else {
            return;
        };
        let made = hotp1::build(files[0], files[1], &plan, "elder.dll", None);
        if let Ok(module) = made.map(|module| PeImage::parse(module).expect("it can be read")) {
            let _ = cold(files[0], &module, Some(&plan));
        }
    };
    for which in 0..2 {
        let good = images[which].file();
        for at in (0..good.len() - 4).step_by(22) {
            let mut file = good.to_vec();
            let value = [0, 0xffff_ffff_u32, 0x8000_0000, 0x1000_1000][at / 22 % 4];
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let Ok(odd) = PeImage::parse(Arc::from(file)) else {
                continue;
            };
            match which {
                0 => attempt([&odd, &images[1]]),
                _ => attempt([&images[0], &odd]),
            }
        }
    }
}
