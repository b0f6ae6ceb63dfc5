//! Code for x86, led to the base place by place: each address in it has a relocation, and each
//! distance of a call reaches everywhere.

use iced_x86::{Mnemonic, OpKind, Register};
use invivo_compare::Rule;
use invivo_image::pe::referenced;
use invivo_image::x86_64::{Line, Reference, ReferenceKind};
use invivo_image::{EntityId, EntityKind, LinkAddr, Place, SectionKind, demangle};

use super::walk::Walk;

/// Who refers to a place: an operand in code, or a pointer in data.
#[derive(Clone, Copy, Debug)]
pub(super) struct From {
    /// What is referred to.
    pub(super) target: LinkAddr,
    /// Where the operand or pointer is.
    at: LinkAddr,
    /// Of an operand how it refers, and how many bytes it has.
    operand: Option<(ReferenceKind, u8)>,
    reach: Reach,
    /// True for a distance that the instruction ends with, from there to what it reads or writes.
    distance: bool,
}

/// What an address that is found somewhere is about.
#[derive(Clone, Copy, Debug)]
enum Reach {
    /// So many bytes there, and nothing else.
    Here(u64),
    /// What begins there.
    Start,
    /// An index is added to it, or may be, and so it may be about another variable than the one where
    /// it is: about one of at least so many bytes, since others have no second element.
    From(u64),
}

impl From {
    pub(super) fn of(line: &Line, reference: &Reference) -> From {
        let i = &line.instruction;
        let alone = i.memory_base() == Register::None && i.memory_index() == Register::None;
        let is_memory = line.address == Some(*reference) && i.mnemonic() != Mnemonic::Lea;
        let size = i.memory_size().size() as u64;
        let scale = match i.memory_index() {
            Register::None => 1,
            _ => u64::from(i.memory_index_scale()),
        };
        let reach = match is_memory {
            _ if line.address != Some(*reference) => Reach::From(2),
            true if alone && size > 0 => Reach::Here(size),
            true => Reach::From(2 * scale.max(size)),
            false => Reach::From(2 * scale),
        };
        From {
            target: reference.target,
            at: LinkAddr(i.ip().saturating_add(reference.offset.into())),
            operand: Some((reference.kind, reference.width)),
            reach,
            distance: is_memory
                && i.memory_base() == Register::RIP
                && usize::from(reference.offset + reference.width) == i.len(),
        }
    }

    pub(super) fn word(at: LinkAddr, target: LinkAddr) -> From {
        From {
            target,
            at,
            operand: None,
            reach: Reach::Start,
            distance: false,
        }
    }

    /// Where the four bytes are that tell the distance from the end of the instruction to what it reads
    /// or writes, if they are such.
    pub(super) fn distance(&self) -> Option<LinkAddr> {
        self.distance.then_some(self.at)
    }

    pub(super) fn is_branch(&self) -> bool {
        let branches = [ReferenceKind::Jump, ReferenceKind::Call];
        self.operand
            .is_some_and(|(kind, _)| branches.contains(&kind))
    }
}

/// How far an index that compilers add to an address may lead, in bytes. Addresses of that reach
/// are led to the base only if whatever variable they may be about is at the same distance there.
const NEAR: u64 = 64;
/// The same where variables are large: an element of one is no larger than it.
const FAR: u64 = 4096;

impl Walk<'_, '_> {
    /// Leads an operand or pointer to the base; false where it is about nothing that the base has.
    pub(super) fn directly(&mut self, from: &From, by: &str) -> bool {
        let image = self.c.fixed;
        match image.place(from.target) {
            Place::In(id, offset) if image.entity(id).kind != EntityKind::Object => {
                self.function_directly(id, offset, from, by);
                true
            }
            Place::In(id, offset) => self.variable_directly(id, offset, from, by),
            Place::Constant(at) => {
                let kind = image.section_at(at).map(|section| section.kind);
                if kind != Some(SectionKind::ReadOnly) {
                    let text = format!(
                        "refers to {at} among the variables, where none has a name: whose it is, is \
                         not known"
                    );
                    self.refuse(Rule::Binding, by, text);
                    return true;
                }
                if let Reach::From(_) = from.reach {
                    self.following(at, by);
                }
                false
            }
            _ => false,
        }
    }

