//! References and constants, for a person.

use invivo_image::{Image, LinkAddr, Place, Slot};

use crate::Extent;

/// What a constant holds.
pub(crate) fn show_constant(image: &Image, at: LinkAddr, extent: Extent) -> String {
    const LONGEST: usize = 60;
    let bytes = image.bytes(at, extent.size()).unwrap_or_default();
    match extent {
        Extent::Text(_) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().saturating_sub(1)]);
            let short: String = text.chars().take(LONGEST).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            format!("{short:?}{more}")
        }
        Extent::Operand(_) | Extent::UpToNext(_) => {
            let hex: String = bytes
                .iter()
                .take(16)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!(
                "{} bytes {hex}{}",
                bytes.len(),
                if bytes.len() > 16 { "…" } else { "" }
            )
        }
    }
}

/// What is at `at`, for a person.
pub(crate) fn describe(image: &Image, at: LinkAddr) -> String {
    let name = |slot: &Slot| match slot {
        Slot::Import(name, _) | Slot::LazyImport(name) => format!("import {name}"),
        Slot::Copy(name) => format!("the copy of {name}"),
        Slot::Pointer(at) => format!("the slot of {}", short(image, *at)),
        Slot::Resolved(at) => format!("the function chosen by {}", short(image, *at)),
        Slot::TlsModule(name) | Slot::TlsOffset(name, _) | Slot::TlsFromThreadPointer(name, _) => {
            format!("thread-local {name}")
        }
        Slot::Number(number) => format!("the number {number:#x}"),
        Slot::Unknown(kind) => format!("a slot with relocation {kind}"),
    };
    match image.place(at) {
        Place::Stub(slot) | Place::Slot(slot) => name(&slot),
        _ => short(image, at),
    }
}

fn short(image: &Image, at: LinkAddr) -> String {
    match image.place(at) {
        Place::In(id, 0) => invivo_image::demangle(image.entity(id).name()),
        Place::In(id, offset) => {
            let name = invivo_image::demangle(image.entity(id).name());
            let (sign, distance) = match offset.cast_signed() {
                negative @ ..0 => ('-', negative.unsigned_abs()),
                _ => ('+', offset),
            };
            format!("{name}{sign}{distance:#x}")
        }
        _ => image
            .section_at(at)
            .map_or_else(|| at.to_string(), |s| format!("{} at {at}", s.name)),
    }
}
