//! Numbers that live data hold and no type tells of: states and flags that macros name.
//!
//! One function keeps another number at a place than it did, and one looks for that other number there: what
//! was kept before is not found any more.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{ConditionCode, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{EntityId, EntityKind, Image, Place, demangle};

use crate::Comparison;
use crate::conventions::changes;
use crate::hot::{Hot, Parts};
use crate::rules::{Finding, Rule};
use crate::told::is_immediate;

/// How many states something has at most.
const MOST: usize = 64;

/// Where a number is kept: so many bytes behind a pointer, or in a variable of the base.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Offset(i64),
    Variable(EntityId, u64),
}

/// A place with what is kept there: a number, or one bit of several.
type Kept = (Holder, bool);
/// One number became another one at a place.
type Exchange = (Kept, u64, u64);

/// What a function does with numbers at places.
#[derive(Default)]
struct Numbers {
    stored: BTreeMap<Kept, BTreeSet<u64>>,
    asked: BTreeMap<Kept, BTreeSet<u64>>,
}

pub(in crate::rules) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let known = |id| Some(id);
    let paired = |id| c.pairs.base_of(id);
    let mut stored: BTreeMap<Exchange, &Hot> = BTreeMap::new();
    let mut asked: BTreeMap<Exchange, &Hot> = BTreeMap::new();
    for hot in &c.hot {
        let before = Numbers::of(c.base, &hot.base, &known);
        let after = Numbers::of(c.fixed, &hot.fixed, &paired);
        for exchange in exchanges(&before.stored, &after.stored) {
            stored.entry(exchange).or_insert(hot);
        }
        for exchange in exchanges(&before.asked, &after.asked) {
            asked.entry(exchange).or_insert(hot);
        }
    }
    for (exchange, by) in &stored {
        let Some(reader) = asked.get(exchange) else {
            continue;
        };
        let ((holder, bits), old, new) = exchange;
        let place = match holder {
            Holder::Offset(offset) => format!("at offset {offset}"),
            Holder::Variable(id, _) => format!("in {}", demangle(c.base.entity(*id).name())),
        };
        let what = if *bits { "bits" } else { "the number" };
        let text = format!(
            "keeps {what} {new} {place} where it kept {old}, and {} looks for {new} there: live data hold \
             {old}, and are not known for what they are; give the number that is new another value, and \
             leave those that were there",
            reader.name
        );
        findings.push(Finding::refuse(Rule::Layout, &by.name, text));
    }
}

/// The numbers that came where others went, each with each; of bits all of those that came.
fn exchanges(
    before: &BTreeMap<Kept, BTreeSet<u64>>,
    after: &BTreeMap<Kept, BTreeSet<u64>>,
) -> Vec<Exchange> {
    let mut found = Vec::new();
    for (kept, old) in before {
        let Some(new) = after.get(kept) else { continue };
        if let (_, true) = kept {
            let all = |numbers: &BTreeSet<u64>| numbers.iter().fold(0, |all, one| all | one);
            let (old, new) = (all(old), all(new));
            // A bit beside those that were there takes nothing from them.
            if old & !new != 0 && new & !old != 0 {
                found.push((*kept, old & !new, new & !old));
            }
            continue;
        }
        // A place with that many numbers holds what is read, and no state.
        if old.len().max(new.len()) > MOST {
            continue;
        }
        for gone in old.difference(new) {
            found.extend(new.difference(old).map(|come| (*kept, *gone, *come)));
        }
    }
    found
}

/// What registers hold at an instruction.
#[derive(Default)]
struct Registers {
    /// What was read at a place.
    read: BTreeMap<Register, Holder>,
    /// The bytes of a constant.
    constant: BTreeMap<Register, Vec<u8>>,
}

