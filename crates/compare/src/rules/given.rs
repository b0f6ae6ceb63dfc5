//! Whether code gives the address of a constant away: then live data may hold it, and go on with
//! what the running image has there.

use std::collections::BTreeSet;

use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpKind, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{
    EntityId, EntityKind, Image, LinkAddr, Machine, Place, SectionKind, Slot, demangle, whole_of,
};

use crate::Comparison;
use crate::conventions::{PARAMETERS, changes};

/// Who may hold or ask for the address of a constant of the base, as the end of a sentence.
pub(super) fn holder(c: &Comparison<'_>, constant: EntityId) -> Option<String> {
    let name = |id: EntityId| demangle(c.base.entity(id).name());
    let mut users: Vec<EntityId> = Vec::new();
    for user in c.base_usage.uses.get(&constant).into_iter().flatten() {
        if users.last() != Some(&user.by) {
            users.push(user.by);
        }
    }
    let found: Vec<_> = users
        .iter()
        .map(|by| (*by, flow(c.base, *by, constant)))
        .collect();
    let follows = c.base.machine != Machine::Aarch64;
    if let Some((by, _)) = found.iter().find(|(_, found)| found.compares && !follows) {
        return Some(format!(
            "{} uses its address and compares addresses, perhaps this one, which is another one in the \
             patch: that is not followed in code for ARM64",
            name(*by)
        ));
    }
    if let Some((by, _)) = found.iter().find(|(_, found)| found.compares) {
        return Some(format!(
            "{} compares its address, which is another one in the patch",
            name(*by)
        ));
    }
    if !has_code(c.base, constant) {
        return None;
    }
    if let Some((by, _)) = found.iter().find(|(_, found)| found.gives && !follows) {
        return Some(format!(
            "{} uses its address, which live data may hold: whether they do is not followed in code for \
             ARM64",
            name(*by)
        ));
    }
    if let Some((by, _)) = found.iter().find(|(_, found)| found.gives) {
        return Some(format!(
            "{} gives its address away, which live data may hold",
            name(*by)
        ));
    }
    let places = c.base_usage.pointed.get(&constant).into_iter().flatten();
    let mut holders = places.filter_map(|at| {
        let kind = c.base.section_at(*at)?.kind;
        let holder = c.base.entity_at(*at)?;
        matches!(kind, SectionKind::Data | SectionKind::ReadOnly).then_some(holder)
    });
    let by = holders.find(|holder| *holder != constant)?;
    Some(format!("{} holds its address", name(by)))
}

/// Code that gives the address of a constant away, which holds no more than numbers.
pub(super) fn giver(c: &Comparison<'_>, constant: EntityId) -> Option<String> {
    let mut users = c.base_usage.uses.get(&constant).into_iter().flatten();
    let giver = users.find(|user| flow(c.base, user.by, constant).gives)?;
    Some(demangle(c.base.entity(giver.by).name()))
}

/// True if an object holds the address of a function.
fn has_code(image: &Image, id: EntityId) -> bool {
    let entity = image.entity(id);
    let slots = image.slots.range(entity.addr..entity.end());
    let slots = slots.filter_map(|(_, slot)| match slot {
        Slot::Pointer(to) => Some(*to),
        _ => None,
    });
    // Only what the file holds: a hostile symbol may be as long as it likes.
    let bytes = image.bytes(entity.addr, entity.size).unwrap_or_default();
    let words = bytes.chunks_exact(8).zip((entity.addr.0..).step_by(8));
    let words = words
        .filter(|(_, at)| !image.slots.contains_key(&LinkAddr(*at)))
        .filter_map(|(word, _)| Some(LinkAddr(u64::from_le_bytes(word.try_into().ok()?))));
    let mut targets = slots.chain(words);
    targets.any(|to| match image.place(to) {
        Place::In(id, 0) => image.entity(id).kind != EntityKind::Object,
        _ => false,
    })
}

/// What a function does with the address of a constant.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// It stores, passes or returns it.
    gives: bool,
    /// It compares it with another one.
    compares: bool,
}

/// Registers that hold the address, one bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// The address itself.
    exact: u16,
    /// One that was reckoned from it: a pointer that walks along the table.
    moved: u16,
    /// Of both, those that nothing was read through yet. What is left in a register for
    /// parameters behind a read was there for the read.
    fresh: u16,
}

impl Held {
    fn all(self) -> u16 {
        self.exact | self.moved
    }

