//! What `invivo inspect` shows of hot-patch metadata, in each version of the format and with every kind
//! of record.
//!
//! Renew the expected output with `INVIVO_BLESS=1 cargo test -p invivo-cli`.

mod golden;
mod program;
#[path = "../../format/tests/scene/mod.rs"]
mod scene;

use std::path::Path;

use golden::compare;
use invivo_format::hpat::{Chunk, ChunkKind, HotPatch, place};
use program::run_in;
use scene::{example, parse, patch_recipe, record};

/// The worked example with what it has no record of, as a version has it: the first two have no further
/// words, and only the last has an earliest sequence and flags.
fn of_version(version: u32) -> HotPatch {
    let mut patch = example();
    patch.version = version;
    let chunks = &mut patch.bases[0].chunks;
    let forward = chunks.pop().expect("the functions of the base");
    for (kind, source, target) in [
        (ChunkKind::Rel32, 0x2040, 0x1240),
        (ChunkKind::CallTarget, 0x2030, 0),
        (ChunkKind::NoCallTarget, 0x2050, 0),
        (ChunkKind::DynamicValue, 0x5010, 3),
        (ChunkKind::None, 1, 2),
    ] {
        chunks.push(Chunk::new(true, kind, vec![record(source, target, 0)]));
    }
    chunks.push(forward);
    if version < 3 {
        patch.extra_words = 0;
        let records = chunks.iter_mut().flat_map(|chunk| &mut chunk.records);
        records.for_each(|record| record.extra.clear());
    }
    if version == 4 {
        (patch.min_sequence, patch.flags) = (5, 1);
    }
    patch
}

#[test]
fn each_version_is_shown() {
    let folder = std::env::temp_dir().join(format!("invivo-hpat-dumps-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a new folder");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for version in 1..=4 {
        let image = parse(&patch_recipe().file());
        let placed = place(&image, &of_version(version)).expect("there is room");
        std::fs::write(folder.join("patch.dll"), &placed.file).expect("it is written");
        for (words, ending) in [
            (&["inspect", "patch.dll"][..], "txt"),
            (&["inspect", "patch.dll", "--json"], "json"),
        ] {
            let ran = run_in(&folder, words);
            assert_eq!((ran.code, &*ran.stderr), (0, ""));
            let file = golden.join(format!("hot-patch-{version}.{ending}"));
            compare(&file, &ran.stdout);
        }
    }
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}