impl Numbers {
    fn of(image: &Image, parts: &Parts, base: &dyn Fn(EntityId) -> Option<EntityId>) -> Numbers {
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
                let used = info.info(&line.instruction).used_registers().iter();
                for used in used.filter(|used| changes(used)) {
                    let register = used.register().full_register();
                    held.read.remove(&register);
                    held.constant.remove(&register);
                }
                held.load(image, line, holder);
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
        let in_memory = i.op0_kind() == OpKind::Memory;
        let holder = if in_memory {
            holder
        } else {
            held.read.get(&i.op0_register().full_register()).copied()
        };
        let Some(holder) = holder else { return };
        let constant = held.constant.get(&i.op1_register().full_register());
        if let Some(bytes) = constant.filter(|_| in_memory && moves(i)) {
            self.store(holder, bytes.get(..size(i)).unwrap_or(bytes));
        }
        let same = i.op1_kind() == OpKind::Register && i.op0_register() == i.op1_register();
        let number = match number(line) {
            Some(number) => number,
            None if i.mnemonic() == Mnemonic::Test && same => 0,
            None => return,
        };
        match i.mnemonic() {
            Mnemonic::Mov if in_memory => {
                let bytes = number.to_le_bytes();
                self.store(holder, bytes.get(..size(i)).unwrap_or(&bytes));
            }
            Mnemonic::Or if in_memory => {
                self.stored
                    .entry((holder, true))
                    .or_default()
                    .insert(number);
            }
            Mnemonic::Cmp | Mnemonic::Test => {
                let bits = i.mnemonic() == Mnemonic::Test && !same;
                self.asked.entry((holder, bits)).or_default().insert(number);
            }
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
                let numbers = self.stored.entry((holder, false)).or_default();
                numbers.insert(u64::from_le_bytes(word));
            }
        };
        add(0, bytes);
        for (index, member) in bytes.chunks_exact(4).enumerate() {
            add(index * 4, member);
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
        match self {
            Holder::Offset(offset) => offset.checked_add(bytes.try_into().ok()?),
            Holder::Variable(id, offset) => {
                let offset = offset.checked_add(bytes.try_into().ok()?)?;
                return Some(Holder::Variable(id, offset));
            }
        }
        .map(Holder::Offset)
    }
}

impl Registers {
    fn load(&mut self, image: &Image, line: &Line, holder: Option<Holder>) {
        let i = &line.instruction;
        if i.op_count() != 2 || i.op0_kind() != OpKind::Register {
            return;
        }
        let to = i.op0_register().full_register();
        if let Some(holder) = holder
            && matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx)
        {
            self.read.insert(to, holder);
        }
        let constant = line
            .address
            .filter(|_| moves(i) && i.op1_kind() == OpKind::Memory);
        let constant = constant.filter(|from| image.is_constant_at(from.target));
        let bytes = constant.and_then(|from| image.bytes(from.target, size(i) as u64));
        match number(line).filter(|_| i.mnemonic() == Mnemonic::Mov) {
            Some(number) => self.constant.insert(to, number.to_le_bytes().to_vec()),
            None => bytes.and_then(|bytes| self.constant.insert(to, bytes.to_vec())),
        };
    }
}

/// True for an instruction that moves all of a register to memory, or from there.
fn moves(i: &Instruction) -> bool {
    matches!(
        i.mnemonic(),
        Mnemonic::Mov
            | Mnemonic::Movq
            | Mnemonic::Movd
            | Mnemonic::Movaps
            | Mnemonic::Movups
            | Mnemonic::Movdqa
            | Mnemonic::Movdqu
    )
}

/// How many bytes the memory operand has, or the first register.
fn size(i: &Instruction) -> usize {
    match i.memory_size().size() {
        0 => i.op0_register().size(),
        size => size,
    }
}

/// The number that is the second operand, as wide as the first one.
fn number(line: &Line) -> Option<u64> {
    let i = &line.instruction;
    let is_number = i.op_count() == 2 && is_immediate(i.op1_kind()) && line.immediate.is_none();
    let wide = u32::try_from(size(i)).ok()?.saturating_mul(8);
    let mask = u64::MAX
        .checked_shr(64_u32.saturating_sub(wide))
        .unwrap_or(0);
    is_number.then(|| i.immediate(1) & mask)
}

/// What the memory operand of an instruction is, but for the frame and for elements of tables.
fn holder(
    image: &Image,
    line: &Line,
    base: &dyn Fn(EntityId) -> Option<EntityId>,
) -> Option<Holder> {
    let i: &Instruction = &line.instruction;
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