    fn with(self, other: Held) -> Held {
        Held {
            exact: self.exact | other.exact,
            moved: self.moved | other.moved,
            fresh: self.fresh | other.fresh,
        }
    }

    fn forget(&mut self, registers: u16) {
        self.exact &= !registers;
        self.moved &= !registers;
        self.fresh &= !registers;
    }
}

/// Registers besides those of parameters that a call does not leave alone.
const SCRATCH: [Register; 3] = [Register::RAX, Register::R10, Register::R11];

fn bit(register: Register) -> u16 {
    let full = register.full_register();
    if register == Register::None || !full.is_gpr() {
        return 0;
    }
    1 << (full.number() & 15)
}

/// Follows the address through the function: each instruction is looked at again as long as one
/// more register may hold it there.
fn flow(image: &Image, by: EntityId, constant: EntityId) -> Flow {
    let mut flow = Flow::default();
    let lines = decode(image, image.entity(by));
    if image.machine == Machine::Aarch64 {
        // Where the address goes is not followed there: code that compares addresses at all may
        // compare this one.
        let compares = |line: &Line| line.word.is_some_and(|word| word.compares());
        return Flow {
            gives: true,
            compares: lines.is_none_or(|lines| lines.iter().any(compares)),
        };
    }
    let Some(lines) = lines else {
        // Nobody knows what it does.
        return Flow {
            gives: true,
            compares: false,
        };
    };
    let mut before: Vec<Option<Held>> = vec![None; lines.len()];
    let mut waiting: BTreeSet<usize> = (0..lines.len().min(1)).collect();
    if let Some(first) = before.first_mut() {
        *first = Some(Held::default());
    }
    // What only a table or an exception leads to begins with nothing held.
    for (at, line) in lines.iter().enumerate() {
        if line
            .references()
            .any(|r| is_in(image, r.target, constant).is_some())
        {
            before[at] = Some(before[at].unwrap_or_default());
            waiting.insert(at);
        }
    }
    let mut info = InstructionInfoFactory::new();
    while let Some(at) = waiting.pop_first() {
        let held = before[at].unwrap_or_default();
        let line = &lines[at];
        let after = step(image, by, constant, line, held, &mut info, &mut flow);
        let target = LinkAddr(line.instruction.near_branch_target());
        let jump = || lines.binary_search_by_key(&target, Line::at).ok();
        let (next, jump) = match line.instruction.flow_control() {
            FlowControl::UnconditionalBranch => (None, jump()),
            FlowControl::ConditionalBranch => (Some(at + 1), jump()),
            FlowControl::Return | FlowControl::IndirectBranch | FlowControl::Exception => {
                (None, None)
            }
            _ => (Some(at + 1), None),
        };
        for next in [next, jump]
            .into_iter()
            .flatten()
            .filter(|next| *next < lines.len())
        {
            let joined = before[next].map_or(after, |known| known.with(after));
            if before[next] != Some(joined) {
                before[next] = Some(joined);
                waiting.insert(next);
            }
        }
    }
    flow
}

/// How far into the constant `at` is, directly or out of a slot; none if it leads elsewhere.
fn is_in(image: &Image, at: LinkAddr, constant: EntityId) -> Option<(u64, bool)> {
    match image.place(at) {
        Place::In(id, offset) if id == constant => Some((offset, false)),
        Place::Slot(Slot::Pointer(to)) => match image.place(to) {
            Place::In(id, offset) if id == constant => Some((offset, true)),
            _ => None,
        },
        _ => None,
    }
}

