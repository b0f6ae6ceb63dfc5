//! Stubs of the procedure linkage table, found by what they do.
//!
//! Linkers lay them out differently (`.plt`, `.plt.sec` with `endbr64`,
//! `.plt.got` with 8- or 16-byte entries), but each stub ends with a jump
//! through one slot, so that jump is what identifies it.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};

use crate::{Image, LinkAddr, SectionKind};

/// Stub address → slot address.
pub(crate) fn find_stubs(image: &Image) -> BTreeMap<LinkAddr, LinkAddr> {
    let mut stubs = BTreeMap::new();
    for section in image
        .sections
        .iter()
        .filter(|s| s.name.starts_with(".plt") || s.name == ".iplt")
    {
        let bytes = image.section_bytes(section);
        let mut decoder = Decoder::with_ip(64, bytes, section.range.start.0, DecoderOptions::NONE);
        let mut start = None;
        for instruction in &mut decoder {
            let ip = instruction.ip();
            // A new stub begins at its alignment, behind the jump or padding of the last one.
            let first = *start.get_or_insert(ip);
            match instruction.mnemonic() {
                Mnemonic::Jmp if instruction.op0_kind() == OpKind::Memory => {
                    let slot = LinkAddr(instruction.ip_rel_memory_address());
                    let filled = image.slots.contains_key(&slot)
                        || image
                            .section_at(slot)
                            .is_some_and(|s| s.kind == SectionKind::Got);
                    if instruction.is_ip_rel_memory_operand() && filled {
                        stubs.insert(LinkAddr(first), slot);
                    }
                    start = None;
                }
                Mnemonic::Jmp => start = None,
                // Padding between two stubs belongs to neither; nor does a stub that the
                // linker reserved and left empty (zeros: `add [rax], al`).
                Mnemonic::Add if first == ip => start = None,
                Mnemonic::Nop | Mnemonic::Int3 if first == ip => start = None,
                // The lazy half `push n; jmp header` follows a stub in `.plt`.
                Mnemonic::Push if first == ip => start = None,
                _ => {}
            }
        }
    }
    stubs
}
