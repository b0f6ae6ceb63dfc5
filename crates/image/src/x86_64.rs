//! Code: instructions, and what each one refers to. Those of x86-64 and x86 are decoded here; those of
//! ARM64 come by the same ways (see [`Word`]).

use std::ops::Range;

use iced_x86::{
    Code, ConstantOffsets, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind,
    Register,
};

use crate::aarch64::{self, Flow, Word};
use crate::{Entity, Image, Link, LinkAddr, Machine, SectionKind, whole_of};

mod alignment;
mod bytes;
mod plain;
mod skim;
mod tables;
mod walk;

pub use alignment::demanded_alignment;
pub use bytes::skim;
pub use plain::plain;
pub use skim::{Skim, Traits};
pub use walk::{AddressSpan, Numbers, Step, Visitor, walk};

/// How an instruction refers to another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReferenceKind {
    /// A relative jump, conditional or not.
    Jump,
    /// A relative call.
    Call,
    /// A memory operand or `lea` relative to the instruction.
    Relative,
    /// An absolute operand; images with fixed addresses have them, and those for x86.
    Absolute,
}

/// One place that an instruction refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// How it refers.
    pub kind: ReferenceKind,
    /// Offset of the operand from the start of the instruction, in bytes.
    pub offset: u8,
    /// Size of the operand, in bytes.
    pub width: u8,
    /// The place.
    pub target: LinkAddr,
}

impl Reference {
    /// The place that the same instruction refers to where it ends at `next` and has `operand`,
    /// the bytes of one, four or eight, in the place of this one's.
    #[must_use]
    pub fn target_of(&self, operand: &[u8], next: u64) -> u64 {
        let signed = match *operand {
            [byte] => i64::from(byte.cast_signed()),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
            _ => operand
                .try_into()
                .map_or(0, |bytes| u64::from_le_bytes(bytes).cast_signed()),
        };
        match self.kind {
            ReferenceKind::Absolute => signed.cast_unsigned(),
            ReferenceKind::Jump | ReferenceKind::Call | ReferenceKind::Relative => {
                next.wrapping_add_signed(signed)
            }
        }
    }
}

/// A decoded instruction with its references: at most one in its address
/// operand and one in its immediate.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The instruction as decoded, with its link address as `ip`.
    pub instruction: Instruction,
    /// A jump's or call's target, or what the memory operand refers to.
    pub address: Option<Reference>,
    /// What the immediate operand refers to.
    pub immediate: Option<Reference>,
    /// The instruction, if it is one of ARM64: then the one above is a declaration of its bits.
    pub word: Option<Word>,
}

impl Line {
    /// Where it is.
    #[must_use]
    pub fn at(&self) -> LinkAddr {
        LinkAddr(self.instruction.ip())
    }

    /// First byte behind it.
    #[must_use]
    pub fn end(&self) -> LinkAddr {
        LinkAddr(self.instruction.next_ip())
    }

    /// All its references.
    pub fn references(&self) -> impl Iterator<Item = Reference> {
        self.address.into_iter().chain(self.immediate)
    }

    /// True if it does nothing: padding between loops and functions.
    #[must_use]
    pub fn is_padding(&self) -> bool {
        match &self.word {
            Some(word) => word.is_padding(),
            None => is_padding(&self.instruction),
        }
    }

    /// True for what stops the program, and fills up where control never gets.
    #[must_use]
    pub fn is_trap(&self) -> bool {
        match &self.word {
            Some(word) => word.bits == 0,
            None => self.instruction.code() == Code::Int3,
        }
    }

    /// True for a call, direct or not.
    #[must_use]
    pub fn is_call(&self) -> bool {
        match &self.word {
            Some(word) => matches!(word.flow, Flow::Call | Flow::IndirectCall),
            None => is_call(&self.instruction),
        }
    }

    /// True for `lea register, [rip + …]`. A `mov` of the same length reads the same address out of a
    /// slot, where the place itself is too far away.
    #[must_use]
    pub fn takes_address(&self) -> bool {
        let instruction = &self.instruction;
        self.word.is_none()
            && instruction.code() == Code::Lea_r64_m
            && instruction.memory_base() == Register::RIP
    }

    /// True if control never reaches the instruction behind this one by itself.
    #[must_use]
    pub fn ends_flow(&self) -> bool {
        match &self.word {
            Some(word) => word.flow.ends(),
            None => ends_flow(&self.instruction),
        }
    }

    /// How many bytes the address operand reads or writes; 0 where only the address is taken.
    #[must_use]
    pub fn operand_size(&self) -> usize {
        match &self.word {
            Some(word) => word.size.into(),
            None => self.instruction.memory_size().size(),
        }
    }

    /// False if it reckons with an address in a way that is not known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.word.is_none_or(|word| !word.is_unknown)
    }
}

