//! What the compiler was told to make for hot patching is held against what changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use invivo_compare::Comparison;
use invivo_image::pe::{HotPatchObject, Pdb};
use invivo_patch::{HotPatchMarks, Unmatched};
use windows_tests::{Build, Library, build, recorded};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

fn marks(base: &Library, fixed: &Library, marked: &[&str]) -> HotPatchMarks {
    let (base, fixed) = (base.view().expect("read"), fixed.view().expect("read"));
    let marked: BTreeSet<String> = marked.iter().map(|name| (*name).to_owned()).collect();
    HotPatchMarks::new(&Comparison::new(&base, &fixed), &marked)
}

fn names(list: &[Unmatched]) -> Vec<&str> {
    list.iter().map(|one| one.name.as_str()).collect()
}

/// The compiler's own records and pointers, which its linker leaves out of the PDB file.
#[test]
fn an_object_file_tells_what_was_compiled_for_it() {
    let folder = folder("objects");
    let fixed = build(&folder, "fixed", "service", &Build::fixed("answer,refuse")).expect("built");
    let object = fixed.path.with_file_name("service.obj");
    let object = std::fs::read(object).expect("an object file");
    let object = HotPatchObject::parse(&object).expect("it can be read");
    assert_eq!(object.functions, ["refuse", "answer"]);
    let mut references: Vec<&str> = object.references.iter().map(|one| &*one.name).collect();
    references.sort_unstable();
    let variables = ["callback", "refusals", "service_state", "sum", "total"];
    assert_eq!(references, variables.map(|name| format!("__ref_{name}")));
    for reference in &object.references {
        let default = format!(".weak.{}.default.", reference.name);
        assert!(reference.default.starts_with(&default), "{reference:?}");
    }
    let other = fixed.path.with_file_name("twice.obj");
    let other = HotPatchObject::parse(&std::fs::read(other).expect("an object file"));
    let other = other.expect("it can be read");
    assert!(other.functions.is_empty() && other.references.is_empty());
    let linkage = &other.linkage["twice"];
    assert!(
        linkage.len() == 1 && linkage.contains("twice"),
        "{linkage:?}"
    );
    assert!(HotPatchObject::parse(&object_of_nothing()).is_err());
}

fn object_of_nothing() -> Vec<u8> {
    b"no object file at all".to_vec()
}

#[test]
fn what_changed_must_have_been_compiled_for_it() {
    let folder = folder("marked");
    let base = build(&folder, "base", "service", &Build::base()).expect("built");
    let fixed = build(&folder, "fixed", "service", &Build::fixed("answer")).expect("built");
    assert!(marks(&base, &fixed, &["answer"]).agree());
    // A new function may be compiled either way.
    assert!(marks(&base, &fixed, &["answer", "refuse"]).agree());
    let other = marks(&base, &fixed, &["halve"]);
    assert_eq!(names(&other.missing), ["answer"]);
    assert_eq!(names(&other.surplus), ["halve"]);
    assert_eq!(other.surplus[0].why, "is the same in both builds");
    let unknown = marks(&base, &fixed, &["answer", "nobody"]);
    assert_eq!(unknown.surplus[0].why, "is no function of the fixed build");
}

/// The usual surprise: the function with the mistake is inlined, and those that it is inlined in
/// are not compiled for hot patching.
#[test]
fn inlining_is_told_with_its_chain() {
    let folder = folder("inlined");
    let base = build(&folder, "base", "inlined", &Build::base()).expect("built");
    let fixed = build(&folder, "fixed", "inlined", &Build::fixed("checked")).expect("built");
    let found = marks(&base, &fixed, &["checked"]);
    assert_eq!(names(&found.missing), ["first", "second"]);
    let chain = "first → clamped → checked";
    assert!(found.missing[0].why.contains(chain), "{found:?}");
    assert_eq!(names(&found.surplus), ["checked"]);
    assert!(found.surplus[0].why.contains(chain), "{found:?}");
    assert!(
        found.surplus[0].why.contains("second → checked"),
        "{found:?}"
    );
    let all = build(&folder, "all", "inlined", &Build::fixed("first,second")).expect("built");
    assert!(marks(&base, &all, &["first", "second"]).agree());
}