    fn function_directly(&mut self, id: EntityId, offset: u64, from: &From, by: &str) {
        let c = self.c;
        let entity = c.fixed.entity(id);
        let name = demangle(entity.name());
        if self.hot.contains(&id) && from.is_branch() {
            self.visit(id, by);
            return;
        }
        let Some(base) = c.pairs.base_of(id) else {
            if entity.size == 0 {
                let text = format!("calls {name}, whose size is not known");
                self.refuse(Rule::Binding, by, text);
            }
            self.visit(id, by);
            return;
        };
        let to = (c.base.entity(base).addr, name.clone());
        match from.operand {
            // An entry of a jump table, which only code of that very function reads.
            None if offset != 0 => {}
            _ if offset != 0 => self.refuse(Rule::Binding, by, format!("jumps into {name}")),
            Some((ReferenceKind::Jump | ReferenceKind::Call, 4)) => {
                self.calls.insert(from.at, to);
            }
            Some((ReferenceKind::Jump | ReferenceKind::Call, _)) => {
                let text = format!(
                    "jumps to {name} by a jump that is too short to lead to the base; build the \
                     fixed source with -ffunction-sections"
                );
                self.refuse(Rule::Binding, by, text);
            }
            _ => {
                self.addresses.insert(from.at, to);
            }
        }
    }

    fn variable_directly(&mut self, id: EntityId, offset: u64, from: &From, by: &str) -> bool {
        let c = self.c;
        let entity = c.fixed.entity(id);
        if referenced(c.fixed.machine, entity.name()).is_some() {
            return false;
        }
        let kind = c.fixed.section_at(entity.addr).map(|section| section.kind);
        let name = demangle(entity.name());
        if kind == Some(SectionKind::ReadOnly) {
            if let Reach::From(_) = from.reach {
                self.following(from.target, by);
            }
            return false;
        }
        let within = |size: u64| {
            offset
                .checked_add(size)
                .is_some_and(|end| end <= entity.size)
        };
        let settled = match from.reach {
            Reach::Here(size) => within(size),
            Reach::Start if offset == 0 && entity.size > 0 => true,
            Reach::Start => self.is_settled(id, from.target, 2),
            Reach::From(least) => self.is_settled(id, from.target, least),
        };
        if !settled {
            let text = format!(
                "reaches {name} or what is beside it by an address to which an index is added, and they \
                 do not lie in the base as they do in the fixed build, so it is not known which one it \
                 is: put new variables into a file of their own"
            );
            self.refuse(Rule::Binding, by, text);
            return true;
        }
        let Some(base) = c.pairs.base_of(id) else {
            // Whether it is new, and so lives in the patch, is asked of every variable.
            return false;
        };
        let old = c.base.entity(base);
        if old.size != entity.size {
            let text = format!("uses {name}, whose size changed");
            self.refuse(Rule::Binding, by, text);
            return true;
        }
        let to = LinkAddr(old.addr.0.wrapping_add(offset));
        self.addresses.insert(from.at, (to, name));
        true
    }

