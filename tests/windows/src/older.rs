//! Patches of older Windows made of two builds. What does not work ends the test that asks for it.

use invivo_compare::Comparison;
use invivo_format::hotp1::{self, HookShape};
use invivo_image::pe::PeImage;
use invivo_patch::{plan_cold, plan_module};

use crate::Library;

/// The patch module that the fixed build becomes.
#[must_use]
pub fn patch_module(base: &Library, fixed: &Library, shape: Option<HookShape>) -> PeImage {
    let (old, new) = (base.view().expect("a view"), fixed.view().expect("a view"));
    let plan = plan_module(&Comparison::new(&old, &new)).expect("nothing is refused");
    let [old, new] = [base, fixed].map(|library| library.image().expect("a Windows image"));
    let file = hotp1::build(&old, &new, &plan, &name(base), shape).expect("there is room");
    PeImage::parse(file).expect("a Windows image")
}

/// The base's file, patched on disk; it keeps the rules.
#[must_use]
pub fn patched_file(base: &Library, fixed: &Library, shape: Option<HookShape>) -> PeImage {
    let (old, new) = (base.view().expect("a view"), fixed.view().expect("a view"));
    let plan = plan_cold(&Comparison::new(&old, &new)).expect("nothing is refused");
    let [old, new] = [base, fixed].map(|library| library.image().expect("a Windows image"));
    let module = hotp1::build(&old, &new, &plan, &name(base), shape).expect("there is room");
    let module = PeImage::parse(module).expect("a Windows image");
    let made = hotp1::cold(&old, &module, Some(&plan)).expect("there is room");
    let image = PeImage::parse(made.file).expect("a Windows image");
    assert_eq!(hotp1::validate_cold(&image, Some(&old)), []);
    image
}

fn name(base: &Library) -> String {
    let name = base.path.file_name().expect("a name");
    name.to_string_lossy().into_owned()
}