fn is_padding(instruction: &Instruction) -> bool {
    let code = instruction.code();
    matches!(code, Code::Nopw | Code::Nopd | Code::Nopq | Code::Int3)
        || matches!(code, Code::Nop_rm16 | Code::Nop_rm32 | Code::Nop_rm64)
        || (code == Code::Xchg_r16_AX && instruction.op0_register() == Register::AX)
}

fn is_call(instruction: &Instruction) -> bool {
    let flow = instruction.flow_control();
    matches!(flow, FlowControl::Call | FlowControl::IndirectCall)
}

fn ends_flow(instruction: &Instruction) -> bool {
    use FlowControl::{Exception, IndirectBranch, Return, UnconditionalBranch};
    matches!(
        instruction.flow_control(),
        Return | UnconditionalBranch | IndirectBranch | Exception
    )
}

/// True for a jump to what a register or a place in memory holds.
#[must_use]
pub fn jumps_through(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Jmp
        && matches!(instruction.op0_kind(), OpKind::Register | OpKind::Memory)
}

/// Decodes the whole of `entity`; `None` where its bytes are not in the file or are not all
/// instructions, or where an address whose relocation is known is no operand of them.
#[must_use]
pub fn decode(image: &Image, entity: &Entity) -> Option<Vec<Line>> {
    if image.machine == Machine::Aarch64 {
        return aarch64::decode(image, entity);
    }
    let bytes = image.bytes(entity.addr, entity.size)?;
    let lines = decode_bytes(image, entity.addr, bytes);
    let whole = lines.last().is_some_and(|last| last.end() == entity.end());
    let valid = lines.iter().all(|line| !line.instruction.is_invalid());
    (whole && valid && is_explained(image, &(entity.addr..entity.end()), &lines)).then_some(lines)
}

/// Decodes `bytes`, which are linked at `at`; stops at the first byte that is no instruction.
#[must_use]
pub fn decode_bytes(image: &Image, at: LinkAddr, bytes: &[u8]) -> Vec<Line> {
    decode_up_to(image, at, bytes, bytes.len())
}

/// The same, and no more than `most` instructions.
fn decode_up_to(image: &Image, at: LinkAddr, bytes: &[u8], most: usize) -> Vec<Line> {
    if image.machine == Machine::Aarch64 {
        let mut lines = aarch64::lines(image, at, bytes);
        lines.truncate(most);
        return lines;
    }
    let mut decoder = decoder(image, at, bytes);
    let mut lines = Vec::with_capacity(most.min(bytes.len() / 4));
    let mut instruction = Instruction::default();
    let rebased = image.link == Link::Rebased;
    while decoder.can_decode() && lines.len() < most {
        if rebased {
            let (here, place) = (LinkAddr(decoder.ip()), decoder.position());
            if let Some(line) = table_word(image, here, &bytes[place..])
                && decoder.set_position(place + 4).is_ok()
            {
                decoder.set_ip(here.0 + 4);
                lines.push(line);
                continue;
            }
        }
        decoder.decode_out(&mut instruction);
        if !is_known(image, &instruction) {
            break;
        }
        let line = line_of(image, &decoder, instruction);
        lines.push(line);
    }
    lines
}

/// One for code of `image`, which is linked at `at`.
fn decoder<'b>(image: &Image, at: LinkAddr, bytes: &'b [u8]) -> Decoder<'b> {
    Decoder::with_ip(image.machine.bits(), bytes, at.0, DecoderOptions::NONE)
}

/// An address that stands between instructions, where each is known: compilers for x86 keep the tables
/// that `switch` jumps through there. No instruction begins with an address.
fn table_word(image: &Image, at: LinkAddr, rest: &[u8]) -> Option<Line> {
    let target = image.code_relocations.get(&at)?;
    if image.link != Link::Rebased || rest.len() < 4 {
        return None;
    }
    // What it holds is told by the reference, so that two of them are the same line.
    let mut instruction = Instruction::default();
    instruction.set_code(Code::DeclareDword);
    instruction.set_declare_data_len(1);
    instruction.set_declare_dword_value(0, 0);
    instruction.set_len(4);
    instruction.set_ip(at.0);
    Some(Line {
        instruction,
        address: Some(Reference {
            kind: ReferenceKind::Absolute,
            offset: 0,
            width: 4,
            target: LinkAddr(target.cast_unsigned()),
        }),
        immediate: None,
        word: None,
    })
}

/// False for bytes that are no instruction, and for the few of x86 that no compiler writes and
/// whose operands are not looked at: jumps that cut the address to 16 bits, or go to another segment.
fn is_known(image: &Image, instruction: &Instruction) -> bool {
    use OpKind::{FarBranch16, FarBranch32, NearBranch16};
    let odd = || {
        let kinds = [FarBranch16, FarBranch32, NearBranch16];
        instruction.op_count() > 0 && kinds.contains(&instruction.op0_kind())
    };
    !instruction.is_invalid() && (image.machine.bits() == 64 || !odd())
}

