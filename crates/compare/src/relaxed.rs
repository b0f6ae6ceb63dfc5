//! Instructions that linkers write anew: where they know what a slot of the GOT will hold, some take
//! the address itself (`mov rax, [rip+slot]` becomes `lea rax, [rip+function]`), and some do not.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use invivo_image::x86_64::Line;
use invivo_image::{Image, LinkAddr, Place, Slot};

use crate::meaning::{Meaning, Referred};

/// What an instruction does with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Load(Register),
    Call,
    Jump,
}

/// The address, or where it comes from.
#[derive(Debug)]
enum Address {
    Itself(LinkAddr),
    From(Slot),
}

impl Meaning<'_, '_> {
    /// Whether two instructions do the same with the same address, if one takes it out of a slot and
    /// the other has it itself; `None` for all others.
    pub(crate) fn same_relaxed(&self, base: &Line, fixed: &Line) -> Option<bool> {
        let c = self.comparison();
        let (does, one) = address(c.base, base)?;
        let (also, other) = address(c.fixed, fixed)?;
        if does != also {
            return None;
        }
        let place = Referred::pointer;
        let same = |one, other| self.same(place(one), place(other)).is_ok();
        match (one, other) {
            (Address::From(slot), Address::Itself(to)) => Some(match (&slot, c.fixed.place(to)) {
                (Slot::Pointer(from), _) => same(*from, to),
                (_, Place::Stub(stub)) => imports_same(&slot, &stub),
                _ => false,
            }),
            (Address::Itself(from), Address::From(slot)) => {
                Some(match (c.base.place(from), &slot) {
                    (_, Slot::Pointer(to)) => same(from, *to),
                    (Place::Stub(stub), _) => imports_same(&stub, &slot),
                    _ => false,
                })
            }
            _ => None,
        }
    }
}

/// True for the same function of another image, bound now or at its first call.
fn imports_same(one: &Slot, other: &Slot) -> bool {
    let name = |slot: &Slot| match slot {
        Slot::Import(name, 0) | Slot::LazyImport(name) => Some(name.clone()),
        _ => None,
    };
    name(one).is_some_and(|one| name(other) == Some(one))
}

/// What an instruction does with which address, if it is one of those that linkers write anew.
fn address(image: &Image, line: &Line) -> Option<(Does, Address)> {
    let i = &line.instruction;
    let to = line.address.map(|reference| reference.target);
    let fetched = || match image.place(to?) {
        Place::Slot(slot) => Some(Address::From(slot)),
        _ => None,
    };
    let does = match i.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall => Does::Call,
        FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => Does::Jump,
        _ => Does::Load(loaded(i)?),
    };
    let address = match (i.mnemonic(), i.op_count()) {
        (Mnemonic::Lea, 2) if is_at(i) => Address::Itself(to?),
        (Mnemonic::Mov, 2) if i.op1_kind() == OpKind::Memory && is_at(i) => fetched()?,
        (Mnemonic::Mov, 2) => Address::Itself(line.immediate?.target),
        (Mnemonic::Call | Mnemonic::Jmp, 1) => match i.op0_kind() {
            OpKind::Memory if is_at(i) => fetched()?,
            OpKind::NearBranch64 => Address::Itself(to?),
            _ => return None,
        },
        _ => return None,
    };
    Some((does, address))
}

/// The register of 64 bits that an instruction with two operands sets.
fn loaded(i: &Instruction) -> Option<Register> {
    let register =
        (i.op_count() == 2 && i.op0_kind() == OpKind::Register).then(|| i.op0_register());
    register.filter(|register| register.is_gpr64())
}

/// True if the operand in memory is at a place that nothing is added to.
fn is_at(i: &Instruction) -> bool {
    let base = matches!(i.memory_base(), Register::None | Register::RIP);
    base && i.memory_index() == Register::None && i.segment_prefix() == Register::None
}
