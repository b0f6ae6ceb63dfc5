//! Two builds of a Windows library are compared as ELF images are, and what
//! no patch can carry is refused.

use invivo_compare::Comparison;
use invivo_format::hpat::{ChunkKind, read};
use invivo_image::Rva;
use windows_tests::{Build, Folder, build, final_image};

/// What stands in the way of a patch from one build to another.
fn refused(name: &str, base: &Build, fixed: &Build) -> String {
    let folder = Folder::new(name);
    let base = build(&folder, "base", "service", base).expect("the base is built");
    let fixed = build(&folder, "fixed", "service", fixed).expect("the fixed one is built");
    let refused = final_image(&base, &fixed, 1).expect_err("it must be refused");
    format!("{refused:#}")
}

#[test]
fn only_what_changed_is_hot() {
    let folder = Folder::new("hot");
    let base = build(&folder, "base", "service", &Build::base()).expect("built");
    let fixed = build(&folder, "fixed", "service", &Build::fixed("answer")).expect("built");
    let (base, fixed) = (base.view().expect("read"), fixed.view().expect("read"));
    let c = Comparison::new(&base, &fixed);
    let hot: Vec<&str> = c.hot.iter().map(|hot| hot.name.as_str()).collect();
    assert_eq!(hot, ["answer"]);
    let added: Vec<&str> = c.added.iter().map(|id| fixed.entity(*id).name()).collect();
    assert_eq!(added, ["refuse"]);
    assert!(!c.is_refused(), "{:#?}", c.findings);
    // A build that is compared with itself has nothing hot.
    assert!(Comparison::new(&base, &base).is_unchanged());
}

#[test]
fn a_variable_that_is_reached_directly() {
    let why = refused("direct", &Build::base(), &Build::fixed(""));
    assert!(why.contains("-fms-secure-hotpatch-functions-list"), "{why}");
}

#[test]
fn a_base_that_was_not_compiled_for_it() {
    let why = refused("plain", &Build::default(), &Build::fixed("answer"));
    assert!(
        why.contains("Hook") && why.contains("-fms-hotpatch"),
        "{why}"
    );
}

/// A `ret` in the place of padding: something may jump to it.
#[test]
fn a_base_without_padding() {
    let folder = Folder::new("padding");
    let base = build(&folder, "base", "service", &Build::base()).expect("built");
    let fixed = build(&folder, "fixed", "service", &Build::fixed("answer")).expect("built");
    for library in [&base, &fixed] {
        let image = library.image().expect("a Windows image");
        let mut exports = image.exports.iter();
        let answer = exports.find(|export| export.names == ["answer"]);
        let at = answer.and_then(|export| export.at).expect("it is exported");
        let place = image.file_place(Rva(at.0 - 1)).expect("code").start;
        let mut file = image.file().to_vec();
        file[place] = 0xc3;
        std::fs::write(&library.path, file).expect("it can be written");
    }
    let why = format!(
        "{:#}",
        final_image(&base, &fixed, 1).expect_err("no padding")
    );
    assert!(why.contains("no padding before it"), "{why}");
}

#[test]
fn a_type_of_live_data_that_grew() {
    let grown = Build::fixed("answer").with("-DGROWN");
    let why = refused("grown", &Build::base(), &grown);
    assert!(why.contains("Layout") && why.contains("state"), "{why}");
}

#[test]
fn a_variable_that_starts_with_another_value() {
    let other = Build::fixed("answer").with("-DINITIAL");
    let why = refused("initial", &Build::base(), &other);
    assert!(
        why.contains("InitialValue") && why.contains("total"),
        "{why}"
    );
}

#[test]
fn a_signature_that_others_call() {
    let wider = Build::fixed("answer").with("-DWIDER");
    let why = refused("wider", &Build::base(), &wider);
    assert!(why.contains("Signature") && why.contains("answer"), "{why}");
}

#[test]
fn a_new_export() {
    let more = Build::fixed("answer").with("-DEXPORTS");
    let why = refused("exports", &Build::base(), &more);
    assert!(why.contains("exported by one of the builds only"), "{why}");
}

/// The compiler reaches a thread's variable through a pointer to the template of all threads.
#[test]
fn a_variable_of_a_thread() {
    let base = Build::base().with("-DTHREAD");
    let fixed = Build::fixed("answer").with("-DTHREAD");
    let why = refused("thread", &base, &fixed);
    assert!(
        why.contains("thread") || why.contains("no variable"),
        "{why}"
    );
}

#[test]
fn imports_are_those_of_the_base() {
    let folder = Folder::new("imports");
    let base = Build::base().with("-DIMPORTS").importing(&["GetTickCount"]);
    let base = build(&folder, "base", "service", &base).expect("the base is built");
    let fixed = Build::fixed("answer").with("-DIMPORTS");
    let same = fixed.clone().importing(&["GetTickCount"]);
    let same = build(&folder, "fixed", "service", &same).expect("the fixed one is built");
    let made = final_image(&base, &same, 1).expect("nothing stands in the way");
    let metadata = read(&made).expect("it has metadata").patch;
    let mut chunks = metadata.bases[0].chunks.iter();
    let copied = chunks.find(|chunk| chunk.kind == ChunkKind::Indirect);
    let copied = &copied.expect("an import is copied").records;
    let slot = |library: &windows_tests::Library| {
        let image = library.image().expect("a Windows image");
        u32::try_from(image.imports[0].thunks[0].slot.0).expect("an RVA")
    };
    assert_eq!(copied.len(), 1);
    assert_eq!(
        (copied[0].source, copied[0].target),
        (slot(&same), slot(&base))
    );

    let more = fixed
        .with("-DMORE_IMPORTS")
        .importing(&["GetTickCount", "GetCurrentThreadId"]);
    let more = build(&folder, "more", "service", &more).expect("it is built");
    let why = format!(
        "{:#}",
        final_image(&base, &more, 1).expect_err("a new import")
    );
    assert!(
        why.contains("Import") && why.contains("GetCurrentThreadId"),
        "{why}"
    );
}
