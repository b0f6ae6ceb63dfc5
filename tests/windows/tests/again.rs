//! A loop that leads to its function's own first instruction: a frame in it would go on in the new function, so what runs
//! is not patched; a file is.

use std::path::Path;

use invivo_compare::Comparison;
use invivo_format::hotp1::{self, cold};
use invivo_image::pe::PeImage;
use invivo_patch::{plan_cold, plan_final, plan_module};
use windows_tests::native::{Here, Mapped};
use windows_tests::{Build, Folder, Library, build};

fn library(folder: &Path, name: &str, how: &Build) -> Library {
    build(folder, name, "again", &how.clone().roomy()).expect("it is built")
}

#[test]
fn only_a_file_is_patched() {
    let folder = Folder::new("again");
    let base = library(&folder, "base", &Build::base());
    let fixed = library(&folder, "fixed", &Build::fixed("turns"));
    let (old, new) = (base.view().expect("a view"), fixed.view().expect("a view"));
    let c = Comparison::new(&old, &new);
    for refused in [plan_final(&c), plan_module(&c)] {
        let text = format!("{:?}", refused.expect_err("somebody may be inside"));
        assert!(
            text.contains("jumps back to its own first instruction"),
            "{text}"
        );
        assert!(text.contains("turns"), "{text}");
    }
    let plan = plan_cold(&c).expect("nobody is inside a file");
    let [old, new] = [&base, &fixed].map(|library| library.image().expect("a Windows image"));
    let module = hotp1::build(&old, &new, &plan, "again.dll", None).expect("there is room");
    let module = PeImage::parse(module).expect("a Windows image");
    let file = cold(&old, &module, Some(&plan))
        .expect("there is room")
        .file;
    let here = Here::new().expect("a target");
    let image = PeImage::parse(file).expect("a Windows image");
    let mapped = Mapped::new(&here, image).expect("it can be mapped");
    assert_eq!(mapped.call("call", 5).expect("it is exported"), 2000);
}
