//! Numbers of images at fixed addresses that may as well be addresses.
//!
//! `mov edi, 0x404060` hands over a number or the address of a variable, and nothing in the
//! file says which. Where the variable is elsewhere in the base, or a copy of a constant is
//! made, the patch holds other bits for the one than for the other. To choose what is more
//! likely is the tempting wrong way; so it has to be shown that it is an address:
//!
//! - the instruction reads memory there, or what it loads is used as an address behind it;
//! - the replaced function has the same, at the place where the base has it;
//! - it is the one thing that refers to a text or to something new or local, which would be
//!   in the program for nothing.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use invivo_compare::{Extent, Parts, Rule, extent, references_to};
use invivo_image::x86_64::{Line, Reference, ReferenceKind, decode};
use invivo_image::{EntityId, Image, Link, LinkAddr, Place};

use crate::model::SymbolPlace;
use crate::planner::Planner;
use crate::references::Target;

/// An operand that is shown to be an address only by nobody else referring to its target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    function: EntityId,
    value: LinkAddr,
}

/// True if code of `image` has absolute addresses that only look like such.
pub(crate) fn guesses(image: &Image) -> bool {
    image.link == Link::Fixed && !image.relocations_kept
}

impl Planner<'_, '_> {
    /// The base's own constant, if the same text is at the same place there: then it does not
    /// matter whether the operand is a number.
    pub(crate) fn unmoved_text(&mut self, line: &Line, reference: &Reference) -> Option<Target> {
        let c = self.c;
        let at = reference.target;
        let doubtful = guesses(c.fixed) && reference.kind == ReferenceKind::Absolute;
        if !doubtful || c.base.link != Link::Fixed {
            return None;
        }
        let (Place::Constant(_), Place::Constant(_)) = (c.base.place(at), c.fixed.place(at)) else {
            return None;
        };
        let one = extent(c.base, &c.base_usage, line, at)?;
        let other = extent(c.fixed, &c.fixed_usage, line, at)?;
        let (Extent::Text(size), true) = (one, one == other) else {
            return None;
        };
        let same = c.base.bytes(at, size)? == c.fixed.bytes(at, size)?;
        let name = format!("text at {at}");
        let symbol = same.then(|| self.base_symbol(&name, at));
        Some((symbol?.ok()?, 0))
    }

    /// Refuses, now or when all is copied, what is not shown to be an address.
    pub(crate) fn doubt_code(
        &mut self,
        parts: &Parts,
        (part, lines, index): (EntityId, &[Line], usize),
        reference: &Reference,
        target: Target,
    ) {
        let value = reference.target;
        let c = self.c;
        if !guesses(c.fixed)
            || reference.kind != ReferenceKind::Absolute
            || self.in_base(target) == Some(value)
            || reads_memory(&lines[index], reference)
            || is_address_behind(lines, index)
        {
            return;
        }
        let before = c.hot.iter().find(|hot| hot.fixed.main == parts.main);
        let ours = before
            .map(|hot| operands(c.base, &hot.base))
            .unwrap_or_default();
        let theirs = operands(c.fixed, parts);
        if !self.moved_with_it(&ours, &theirs, value, target) {
            self.doubts.push(Doubt {
                function: part,
                value,
            });
        }
    }

    /// The same for a word of copied data, which the base's object holds as `ours`.
    pub(crate) fn doubt_data(&mut self, owner: Option<EntityId>, value: LinkAddr, target: Target) {
        let c = self.c;
        if !guesses(c.fixed) || self.in_base(target) == Some(value) {
            return;
        }
        let words = |image: &Image, id: EntityId| {
            let entity = image.entity(id);
            let bytes = image.bytes(entity.addr, entity.size).unwrap_or_default();
            let words = bytes.chunks_exact(8);
            let words = words.filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
            words.map(LinkAddr).collect::<Vec<_>>()
        };
        let before = owner.and_then(|id| c.pairs.base_of(id));
        let ours = before.map(|id| words(c.base, id)).unwrap_or_default();
        let theirs = owner.map(|id| words(c.fixed, id)).unwrap_or_default();
        if self.moved_with_it(&ours, &theirs, value, target) {
            return;
        }
        // Who holds the data is copied for some function; the first one will do to name it.
        let function = owner.or_else(|| c.hot.first().map(|hot| hot.fixed.main));
        self.doubts
            .extend(function.map(|function| Doubt { function, value }));
    }

