//! What a function does with numbers at places: which ones it keeps there, and which ones it looks for.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{ConditionCode, InstructionInfoFactory, Mnemonic, OpKind, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place};

use crate::conventions::changes;
use crate::hot::Parts;
use crate::rules::named::refers_to;

use super::registers::{Read, Registers, bit, constant, mask, moves, number, size};

/// Where a number is kept: so many bytes behind a pointer, or in a variable of the base.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    Offset(i64),
    Variable(EntityId, u64),
}

/// Functions that return where errors are told: what is kept there is read at once, and is no state.
const ERRNO: [&str; 3] = ["__errno_location", "_errno", "__error"];
/// How many instructions lie between what leaves flags and what asks them.
const NEAR: usize = 16;

/// Numbers at places.
#[derive(Default)]
pub(super) struct Told {
    pub(super) numbers: BTreeMap<Holder, BTreeSet<u64>>,
    /// Single bits, of the four bytes around them that are aligned: one compiler asks for `0x400` in four bytes,
    /// another one for `4` in the second of them.
    pub(super) bits: BTreeMap<Holder, u64>,
}

#[derive(Default)]
pub(super) struct Numbers {
    pub(super) stored: Told,
    pub(super) asked: Told,
}

impl Numbers {
    pub(super) fn of(
        image: &Image,
        parts: &Parts,
        base: &dyn Fn(EntityId) -> Option<EntityId>,
    ) -> Numbers {
        let mut found = Numbers::default();
        let mut info = InstructionInfoFactory::new();
        for part in parts.ids() {
            // What comes from above; nothing where control does not.
            let mut above = Some(Registers::default());
            // What registers hold where branches lead that are still to come.
            let mut ways: BTreeMap<LinkAddr, Registers> = BTreeMap::new();
            let lines = decode(image, image.entity(part)).unwrap_or_default();
            let lines: Vec<&Line> = lines.iter().filter(|line| line.word.is_none()).collect();
            for (at, line) in lines.iter().enumerate() {
                let mut held = Registers::met(above.take(), ways.remove(&line.at()));
                let is_errno = held.errno.contains(&line.instruction.memory_base());
                let holder = holder(image, line, base).filter(|_| !is_errno);
                found.add(line, asked_behind(&lines[at + 1..]), holder, &held);
                let (read, constant) = (held.becomes(line, holder), constant(image, line));
                let errno = held.copies_errno(line);
                let used = info.info(&line.instruction).used_registers().iter();
                for used in used.filter(|used| changes(used)) {
                    held.forget(used.register());
                }
                if line.is_call() {
                    held.keep_over_call(image);
                    let is_errno = refers_to(image, line, &ERRNO);
                    held.errno.extend(is_errno.then_some(Register::RAX));
                }
                held.errno.extend(errno);
                held.read.extend(read);
                let to = line.instruction.op0_register().full_register();
                held.constant.extend(constant.map(|bytes| (to, bytes)));
                let to = LinkAddr(line.instruction.near_branch_target());
                if to > line.at() && !line.is_call() {
                    let met = Registers::met(Some(held.clone()), ways.remove(&to));
                    ways.insert(to, met);
                }
                above = Some(held).filter(|_| !line.ends_flow());
            }
        }
        found
    }

    fn add(&mut self, line: &Line, asked: Asked, holder: Option<Holder>, held: &Registers) {
        let i = &line.instruction;
        if i.op_count() == 0 {
            return;
        }
        if i.op0_kind() == OpKind::Memory {
            if let Some(holder) = holder {
                self.in_memory(line, asked, holder, held);
            }
        } else if let Some(read) = held.of(i.op0_register()) {
            self.in_register(line, asked, &read);
        }
    }

    fn in_memory(&mut self, line: &Line, asked: Asked, holder: Holder, held: &Registers) {
        let i = &line.instruction;
        if i.op_count() == 2 && moves(i) {
            let constant = held.constant.get(&i.op1_register().full_register());
            if let Some(bytes) = constant {
                self.store(holder, bytes.get(..size(i)).unwrap_or(bytes));
            }
            // `orb $4, %ah` and the like between two moves.
            let read = held.of(i.op1_register());
            if let Some(read) = read.filter(|read| read.from == holder && read.shift == 0) {
                self.stored.add_bits(holder, read.set);
            }
        }
        self.compared(line, asked, holder);
        let Some(number) = number(line) else { return };
        match i.mnemonic() {
            Mnemonic::Mov => {
                let bytes = number.to_le_bytes();
                self.store(holder, bytes.get(..size(i)).unwrap_or(&bytes));
            }
            Mnemonic::Or => self.stored.add_bits(holder, number),
            Mnemonic::Bts => self.stored.add_bits(holder, bit(i, number)),
            Mnemonic::Bt => self.asked.add_bits(holder, bit(i, number)),
            Mnemonic::Test if asked != Asked::Nothing => self.asked.add_bits(holder, number),
            _ => {}
        }
    }

    fn in_register(&mut self, line: &Line, asked: Asked, read: &Read) {
        let i = &line.instruction;
        if read.whole {
            self.compared(line, asked, read.from);
        }
        let Some(number) = number(line) else { return };
        let bits = match i.mnemonic() {
            Mnemonic::Test if asked != Asked::Nothing => number,
            Mnemonic::Bt => bit(i, number),
            // With more than a few bits it is what takes a flag away.
            Mnemonic::And if number.count_ones() as usize <= size(i) * 4 => number,
            _ => return,
        };
        self.asked
            .add_bits(read.from, bits.checked_shl(read.shift).unwrap_or(0));
    }

