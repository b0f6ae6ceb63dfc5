//! Allocators that a program calls through a variable: `xmlMalloc`, or `hooks.allocate`.
//!
//! What the variable holds while the program runs is not known. But it holds an allocator if it
//! held one first, or if its name says so: programs exchange one allocator for another.

use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpKind, Register};
use invivo_image::x86_64::Line;
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place, Slot};

use super::calls::{Registers, Value};
use crate::conventions::changes;

/// Where a pointer was read from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// From this place of the image.
    Here(LinkAddr),
    /// From another image's variable, whose address is in this slot.
    There(LinkAddr),
}

/// A variable that is called through, or the function whose address a register holds.
pub(super) struct Held<'a> {
    pub(super) name: &'a str,
    /// True if it is the function itself.
    pub(super) is_function: bool,
    /// The function whose address it holds first, if that is known.
    pub(super) first: Option<&'a str>,
    /// The same function, if it is one of this image.
    pub(super) callee: Option<EntityId>,
}

/// What a line calls, or jumps to at its end, through a register or a variable, if that is known.
pub(super) fn called<'a>(image: &'a Image, line: &Line, registers: &Registers) -> Option<Held<'a>> {
    let i = &line.instruction;
    if !matches!(
        i.flow_control(),
        FlowControl::IndirectCall | FlowControl::IndirectBranch
    ) {
        return None;
    }
    let value = match i.op0_kind() {
        OpKind::Register => registers[number(i.op0_register())?],
        OpKind::Memory => read(image, line, registers),
        _ => None,
    };
    let imported = |slot, is_function| match image.slots.get(&slot)? {
        Slot::Import(name, _) | Slot::LazyImport(name) => Some(Held {
            name,
            is_function,
            first: None,
            callee: None,
        }),
        _ => None,
    };
    match value? {
        Value::Pointer(Holder::Here(at)) => here(image, at),
        Value::Pointer(Holder::There(slot)) => imported(slot, false),
        // Without stubs (`-fno-plt`) the address of a function is read once for many calls.
        Value::Imported(slot) if i.op0_kind() == OpKind::Register => imported(slot, true),
        Value::Address(at) if i.op0_kind() == OpKind::Register => match image.place(at) {
            Place::In(id, 0) => Some(Held {
                name: image.entity(id).name(),
                is_function: true,
                first: None,
                callee: Some(id),
            }),
            _ => None,
        },
        _ => None,
    }
}

/// True if a line calls what nobody knows, or jumps there at its end; jumps by a table lead on inside.
pub(super) fn is_behind(lines: &[Line], index: usize) -> bool {
    let Some(line) = lines.get(index).filter(|line| line.address.is_none()) else {
        return false;
    };
    let i = &line.instruction;
    match i.flow_control() {
        FlowControl::IndirectCall => true,
        FlowControl::IndirectBranch if i.op0_kind() == OpKind::Memory => is_plain(line),
        FlowControl::IndirectBranch => {
            let before = lines.iter().take(index).rev();
            let mut before = before.take_while(|line| !line.ends_flow());
            let mut info = InstructionInfoFactory::new();
            let made = before.find(|line| {
                let mut used = info.info(&line.instruction).used_registers().iter();
                used.any(|used| {
                    changes(used) && used.register().full_register() == i.op0_register()
                })
            });
            // An element of a table is added to the table's address, or is read by its number.
            made.is_none_or(|made| made.instruction.mnemonic() != Mnemonic::Add && is_plain(made))
        }
        _ => false,
    }
}

/// The place that the memory operand is, whatever registers hold.
pub(super) fn place(line: &Line) -> Option<LinkAddr> {
    let i = &line.instruction;
    let fixed = [Register::None, Register::RIP].contains(&i.memory_base());
    let reference = line.address.filter(|_| fixed && is_plain(line))?;
    Some(reference.target)
}

/// False for an element of a table, and for a thread's own data.
fn is_plain(line: &Line) -> bool {
    let i = &line.instruction;
    i.memory_index() == Register::None && i.segment_prefix() == Register::None
}

/// What an instruction reads out of memory, if that is an address or a pointer that a variable holds.
pub(super) fn read(image: &Image, line: &Line, registers: &Registers) -> Option<Value> {
    let i = &line.instruction;
    if let Some(at) = place(line) {
        return match image.place(at) {
            Place::Slot(Slot::Pointer(to)) => Some(Value::Address(to)),
            Place::Slot(Slot::Import(_, 0)) => Some(Value::Imported(at)),
            Place::In(id, _) if image.entity(id).kind == EntityKind::Object => {
                Some(Value::Pointer(Holder::Here(at)))
            }
            _ => None,
        };
    }
    if line.address.is_some() || !is_plain(line) {
        return None;
    }
    let offset = i.memory_displacement64().cast_signed();
    match registers[number(i.memory_base())?]? {
        Value::Address(at) => {
            let at = LinkAddr(at.0.checked_add_signed(offset)?);
            Some(Value::Pointer(Holder::Here(at)))
        }
        Value::Imported(slot) if offset == 0 => Some(Value::Pointer(Holder::There(slot))),
        _ => None,
    }
}

fn number(register: Register) -> Option<usize> {
    register.is_gpr64().then(|| register.number())
}

/// The variable at a place of this image.
fn here(image: &Image, at: LinkAddr) -> Option<Held<'_>> {
    let Place::In(id, _) = image.place(at) else {
        return None;
    };
    let (first, callee) = match image.slots.get(&at) {
        Some(Slot::Import(name, 0) | Slot::LazyImport(name)) => (Some(&**name), None),
        Some(Slot::Pointer(to)) => match image.place(*to) {
            Place::In(id, 0) if image.entity(id).kind == EntityKind::Function => {
                (Some(image.entity(id).name()), Some(id))
            }
            _ => (None, None),
        },
        _ => (None, None),
    };
    Some(Held {
        name: image.entity(id).name(),
        is_function: false,
        first,
        callee,
    })
}
