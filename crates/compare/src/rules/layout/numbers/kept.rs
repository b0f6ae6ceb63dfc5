//! What a function does with numbers at places: which ones it keeps there, and which ones it looks for.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{ConditionCode, InstructionInfoFactory, Mnemonic, OpKind, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{EntityId, EntityKind, Image, Place};

use crate::conventions::changes;
use crate::hot::Parts;

use super::registers::{Read, Registers, bit, constant, moves, number, size};

/// Where a number is kept: so many bytes behind a pointer, or in a variable of the base.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    Offset(i64),
    Variable(EntityId, u64),
}

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
            let mut held = Registers::default();
            let lines = decode(image, image.entity(part)).unwrap_or_default();
            let lines: Vec<&Line> = lines.iter().filter(|line| line.word.is_none()).collect();
            for (at, line) in lines.iter().enumerate() {
                let holder = holder(image, line, base);
                if !is_limit(&lines[at..]) {
                    found.add(line, holder, &held);
                }
                let read = held.becomes(line, holder);
                let constant = constant(image, line);
                let used = info.info(&line.instruction).used_registers().iter();
                for used in used.filter(|used| changes(used)) {
                    let register = used.register().full_register();
                    held.read.remove(&register);
                    held.constant.remove(&register);
                }
                let to = line.instruction.op0_register().full_register();
                held.read.extend(read.map(|read| (to, read)));
                held.constant.extend(constant.map(|bytes| (to, bytes)));
                if line.is_call() || line.ends_flow() {
                    held = Registers::default();
                }
            }
        }
        found
    }

    fn add(&mut self, line: &Line, holder: Option<Holder>, held: &Registers) {
        let i = &line.instruction;
        if i.op_count() != 2 {
            return;
        }
        if i.op0_kind() == OpKind::Memory {
            if let Some(holder) = holder {
                self.in_memory(line, holder, held);
            }
        } else if let Some(read) = held.of(i.op0_register()) {
            self.in_register(line, &read);
        }
    }

    fn in_memory(&mut self, line: &Line, holder: Holder, held: &Registers) {
        let i = &line.instruction;
        let from = i.op1_register().full_register();
        let constant = held.constant.get(&from);
        if let Some(bytes) = constant.filter(|_| moves(i)) {
            self.store(holder, bytes.get(..size(i)).unwrap_or(bytes));
        }
        // `orb $4, %ah` and the like between two moves.
        let read = held.of(i.op1_register());
        if let Some(read) = read.filter(|read| moves(i) && read.from == holder && read.shift == 0) {
            self.stored.add_bits(holder, read.set);
        }
        let Some(number) = number(line) else { return };
        match i.mnemonic() {
            Mnemonic::Mov => {
                let bytes = number.to_le_bytes();
                self.store(holder, bytes.get(..size(i)).unwrap_or(&bytes));
            }
            Mnemonic::Or => self.stored.add_bits(holder, number),
            Mnemonic::Bts => self.stored.add_bits(holder, bit(i, number)),
            Mnemonic::Bt => self.asked.add_bits(holder, bit(i, number)),
            Mnemonic::Test => self.asked.add_bits(holder, number),
            Mnemonic::Cmp => self.asked.add(holder, number),
            _ => {}
        }
    }

    fn in_register(&mut self, line: &Line, read: &Read) {
        let i = &line.instruction;
        let same = i.op1_kind() == OpKind::Register && i.op0_register() == i.op1_register();
        if i.mnemonic() == Mnemonic::Test && same && read.whole {
            self.asked.add(read.from, 0);
        }
        let Some(number) = number(line) else { return };
        let bits = match i.mnemonic() {
            Mnemonic::Test => number,
            Mnemonic::Bt => bit(i, number),
            // With more than a few bits it is what takes a flag away.
            Mnemonic::And if number.count_ones() as usize <= size(i) * 4 => number,
            Mnemonic::Cmp if read.whole => return self.asked.add(read.from, number),
            _ => return,
        };
        self.asked
            .add_bits(read.from, bits.checked_shl(read.shift).unwrap_or(0));
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
        for (index, member) in bytes.chunks_exact(4).enumerate() {
            add(index * 4, member);
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

/// True for a comparison of which only is used which of the two is larger: `if (n > MOST) n = MOST;`
/// keeps a limit, and what kept another one before is still right for it.
fn is_limit(lines: &[&Line]) -> bool {
    let [asks, behind @ ..] = lines else {
        return false;
    };
    if !matches!(asks.instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test) {
        return false;
    }
    for line in behind {
        let i = &line.instruction;
        match i.condition_code() {
            ConditionCode::None => {}
            ConditionCode::e | ConditionCode::ne => return false,
            _ => continue,
        }
        if i.rflags_modified() != 0 || line.is_call() || line.ends_flow() {
            break;
        }
    }
    true
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

/// What the memory operand of an instruction is, but for the frame and for elements of tables.
fn holder(
    image: &Image,
    line: &Line,
    base: &dyn Fn(EntityId) -> Option<EntityId>,
) -> Option<Holder> {
    let i = &line.instruction;
    let mut operands = 0..i.op_count();
    let has_memory = operands.any(|at| i.op_kind(at) == OpKind::Memory);
    if !has_memory
        || i.memory_index() != Register::None
        || i.segment_prefix() != Register::None
        || i.memory_base() == Register::RSP
    {
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
    (i.memory_base().is_gpr64() && !is_frame).then_some(Holder::Offset(offset))
}
