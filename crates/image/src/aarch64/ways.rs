//! The ways that control takes through code of ARM64, and what registers hold on them.

use std::collections::BTreeSet;
use std::ops::Range;

use super::operands::Operand;
use super::pages::{Code, REGISTERS, State, Value};
use super::sums::Jump;

/// Jumps to what a register holds, with the table that they go through and what registers hold there.
pub(super) type Jumps = Vec<(usize, Option<Jump>, State)>;

/// Pieces of code that control runs through from their begin to their end.
pub(super) struct Blocks {
    pub(super) ranges: Vec<Range<usize>>,
    /// By the number of the instruction that each begins with.
    by_start: Vec<Option<usize>>,
}

impl Code<'_> {
    pub(super) fn blocks(&self) -> Blocks {
        let mut starts = vec![false; self.words.len()];
        if let Some(first) = starts.first_mut() {
            *first = true;
        }
        for (index, flow) in self.flows.iter().enumerate() {
            if flow.is_branch() || flow.ends() {
                starts
                    .iter_mut()
                    .skip(index + 1)
                    .take(1)
                    .for_each(|next| *next = true);
            }
            if let Some(target) = self.targets[index] {
                starts[target] = true;
            }
        }
        let mut blocks = Blocks {
            ranges: Vec::new(),
            by_start: vec![None; starts.len()],
        };
        for (index, is_start) in starts.iter().enumerate() {
            if *is_start {
                blocks.by_start[index] = Some(blocks.ranges.len());
                blocks.ranges.push(index..index);
            }
            if let Some(last) = blocks.ranges.last_mut() {
                last.end = index + 1;
            }
        }
        blocks
    }

    /// Follows control from the blocks in `waiting`, until nothing new is found.
    pub(super) fn settle(
        &self,
        blocks: &Blocks,
        states: &mut [Option<State>],
        mut waiting: Vec<usize>,
        jumps: &mut Jumps,
    ) {
        while let Some(block) = waiting.pop() {
            let Some(mut state) = states[block] else {
                continue;
            };
            let range = blocks.ranges[block].clone();
            let last = range.end - 1;
            self.run(range, &mut state, None, jumps);
            let next = (!self.flows[last].ends()).then_some(last + 1);
            let both = next.into_iter().chain(self.targets[last]);
            for to in both.filter_map(|to| *blocks.by_start.get(to)?) {
                let joined = join(states[to].as_ref(), &state);
                if states[to] != Some(joined) {
                    states[to] = Some(joined);
                    waiting.push(to);
                }
            }
        }
    }

    /// Follows jumps through tables to what nothing else leads to. Wherever a branch leads as well, a
    /// page is in the same register on both ways, if any way brings one.
    pub(super) fn through_tables(
        &self,
        blocks: &Blocks,
        states: &mut [Option<State>],
        jumps: &mut Jumps,
    ) {
        if self.has_handlers {
            return;
        }
        let mut done = BTreeSet::new();
        loop {
            let found = std::mem::take(jumps);
            let mut waiting = Vec::new();
            let fresh = found.iter().rev().filter(|(at, ..)| done.insert(*at));
            for (at, jump, state) in fresh {
                let entries = jump.map(|jump| (self.entries)(&jump, *at));
                for entry in entries.into_iter().flatten() {
                    let Some(block) = blocks.by_start[entry] else {
                        continue;
                    };
                    if states[block].is_none() || waiting.contains(&block) {
                        states[block] = Some(join(states[block].as_ref(), state));
                        waiting.push(block);
                    }
                }
            }
            if waiting.is_empty() {
                return;
            }
            self.settle(blocks, states, waiting, jumps);
        }
    }

    /// Words that instructions which run read as constants.
    pub(super) fn literals(&self, blocks: &Blocks, states: &[Option<State>]) -> BTreeSet<usize> {
        let run = blocks.ranges.iter().zip(states);
        let run = run.filter(|(_, state)| state.is_some());
        let mut found = BTreeSet::new();
        for index in run.flat_map(|(range, _)| range.clone()) {
            if let (Operand::Literal(_, size), Some(first)) =
                (self.operands[index], self.literals[index])
            {
                let words = usize::from(size.max(4)).div_ceil(4);
                found.extend(first..(first + words).min(self.words.len()));
            }
        }
        found
    }

    /// What is left is led to from outside, by exceptions for example: any register that ever holds a
    /// page may hold one there.
    pub(super) fn led_to_from_elsewhere(
        &self,
        blocks: &Blocks,
        states: &mut [Option<State>],
        literals: &BTreeSet<usize>,
    ) {
        let mut state = [Value::Other; REGISTERS];
        for (word, operand) in self.words.iter().zip(self.operands) {
            if let Operand::Page(_) = operand
                && let Some(register) = state.get_mut((*word & 31) as usize)
            {
                *register = Value::Foreign;
            }
        }
        for block in 0..blocks.ranges.len() {
            let range = blocks.ranges[block].clone();
            let is_padding = || {
                range
                    .clone()
                    .all(|index| super::is_padding(self.words[index]))
            };
            if states[block].is_some() || literals.contains(&range.start) || is_padding() {
                continue;
            }
            states[block] = Some(state);
            self.settle(blocks, states, vec![block], &mut Jumps::new());
        }
    }
}

fn join(known: Option<&State>, other: &State) -> State {
    let mut joined = *other;
    for (value, known) in joined.iter_mut().zip(known.into_iter().flatten()) {
        *value = value.join(*known);
    }
    joined
}
