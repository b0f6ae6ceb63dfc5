//! Libraries that are loaded at the first call (delay imports): what is refused of them, and why.

use windows_tests::{Build, Folder, Library, build, final_image};

const TWO: [&str; 2] = ["GetTickCount", "GetCurrentThreadId"];

/// Builds the library; `late` says whether what it imports is found at the first call.
fn library(
    folder: &Folder,
    name: &str,
    how: Build,
    imports: &[&'static str],
    late: bool,
) -> Library {
    let mut how = how.importing(imports);
    if late {
        how.link.push("/delayload:kernel32.dll".to_owned());
    }
    build(folder, name, "late", &how).expect("it is built")
}

fn fixed(words: &str, functions: &str) -> Build {
    Build::fixed(functions).with(words)
}

#[test]
fn a_new_one_is_refused() {
    let folder = Folder::new("late-more");
    let more = ["GetTickCount", "GetCurrentThreadId", "GetCurrentProcessId"];
    let new = library(&folder, "fixed", fixed("-DMORE", "answer"), &more, true);
    for late in [true, false] {
        let old = library(&folder, "base", Build::base(), &TWO, late);
        let why = final_image(&old, &new, 1).expect_err("a new import");
        let why = format!("{why:#}");
        assert!(why.contains("rule: Import"), "{why}");
        assert!(why.contains("GetCurrentProcessId"), "{why}");
    }
}

/// What a linker makes to find a function at its first call lies elsewhere in the fixed build, and leads
/// to a description of its own, which is not followed: nothing is patched then, whether or not imports
/// changed.
#[test]
fn what_a_linker_made_for_it_is_not_followed() {
    let folder = Folder::new("late-same");
    let old = library(&folder, "base", Build::base(), &TWO, true);
    for (name, words, imports) in [
        ("same", "", &TWO[..]),
        ("fewer", "-DFEWER", &["GetTickCount"]),
    ] {
        let new = library(&folder, name, fixed(words, "answer,who"), imports, true);
        let why = final_image(&old, &new, 1).expect_err("it is refused");
        let why = format!("{why:#}");
        let names = ["__tailMerge_kernel32", "__imp___load_"];
        assert!(names.iter().any(|name| why.contains(name)), "{why}");
    }
}
