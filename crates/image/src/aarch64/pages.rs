//! Which page a register of ARM64 holds where an instruction uses it.
//!
//! `adrp` takes the address of a page, and any later instruction adds the rest of an address to it, for
//! itself: the two may be far apart, and several may share one page. Neither means anything without the
//! other, so registers are followed through the code, along every way that control takes. An
//! instruction that uses a page in any other way, or one of several pages, has a meaning that is not
//! known. A page that is left over in a register when a function is called is not looked at by that
//! one, unless nothing else uses it: compilers split no address between two functions, apart from
//! parts that they cut out of several.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Flow;
use super::operands::Operand;
use super::registers::{access, bit};
use super::sums::{Jump, Sums};
use super::ways::{Blocks, Jumps};

/// What a register holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Value {
    /// No page.
    #[default]
    Other,
    /// This address.
    Address(u64),
    /// The first byte of a page.
    Page(u64),
    /// Perhaps a page, but which one is not known.
    Mixed,
    /// What it was elsewhere, before an exception or a part of the function with a frame of its own. It
    /// may be kept and given back, as long as nothing takes it for a page.
    Foreign,
}

impl Value {
    /// What it may be where two ways meet.
    pub(super) fn join(self, other: Value) -> Value {
        match (self, other) {
            (one, other) if one == other => one,
            (Value::Other | Value::Address(_), Value::Other | Value::Address(_)) => Value::Other,
            (Value::Foreign, Value::Other | Value::Address(_))
            | (Value::Other | Value::Address(_), Value::Foreign) => Value::Foreign,
            _ => Value::Mixed,
        }
    }
}

pub(super) const REGISTERS: usize = 31;

/// What all registers hold.
pub(super) type State = [Value; REGISTERS];

/// What was found out about an instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    /// The place that a page and the instruction's own number are.
    pub(super) place: Option<u64>,
    /// It uses a page in a way that is not known.
    pub(super) is_unknown: bool,
    /// Control gets there.
    pub(super) is_reached: bool,
    /// It is no instruction but a constant that one reads.
    pub(super) is_literal: bool,
}

/// Registers that parameters come in; `x8` is where a large result goes.
const PARAMETERS: Range<usize> = 0..9;
/// A call leaves the others as they are, apart from `x30`.
const LOST_IN_CALLS: Range<usize> = 0..19;

/// One piece of code.
pub(super) struct Code<'a> {
    pub(super) words: &'a [u32],
    pub(super) operands: &'a [Operand],
    pub(super) flows: &'a [Flow],
    /// For each branch in the code, the number of the instruction that it leads to.
    pub(super) targets: &'a [Option<usize>],
    /// The same for what is read as a constant.
    pub(super) literals: &'a [Option<usize>],
    /// For each: it calls a part that was cut out of several functions, which may get pages from them.
    pub(super) outlined: &'a [bool],
    /// The entries of a table that a jump goes through, as numbers of instructions.
    pub(super) entries: &'a dyn Fn(&Jump, usize) -> Vec<usize>,
    /// True if exceptions may lead into it from outside.
    pub(super) has_handlers: bool,
}

