//! A final image patches a base that runs: new code, old state.

use std::path::Path;

use invivo_apply::ApplyError;
use invivo_apply::hpat::{Outcome, PatchedImage};
use invivo_compare::Comparison;
use windows_tests::native::{Here, Mapped};
use windows_tests::wine::rust_library;
use windows_tests::{Build, Folder, Library, build, final_image};

fn library(folder: &Path, name: &str, how: &Build) -> Library {
    build(folder, name, "service", how).expect("it is built")
}

struct Running {
    here: Here,
    base: Mapped,
    /// The patch that was applied last.
    patch: Option<Mapped>,
    state: PatchedImage,
}

impl Running {
    fn new(base: &Library) -> Running {
        let here = Here::new().expect("a target");
        let image = base.image().expect("a Windows image");
        let base = Mapped::new(&here, image).expect("it can be mapped");
        let state = PatchedImage::new(base.loaded.clone());
        Running {
            here,
            base,
            patch: None,
            state,
        }
    }

    fn call(&self, name: &str, argument: i32) -> i32 {
        self.base.call(name, argument).expect("it can be called")
    }

    fn state(&self) -> [i32; 4] {
        ["get_total", "get_sum", "get_requests", "get_calls"].map(|name| self.call(name, 0))
    }

    fn try_apply(
        &mut self,
        base: &Library,
        fixed: &Library,
        sequence: u32,
    ) -> Result<Outcome, ApplyError> {
        let made = final_image(base, fixed, sequence).expect("nothing stands in the way");
        let mapped = Mapped::new(&self.here, made).expect("it can be mapped");
        let outcome = self.state.apply(&mut self.here, &mapped.loaded)?;
        self.patch = Some(mapped);
        Ok(outcome)
    }

    fn apply(&mut self, base: &Library, fixed: &Library, sequence: u32) -> Outcome {
        let outcome = self.try_apply(base, fixed, sequence);
        outcome.expect("it is applied")
    }

    fn revert(&mut self) {
        let outcome = self.state.revert(&mut self.here);
        assert!(!outcome.expect("it is taken back").left);
    }
}

#[test]
fn new_code_runs_on_old_state() {
    let folder = Folder::new("live");
    let base = library(&folder, "base", &Build::base());
    let fixed = library(&folder, "fixed", &Build::fixed("answer"));
    first_patch(&base, &fixed);
}

/// The whole way for a library in Rust: the same service, and the same answers.
#[test]
fn a_library_in_rust() {
    let folder = Folder::new("rust");
    let rust = |name: &str, words: &str, functions: &str| {
        rust_library(&folder, name, words, functions).expect("it is built")
    };
    let base = rust("base", "", "");
    // What a first comparison tells is what the build is repeated with.
    let plain = rust("plain", "fixed", "");
    let (old, new) = (base.view().expect("read"), plain.view().expect("read"));
    let c = Comparison::new(&old, &new);
    let hot: Vec<&str> = c
        .hot
        .iter()
        .map(|hot| new.entity(hot.fixed.main).name())
        .collect();
    assert_eq!(hot, ["answer"]);
    let why = format!("{:#}", final_image(&base, &plain, 1).expect_err("direct"));
    assert!(why.contains("reaches the variable"), "{why}");
    let fixed = rust("fixed", "fixed", &hot.join(","));
    let second = rust("second", "second", "halve");
    first_patch(&base, &fixed);
    successor(&base, &fixed, &second);
}

fn first_patch(base: &Library, fixed: &Library) {
    let mut running = Running::new(base);
    let before = running.base.fixed_bytes();

    assert_eq!(running.call("answer", 4), 26);
    assert_eq!(running.call("answer", -1), 16, "the mistake");
    assert_eq!(running.state(), [12, 8, 2, 4]);

    running.apply(base, fixed, 1);
    assert_eq!(running.call("answer", 4), 1026);
    assert_eq!(running.call("answer", -1), -1, "the fix");
    assert_eq!(
        running.call("answer", -1),
        -2,
        "its new variable is its own"
    );
    // Every variable went on from where it was, also those that only unchanged functions use.
    assert_eq!(running.state(), [96, 10, 5, 6]);

    // None of the patch's own copies was touched.
    let patch = running.patch.as_ref().expect("it is live");
    for (name, initial) in [
        ("get_total", 3),
        ("get_sum", 5),
        ("get_requests", 0),
        ("get_calls", 0),
    ] {
        assert_eq!(
            patch.call(name, 0).expect("it can be called"),
            initial,
            "{name}"
        );
    }

    running.revert();
    assert_eq!(running.call("answer", -1), 16);
    assert_eq!(running.state(), [192, 9, 6, 8]);
    assert!(before == running.base.fixed_bytes(), "byte for byte");
}