/// The object files that it was linked of.
fn objects(library: &Library) -> Vec<PathBuf> {
    let folder = library.path.parent().expect("a folder");
    let files = std::fs::read_dir(folder).expect("a folder");
    let files = files.map(|file| file.expect("a file").path());
    let is_object = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "obj");
    files.filter(is_object).collect()
}

/// What LLVM's own reader shows of a PDB file's symbols.
fn dumped(pdb: &Path) -> String {
    let mut reader = std::process::Command::new("llvm-pdbutil-22");
    let output = reader.args(["dump", "-symbols"]).arg(pdb).output();
    let output = output.expect("llvm-pdbutil-22 is installed by cargo xtask test");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The records that a linker for Visual C++ leaves in the PDB file are those of the object files.
#[test]
fn a_pdb_file_tells_what_was_compiled_for_it() {
    let folder = folder("recorded");
    for (program, marked, expected) in [
        ("service", "answer,refuse", &["refuse", "answer"][..]),
        ("privates", "thrice", &["thrice"]),
        (
            "shapes",
            "?measure@shapes@@YAHHH@Z,?area@Shape@shapes@@UEBAHH@Z",
            &["?area@Shape@shapes@@UEBAHH@Z", "?measure@shapes@@YAHHH@Z"],
        ),
    ] {
        let fixed = build(&folder, program, program, &Build::fixed(marked)).expect("built");
        let read = |library: &Library| {
            let pdb = std::fs::read(&library.pdb).expect("a PDB file");
            Pdb::parse(&pdb).expect("it can be read")
        };
        // LLVM's linker writes over them.
        let before = read(&fixed);
        assert!(before.hot_patch_functions.is_empty(), "{program}");
        let restored = recorded::restore(&fixed.pdb, &objects(&fixed)).expect("restored");
        assert_eq!(restored, expected.len(), "{program}");
        let after = read(&fixed);
        assert_eq!(after.hot_patch_functions, expected, "{program}");
        assert_eq!((after.guid, after.age), (before.guid, before.age));
        assert_eq!(after.symbols.len(), before.symbols.len(), "{program}");
        // A reader that knows nothing of ours finds the same, with the function's number.
        let dumped = dumped(&fixed.pdb);
        for name in expected {
            let line = dumped
                .lines()
                .find(|line| line.contains(&format!("name = {name}")));
            let line = line.expect("the record is there");
            assert!(!line.contains("function = 0x0 "), "{line}");
        }
    }
}

/// More sections than 16 bits count (`/bigobj`): the header is another one, and so are the symbols.
#[test]
fn an_object_file_with_many_sections() {
    let folder = folder("wide");
    let fixed = build(&folder, "fixed", "wide", &Build::fixed("answer")).expect("built");
    let object = std::fs::read(fixed.path.with_file_name("wide.obj")).expect("an object file");
    assert_eq!(object[..4], [0, 0, 0xff, 0xff], "it is of the large kind");
    let object = HotPatchObject::parse(&object).expect("it can be read");
    assert_eq!(object.functions, ["answer"]);
    assert_eq!(object.references.len(), 1);
    assert_eq!(object.references[0].name, "__ref_total");
    assert!(
        object.linkage["answer"].contains("answer"),
        "{:?}",
        object.linkage
    );
}

/// As many names as a large image has are held against it in a moment: to find one takes no longer where an
/// image has a hundred times as many functions.
#[test]
fn a_long_list_is_held_at_once() {
    let folder = folder("long-list");
    let names: BTreeSet<String> = (0..5_000)
        .map(|number| format!("nobody_{number}"))
        .collect();
    let least = |program: &str| {
        let base = build(&folder, &format!("{program}-base"), program, &Build::base());
        let fixed = Build::base().with("-DFIXED");
        let fixed = build(&folder, &format!("{program}-fixed"), program, &fixed);
        let [base, fixed] = [base, fixed].map(|one| one.expect("built").view().expect("read"));
        let c = Comparison::new(&base, &fixed);
        let took = (0..3).map(|_| {
            let begin = std::time::Instant::now();
            assert_eq!(HotPatchMarks::new(&c, &names).surplus.len(), names.len());
            begin.elapsed()
        });
        took.min().expect("three")
    };
    let (small, large) = (least("steady"), least("many"));
    assert!(
        large < small * 8,
        "{small:?} for 5 functions, {large:?} for 500"
    );
}
