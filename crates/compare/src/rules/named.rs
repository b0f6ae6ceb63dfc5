//! Functions that rules know by their names, in this image or in another one.

use invivo_image::x86_64::Line;
use invivo_image::{Image, Place, Slot};

/// True if an instruction refers to the begin of a function that has one of these names.
pub(super) fn refers_to(image: &Image, line: &Line, names: &[&str]) -> bool {
    line.references()
        .any(|reference| match image.place(reference.target) {
            Place::Stub(Slot::Import(name, _) | Slot::LazyImport(name))
            | Place::Slot(Slot::Import(name, _) | Slot::LazyImport(name)) => {
                names.contains(&&*name)
            }
            Place::In(id, 0) => {
                let mut symbols = image.entity(id).names.iter();
                symbols.any(|symbol| names.contains(&&*symbol.name))
            }
            _ => false,
        })
}
