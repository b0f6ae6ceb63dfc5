//! What is other in code for ARM64: its entries, and the register that leads to a thread's own data.

use invivo_compare::Rule;
use invivo_image::x86_64::Line;
use invivo_image::{EntityId, EntityKind, Image, LinkAddr};

use super::walk::Walk;

/// Bytes from the begin of a function that belong to its hook, by the rules of the metadata.
const SITE: u64 = 8;

/// How far a branch leads, in bytes.
const REACH: u64 = 1 << 27;

/// Whether one branch can be written over the first instruction of a function for ARM64: it is whole, the
/// address table behind the image is near enough, and nothing else begins in the bytes that count as the
/// hook's.
///
/// # Errors
/// When it cannot; the text is for a person.
pub fn hookable(image: &Image, id: EntityId) -> Result<(), String> {
    let entity = image.entity(id);
    if !entity.addr.0.is_multiple_of(4) || image.bytes(entity.addr, SITE).is_none() {
        return Err("its first instruction is not in the file, or not where one can be".to_owned());
    }
    let next = LinkAddr(entity.addr.0 + 4);
    let begins = image.entity_at(next).map(|id| image.entity(id));
    if begins.is_some_and(|other| other.addr == next && other.kind == EntityKind::Function) {
        return Err(
            "it has a single instruction, behind which another function begins, and a hook \
             counts as eight bytes; link it with /functionpadmin:8"
                .to_owned(),
        );
    }
    let last = image.sections.iter().map(|section| section.range.end).max();
    // The table lies behind the image, on pages of its own.
    const ROOM: u64 = 1 << 22;
    let far = last.is_some_and(|last| last.0 + ROOM - entity.addr.0 >= REACH);
    if far {
        return Err(
            "the end of the image is farther away than a branch leads (128 MiB)".to_owned(),
        );
    }
    Ok(())
}

/// The register that Windows keeps the thread's own block in.
const THREAD: u8 = 18;

/// Where in that block the blocks of thread-local variables are.
const BLOCKS: i64 = 0x58;

impl Walk<'_, '_> {
    /// What an instruction of ARM64 may reach that it does not refer to.
    pub(super) fn arm64_line(&mut self, line: &Line, by: &str) {
        let Some(word) = line.word else { return };
        if word.is_unknown {
            let text = format!(
                "reckons with an address at {} in a way that is not known, so it is not known what it \
                 reaches",
                line.at()
            );
            self.refuse(Rule::Binding, by, text);
        }
        // Where the distance is not told it may be any.
        let distance = word.displaced().map(|(_, distance)| distance);
        let through = word.is_memory() && word.base() == THREAD && line.address.is_none();
        if through && distance.is_none_or(|distance| distance == BLOCKS) {
            let text = "uses thread-local storage: the fixed image has blocks of its own, in which the \
                        base's variables are not; take them out of the function";
            self.refuse(Rule::ThreadLocals, by, text);
        }
    }
}

/// True for what a function without unwind data may not do.
pub(super) fn needs_unwind_data(line: &Line) -> bool {
    line.is_call() || line.word.is_some_and(|word| word.moves_stack())
}