/// True for a branch to a place that the instruction tells.
fn is_direct(instruction: &Instruction) -> bool {
    let kinds = [OpKind::NearBranch64, OpKind::NearBranch32];
    instruction.op_count() > 0 && kinds.contains(&instruction.op0_kind())
}

/// True if every address in a piece of code for x86, of which these are the lines, is an operand of
/// one or stands alone: what is none of them is in no instruction that is looked at.
#[must_use]
pub fn is_explained(image: &Image, piece: &Range<LinkAddr>, lines: &[Line]) -> bool {
    if image.link != Link::Rebased {
        return true;
    }
    let operands = lines.iter().flat_map(Line::references);
    let operands = operands.filter(|to| to.kind == ReferenceKind::Absolute);
    operands.count() == image.code_relocations.range(piece.clone()).count()
}

/// What is told of an instruction without its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its size, in bytes.
    pub length: usize,
    /// True for a call, direct or not.
    pub is_call: bool,
}

/// The instructions that `bytes` begin with, in code of 32 or 64 bits, up to the first that is
/// none or not whole.
#[must_use]
pub fn instructions(bytes: &[u8], bits: u32) -> Vec<Shape> {
    if !matches!(bits, 32 | 64) {
        return Vec::new();
    }
    let decoder = Decoder::new(bits, bytes, DecoderOptions::NONE);
    let whole = decoder.into_iter().take_while(|one| !one.is_invalid());
    whole
        .map(|one| Shape {
            length: one.len(),
            is_call: matches!(
                one.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall
            ),
        })
        .collect()
}

/// An instruction that `decoder` just decoded, with what it refers to.
fn line_of(image: &Image, decoder: &Decoder<'_>, instruction: Instruction) -> Line {
    let mut line = Line {
        instruction,
        address: None,
        immediate: None,
        word: None,
    };
    if may_refer(image, &instruction) {
        let offsets = decoder.get_constant_offsets(&instruction);
        line.immediate = absolute_immediate(image, &instruction, &offsets);
        line.address = branch(&instruction, &offsets)
            .or_else(|| relative(&instruction, &offsets))
            .or_else(|| absolute_displacement(image, &instruction, &offsets));
    }
    line
}

/// Decodes all of `bytes`, which are linked at `at`. A byte that is no instruction becomes a
/// line of its own with the code `DeclareByte`: assembly keeps data between its code, and what
/// stands around them refers to other places all the same.
#[must_use]
pub fn decode_all(image: &Image, at: LinkAddr, bytes: &[u8]) -> Vec<Line> {
    decode_first(image, at, bytes, bytes.len())
}

/// The first `most` lines of what [`decode_all`] finds.
#[must_use]
pub fn decode_first(image: &Image, at: LinkAddr, bytes: &[u8], most: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        let left = most - lines.len();
        if left == 0 {
            break;
        }
        let Some(start) = at.checked_add(done as u64) else {
            break;
        };
        let found = decode_up_to(image, start, rest, left);
        done += found
            .iter()
            .map(|line| line.instruction.len())
            .sum::<usize>();
        if lines.is_empty() {
            lines = found;
        } else {
            lines.extend(found);
        }
        if lines.len() < most
            && let Some(odd) = bytes.get(done)
        {
            let mut instruction = Instruction::default();
            instruction.set_code(Code::DeclareByte);
            instruction.set_declare_data_len(1);
            instruction.set_declare_byte_value(0, *odd);
            instruction.set_len(1);
            instruction.set_ip(at.0.saturating_add(done as u64));
            lines.push(Line {
                instruction,
                address: None,
                immediate: None,
                word: None,
            });
            done += 1;
        }
    }
    lines
}

fn byte(value: usize) -> u8 {
    u8::try_from(value).expect("an x86 instruction is at most 15 bytes long")
}

/// False for the many instructions of which no operand can be a place.
fn may_refer(image: &Image, instruction: &Instruction) -> bool {
    is_direct(instruction)
        || instruction.is_ip_rel_memory_operand()
        || image.link != Link::PositionIndependent
            && (instruction.memory_displ_size() >= 4
                || image.relocations_kept
                || takes_address(instruction))
}

fn branch(instruction: &Instruction, offsets: &ConstantOffsets) -> Option<Reference> {
    if !is_direct(instruction) {
        return None;
    }
    let call = instruction.flow_control() == FlowControl::Call;
    Some(Reference {
        kind: if call {
            ReferenceKind::Call
        } else {
            ReferenceKind::Jump
        },
        offset: byte(offsets.immediate_offset()),
        width: byte(offsets.immediate_size()),
        target: LinkAddr(instruction.near_branch_target()),
    })
}

