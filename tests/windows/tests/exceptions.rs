//! Exceptions in functions of a final image: what handles them is followed as any other code, and
//! what nobody could get past is refused.

use std::sync::Arc;

use invivo_compare::{Comparison, Rule};
use invivo_image::pe::{Pdb, PeImage};
use invivo_image::{Image, LinkAddr};
use invivo_patch::{FinalPlan, Refused, plan_final};
use windows_tests::{Build, Folder, Library, build};

const OF_C: &[&str] = &["__C_specific_handler"];
const OF_CPP: &[&str] = &["__CxxFrameHandler3", "_CxxThrowException"];

fn in_c(folder: &Folder, name: &str, how: Build, words: &str) -> Library {
    let how = how.importing(OF_C).importing(&["GetTickCount"]);
    let how = how.with(words);
    build(folder, name, "handled", &how).expect("it is built")
}

fn plan(base: &Library, fixed: &Library) -> Result<FinalPlan, Vec<(Rule, String)>> {
    let (old, new) = (base.view().expect("read"), fixed.view().expect("read"));
    plan_final(&Comparison::new(&old, &new)).map_err(|error| match error {
        Refused::Findings(found) => {
            let told = found.into_iter();
            told.map(|one| (one.rule, format!("{} {}", one.subject, one.text)))
                .collect()
        }
        other => vec![(Rule::Build, other.to_string())],
    })
}

fn refused(base: &Library, fixed: &Library, rule: Rule, text: &str) {
    let found = plan(base, fixed).expect_err("it is refused");
    let is_there = found
        .iter()
        .any(|(of, told)| *of == rule && told.contains(text));
    assert!(is_there, "{found:?}");
}

#[test]
fn what_handles_exceptions_of_c_is_led_to_the_base() {
    let folder = Folder::new("handled");
    let base = in_c(&folder, "base", Build::base(), "");
    let fixed = in_c(&folder, "fixed", Build::fixed("answer"), "");
    let plan = plan(&base, &fixed).expect("nothing stands in the way");
    let slots: Vec<&str> = plan.imports.iter().map(|link| &*link.name).collect();
    assert_eq!(slots, ["kernel32.dll!__C_specific_handler"]);
    // What decides whether an exception is handled is called from a filter only.
    assert!(
        plan.unchanged.iter().any(|link| link.name == "look"),
        "{plan:?}"
    );
}

#[test]
fn what_handles_exceptions_is_held_to_the_rules() {
    let folder = Folder::new("handled-refused");
    let base = in_c(&folder, "base", Build::base(), "");
    // What a filter uses of the base's is used directly.
    let direct = in_c(&folder, "direct", Build::fixed("answer"), "-DDIRECT");
    refused(
        &base,
        &direct,
        Rule::Binding,
        "reaches the variable seen directly",
    );
    let marked = in_c(&folder, "marked", Build::fixed("answer,look"), "-DDIRECT");
    plan(&base, &marked).expect("compiled for hot patching it is not");
    // Nobody brought the routine.
    let plain = in_c(&folder, "plain", Build::base(), "-DPLAIN");
    let first = in_c(&folder, "first", Build::fixed("answer"), "-DPLAIN");
    refused(&plain, &first, Rule::Import, "__C_specific_handler");
}

#[test]
fn nothing_is_run_that_exceptions_do_not_get_past() {
    let folder = Folder::new("handled-past");
    let base = in_c(&folder, "base", Build::base(), "");
    let naked = |name: &str, words: &str| {
        in_c(
            &folder,
            name,
            Build::fixed("answer"),
            &format!("-DNAKED {words}"),
        )
    };
    let calls = naked("calls", "-DASSEMBLY");
    refused(&base, &calls, Rule::Unwind, "no entry for past");
    let leaf = naked("leaf", "-DLEAF");
    plan(&base, &leaf).expect("it does not touch the stack");
    let other = naked("other", "-DOTHER");
    refused(&base, &other, Rule::Personality, "by of_another_language");
}

#[test]
fn what_catches_and_throws_in_cpp_is_followed() {
    let folder = Folder::new("caught");
    let library = |name: &str, how: Build, words: &str| {
        let mut how = how.with("-fexceptions -fcxx-exceptions").with(words);
        how.runtime.extend(OF_CPP);
        build(&folder, name, "caught", &how).expect("it is built")
    };
    let base = library("base", Build::base(), "");
    let fixed = library("fixed", Build::fixed("answer"), "");
    let made = plan(&base, &fixed).expect("nothing stands in the way");
    let slots: Vec<&str> = made.imports.iter().map(|link| &*link.name).collect();
    assert_eq!(slots, ["vcruntime140.dll!__CxxFrameHandler3"]);
    // A thrown object is copied by its own constructor, which nothing calls.
    let throws = library("throws", Build::fixed("answer"), "-DTHROWS");
    plan(&base, &throws).expect("its constructor uses nothing of the base's");
    let counts = library("counts", Build::fixed("answer"), "-DTHROWS -DCOUNTS");
    refused(&base, &counts, Rule::Binding, "refused directly");
}