    /// Where the base has what the patch refers to.
    fn in_base(&self, (symbol, addend): Target) -> Option<LinkAddr> {
        match self.contents.symbols[symbol as usize].place {
            SymbolPlace::Base(rva) => self.c.base.base.checked_add(rva.0)?.checked_offset(addend),
            _ => None,
        }
    }

    /// True if the base has the operand as well, as often as the fixed image, and moved as its
    /// target did; and if no number that the base has there could be what it is instead.
    fn moved_with_it(
        &self,
        ours: &[LinkAddr],
        theirs: &[LinkAddr],
        value: LinkAddr,
        target: Target,
    ) -> bool {
        let its = self.in_base(target);
        let is_it = |at: LinkAddr| at != value && (its == Some(at) || self.same_text(at, value));
        let count = |list: &[LinkAddr], is: &dyn Fn(LinkAddr) -> bool| {
            list.iter().filter(|at| is(**at)).count()
        };
        let before = count(ours, &is_it);
        // The base's operand of the same bits has to be accounted for: it moved, too.
        let accounted = !ours.contains(&value)
            || theirs.iter().any(|now| {
                *now != value && (self.same_place(value, *now) || self.same_text(value, *now))
            });
        before > 0 && count(theirs, &|at| at == value) <= before && accounted
    }

    fn same_place(&self, base: LinkAddr, fixed: LinkAddr) -> bool {
        match (self.c.base.place(base), self.c.fixed.place(fixed)) {
            (Place::In(a, x), Place::In(b, y)) => x == y && self.c.pairs.fixed_of(a) == Some(b),
            (Place::Stub(a), Place::Stub(b)) => a == b,
            _ => false,
        }
    }

    fn same_text(&self, base: LinkAddr, fixed: LinkAddr) -> bool {
        let text = |image: &Image, at| {
            let rest = matches!(image.place(at), Place::Constant(_)).then(|| text_at(image, at));
            rest.flatten().map(<[u8]>::to_vec)
        };
        let found = text(self.c.base, base);
        found.is_some() && found == text(self.c.fixed, fixed)
    }

    /// Refuses the operands whose targets something else refers to as well.
    pub(crate) fn settle_doubts(&mut self) {
        let doubts = std::mem::take(&mut self.doubts);
        let values: BTreeSet<LinkAddr> = doubts.iter().map(|doubt| doubt.value).collect();
        if values.is_empty() {
            return;
        }
        let counts: BTreeMap<LinkAddr, usize> =
            references_to(self.c.fixed, &self.c.fixed_usage, &values);
        for Doubt { function, value } in doubts {
            let alone = counts.get(&value).is_none_or(|count| *count <= 1);
            if alone && self.would_be_unused(value) {
                continue;
            }
            let what = match self.c.fixed.place(value) {
                Place::In(id, _) => {
                    let name = self.c.fixed.entity(id).name();
                    format!("the address of {}", invivo_image::demangle(name))
                }
                _ => "the address of a constant".to_owned(),
            };
            self.refuse(
                Rule::Binding,
                function,
                format!(
                    "it holds {value}, which may be a number or {what}; programs that run at any \
                     address, or are linked with --emit-relocs, tell which"
                ),
            );
        }
    }

