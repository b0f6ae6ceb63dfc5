//! R-ALLOC: what the running program allocated has the size that it asked for then.
//!
//! Sizes are constants in the argument registers of calls to allocators. They are compared
//! per function and allocator without their order, because compilers schedule calls as they
//! like. An allocation that is only new, or only gone, is the new code's own affair.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use invivo_image::x86_64::{Line, ReferenceKind, decode};
use invivo_image::{EntityId, EntityKind, Image, Place, Slot, demangle};

use crate::conventions::PARAMETERS;
use crate::rules::{Finding, Rule};
use crate::told::is_immediate;
use crate::{Comparison, Parts};

/// Allocators, and which of their arguments are sizes.
const ALLOCATORS: &[(&str, &[usize])] = &[
    ("malloc", &[0]),
    ("calloc", &[0, 1]),
    ("realloc", &[1]),
    ("reallocarray", &[1, 2]),
    ("aligned_alloc", &[1]),
    ("memalign", &[1]),
    ("posix_memalign", &[2]),
    ("valloc", &[0]),
    ("pvalloc", &[0]),
    ("mmap", &[1]),
    ("mmap64", &[1]),
    ("mremap", &[2]),
    // operator new and operator new[], plain, nothrow, aligned.
    ("_Znwm", &[0]),
    ("_Znam", &[0]),
    ("_ZnwmRKSt9nothrow_t", &[0]),
    ("_ZnamRKSt9nothrow_t", &[0]),
    ("_ZnwmSt11align_val_t", &[0]),
    ("_ZnamSt11align_val_t", &[0]),
    ("__rust_alloc", &[0]),
    ("__rust_alloc_zeroed", &[0]),
    ("__rust_realloc", &[3]),
];

/// Registers that a call leaves as they are.
const SPARED: [Register; 6] = [
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// How far a wrapper of a wrapper of an allocator is followed.
const DEEPEST: u32 = 4;

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let (mut base, mut fixed) = (Allocators::of(c.base), Allocators::of(c.fixed));
    for hot in &c.hot {
        let (mut before, mut after) = (base.sizes(&hot.base), fixed.sizes(&hot.fixed));
        for (allocator, old) in &mut before {
            let Some(new) = after.get_mut(allocator) else {
                continue;
            };
            // What both ask for is no change, however often and in whatever order.
            old.retain(|size| match new.iter().position(|other| other == size) {
                Some(at) => {
                    new.swap_remove(at);
                    false
                }
                None => true,
            });
            if let (Some(old), Some(new)) = (old.first(), new.first()) {
                findings.push(Finding::refuse(
                    Rule::Allocation,
                    &hot.name,
                    format!(
                        "hands {} to {allocator} in the fixed image and {} in the running one: \
                         what is allocated already has the old size",
                        Numbers(new),
                        Numbers(old)
                    ),
                ));
            }
        }
    }
}

/// The constant sizes of one call; not every argument need be constant.
type Sizes = Vec<(usize, u64)>;

/// Sizes, for a person: `24`, `10 and 24`.
struct Numbers<'a>(&'a Sizes);

impl std::fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (_, size)) in self.0.iter().enumerate() {
            let and = if index == 0 { "" } else { " and " };
            write!(f, "{and}{size}")?;
        }
        Ok(())
    }
}

/// What the registers for numbers and addresses hold, by their numbers.
type Registers = [Option<Value>; 16];

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Constant(u64),
    /// The function's own argument.
    Argument(usize),
}

/// A call, and what the argument registers hold at it.
struct Call<'a> {
    name: Cow<'a, str>,
    callee: Option<EntityId>,
    arguments: [Option<Value>; 6],
}

/// Which functions of an image allocate.
struct Allocators<'a> {
    image: &'a Image,
    /// Arguments of wrappers that are sizes; empty for other functions.
    wrappers: HashMap<EntityId, Vec<usize>>,
}

impl<'a> Allocators<'a> {
    fn of(image: &'a Image) -> Self {
        Allocators {
            image,
            wrappers: HashMap::new(),
        }
    }

    /// The constant sizes that a function asks for, by allocator.
    fn sizes(&mut self, parts: &Parts) -> BTreeMap<String, Vec<Sizes>> {
        let mut found: BTreeMap<String, Vec<Sizes>> = BTreeMap::new();
        for call in parts.ids().flat_map(|part| calls(self.image, part)) {
            let sizes: Sizes = self
                .size_arguments(&call, DEEPEST)
                .into_iter()
                .filter_map(|index| match call.arguments.get(index)? {
                    Some(Value::Constant(size)) => Some((index, *size)),
                    _ => None,
                })
                .collect();
            if !sizes.is_empty() {
                found.entry(demangle(&call.name)).or_default().push(sizes);
            }
        }
        found
    }

    /// Which arguments of a call are sizes of what it allocates.
    fn size_arguments(&mut self, call: &Call<'_>, depth: u32) -> Vec<usize> {
        if let Some((_, sizes)) = ALLOCATORS.iter().find(|(name, _)| *name == call.name) {
            return sizes.to_vec();
        }
        // Programs have their own: `zmalloc`, `ngx_palloc`, `xcalloc`. Which argument is
        // the size they do not say.
        let is_mangled = call.name.starts_with("_Z") || call.name.starts_with("_R");
        if !is_mangled && call.name.contains("alloc") && !call.name.contains("dealloc") {
            return vec![0, 1, 2];
        }
        let Some(callee) = call.callee.filter(|_| depth > 0) else {
            return Vec::new();
        };
        if let Some(known) = self.wrappers.get(&callee) {
            return known.clone();
        }
        // A function that calls itself is no wrapper because of that call.
        self.wrappers.insert(callee, Vec::new());
        let mut sizes = Vec::new();
        for inner in calls(self.image, callee) {
            for index in self.size_arguments(&inner, depth - 1) {
                if let Some(Some(Value::Argument(own))) = inner.arguments.get(index) {
                    sizes.push(*own);
                }
            }
        }
        sizes.sort_unstable();
        sizes.dedup();
        self.wrappers.insert(callee, sizes.clone());
        sizes
    }
}

/// The calls of a function, from its first instruction to its last; what a register holds
/// is followed in that order and forgotten where control cannot come from above.
fn calls(image: &Image, function: EntityId) -> Vec<Call<'_>> {
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
        if let Some((name, callee)) = callee(image, function, line) {
            found.push(Call {
                name,
                callee,
                arguments: PARAMETERS.map(|register| registers[register.number()]),
            });
        }
        if matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        ) {
            for (number, value) in registers.iter_mut().enumerate() {
                *value = value.filter(|_| SPARED.iter().any(|spared| spared.number() == number));
            }
            continue;
        }
        if line.ends_flow() {
            registers = [None; 16];
            continue;
        }
        let value = moved(line, &registers);
        let written = factory.info(instruction).used_registers().iter();
        for used in written.filter(|used| {
            !matches!(
                used.access(),
                OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess
            )
        }) {
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
fn moved(line: &Line, registers: &Registers) -> Option<Value> {
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