impl Code<'_> {
    /// What each instruction does with pages.
    pub(super) fn uses(&self) -> Vec<Use> {
        let blocks = self.blocks();
        let mut states: Vec<Option<State>> = vec![None; blocks.ranges.len()];
        if states.is_empty() {
            return Vec::new();
        }
        states[0] = Some([Value::Other; REGISTERS]);
        let mut jumps = Jumps::new();
        self.settle(&blocks, &mut states, vec![0], &mut jumps);
        self.through_tables(&blocks, &mut states, &mut jumps);
        let literals = self.literals(&blocks, &states);
        self.led_to_from_elsewhere(&blocks, &mut states, &literals);
        let mut uses = vec![Use::default(); self.words.len()];
        let mut consumed = BTreeSet::new();
        for (range, state) in blocks.ranges.iter().zip(&states) {
            if let Some(mut state) = *state {
                let mut look = Look {
                    uses: &mut uses,
                    consumed: &mut consumed,
                };
                self.run(
                    range.clone(),
                    &mut state,
                    Some(&mut look),
                    &mut Jumps::new(),
                );
            }
        }
        self.judge_calls(&blocks, &states, &consumed, &mut uses);
        for literal in literals {
            // What is run is no constant, though an instruction reads it.
            let used = &mut uses[literal];
            used.is_unknown |= used.is_reached;
            used.is_literal = true;
        }
        uses
    }

    /// Goes through a block.
    pub(super) fn run(
        &self,
        range: Range<usize>,
        state: &mut State,
        mut look: Option<&mut Look<'_>>,
        jumps: &mut Jumps,
    ) {
        let mut sums = Sums::default();
        for index in range {
            let word = self.words[index];
            let flow = self.flows[index];
            let mut used = self.step(index, state);
            if let Some(look) = look.as_deref_mut() {
                if let (Some(_), Operand::Offset { base, .. }) = (used.place, self.operands[index])
                    && let Value::Page(page) = state[usize::from(base)]
                {
                    look.consumed.insert((base, page));
                }
                used.is_reached = true;
                look.uses[index] = used;
            }
            if flow == Flow::IndirectJump {
                let through = sums.jump((word >> 5 & 31) as usize);
                jumps.push((index, through, *state));
            }
            sums.step(word, state);
            self.write(index, used.place, state);
        }
    }

    /// What the instruction does with what the registers hold.
    fn step(&self, index: usize, state: &State) -> Use {
        let mut used = Use::default();
        let word = self.words[index];
        let known = access(word);
        let mut reads = known.map_or(u32::MAX, |access| access.reads);
        if let Operand::Offset { base, offset, size } = self.operands[index]
            && let Some(Value::Page(page)) = state.get(usize::from(base)).copied()
        {
            used.place = Some(page.wrapping_add(offset));
            // What is stored may be the register itself, too.
            let stores = size > 0 && word >> 22 & 3 == 0 && word >> 26 & 1 == 0;
            if !stores || word & 31 != u32::from(base) {
                reads &= !bit(base.into());
            }
        }
        let is_page = |value: &Value| matches!(value, Value::Page(_) | Value::Mixed);
        let held = (0u32..).zip(state).filter(|(_, value)| is_page(value));
        let foreign = match self.operands[index] {
            Operand::Offset { base, .. } => state.get(usize::from(base)) == Some(&Value::Foreign),
            _ => false,
        };
        used.is_unknown = foreign
            || held.clone().any(|(number, _)| reads & bit(number) != 0)
            || self.outlined[index] && held.count() > 0;
        used
    }

    /// What the registers hold behind it.
    fn write(&self, index: usize, place: Option<u64>, state: &mut State) {
        let word = self.words[index];
        let Some(access) = access(word) else {
            let pages = state.iter_mut().filter(|value| **value != Value::Other);
            pages.for_each(|value| *value = Value::Mixed);
            return;
        };
        for (number, value) in (0u32..).zip(state.iter_mut()) {
            if access.writes & bit(number) != 0 {
                *value = Value::Other;
            }
        }
        if matches!(self.flows[index], Flow::Call | Flow::IndirectCall) {
            state[LOST_IN_CALLS].fill(Value::Other);
            state[30] = Value::Other;
        }
        let value = match (self.operands[index], place) {
            (Operand::Page(at), _) => Value::Page(at),
            (Operand::Address(at), _) => Value::Address(at),
            (Operand::Offset { size: 0, .. }, Some(at)) if word >> 24 == 0x91 => Value::Address(at),
            _ => return,
        };
        if let Some(register) = state.get_mut((word & 31) as usize) {
            *register = value;
        }
    }

    /// Whoever leaves a function with a page in a register that the next one may take for a parameter
    /// must have used it before, or it is one.
    fn judge_calls(
        &self,
        blocks: &Blocks,
        states: &[Option<State>],
        consumed: &BTreeSet<(u8, u64)>,
        uses: &mut [Use],
    ) {
        let unused = |register: usize| {
            let number = u8::try_from(register).unwrap_or(u8::MAX);
            let pages = self.words.iter().zip(self.operands);
            let mut pages = pages.filter(|(word, _)| *word & 31 == u32::from(number));
            pages.any(|(_, operand)| match operand {
                Operand::Page(page) => !consumed.contains(&(number, *page)),
                _ => false,
            })
        };
        let unused: Vec<bool> = (0..REGISTERS).map(unused).collect();
        for (range, state) in blocks.ranges.iter().zip(states) {
            let Some(mut state) = *state else { continue };
            for index in range.clone() {
                let leaves = match self.flows[index] {
                    Flow::Call | Flow::IndirectCall | Flow::Return | Flow::IndirectJump => true,
                    Flow::Jump => self.targets[index].is_none(),
                    _ => false,
                };
                uses[index].is_unknown |= leaves
                    && PARAMETERS
                        .into_iter()
                        .any(|register| match state[register] {
                            Value::Page(page) => !consumed.contains(&(register as u8, page)),
                            Value::Mixed => unused[register],
                            _ => false,
                        });
                self.write(index, uses[index].place, &mut state);
            }
        }
    }
}

/// What is noted of instructions.
pub(super) struct Look<'l> {
    uses: &'l mut [Use],
    /// Pages in registers that something uses as such.
    consumed: &'l mut BTreeSet<(u8, u64)>,
}
