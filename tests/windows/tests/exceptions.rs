//! Exceptions in functions of a final image: what handles them is followed as any other code, and
//! what nobody could get past is refused.

use invivo_compare::{Comparison, Rule};
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