#[test]
fn a_later_patch_replaces_the_one_before_it() {
    let folder = Folder::new("successor");
    let base = library(&folder, "base", &Build::base());
    let first = library(&folder, "first", &Build::fixed("answer"));
    // It repairs another function and no longer the first one.
    let second = Build::base().with("-DSECOND -fms-secure-hotpatch-functions-list=halve,refuse");
    let second = library(&folder, "second", &second);
    successor(&base, &first, &second);
}

fn successor(base: &Library, first: &Library, second: &Library) {
    let mut running = Running::new(base);
    let before = running.base.fixed_bytes();
    running.apply(base, first, 1);
    assert_eq!(running.call("answer", -1), -1);
    assert_eq!(running.call("halve", 7), 3);

    running.apply(base, second, 2);
    assert_eq!(running.call("answer", -1), 16, "the first patch is gone");
    assert_eq!(running.call("halve", 7), -1, "the second one is live");

    let late = running.try_apply(base, first, 2);
    assert!(late.expect_err("too late").to_string().contains("sequence"));
    running.revert();
    assert!(running.base.fixed_bytes() == before, "byte for byte");
}

#[test]
fn a_final_image_runs_alone() {
    let folder = Folder::new("alone");
    let base = library(&folder, "base", &Build::base());
    let fixed = library(&folder, "fixed", &Build::fixed("answer"));
    let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    let here = Here::new().expect("a target");
    let alone = Mapped::new(&here, made).expect("it can be mapped");
    assert_eq!(alone.call("answer", 4).expect("it runs"), 1026);
    assert_eq!(alone.call("get_total", 0).expect("it runs"), 6);
    assert_eq!(alone.call("get_calls", 0).expect("it runs"), 2);
}

#[test]
fn a_patch_for_another_build_is_refused() {
    let folder = Folder::new("foreign");
    let base = library(&folder, "base", &Build::base());
    let other = library(&folder, "other", &Build::base().with("-DEXPORTS"));
    let fixed = library(&folder, "fixed", &Build::fixed("answer"));
    let mut running = Running::new(&other);
    let before = running.base.fixed_bytes();
    let refused = running
        .try_apply(&base, &fixed, 1)
        .expect_err("another build");
    assert!(refused.to_string().contains("A28"), "{refused}");
    assert!(running.base.fixed_bytes() == before, "nothing is written");
}

#[test]
fn virtual_functions_and_variables_of_classes() {
    let folder = Folder::new("shapes");
    let cpp = |name: &str, how: &Build| build(&folder, name, "shapes", how).expect("it is built");
    let base = cpp("base", &Build::base());
    // As `invivo build --emit-functions-file` writes them after a first build.
    let list = "?area@Shape@shapes@@UEBAHH@Z,?area@Box@shapes@@UEBAHH@Z,?measure@shapes@@YAHHH@Z";
    let fixed = cpp("fixed", &Build::fixed(list));
    let mut running = Running::new(&base);
    assert_eq!(running.call("flat", 3), 12 + 4 + i32::from(b'o'));
    assert_eq!(
        running.call("area", -1),
        -24 + 8 + i32::from(b't'),
        "the mistake"
    );
    assert_eq!(running.call("measured", 0), 6);

    running.apply(&base, &fixed, 1);
    assert_eq!(running.call("flat", 3), 12 + 4 + i32::from(b'o'));
    assert_eq!(running.call("area", -1), 8 + i32::from(b't'), "the fix");
    assert_eq!(running.call("area", 2000), -1);
    assert_eq!(running.call("along", 1), 24 + 8 + i32::from(b't') + 1);
    assert_eq!(running.call("measured", 0), 9);
    let patch = running.patch.as_ref().expect("it is live");
    assert_eq!(patch.call("measured", 0).expect("it can be called"), 4);
}
