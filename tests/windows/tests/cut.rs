//! Files of a Windows build that end at any byte: an error or what is left, in little time, and never a
//! panic of ours. The library that reads PDB files answers some broken ones with one, which is caught and
//! made an error of (`Pdb::parse`); so each panic is looked at where it begins.

use std::panic::Location;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use invivo_format::hpat::{Options, read, validate};
use invivo_image::Image;
use invivo_image::pe::{HotPatchObject, Pdb, PeImage};
use windows_tests::{Build, Folder, Library, build, final_image};

/// One look must be over by then, on a slow machine too.
const LIMIT: Duration = Duration::from_secs(10);

fn library(folder: &Folder, name: &str, how: &Build) -> Library {
    build(folder, name, "held", &how.clone().importing(&["Sleep"])).expect("it is built")
}

fn fixed(folder: &Folder) -> Library {
    library(folder, "fixed", &Build::fixed("answer,reply"))
}

/// Places in Invivo's own code where a panic began, whether or not somebody caught it.
static OWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// True for a place of this workspace, whose paths have no folder before them; what comes from a registry
/// or with the compiler has.
fn is_own(at: &Location<'_>) -> bool {
    at.file().starts_with("crates/")
}

/// Has panics looked at where they begin.
fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match panic.location() {
            Some(at) if is_own(at) => {
                let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
                own.push(at.to_string());
            }
            // Of a library thousands are caught, which nobody wants to read.
            Some(at) if at.file().contains("/ms-pdb-") || at.file().contains("/ms-codeview-") => {}
            _ => told(panic),
        }));
    });
}

/// Ends the test where a panic of ours began since it was asked last.
fn no_own_panic(what: &str) {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let own = std::mem::take(&mut *own);
    assert!(own.is_empty(), "{what}: {own:?}");
}

/// Looks at `file` cut at each byte; says how many of these were no error.
fn each_cut(file: &[u8], what: &str, mut look: impl FnMut(&[u8]) -> bool) -> usize {
    watch();
    let mut taken = 0;
    for length in 0..file.len() {
        let start = Instant::now();
        taken += usize::from(look(&file[..length]));
        let took = start.elapsed();
        assert!(took < LIMIT, "{what} of {length} bytes: {took:?}");
        no_own_panic(&format!("{what} of {length} bytes"));
    }
    taken
}

#[test]
fn pdb_files() {
    let folder = Folder::new("cut-pdb");
    let library = fixed(&folder);
    let good = std::fs::read(&library.pdb).expect("it can be read");
    let image = library.image().expect("a Windows image");
    let view = |file: &[u8]| Pdb::parse(file).is_ok_and(|pdb| Image::from_pe(&image, &pdb).is_ok());
    assert!(view(&good));
    // What the last page lacks nobody may need; a page that is missing is missed.
    let page = 4096;
    let taken = each_cut(&good, "a PDB file", view);
    assert!(taken < page, "{taken} of {}", good.len());
    // The same where the file says that it has no more pages than are left.
    let count = 0x28;
    for length in (page..good.len()).step_by(61) {
        let mut file = good[..length].to_vec();
        let pages = u32::try_from(length.div_ceil(page)).expect("small");
        file[count..count + 4].copy_from_slice(&pages.to_le_bytes());
        let start = Instant::now();
        let _ = view(&file);
        assert!(start.elapsed() < LIMIT, "{length} bytes");
        no_own_panic(&format!("{length} bytes"));
    }
}

#[test]
fn object_files() {
    let folder = Folder::new("cut-object");
    let library = fixed(&folder);
    let object = library.path.with_file_name("held.obj");
    let good = std::fs::read(object).expect("it can be read");
    let whole = HotPatchObject::parse(&good).expect("an object file");
    assert_eq!(whole.functions.len(), 2);
    each_cut(&good, "an object file", |file| {
        let Ok(found) = HotPatchObject::parse(file) else {
            return false;
        };
        // It never tells more than there is.
        assert!(found.functions.len() <= whole.functions.len());
        assert!(found.references.len() <= whole.references.len());
        true
    });
}

#[test]
fn final_images() {
    let folder = Folder::new("cut-image");
    let base = library(&folder, "base", &Build::base());
    let made = final_image(&base, &fixed(&folder), 1).expect("nothing stands in the way");
    let base = base.image().expect("a Windows image");
    let options = Options {
        base: Some(&base),
        capacity: None,
    };
    let is_sound = |file: &[u8]| {
        let Ok(image) = PeImage::parse(Arc::from(file)) else {
            return false;
        };
        let report = validate(&image, &options);
        assert!(
            report.is_sound() <= read(&image).is_ok(),
            "sound and unread"
        );
        report.is_sound()
    };
    assert!(is_sound(made.file()));
    // The metadata are the last thing in the file: only what fills up its last sector may go.
    let taken = each_cut(made.file(), "a final image", is_sound);
    assert!(taken < 512, "{taken} of {}", made.file().len());
}
