//! Patches for x86 that call a library: the module imports for itself, by operands that the loader moves as
//! in any library, and no fixup touches them; of a file that is patched on disk they are its own, too.

use std::path::Path;

use invivo_apply::hotp1::PatchedModule;
use invivo_format::hotp1::{FixupKind, read};
use invivo_image::Rva;
use invivo_image::pe::{BaseRelocation, ImportedSymbol, PeImage};
use windows_tests::narrow::running::Running;
use windows_tests::native::running::until_quiet;
use windows_tests::older::{patch_module, patched_file};
use windows_tests::{Build, Folder, Library, build};

/// Where all are: not where they were linked.
const TARGET: u64 = 0x2300_0000;
const PATCH: u64 = 0x3400_0000;
const CLOCK: u64 = 0x4500_0000;

const OLD: i32 = 28;
const NEW: i32 = 1028;

fn service(folder: &Path, name: &str, more: &str) -> Library {
    let how = Build::base().narrow().importing(&["GetTickCount@0"]);
    let how = how.with("-mno-sse -DIMPORTS").with(more);
    build(folder, name, "service", &how).expect("it is built")
}

fn clock(folder: &Path) -> PeImage {
    let how = Build::base().narrow();
    let library = build(folder, "clock", "clock", &how).expect("it is built");
    library.image().expect("a Windows image")
}

/// The one slot that an image fills for a library, and the operands of its code that go through it.
fn slot(image: &PeImage, library: usize) -> (Rva, Vec<BaseRelocation>) {
    let library = &image.imports[library];
    assert_eq!(library.thunks.len(), 1, "one function: {library:?}");
    let thunk = &library.thunks[0];
    let wanted = ImportedSymbol::Name("GetTickCount".to_owned());
    assert_eq!(thunk.symbol, wanted);
    let address = image.image_base + thunk.slot.0;
    let through = image.relocations.iter().filter(|one| {
        let section = image.section_at(one.at);
        section.is_some_and(|section| section.is_executable())
            && image.word(one.at).map(u64::from) == Some(address)
    });
    (thunk.slot, through.copied().collect())
}

/// How often the clock was asked through the target's slot, and through the patch's.
fn asked(running: &Running, clock: usize) -> [i32; 2] {
    ["get_asked", "get_asked_other"].map(|name| running.call_of(clock, name, 0))
}

#[test]
fn a_module_that_imports_is_run() {
    let folder = Folder::new("x86-imports");
    let (old, new) = (
        service(&folder, "base", ""),
        service(&folder, "fixed", "-DFIXED"),
    );
    let (target, patch) = (
        old.image().expect("an image"),
        patch_module(&old, &new, None),
    );
    let (_, through) = slot(&patch, 0);
    assert!(!through.is_empty(), "the loader moves its operands");
    let model = read(&patch).expect("it can be read").expect("it has one");
    let mut fixed = model.fixups.iter().flat_map(|region| {
        let all = region
            .fixups
            .iter()
            .filter(|one| one.kind != FixupKind::None);
        all.map(|one| Rva(u64::from(region.page << 12 | u32::from(one.offset))))
    });
    assert!(fixed.all(|at| through.iter().all(|one| one.at != at)));

    let images = [(target, TARGET), (patch, PATCH), (clock(&folder), CLOCK)];
    let mut running = Running::new(&folder, &images);
    let [tick, other] = ["tick", "other_tick"].map(|name| running.at(2, name));
    running.bind(0, 0, tick);
    running.bind(1, 0, other);
    let before = running.narrow.fixed_bytes(0);
    let mut module = PatchedModule::new(running.loaded[0].clone());
    let patch = running.loaded[1].clone();
    assert_eq!(running.call("answer", 5), OLD, "old");
    assert_eq!(asked(&running, 2), [1, 0], "old");
    until_quiet(|| module.apply(&mut running.narrow, &patch));
    assert_eq!(running.call("answer", 5), NEW, "new");
    assert_eq!(asked(&running, 2), [1, 1], "through its own slot");
    // Both counted what they were told in the base's variable.
    assert_eq!(running.call("get_sum", 0), 5 + 2 * (5 + 1));
    until_quiet(|| module.remove(&mut running.narrow, patch.at));
    assert_eq!(running.call("answer", 5), OLD, "removed");
    assert_eq!(asked(&running, 2), [2, 1], "removed");
    assert!(running.narrow.fixed_bytes(0) == before, "byte for byte");

    let answer = running.at(0, "answer");
    let known = [OLD, NEW].map(i32::cast_unsigned);
    let begun = running.narrow.begin(answer, 5, known);
    begun.expect("it answers");
    for _ in 0..20 {
        until_quiet(|| module.apply(&mut running.narrow, &patch));
        std::thread::sleep(std::time::Duration::from_micros(300));
        until_quiet(|| module.remove(&mut running.narrow, patch.at));
    }
    let (calls, wrong) = running.narrow.end();
    assert_eq!(wrong, 0, "an answer of nobody");
    assert!(calls > 1000, "{calls} calls");
    assert!(running.narrow.fixed_bytes(0) == before, "byte for byte");
}

#[test]
fn a_file_that_imports_for_its_patch_is_run() {
    let folder = Folder::new("x86-imports-cold");
    let (old, new) = (
        service(&folder, "base", ""),
        service(&folder, "fixed", "-DFIXED"),
    );
    let on_disk = patched_file(&old, &new, None);
    let base = old.image().expect("a Windows image");
    assert_eq!((base.imports.len(), on_disk.imports.len()), (1, 2));
    let [own, moved] = [0, 1].map(|library| slot(&on_disk, library));
    let end = u64::from(base.size);
    assert!(own.0.0 < end && moved.0.0 >= end, "slots of both");
    assert_eq!(
        own.1,
        slot(&base, 0).1,
        "the base's operands are as they were"
    );
    assert!(!moved.1.is_empty() && moved.1.iter().all(|one| one.at.0 >= end));

    let images = [(on_disk, TARGET), (clock(&folder), CLOCK)];
    let mut running = Running::new(&folder, &images);
    let [tick, other] = ["tick", "other_tick"].map(|name| running.at(1, name));
    running.bind(0, 0, tick);
    running.bind(0, 1, other);
    assert_eq!(
        running.call("answer", 5),
        NEW,
        "fixed from its first call on"
    );
    assert_eq!(
        asked(&running, 1),
        [0, 1],
        "through the slot of the new code"
    );
    assert_eq!(running.call("get_sum", 0), 5 + 5 + 1, "the base's variable");
}
