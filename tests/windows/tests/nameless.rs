//! Constants of Rust that have no name (`anon.HASH.N`) and hold addresses: the compiler makes pointers to
//! them as to variables (`__ref_anon.HASH.N`), which have no counterpart in the base and need none.

use std::collections::BTreeSet;

use invivo_apply::hpat::PatchedImage;
use invivo_format::hpat::{ChunkKind, read};
use invivo_image::pe::{HotPatchObject, Pdb};
use windows_tests::native::{Here, Mapped};
use windows_tests::{Build, Folder, Library, build, final_image};

fn library(folder: &Folder, name: &str, mut how: Build) -> Library {
    for function in ["answer", "get_total"] {
        how.link.push(format!("/export:{function}"));
    }
    build(folder, name, "nameless", &how).expect("it is built")
}

fn pair(folder: &Folder) -> [Library; 2] {
    [("base", Build::base()), ("fixed", Build::fixed("answer"))]
        .map(|(name, how)| library(folder, name, how))
}

const NAMELESS: &str = "__ref_anon.";

/// Where the pointers are whose names begin so.
fn places(library: &Library, begin: &str) -> BTreeSet<u32> {
    let pdb = Pdb::parse(&std::fs::read(&library.pdb).expect("read")).expect("a PDB file");
    let image = library.image().expect("read");
    let publics = pdb.publics.iter();
    let publics = publics.filter(|public| public.name.starts_with(begin));
    let places = publics.map(|public| {
        let section = &image.sections[usize::from(public.section) - 1];
        u32::try_from(section.range.start.0).expect("small") + public.offset
    });
    places.collect()
}

#[test]
fn the_compiler_makes_pointers_to_them() {
    let folder = Folder::new("nameless-made");
    let [_, fixed] = pair(&folder);
    let object = std::fs::read(fixed.path.with_file_name("rust.obj")).expect("an object file");
    let object = HotPatchObject::parse(&object).expect("it can be read");
    assert_eq!(object.functions, ["answer"]);
    let of = |begin: &str| {
        let names = object.references.iter().map(|one| &one.name);
        names.filter(|name| name.starts_with(begin)).count()
    };
    assert_eq!((of(NAMELESS), of("__ref_TOTAL")), (3, 1), "{object:?}");
}

/// What the base has, too, is the base's; what is new stays a constant of the patch. None is refused,
/// and the variable is the base's.
#[test]
fn they_are_constants_of_the_base_or_of_the_patch() {
    let folder = Folder::new("nameless-run");
    let [base, fixed] = pair(&folder);
    let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    let metadata = read(&made).expect("it has metadata").patch;
    let chunks = metadata.bases[0].chunks.iter();
    let pointers = chunks.filter(|chunk| chunk.kind == ChunkKind::Absolute);
    let records = pointers.flat_map(|chunk| &chunk.records);
    let written: BTreeSet<u32> = records.map(|record| record.source).collect();
    let (of_variable, nameless) = (places(&fixed, "__ref_TOTAL"), places(&fixed, NAMELESS));
    assert_eq!((of_variable.len(), nameless.len()), (1, 3));
    assert!(of_variable.is_subset(&written));
    let of_patch: Vec<&u32> = nameless.difference(&written).collect();
    assert_eq!(of_patch.len(), 1, "{written:x?} of {nameless:x?}");

    let mut here = Here::new().expect("a target");
    let running = Mapped::new(&here, base.image().expect("read")).expect("it can be mapped");
    let call = |name: &str, value: i32| running.call(name, value).expect("it can be called");
    assert_eq!([call("answer", 0), call("answer", 2)], [3, 12]);
    let patch = Mapped::new(&here, made).expect("it can be mapped");
    let mut state = PatchedImage::new(running.loaded.clone());
    state
        .apply(&mut here, &patch.loaded)
        .expect("it is applied");
    assert_eq!(
        [0, 1, 2].map(|value| call("answer", value)),
        [1003, 1008, 1012]
    );
    assert_eq!(call("get_total", 0), 7 + 2 + 1 + 2, "one variable");
    state.revert(&mut here).expect("it is taken back");
    assert_eq!([call("answer", 0), call("answer", 1)], [3, 11]);
    assert_eq!(call("get_total", 0), 13);
}