fn relative(instruction: &Instruction, offsets: &ConstantOffsets) -> Option<Reference> {
    instruction.is_ip_rel_memory_operand().then(|| Reference {
        kind: ReferenceKind::Relative,
        offset: byte(offsets.displacement_offset()),
        width: 4,
        target: LinkAddr(instruction.ip_rel_memory_address()),
    })
}

/// True if `value`, found at `place`, may be an address of the image.
#[must_use]
pub fn may_be_address(image: &Image, place: LinkAddr, value: u64) -> bool {
    if image.link == Link::PositionIndependent {
        return false;
    }
    if image.relocations_kept {
        return image.code_relocations.contains_key(&place);
    }
    // Headers, notes and symbol tables are loaded too, but code does not refer to
    // them by number: 0x400000 is the ELF header of most such programs, and a
    // plain four mebibytes in all of them.
    let value = LinkAddr(value);
    let Some(section) = image.section_at(value) else {
        // `__stop___libc_atexit`, where the next section begins some bytes later.
        let is_end = || image.sections.iter().any(|s| s.range.end == value);
        return image.edges.contains_key(&value) && is_end();
    };
    match section.kind {
        SectionKind::Tls => false,
        SectionKind::ReadOnly => !section.belongs_to_loader(),
        SectionKind::Text => is_code_address(image, place, value),
        SectionKind::Data | SectionKind::Got => true,
    }
}

/// True if code at `place` may mean code at `value` by its number.
///
/// `O_DIRECTORY | O_NOFOLLOW` is 0x30000 and `__O_TMPFILE` 0x410000: in a large static
/// program that is somewhere inside a function. But functions are referred to by their
/// first byte, and places inside one only by itself and its cold part.
fn is_code_address(image: &Image, place: LinkAddr, value: LinkAddr) -> bool {
    image.entity_at(value).is_none_or(|id| {
        let entity = image.entity(id);
        let own = entity.addr <= place && place < entity.end();
        value == entity.addr || own || whole_of(entity.name()).is_some()
    })
}

/// True for an instruction whose immediate can be an address.
///
/// `and eax, 0x3ffffff` is no reference to what lies at 64 MiB in a large program: addresses
/// have 64 bits. Code names one in `mov`, also to 32 bits of a register, which clears the
/// others, and in `push`; it adds to one or compares with one at full width. Linkers make the
/// rest of that kind from loads of a slot (`test rax, [slot]`).
fn takes_address(instruction: &Instruction) -> bool {
    use Mnemonic::{Adc, Add, And, Cmp, Mov, Or, Push, Sbb, Sub, Test, Xor};
    let register = instruction.op0_register();
    let wide = match instruction.op0_kind() {
        OpKind::Register => register.is_gpr64(),
        OpKind::Memory => instruction.memory_size().size() == 8,
        _ => false,
    };
    match instruction.mnemonic() {
        Push => true,
        Mov => wide || instruction.op0_kind() == OpKind::Register && register.is_gpr32(),
        Adc | Add | And | Cmp | Or | Sbb | Sub | Test | Xor => wide,
        _ => false,
    }
}

fn absolute_displacement(
    image: &Image,
    instruction: &Instruction,
    offsets: &ConstantOffsets,
) -> Option<Reference> {
    if offsets.displacement_size() != 4 || instruction.segment_prefix() != Register::None {
        return None;
    }
    let place = instruction
        .ip()
        .checked_add(offsets.displacement_offset() as u64)?;
    let value = instruction.memory_displacement64();
    may_be_address(image, LinkAddr(place), value).then(|| Reference {
        kind: ReferenceKind::Absolute,
        offset: byte(offsets.displacement_offset()),
        width: 4,
        target: LinkAddr(value),
    })
}

fn absolute_immediate(
    image: &Image,
    instruction: &Instruction,
    offsets: &ConstantOffsets,
) -> Option<Reference> {
    let width = offsets.immediate_size();
    if !matches!(width, 4 | 8) || image.link == Link::PositionIndependent {
        return None;
    }
    if !image.relocations_kept && !takes_address(instruction) {
        return None;
    }
    let value = (0..instruction.op_count()).find_map(|op| match instruction.op_kind(op) {
        OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64 => {
            Some(instruction.immediate(op))
        }
        _ => None,
    })?;
    let place = instruction
        .ip()
        .checked_add(offsets.immediate_offset() as u64)?;
    may_be_address(image, LinkAddr(place), value).then(|| Reference {
        kind: ReferenceKind::Absolute,
        offset: byte(offsets.immediate_offset()),
        width: byte(width),
        target: LinkAddr(value),
    })
}
