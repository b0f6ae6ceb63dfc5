//! Functions whose stack is guarded: new code puts down the number of the base that runs, which another function holds
//! against the base's own, and what overflows is found.

use std::path::Path;

use invivo_apply::hotp1::PatchedModule;
use invivo_apply::hpat::PatchedImage;
use invivo_compare::Comparison;
use invivo_format::hotp1::{self, cold};
use invivo_image::pe::PeImage;
use invivo_patch::{plan_cold, plan_module};
use windows_tests::native::{Here, Mapped};
use windows_tests::{Build, Folder, Library, build, final_image};

const GUARDED: &str = "-fstack-protector-strong";

fn libraries(folder: &Path) -> (Library, Library) {
    let library = |name: &str, how: Build| {
        build(folder, name, "cookie", &how.with(GUARDED).roomy()).expect("it is built")
    };
    let base = library("base", Build::base());
    let fixed = library("fixed", Build::fixed("spell"));
    (base, fixed)
}

/// What reaches the number on the stack, behind an array of 32 bytes.
const TOO_LONG: i32 = 48;
/// So many make the base's number another one while it stands on the stack.
const CHANGES: i32 = 7;
/// What is answered where the stack's number is not the base's.
const FOUND: i32 = -1;

/// The answer with the new function's part of it, and that what overflows is found, which is told by a function of the
/// base.
fn is_guarded(library: &Mapped, new: i32) {
    let call = |name: &str, argument| library.call(name, argument).expect("it is exported");
    let before = call("get_failures", 0);
    assert_eq!(call("spelled", 5), 97 + new);
    assert_eq!(call("get_failures", 0), before, "nothing overflowed");
    assert_eq!(call("spelled", TOO_LONG), FOUND);
    assert_eq!(call("get_failures", 0), before + 1);
}

#[test]
fn in_a_final_image() {
    let folder = Folder::new("cookie");
    let (base, fixed) = libraries(&folder);
    let mut here = Here::new().expect("a target");
    let image = base.image().expect("a Windows image");
    let library = Mapped::new(&here, image).expect("it can be mapped");
    library.call("set_cookie", 12345).expect("it is exported");
    is_guarded(&library, 0);
    let made = final_image(&base, &fixed, 1).expect("nothing stands in the way");
    let patch = Mapped::new(&here, made).expect("it can be mapped");
    let mut state = PatchedImage::new(library.loaded.clone());
    state
        .apply(&mut here, &patch.loaded)
        .expect("it is applied");
    is_guarded(&library, 1000);
    // It is the base's own number, of which the final image has a copy.
    let number = |mapped: &Mapped, library: &Library| {
        let image = library.view().expect("a view");
        let mut all = image.entities.iter();
        let found = all.find(|entity| entity.name() == "__security_cookie");
        let at = image.rva(found.expect("it is there").addr);
        let at = at.expect("it is in the image");
        mapped.read::<8>(at).expect("it is mapped")
    };
    assert_eq!(number(&patch, &fixed), number(&library, &base));
    state.revert(&mut here).expect("it is taken back");
    is_guarded(&library, 0);
}

fn module(base: &Library, fixed: &Library, on_disk: bool) -> (PeImage, invivo_patch::FinalPlan) {
    let (old, new) = (base.view().expect("a view"), fixed.view().expect("a view"));
    let c = Comparison::new(&old, &new);
    let plan = if on_disk {
        plan_cold(&c)
    } else {
        plan_module(&c)
    };
    let plan = plan.expect("nothing is refused");
    let [old, new] = [base, fixed].map(|library| library.image().expect("a Windows image"));
    let file = hotp1::build(&old, &new, &plan, "target.dll", None).expect("there is room");
    (PeImage::parse(file).expect("a Windows image"), plan)
}

#[test]
fn in_a_patch_module() {
    let folder = Folder::new("cookie-module");
    let (base, fixed) = libraries(&folder);
    let mut here = Here::new().expect("a target");
    let image = base.image().expect("a Windows image");
    let library = Mapped::new(&here, image).expect("it can be mapped");
    library.call("set_cookie", 12345).expect("it is exported");
    let (made, _) = module(&base, &fixed, false);
    let patch = Mapped::new(&here, made).expect("it can be mapped");
    let mut state = PatchedModule::new(library.loaded.clone());
    let applied = state.apply(&mut here, &patch.loaded);
    applied.expect("it is applied");
    is_guarded(&library, 1000);
    // It is the base's own number, whatever that becomes.
    assert_eq!(
        library.call("spelled", CHANGES).expect("it is exported"),
        FOUND
    );
    state
        .remove(&mut here, patch.loaded.at)
        .expect("it is removed");
    is_guarded(&library, 0);
}

#[test]
fn in_a_file_that_was_patched() {
    let folder = Folder::new("cookie-cold");
    let (base, fixed) = libraries(&folder);
    let (made, plan) = module(&base, &fixed, true);
    let image = base.image().expect("a Windows image");
    let file = cold(&image, &made, Some(&plan))
        .expect("there is room")
        .file;
    let here = Here::new().expect("a target");
    let image = PeImage::parse(file).expect("a Windows image");
    let library = Mapped::new(&here, image).expect("it can be mapped");
    library.call("set_cookie", 12345).expect("it is exported");
    is_guarded(&library, 1000);
    // It is the base's own number, whatever that becomes.
    assert_eq!(
        library.call("spelled", CHANGES).expect("it is exported"),
        FOUND
    );
}