    /// True if all variables near `target` of at least so many bytes are as far from their counterparts
    /// as `id` is, or all of them are new, as it is.
    fn is_settled(&self, id: EntityId, target: LinkAddr, size: u64) -> bool {
        let c = self.c;
        let Some(section) = c.fixed.section_at(c.fixed.entity(id).addr) else {
            return false;
        };
        let distance = |id: EntityId| {
            let (new, old) = (c.fixed.entity(id), c.base.entity(c.pairs.base_of(id)?));
            (new.size == old.size).then(|| old.addr.0.wrapping_sub(new.addr.0))
        };
        let own = distance(id);
        if own.is_none() && c.pairs.base_of(id).is_some() {
            return false;
        }
        // `slots[i - 1].x` is an address one element before `slots`.
        let sizes = c.fixed.entities.iter();
        let sizes = sizes.filter(|entity| section.range.contains(&entity.addr));
        let largest = sizes.map(|entity| entity.size).max().unwrap_or(0);
        let reach = largest.clamp(NEAR, FAR);
        let (least, most) = (
            target.0.saturating_sub(reach),
            target.0.saturating_add(reach),
        );
        let near = c.fixed.entity_ids().filter(|(other, entity)| {
            section.range.contains(&entity.addr)
                && entity.addr.0 <= most
                && entity.end().0 >= least
                && (*other == id || entity.size >= size || entity.size == 0)
        });
        let mut near = near.map(|(other, _)| (other, distance(other)));
        near.all(|(other, its)| its == own && (own.is_some() || c.pairs.base_of(other).is_none()))
    }

    /// What stands behind a constant that is counted from: `table[i - 1]` is an address before it.
    fn following(&mut self, at: LinkAddr, by: &str) {
        let image = self.c.fixed;
        let next = image.entities.partition_point(|entity| entity.addr <= at);
        let Some(next) = image.entities.get(next) else {
            return;
        };
        let same = image.section_at(at).map(|s| s.range.start)
            == image.section_at(next.addr).map(|s| s.range.start);
        if same && next.kind == EntityKind::Object && next.addr.0 - at.0 <= NEAR {
            self.pointers_in(next.addr, next.end(), by);
        }
    }

    /// What an instruction of x86 may reach without a relocation.
    pub(super) fn x86_line(&mut self, line: &Line, by: &str) {
        const HANDLERS: u64 = 0;
        const BLOCKS: u64 = 0x2c;
        let i = &line.instruction;
        let alone = i.memory_base() == Register::None && i.memory_index() == Register::None;
        let kinds = (0..i.op_count()).map(|op| i.op_kind(op));
        let is_memory = kinds.clone().any(|kind| kind == OpKind::Memory);
        let addresses = matches!(i.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
        match i.memory_segment() {
            Register::FS if !is_memory => {}
            Register::FS if !alone || i.memory_displacement64() == BLOCKS => {
                let text = "uses thread-local storage: the fixed image has blocks of its own, in \
                            which the base's variables are not; take them out of the function";
                self.refuse(Rule::ThreadLocals, by, text);
            }
            Register::FS if i.memory_displacement64() == HANDLERS => {
                let text = "handles exceptions (fs:[0]), and Windows calls only handlers that the \
                            base's own list names (/safeseh); take __try out of the function";
                self.refuse(Rule::Unwind, by, text);
            }
            Register::GS if is_memory => {
                let text = "reads through the register GS, which Windows does not use on x86";
                self.refuse(Rule::Binding, by, text);
            }
            Register::FS | Register::GS => {}
            _ if is_memory && alone && !addresses && line.address.is_none() => {
                let at = LinkAddr(i.memory_displacement64());
                let text = format!(
                    "reads or writes {at} by a number of which no relocation says that it is an address"
                );
                self.refuse(Rule::Binding, by, text);
            }
            _ => {}
        }
        if line.immediate.is_none() {
            let numbers = (0..i.op_count()).filter(|op| i.op_kind(*op) == OpKind::Immediate32);
            for number in numbers.map(|op| LinkAddr(i.immediate(op))) {
                if matches!(self.c.fixed.place(number), Place::In(_, 0)) {
                    let text = format!(
                        "has the number {number}, which would be an address, and no relocation says \
                         whether it is one"
                    );
                    self.refuse(Rule::Binding, by, text);
                }
            }
        }
    }
}