/// What registers hold behind an instruction.
fn step(
    image: &Image,
    by: EntityId,
    constant: EntityId,
    line: &Line,
    held: Held,
    info: &mut InstructionInfoFactory,
    flow: &mut Flow,
) -> Held {
    let instruction = &line.instruction;
    let mnemonic = instruction.mnemonic();
    let registers = |list: &[Register]| list.iter().fold(0, |all, one| all | bit(*one));
    let (parameters, scratch) = (registers(&PARAMETERS), registers(&SCRATCH));
    let operand = |at: u32| match (at < instruction.op_count()).then(|| instruction.op_kind(at)) {
        Some(OpKind::Register) => bit(instruction.op_register(at)),
        _ => 0,
    };
    let is_memory =
        |at: u32| at < instruction.op_count() && instruction.op_kind(at) == OpKind::Memory;
    let (to, from) = (operand(0), operand(1));
    // The address as this instruction has it, and how far in.
    let number = line
        .immediate
        .and_then(|r| is_in(image, r.target, constant));
    let place = line.address.and_then(|r| is_in(image, r.target, constant));
    let slot = place.filter(|(_, by_slot)| *by_slot);
    let value = number
        .or(slot)
        .or(place.filter(|_| mnemonic == Mnemonic::Lea));
    let mut after = held;
    let written = info.info(instruction).used_registers().iter();
    let written = written.filter(|used| changes(used));
    let written = written.fold(0, |all, used| all | bit(used.register()));
    let addressed = bit(instruction.memory_base()) | bit(instruction.memory_index());
    let through = addressed & held.all();
    if mnemonic != Mnemonic::Lea {
        after.fresh &= !through;
    }
    match mnemonic {
        _ if line.is_call() => {
            flow.gives |= after.fresh & held.all() & parameters != 0;
            after.forget(parameters | scratch);
        }
        Mnemonic::Jmp => {
            let inside = |r: &invivo_image::x86_64::Reference| match image.place(r.target) {
                Place::In(id, _) => id == by || whole_of(image.entity(id).name()).is_some(),
                _ => false,
            };
            let stays = is_memory(0) || operand(0) != 0 || line.references().any(|r| inside(&r));
            flow.gives |= !stays && after.fresh & held.all() & parameters != 0;
        }
        Mnemonic::Ret => {
            let returned = bit(Register::RAX);
            flow.gives |= held.fresh & held.all() & returned != 0;
        }
        Mnemonic::Cmp => {
            let lone = |own: u16, other: u16| {
                own & held.exact & !held.moved != 0 && other & held.all() == 0
            };
            let number = number.is_some_and(|(offset, _)| offset == 0);
            let number = number || slot.is_some_and(|(offset, _)| offset == 0);
            flow.compares |= lone(to, from) || lone(from, to);
            flow.compares |= number && (to | from) & held.moved == 0;
        }
        Mnemonic::Push => flow.gives |= value.is_some() || to & held.all() != 0,
        Mnemonic::Lea | Mnemonic::Mov if to != 0 => {
            after.forget(to);
            let copied = if mnemonic == Mnemonic::Mov {
                from & held.all()
            } else {
                through
            };
            if let Some((offset, _)) = value {
                let is_whole = offset == 0 && (mnemonic == Mnemonic::Mov || addressed == 0);
                if is_whole {
                    after.exact |= to
                } else {
                    after.moved |= to
                }
                after.fresh |= to;
            } else if copied != 0 {
                let plain = mnemonic == Mnemonic::Mov
                    || instruction.memory_index() == Register::None
                        && instruction.memory_displacement64() == 0;
                if plain && copied & held.exact != 0 {
                    after.exact |= to;
                }
                if !plain || copied & held.moved != 0 {
                    after.moved |= to;
                }
                after.fresh |= to;
            }
        }
        Mnemonic::Mov => flow.gives |= is_memory(0) && (value.is_some() || from & held.all() != 0),
        Mnemonic::Movq | Mnemonic::Vmovq | Mnemonic::Pinsrq | Mnemonic::Vpinsrq => {
            flow.gives |= slot.is_some() || (from | operand(2)) & held.all() != 0;
        }
        Mnemonic::Add | Mnemonic::Sub | Mnemonic::Inc | Mnemonic::Dec => {
            if (to | from) & held.all() != 0 || value.is_some() {
                after.exact &= !to;
                after.moved |= to;
                after.fresh |= to;
            }
        }
        Mnemonic::Xchg
        | Mnemonic::Cmove
        | Mnemonic::Cmovne
        | Mnemonic::Cmova
        | Mnemonic::Cmovae
        | Mnemonic::Cmovb
        | Mnemonic::Cmovbe
        | Mnemonic::Cmovg
        | Mnemonic::Cmovge
        | Mnemonic::Cmovl
        | Mnemonic::Cmovle
        | Mnemonic::Cmovs
        | Mnemonic::Cmovns => {
            if from & held.exact != 0 || value.is_some_and(|(offset, _)| offset == 0) {
                after.exact |= to;
                after.fresh |= to;
            }
            if from & held.moved != 0 {
                after.moved |= to;
                after.fresh |= to;
            }
            flow.gives |= is_memory(0) && from & held.all() != 0;
        }
        _ => after.forget(written),
    }
    after
}
