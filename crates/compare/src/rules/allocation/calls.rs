//! The calls of a function, and what is known of their arguments.

use std::borrow::Cow;

use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpKind, Register};
use invivo_image::x86_64::{Line, ReferenceKind, decode};
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place, Slot, demangle};

use super::pointers::{self, Holder};
use crate::conventions::{KEPT, PARAMETERS, changes};
use crate::told::is_immediate;

/// What is called through a pointer that nobody knows: `parser->memory.allocate(size)`.
pub(super) const BEHIND: &str = "a function behind a pointer, which may allocate,";

/// What the registers for numbers and addresses hold, by their numbers.
pub(super) type Registers = [Option<Value>; 16];

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Constant(u64),
    /// The function's own argument.
    Argument(usize),
    /// The address of a place in this image.
    Address(LinkAddr),
    /// The address of another image's variable; it is in this slot.
    Imported(LinkAddr),
    /// What was read out of a variable.
    Pointer(Holder),
}

/// A call, and what the argument registers hold at it.
pub(super) struct Call<'a> {
    /// The function, or the variable that holds its address.
    pub(super) name: Cow<'a, str>,
    /// The function whose address the variable holds first, if that is known.
    pub(super) first: Option<Cow<'a, str>>,
    /// It, or the one that the variable holds first, if that is a function of this image.
    pub(super) callee: Option<EntityId>,
    /// Where the call is.
    pub(super) at: LinkAddr,
    pub(super) arguments: [Option<Value>; 6],
}

/// The calls of a function, from its first instruction to its last; what a register holds
/// is followed in that order and forgotten where control cannot come from above.
pub(super) fn calls(image: &Image, function: EntityId) -> Vec<Call<'_>> {
    let entity = image.entity(function);
    let lines = decode(image, entity).unwrap_or_default();
    let mut factory = InstructionInfoFactory::new();
    let mut registers: Registers = [None; 16];
    for (index, register) in PARAMETERS.into_iter().enumerate() {
        registers[register.number()] = Some(Value::Argument(index));
    }
    let mut found = Vec::new();
    for line in &lines {
        let instruction = &line.instruction;
        let arguments = || PARAMETERS.map(|register| registers[register.number()]);
        if let Some((name, callee)) = callee(image, function, line) {
            found.push(Call {
                name,
                first: None,
                callee,
                at: line.at(),
                arguments: arguments(),
            });
        } else if let Some(held) = pointers::called(image, line, &registers) {
            found.push(Call {
                name: held.variable.into(),
                first: held.first.map(Cow::Borrowed),
                callee: held.callee,
                at: line.at(),
                arguments: arguments(),
            });
        } else if instruction.flow_control() == FlowControl::IndirectCall && line.address.is_none()
        {
            found.push(Call {
                name: BEHIND.into(),
                first: None,
                callee: None,
                at: line.at(),
                arguments: arguments(),
            });
        }
        if matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        ) {
            for (number, value) in registers.iter_mut().enumerate() {
                *value = value.filter(|_| KEPT.iter().any(|kept| kept.number() == number));
            }
            continue;
        }
        if line.ends_flow() {
            registers = [None; 16];
            continue;
        }
        let value = moved(image, line, &registers);
        let written = factory.info(instruction).used_registers().iter();
        for used in written.filter(|used| changes(used)) {
            let written = used.register().full_register();
            if written.is_gpr64() {
                registers[written.number()] = None;
            }
        }
        if value.is_some() {
            registers[instruction.op0_register().full_register().number()] = value;
        }
    }
    found
}

/// What a move leaves in its target, if that is known.
fn moved(image: &Image, line: &Line, registers: &Registers) -> Option<Value> {
    let i = &line.instruction;
    let wide = |register: Register| register.is_gpr64() || register.is_gpr32();
    if i.op_count() != 2 || i.op0_kind() != OpKind::Register || !wide(i.op0_register()) {
        return None;
    }
    let same = i.op1_kind() == OpKind::Register && i.op1_register() == i.op0_register();
    match i.mnemonic() {
        Mnemonic::Xor if same => Some(Value::Constant(0)),
        Mnemonic::Mov if is_immediate(i.op1_kind()) && line.immediate.is_none() => {
            Some(Value::Constant(i.immediate(1)))
        }
        Mnemonic::Mov if i.op1_kind() == OpKind::Register && wide(i.op1_register()) => {
            registers[i.op1_register().full_register().number()]
        }
        Mnemonic::Mov if is_immediate(i.op1_kind()) => line
            .immediate
            .map(|reference| Value::Address(reference.target)),
        Mnemonic::Mov if i.op1_kind() == OpKind::Memory && i.op0_register().is_gpr64() => {
            pointers::read(image, line, registers)
        }
        Mnemonic::Lea => pointers::place(line).map(Value::Address),
        _ => None,
    }
}

/// The function that a line calls, or jumps to at its end.
fn callee<'a>(
    image: &'a Image,
    caller: EntityId,
    line: &Line,
) -> Option<(Cow<'a, str>, Option<EntityId>)> {
    let calls = matches!(
        line.instruction.flow_control(),
        FlowControl::Call
            | FlowControl::IndirectCall
            | FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
    );
    let reference = line.address.filter(|_| calls)?;
    let by_slot = reference.kind == ReferenceKind::Relative;
    let function = |id: EntityId| {
        // `__rust_alloc` is mangled, with a hash of the compiler inside.
        let name = image.entity(id).name();
        let plain = name.contains("__rust").then(|| demangle(name));
        let short = plain.and_then(|plain| Some(plain.strip_prefix("__rustc::")?.to_owned()));
        Some((short.map_or(Cow::Borrowed(name), Cow::Owned), Some(id)))
    };
    match image.place(reference.target) {
        Place::In(id, 0) if id != caller && image.entity(id).kind == EntityKind::Function => {
            function(id)
        }
        Place::Stub(Slot::Import(name, 0) | Slot::LazyImport(name)) => {
            Some((name.to_string().into(), None))
        }
        // Without stubs (`-fno-plt`, Rust) a call reads the address from its slot.
        Place::Slot(Slot::Import(name, 0) | Slot::LazyImport(name)) if by_slot => {
            Some((name.to_string().into(), None))
        }
        Place::Slot(Slot::Pointer(target)) if by_slot => match image.place(target) {
            Place::In(id, 0) => function(id),
            _ => None,
        },
        _ => None,
    }
}