    /// What is held against a number as it is, or made zero: `if (--one->users == 0)` looks for 1.
    fn compared(&mut self, line: &Line, asked: Asked, holder: Holder) {
        let i = &line.instruction;
        let negative = |number: u64| number.wrapping_neg() & mask(i);
        let sought = match (i.mnemonic(), number(line)) {
            (Mnemonic::Cmp | Mnemonic::Sub, Some(number)) => number,
            (Mnemonic::Add, Some(number)) => negative(number),
            (Mnemonic::Dec, _) => 1,
            (Mnemonic::Inc, _) => negative(1),
            (Mnemonic::Test, None) if i.op0_register() == i.op1_register() => 0,
            _ => return,
        };
        match asked {
            Asked::Which => self.asked.add(holder, sought),
            // The highest bit says whether it is less than zero.
            Asked::Sign if sought == 0 => self.asked.add_bits(holder, mask(i) ^ (mask(i) >> 1)),
            _ => {}
        }
    }

    /// Two members may be written together; none that is a number is wider than eight bytes.
    fn store(&mut self, at: Holder, bytes: &[u8]) {
        let mut add = |behind: usize, bytes: &[u8]| {
            let mut word = [0; 8];
            let Some(place) = word.get_mut(..bytes.len()) else {
                return;
            };
            place.copy_from_slice(bytes);
            if let Some(holder) = at.behind(behind) {
                let number = u64::from_le_bytes(word);
                self.stored.add(holder, number);
                // `flags = NEW | LOUD` sets each of them.
                self.stored.add_bits(holder, number);
            }
        };
        add(0, bytes);
        for wide in [4, 2, 1].into_iter().filter(|wide| *wide < bytes.len()) {
            for (index, member) in bytes.chunks_exact(wide).enumerate() {
                add(index * wide, member);
            }
        }
    }
}

impl Told {
    fn add(&mut self, holder: Holder, number: u64) {
        self.numbers.entry(holder).or_default().insert(number);
    }

    fn add_bits(&mut self, holder: Holder, bits: u64) {
        for (behind, byte) in bits.to_le_bytes().into_iter().enumerate() {
            let Some(at) = holder.behind(behind).filter(|_| byte != 0) else {
                continue;
            };
            let (word, behind) = at.word();
            *self.bits.entry(word).or_default() |= u64::from(byte) << (behind * 8);
        }
    }
}

/// What is asked of a comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Whether it is that very number.
    Which,
    /// Whether it is less than zero.
    Sign,
    /// Nothing, or which of the two is larger: `if (n > MOST) n = MOST;` keeps a limit, and what kept another one
    /// before is still right for it.
    Nothing,
}

/// What is asked of the flags that an instruction left, by what comes behind it.
fn asked_behind(behind: &[&Line]) -> Asked {
    for line in behind.iter().take(NEAR) {
        let i = &line.instruction;
        match i.condition_code() {
            ConditionCode::None => {}
            ConditionCode::e | ConditionCode::ne => return Asked::Which,
            ConditionCode::s | ConditionCode::ns | ConditionCode::l | ConditionCode::ge => {
                return Asked::Sign;
            }
            _ => continue,
        }
        if i.rflags_modified() != 0 || line.is_call() || line.ends_flow() {
            break;
        }
    }
    Asked::Nothing
}

impl Holder {
    /// The place so many bytes behind it.
    fn behind(self, bytes: usize) -> Option<Holder> {
        Some(match self {
            Holder::Offset(offset) => Holder::Offset(offset.checked_add(bytes.try_into().ok()?)?),
            Holder::Variable(id, offset) => {
                Holder::Variable(id, offset.checked_add(bytes.try_into().ok()?)?)
            }
        })
    }

    /// The four bytes around it that are aligned, and how many of them are before it.
    fn word(self) -> (Holder, u32) {
        match self {
            Holder::Offset(offset) => (Holder::Offset(offset & !3), (offset & 3) as u32),
            Holder::Variable(id, offset) => {
                (Holder::Variable(id, offset & !3), (offset & 3) as u32)
            }
        }
    }
}

/// What the memory operand of an instruction is, but for the frame and for tables of plain numbers. Of an element
/// of a table it is the member, whichever element it is.
fn holder(
    image: &Image,
    line: &Line,
    base: &dyn Fn(EntityId) -> Option<EntityId>,
) -> Option<Holder> {
    let i = &line.instruction;
    let mut operands = 0..i.op_count();
    let has_memory = operands.any(|at| i.op_kind(at) == OpKind::Memory);
    if !has_memory || i.segment_prefix() != Register::None || i.memory_base() == Register::RSP {
        return None;
    }
    if let Some(reference) = line.address {
        return match image.place(reference.target) {
            Place::In(id, offset) if image.entity(id).kind == EntityKind::Object => {
                Some(Holder::Variable(base(id)?, offset))
            }
            _ => None,
        };
    }
    let offset = i.memory_displacement64().cast_signed();
    // A register that may point to the frame has what is local to the function below it.
    let is_frame = i.memory_base() == Register::RBP && offset < 0;
    let is_plain = i.memory_index() != Register::None && offset == 0;
    (i.memory_base().is_gpr64() && !is_frame && !is_plain).then_some(Holder::Offset(offset))
}
