//! Two listings side by side.
//!
//! What stands beside what comes from a difference of texts in which places inside the
//! function and constants are left out: all of them move when one instruction is added.
//! Whether two instructions that stand side by side are the same is then decided by
//! meaning, as the comparison does it. Marking each instruction whose text differs is the
//! tempting wrong way: behind an added instruction every jump has another target.

use std::ops::Range;

use invivo_compare::{Meaning, Referred};
use invivo_image::LinkAddr;
use invivo_image::x86_64::{Line, Reference};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::listing::{Listed, Listing};
use crate::names::Names;

/// A line of the table: an instruction on one side or on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Part and instruction in the base.
    pub(crate) base: Option<(usize, usize)>,
    /// Part and instruction in the fixed build.
    pub(crate) fixed: Option<(usize, usize)>,
    /// True if both are there and mean the same.
    pub(crate) same: bool,
}

/// Both listings, with the names that they were written with.
pub(crate) struct Both<'l, 'c> {
    pub(crate) base: &'l Listing,
    pub(crate) fixed: &'l Listing,
    pub(crate) base_names: &'l Names<'c>,
    pub(crate) fixed_names: &'l Names<'c>,
}

impl Both<'_, '_> {
    /// The rows, part by part.
    pub(crate) fn align(&self, meaning: &Meaning<'_, '_>) -> Vec<Row> {
        let mut rows = Vec::new();
        for part in 0..self.base.parts.len().max(self.fixed.parts.len()) {
            self.pair_part(part, &mut rows);
        }
        let placed = Placed {
            base: rows_of(self.base, rows.iter().map(|row| row.base)),
            fixed: rows_of(self.fixed, rows.iter().map(|row| row.fixed)),
        };
        for index in 0..rows.len() {
            rows[index].same = self.is_same(&rows, index, &placed, meaning);
        }
        rows
    }

    fn pair_part(&self, part: usize, rows: &mut Vec<Row>) {
        let none: &[Listed] = &[];
        let base = self.base.parts.get(part).map_or(none, Vec::as_slice);
        let fixed = self.fixed.parts.get(part).map_or(none, Vec::as_slice);
        let keys = |side: &[Listed]| -> Vec<String> {
            side.iter().map(|listed| listed.key.clone()).collect()
        };
        let codes = |side: &[Listed], range: Range<usize>| -> Vec<_> {
            let near = |listed: &Listed| listed.line.instruction.code().as_near_branch();
            side[range].iter().map(near).collect()
        };
        let mut push = |base: Option<usize>, fixed: Option<usize>| {
            rows.push(Row {
                base: base.map(|line| (part, line)),
                fixed: fixed.map(|line| (part, line)),
                same: false,
            });
        };
        for op in capture_diff_slices(Algorithm::Patience, &keys(base), &keys(fixed)) {
            let (old, new) = (op.old_range(), op.new_range());
            if let DiffOp::Replace { .. } = op {
                // The same operations on other operands stand side by side.
                let inner = capture_diff_slices(
                    Algorithm::Myers,
                    &codes(base, old.clone()),
                    &codes(fixed, new.clone()),
                );
                for op in inner {
                    let shift = |range: Range<usize>, by: usize| range.start + by..range.end + by;
                    let old = shift(op.old_range(), old.start);
                    let new = shift(op.new_range(), new.start);
                    side_by_side(old, new, &mut push);
                }
            } else {
                side_by_side(old, new, &mut push);
            }
        }
    }

    /// True if the two instructions of a row mean the same.
    fn is_same(
        &self,
        rows: &[Row],
        index: usize,
        placed: &Placed,
        meaning: &Meaning<'_, '_>,
    ) -> bool {
        let (Some(here), Some(there)) = (rows[index].base, rows[index].fixed) else {
            return false;
        };
        let one = &self.base.parts[here.0][here.1];
        let other = &self.fixed.parts[there.0][there.1];
        if one.key != other.key {
            return false;
        }
        let numbers = self.numbers_around(rows, index);
        let same = |base: Reference, fixed: Reference| {
            let rows = |base: LinkAddr, fixed: LinkAddr| {
                let base = self
                    .base
                    .index
                    .get(&base)
                    .map(|at| placed.base[at.0].get(at.1));
                let fixed = self
                    .fixed
                    .index
                    .get(&fixed)
                    .map(|at| placed.fixed[at.0].get(at.1));
                (base, fixed)
            };
            match rows(base.target, fixed.target) {
                (Some(one), Some(other)) => return one == other,
                (None, None) => {}
                _ => return false,
            }
            let one_table = self.base.table(self.base_names, here, base.target);
            let other_table = self.fixed.table(self.fixed_names, there, fixed.target);
            if let (Some(one), Some(other)) = (one_table, other_table) {
                let leads = |(a, b): (&invivo_compare::TableEntry, &invivo_compare::TableEntry)| {
                    let (a, b) = rows(a.target, b.target);
                    a == b
                };
                return one.len() == other.len() && one.iter().zip(&other).all(leads);
            }
            let referred = |line, at| Referred {
                at,
                line: Some(line),
                numbers: &numbers,
            };
            meaning
                .same(
                    referred(&one.line, base.target),
                    referred(&other.line, fixed.target),
                )
                .is_ok()
        };
        let (one, other) = (&one.line, &other.line);
        [
            (one.address, other.address),
            (one.immediate, other.immediate),
        ]
        .into_iter()
        .all(|pair| match pair {
            (Some(base), Some(fixed)) => same(base, fixed),
            (None, None) => true,
            _ => false,
        })
    }

    /// Numbers that the rows around load on both sides: lengths of texts.
    fn numbers_around(&self, rows: &[Row], index: usize) -> Vec<u64> {
        const AROUND: usize = 4;
        let near = index.saturating_sub(AROUND)..(index + AROUND + 1).min(rows.len());
        let load = |line: &Line| {
            let instruction = line.instruction;
            let plain = instruction.mnemonic() == iced_x86::Mnemonic::Mov
                && instruction.op_count() == 2
                && instruction.try_immediate(1).is_ok();
            plain.then(|| instruction.immediate(1))
        };
        rows[near]
            .iter()
            .filter_map(|row| {
                let (here, there) = (row.base?, row.fixed?);
                let number = load(&self.base.parts[here.0][here.1].line)?;
                let other = load(&self.fixed.parts[there.0][there.1].line)?;
                (number == other).then_some(number)
            })
            .collect()
    }
}

fn side_by_side(
    base: Range<usize>,
    fixed: Range<usize>,
    push: &mut impl FnMut(Option<usize>, Option<usize>),
) {
    for index in 0..base.len().max(fixed.len()) {
        let at = |range: &Range<usize>| (index < range.len()).then(|| range.start + index);
        push(at(&base), at(&fixed));
    }
}

/// In which row each instruction is, by part and number.
struct Placed {
    base: Vec<Vec<usize>>,
    fixed: Vec<Vec<usize>>,
}

fn rows_of(
    listing: &Listing,
    placed: impl Iterator<Item = Option<(usize, usize)>>,
) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = listing
        .parts
        .iter()
        .map(|part| vec![usize::MAX; part.len()])
        .collect();
    for (row, at) in placed.enumerate() {
        if let Some((part, line)) = at {
            rows[part][line] = row;
        }
    }
    rows
}
