//! Control Flow Guard: both builds check calls through pointers in the same way, and a final image
//! tells each function of its own that may be called so.

use std::collections::BTreeSet;

use invivo_apply::hpat::PatchedImage;
use invivo_format::hpat::{self, ChunkKind, Options, Rule, validate};
use invivo_image::pe::PeImage;
use windows_tests::native::{Here, Mapped};
use windows_tests::{Build, Folder, Library, build, final_image};

fn library(folder: &Folder, name: &str, how: &Build) -> Library {
    build(folder, name, "guarded", how).expect("it is built")
}

#[test]
fn both_builds_check_or_none_does() {
    let folder = Folder::new("guard-parity");
    let (plain, fixed) = (Build::base(), Build::fixed("answer"));
    let base = library(&folder, "base", &plain);
    let guarded = library(&folder, "guarded", &plain.clone().guarded());
    let guarded_fix = library(&folder, "guarded-fix", &fixed.clone().guarded());
    let fix = library(&folder, "fix", &fixed);
    for (base, fixed) in [(&base, &guarded_fix), (&guarded, &fix)] {
        let why = final_image(base, fixed, 1).expect_err("they differ");
        let why = format!("{why:#}");
        assert!(
            why.contains("rule: Guard") && why.contains("GuardFlags are"),
            "{why}"
        );
    }
    final_image(&base, &fix, 1).expect("none of them checks");
    final_image(&guarded, &guarded_fix, 1).expect("both do");
}

#[test]
fn what_may_be_called_through_pointers_is_told() {
    let folder = Folder::new("guard-targets");
    let base = library(&folder, "base", &Build::base().guarded());
    let fixed = library(&folder, "fixed", &Build::fixed("answer").guarded());
    let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    let patch = hpat::read(&made).expect("it has metadata").patch;
    let chunks = patch.bases[0].chunks.iter();
    let told: Vec<u64> = chunks
        .filter(|chunk| chunk.kind == ChunkKind::CallTarget && chunk.inverse)
        .flat_map(|chunk| &chunk.records)
        .map(|record| record.source.into())
        .collect();
    let targets = fixed
        .image()
        .expect("read")
        .guard_targets()
        .expect("a table");
    let targets: Vec<u64> = targets.iter().map(|target| target.at.0).collect();
    assert_eq!(told, targets);
    // The function that the new code calls through a pointer is one of them.
    let image = fixed.image().expect("read");
    let called: BTreeSet<u64> = image.exports.iter().filter_map(|e| Some(e.at?.0)).collect();
    assert!(
        told.iter().any(|at| !called.contains(at)),
        "more than exports"
    );

    // One that is left out is missed.
    let base_image = base.image().expect("read");
    let options = Options {
        base: Some(&base_image),
        capacity: None,
    };
    assert!(validate(&made, &options).is_sound());
    let mut without = patch.clone();
    for chunk in &mut without.bases[0].chunks {
        if chunk.kind == ChunkKind::CallTarget {
            chunk.records.pop();
        }
    }
    let placed = hpat::place(&image, &without).expect("there is room");
    let broken = PeImage::parse(placed.file).expect("a Windows image");
    let report = validate(&broken, &options);
    assert!(!report.is_sound());
    let rules: BTreeSet<Rule> = report.findings.iter().map(|found| found.rule).collect();
    assert!(rules.contains(&Rule::A20), "{rules:?}");
}

/// It runs alone as the fixed build does. To make it live in a process is the kernel's: this engine
/// does not know what Windows' bitmap of call targets says, and refuses before the first write.
#[test]
fn a_guarded_final_image_runs_alone() {
    let folder = Folder::new("guard-alone");
    let base = library(&folder, "base", &Build::base().guarded());
    let fixed = library(&folder, "fixed", &Build::fixed("answer").guarded());
    let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    let here = Here::new().expect("a target");
    let mut target = here.clone();
    let patch = Mapped::new(&here, made).expect("it can be mapped");
    let call = |name: &str, argument: i32| patch.call(name, argument).expect("it runs");
    assert_eq!(call("answer", 4), 1026);
    assert_eq!(call("answer", -1), -1, "the fix");

    let running = Mapped::new(&here, base.image().expect("read")).expect("it can be mapped");
    let before = running.fixed_bytes();
    let mut state = PatchedImage::new(running.loaded.clone());
    let refused = state.apply(&mut target, &patch.loaded);
    let why = refused.expect_err("it is refused").to_string();
    assert!(why.contains("control-flow guard"), "{why}");
    assert!(before == running.fixed_bytes(), "nothing is written");
}

/// A call of what the table does not list ends the process, whoever took the address.
#[test]
fn whose_address_new_code_has_may_be_called() {
    let folder = Folder::new("guard-taken");
    let base = library(&folder, "base", &Build::base().guarded());
    let fixed = |name: &str, functions: &str, words: &str| {
        let how = Build::fixed(functions).guarded().with(words);
        library(&folder, name, &how)
    };
    let seen = fixed("seen", "answer,go", "-DSEEN");
    final_image(&base, &seen, 1).expect("the compiler lists it");
    let taken = fixed("taken", "answer,go", "-DTAKEN");
    let why = final_image(&base, &taken, 1).expect_err("nothing lists it");
    let why = format!("{why:#}");
    assert!(
        why.contains("rule: Guard") && why.contains("has the address of hidden"),
        "{why}"
    );
}

#[test]
fn what_pointers_of_the_base_lead_to_stays_a_target() {
    let folder = Folder::new("guard-stays");
    let base = library(&folder, "base", &Build::base().guarded());
    let fixed = |name: &str, functions: &str, words: &str| {
        let how = Build::fixed(functions).guarded().with(words);
        library(&folder, name, &how)
    };
    let stays = fixed("stays", "answer,stepped", "-DSTEPPED");
    final_image(&base, &stays, 1).expect("it is taken as before");
    let dropped = fixed("dropped", "answer,stepped,choose", "-DSTEPPED -DDROPPED");
    let why = final_image(&base, &dropped, 1).expect_err("nobody takes it any more");
    let why = format!("{why:#}");
    assert!(
        why.contains("rule: Guard") && why.contains("stepped"),
        "{why}"
    );
}