fn newer(folder: &Folder, name: &str, how: Build, words: &str) -> Library {
    let mut how = how.with(words);
    how.runtime.push("__CxxFrameHandler4");
    build(folder, name, "newer", &how).expect("it is built")
}

/// The functions that differ, and what is refused.
fn told(base: &Library, fixed: &Library) -> (Vec<String>, Vec<String>) {
    let (old, new) = (base.view().expect("read"), fixed.view().expect("read"));
    let c = Comparison::new(&old, &new);
    let findings = c.findings.iter();
    let told = findings.map(|one| format!("{} {} {}", one.rule.id(), one.subject, one.text));
    (
        c.hot.iter().map(|hot| hot.name.clone()).collect(),
        told.collect(),
    )
}

#[test]
fn what_newer_visual_cpp_catches_is_followed() {
    let folder = Folder::new("newer");
    let base = newer(&folder, "base", Build::base(), "");
    let fixed = newer(&folder, "fixed", Build::fixed("answer"), "");
    let made = plan(&base, &fixed).expect("nothing stands in the way");
    let slots: Vec<&str> = made.imports.iter().map(|link| &*link.name).collect();
    assert_eq!(slots, ["vcruntime140.dll!__CxxFrameHandler4"]);
    // What cleans up and what catches is called by the tables alone.
    for name in ["clean", "catch_it"] {
        let is_led = made.unchanged.iter().any(|link| link.name == name);
        assert!(is_led, "{name}: {made:?}");
    }
    let broken = newer(
        &folder,
        "broken",
        Build::fixed("answer"),
        "-DHEADER=0x3c -DTYPE=type_of_long",
    );
    refused(&base, &broken, Rule::Unwind, "compressed tables");
}

#[test]
fn what_newer_visual_cpp_catches_is_compared() {
    let folder = Folder::new("newer-compared");
    let base = newer(&folder, "base", Build::base(), "");
    let mut elsewhere = Build::base();
    elsewhere.reversed = true;
    elsewhere
        .link
        .extend(["/base:0x150000000", "/functionpadmin:32"].map(str::to_owned));
    let moved = newer(&folder, "moved", elsewhere, "");
    assert_eq!(told(&base, &moved), (vec![], vec![]));
    for (name, words) in [
        ("type", "-DTYPE=type_of_long"),
        ("adjectives", "-DADJECTIVES=0"),
        ("places", "-DFROM=2"),
        ("header", "-DHEADER=0x18"),
    ] {
        let other = newer(&folder, name, Build::base(), words);
        assert_eq!(told(&base, &other).0, ["guess_it"], "{name}");
    }
    // Flags of a tool that no such table was seen of.
    let [one, other] =
        ["one", "other"].map(|name| newer(&folder, name, Build::base(), "-DHEADER=0x3c"));
    let findings = told(&one, &other).1;
    let is_told = findings
        .iter()
        .any(|one| one.contains("R-PERSONALITY __CxxFrameHandler4"));
    assert!(is_told, "{findings:?}");
}

#[test]
fn compressed_tables_may_hold_anything() {
    let folder = Folder::new("newer-hostile");
    let library = newer(&folder, "base", Build::base(), "");
    let pdb = Pdb::parse(&std::fs::read(&library.pdb).expect("a PDB file")).expect("sound");
    let good = library.image().expect("a Windows image");
    let handlers = good
        .functions
        .iter()
        .map(|of| (of.code.start, good.handler(of)));
    let handlers = handlers.filter_map(|(start, handler)| Some((start, handler.ok()??)));
    let [(start, handler)] = handlers.collect::<Vec<_>>()[..] else {
        panic!("one function handles exceptions");
    };
    let sound = good.compressed_frame_tables(start, handler.data);
    let sound = sound.expect("its tables are read");
    assert_eq!((sound.code.len(), sound.types.len()), (2, 1), "{sound:?}");
    // The tables stand behind their address, and end with the file's part of the section.
    let tables = good.file_place(handler.data).expect("in the file");
    let length = tables.len().min(80);
    for at in tables.start..tables.start + length {
        for value in [0, 1, 3, 0x0f, 0x7f, 0x80, 0xff] {
            let mut file = good.file().to_vec();
            file[at] = value;
            let image = PeImage::parse(Arc::from(file)).expect("only tables differ");
            let _ = image.compressed_frame_tables(start, handler.data);
            let view = Image::from_pe(&image, &pdb).expect("only tables differ");
            let all = view.base..LinkAddr(u64::MAX);
            let told = view.handling_in(&all).iter();
            told.for_each(|one| drop(one.words(&view)));
        }
    }
}
