//! The calls of a function, and what is known of their arguments.

use std::borrow::Cow;

use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpKind, Register};
use invivo_image::x86_64::{Line, ReferenceKind, decode};
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place, Slot, demangle};

use super::allocators::by_name;
use super::pointers::{self, Holder};
use super::results::{Fate, Whole};
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
    /// What becomes of its result, where nothing else tells whether it allocates.
    pub(super) result: Fate,
}

/// The calls of a function, from its first instruction to its last; what a register holds
/// is followed in that order and forgotten where control cannot come from above. Of what is called through
/// a pointer that nobody knows `whole` tells what becomes of the result.
pub(super) fn calls<'a>(
    image: &'a Image,
    function: EntityId,
    whole: Option<&Whole<'_>>,
) -> Vec<Call<'a>> {
    let entity = image.entity(function);
    let lines = decode(image, entity).unwrap_or_default();
    let mut factory = InstructionInfoFactory::new();
    let mut registers: Registers = [None; 16];
    for (index, register) in PARAMETERS.into_iter().enumerate() {
        registers[register.number()] = Some(Value::Argument(index));
    }
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let instruction = &line.instruction;
        let call = call(image, function, (&lines, index), &registers);
        found.extend(call.map(|mut call| {
            if let Some(whole) = whole.filter(|_| call.name == BEHIND) {
                call.result = whole.fate(call.at);
            }
            call
        }));
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

/// The call at one of a function's instructions, if it is one.
fn call<'a>(
    image: &'a Image,
    function: EntityId,
    (lines, index): (&[Line], usize),
    registers: &Registers,
) -> Option<Call<'a>> {
    let line = lines.get(index)?;
    let call = Call {
        name: BEHIND.into(),
        first: None,
        callee: None,
        at: line.at(),
        arguments: PARAMETERS.map(|register| registers[register.number()]),
        result: Fate::Kept,
    };
    if let Some((name, callee)) = callee(image, function, line) {
        return Some(Call {
            name,
            callee,
            ..call
        });
    }
    match pointers::called(image, line, registers) {
        // A variable that tells nothing by its name, nor by what it holds first, may hold anything.
        Some(held) if held.is_function || held.first.is_some() || by_name(held.name).is_some() => {
            return Some(Call {
                name: held.name.into(),
                first: held.first.map(Cow::Borrowed),
                callee: held.callee,
                ..call
            });
        }
        Some(_) => {}
        None if !pointers::is_behind(lines, index) => return None,
        None => {}
    }
    Some(call)
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
        // An `int` that is handed on as a size is widened first.
        Mnemonic::Movsxd if i.op1_kind() == OpKind::Register => {
            argument(registers, i.op1_register())
        }
        Mnemonic::Mov if is_immediate(i.op1_kind()) => line
            .immediate
            .map(|reference| Value::Address(reference.target)),
        Mnemonic::Mov if i.op1_kind() == OpKind::Memory && i.op0_register().is_gpr64() => {
            pointers::read(image, line, registers)
        }
        Mnemonic::Lea => match pointers::place(line) {
            Some(at) => Some(Value::Address(at)),
            None => sum(line, registers),
        },
        // Wrappers ask for a little more than what they are asked for; that counts as the argument itself.
        Mnemonic::Add if is_immediate(i.op1_kind()) && line.immediate.is_none() => {
            argument(registers, i.op0_register())
        }
        _ => None,
    }
}

/// An argument, where a constant is added to it.
fn sum(line: &Line, registers: &Registers) -> Option<Value> {
    let i = &line.instruction;
    let is_plain = line.address.is_none() && i.memory_index() == Register::None;
    let base = Some(i.memory_base()).filter(|base| is_plain && base.is_gpr())?;
    argument(registers, base)
}

fn argument(registers: &Registers, register: Register) -> Option<Value> {
    let value = registers[register.full_register().number()];
    value.filter(|value| matches!(value, Value::Argument(_)))
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
