//! Stubs of the procedure linkage table, found by what they do.
//!
//! Linkers lay them out differently (`.plt`, `.plt.sec` with `endbr64`,
//! `.plt.got` with 8- or 16-byte entries), but each stub ends with a jump
//! through one slot, so that jump is what identifies it.

use std::collections::BTreeMap;

use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, OpKind, Register};

use crate::x86_64::{ReferenceKind, decode_bytes};
use crate::{Image, LinkAddr, SectionKind, Slot};

/// One instruction on the way of a first call to the loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StubStep {
    code: Code,
    register: Register,
    operand: StubOperand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StubOperand {
    None,
    /// The number of the very relocation that fills the slot.
    Own,
    Number(u64),
    /// A word of the loader's own table, by its distance from the start.
    Table(u64),
}

impl Image {
    /// What runs at the first call through the slot at `place`: the code to which the slot
    /// leads before it is filled. Empty where no slot is filled so late; `None` where that
    /// code is not understood.
    ///
    /// In `.plt` it is `push 3; jmp .plt`, then `push [table+8]; jmp [table+16]`.
    #[must_use]
    pub fn first_call(&self, place: LinkAddr) -> Option<Vec<StubStep>> {
        const LONGEST: usize = 16;
        let lazy = matches!(self.slots.get(&place), Some(Slot::LazyImport(_)));
        if !lazy || self.lazy.never {
            return Some(Vec::new());
        }
        let mut at = LinkAddr(u64::from_le_bytes(self.bytes(place, 8)?.try_into().ok()?));
        let mut steps = Vec::new();
        while steps.len() < LONGEST {
            let section = self.section_at(at).filter(|s| s.name.starts_with(".plt"))?;
            let rest = self.bytes(at, section.range.end.0 - at.0)?;
            let line = *decode_bytes(self, at, rest.get(..15).unwrap_or(rest)).first()?;
            let instruction = &line.instruction;
            let is_number =
                instruction.mnemonic() == Mnemonic::Push || instruction.mnemonic() == Mnemonic::Mov;
            let immediate = (0..instruction.op_count())
                .find(|op| is_number && instruction.op_kind(*op) >= OpKind::Immediate8);
            let relative = |r: &crate::x86_64::Reference| r.kind == ReferenceKind::Relative;
            let operand = if let Some(reference) = line.address.filter(relative) {
                StubOperand::Table(reference.target.0.wrapping_sub(self.lazy.table?.0))
            } else if let Some(op) = immediate.filter(|op| {
                !matches!(
                    instruction.op_kind(*op),
                    OpKind::Memory | OpKind::NearBranch64
                )
            }) {
                let number = instruction.immediate(op);
                let names = usize::try_from(number)
                    .ok()
                    .and_then(|n| self.lazy.order.get(n));
                if names == Some(&place) {
                    StubOperand::Own
                } else {
                    StubOperand::Number(number)
                }
            } else {
                StubOperand::None
            };
            steps.push(StubStep {
                code: instruction.code().as_near_branch(),
                register: instruction.op0_register(),
                operand,
            });
            match line.address {
                Some(jump) if jump.kind == ReferenceKind::Jump => at = jump.target,
                _ if line.ends_flow() => return Some(steps),
                _ => at = line.end(),
            }
        }
        None
    }
}

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
                _ if instruction.code() == Code::Jmp_rm64
                    && instruction.op0_kind() == OpKind::Memory =>
                {
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
                // A mark for jumps, and the number of the slot in a register.
                Mnemonic::Endbr64 => {}
                Mnemonic::Mov if instruction.op0_register() == Register::R11D => {}
                // Whatever else it does, it is no plain stub.
                _ => start = None,
            }
        }
    }
    stubs
}