    /// True for what no compiler writes down unless something refers to it.
    fn would_be_unused(&self, value: LinkAddr) -> bool {
        let image = self.c.fixed;
        match image.place(value) {
            Place::In(id, offset) => {
                let local = image.entity(id).symbol().binding == invivo_image::Binding::Local;
                offset == 0 && (local || self.c.pairs.base_of(id).is_none())
            }
            Place::Constant(at) => {
                let starts = image.section_at(at).is_some_and(|s| s.range.start == at);
                let before = at.checked_offset(-1).and_then(|at| image.bytes(at, 1));
                let begins = starts || before == Some(&[0]);
                begins && text_at(image, at).is_some_and(|text| !text.is_empty())
            }
            _ => false,
        }
    }
}

/// The text at `at`, without its NUL.
fn text_at(image: &Image, at: LinkAddr) -> Option<&[u8]> {
    const LONGEST: u64 = 1 << 16;
    let room = image.section_at(at)?.range.end.checked_sub(at)?;
    let bytes = image.bytes(at, room.min(LONGEST))?;
    let text = &bytes[..bytes.iter().position(|byte| *byte == 0)?];
    let reads = std::str::from_utf8(text).is_ok();
    reads.then_some(text)
}

/// All absolute operands of a function.
fn operands(image: &Image, parts: &Parts) -> Vec<LinkAddr> {
    let lines = parts.ids().filter_map(|id| decode(image, image.entity(id)));
    let lines: Vec<Line> = lines.flatten().collect();
    let references = lines.iter().flat_map(Line::references);
    let absolute = references.filter(|reference| reference.kind == ReferenceKind::Absolute);
    absolute.map(|reference| reference.target).collect()
}

/// True if the instruction gets at memory there, with no register but an index beside it.
fn reads_memory(line: &Line, reference: &Reference) -> bool {
    line.address == Some(*reference)
        && line.instruction.memory_base() == Register::None
        && line.instruction.mnemonic() != Mnemonic::Lea
}

/// True if what `lines[index]` loads into a register is used as an address of memory.
fn is_address_behind(lines: &[Line], index: usize) -> bool {
    const FAR: usize = 48;
    /// Larger distances may be addresses, and the register a number.
    const FARTHEST: u64 = 1 << 16;
    let load = &lines[index].instruction;
    if load.mnemonic() != Mnemonic::Mov || load.op0_kind() != OpKind::Register {
        return false;
    }
    let mut holders = BTreeSet::from([load.op0_register().full_register().number()]);
    let mut factory = InstructionInfoFactory::new();
    for line in lines.iter().skip(index + 1).take(FAR) {
        let i = &line.instruction;
        let info = factory.info(i);
        let mut memory = info.used_memory().iter();
        let holds = |register: Register, holders: &BTreeSet<usize>| {
            register.is_gpr64() && holders.contains(&register.number())
        };
        if memory.any(|used| {
            let alone = used.index() == Register::None || used.scale() > 1;
            let near = used.displacement().wrapping_add(FARTHEST) < 2 * FARTHEST;
            let access = used.access() != OpAccess::NoMemAccess;
            access && alone && near && holds(used.base(), &holders)
        }) {
            return true;
        }
        // Behind a call or a jump it is another function's, or somebody else's.
        if line.ends_flow() || i.flow_control() != iced_x86::FlowControl::Next && !is_branch(i) {
            return false;
        }
        let copy = i.mnemonic() == Mnemonic::Mov
            && i.op0_kind() == OpKind::Register
            && i.op0_register().is_gpr64()
            && i.op1_kind() == OpKind::Register
            && holds(i.op1_register(), &holders);
        for used in info.used_registers() {
            let read = matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            if !read && used.register().full_register().is_gpr64() {
                holders.remove(&used.register().full_register().number());
            }
        }
        if copy {
            holders.insert(i.op0_register().number());
        }
        if holders.is_empty() {
            return false;
        }
    }
    false
}

/// A conditional jump: what does not jump goes on.
fn is_branch(instruction: &iced_x86::Instruction) -> bool {
    instruction.flow_control() == iced_x86::FlowControl::ConditionalBranch
}
