//! The rows of one function's table, as the page shows them.

use invivo_compare::{Comparison, Meaning};
use similar::{Algorithm, DiffTag, capture_diff_slices};

use crate::alignment::{Both, Row};
use crate::listing::{Listed, Listing, Token};

/// Equal instructions that are shown around those that differ.
const CONTEXT: usize = 3;
/// Differing rows of one function; a page with more cannot be read.
const MOST_OF_ONE: usize = 2_000;

/// How many rows the whole page may still have.
pub(crate) struct Room(pub(crate) usize);

/// An instruction on one side.
pub(crate) struct Cell {
    pub(crate) at: String,
    /// File and line, where it is another one than above.
    pub(crate) source: Option<String>,
    pub(crate) tokens: Vec<Token>,
}

/// A row.
pub(crate) struct Shown {
    pub(crate) class: &'static str,
    pub(crate) sign: &'static str,
    pub(crate) word: &'static str,
    pub(crate) base: Option<Cell>,
    pub(crate) fixed: Option<Cell>,
}

/// Rows that belong together.
pub(crate) struct Block {
    /// Equal rows far from any difference.
    pub(crate) folded: bool,
    /// How many rows it stands for; more than it has where they were left out.
    pub(crate) count: usize,
    pub(crate) rows: Vec<Shown>,
}

/// One function's table.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) blocks: Vec<Block>,
    pub(crate) added: usize,
    pub(crate) removed: usize,
    pub(crate) changed: usize,
    /// Instructions in both.
    pub(crate) same: usize,
    /// Differing rows that are not in the page.
    pub(crate) cut: usize,
}

impl Table {
    pub(crate) fn new(c: &Comparison<'_>, both: &Both<'_, '_>, room: &mut Room) -> Table {
        let rows = both.align(&Meaning::new(c));
        let mut table = Table::default();
        for row in &rows {
            match (row.base, row.fixed, row.same) {
                (_, _, true) => table.same += 1,
                (Some(_), Some(_), false) => table.changed += 1,
                (Some(_), None, false) => table.removed += 1,
                (None, _, false) => table.added += 1,
            }
        }
        let near = near_differences(&rows);
        let mut left = MOST_OF_ONE;
        for run in near.chunk_by(|a, b| a == b) {
            // The slices lie in `near`, so their place in it is their place in `rows`.
            let start = table.blocks.iter().map(|block| block.count).sum::<usize>();
            let run_rows = &rows[start..start + run.len()];
            let folded = run.first() == Some(&false);
            let (shown, cut) = if folded {
                let all = run_rows.len() <= room.0 && run_rows.len() <= MOST_OF_ONE;
                (if all { run_rows.len() } else { 0 }, 0)
            } else {
                let shown = run_rows.len().min(left).min(room.0);
                left -= shown;
                (shown, run_rows.len() - shown)
            };
            room.0 -= shown;
            table.cut += cut;
            table.blocks.push(Block {
                folded,
                count: run_rows.len(),
                rows: show(both, &run_rows[..shown]),
            });
        }
        table
    }
}

/// For each row, whether it differs or stands close to one that does. A run of equal rows
/// that is hardly longer than the line that would stand for it is not folded.
fn near_differences(rows: &[Row]) -> Vec<bool> {
    const SHORTEST_FOLD: usize = 4;
    let mut near = vec![false; rows.len()];
    for (index, row) in rows.iter().enumerate() {
        if !row.same {
            let end = (index + CONTEXT + 1).min(rows.len());
            near[index.saturating_sub(CONTEXT)..end].fill(true);
        }
    }
    let mut start = 0;
    let runs: Vec<(bool, usize)> = near
        .chunk_by(|a, b| a == b)
        .map(|run| (run[0], run.len()))
        .collect();
    for (is_near, length) in runs {
        if !is_near && length < SHORTEST_FOLD {
            near[start..start + length].fill(true);
        }
        start += length;
    }
    near
}

fn show(both: &Both<'_, '_>, rows: &[Row]) -> Vec<Shown> {
    let find = |listing: &Listing, at: Option<(usize, usize)>| -> Option<(String, Listed)> {
        let (part, line) = at?;
        let listed = listing.parts.get(part)?.get(line)?;
        Some((format!("{:x}", listed.line.at().0), listed.clone()))
    };
    let (mut base_source, mut fixed_source) = (None, None);
    let cell = |found: Option<(String, Listed)>, last: &mut Option<String>| {
        let (at, listed) = found?;
        let source = listed
            .source
            .clone()
            .filter(|source| Some(source) != last.as_ref());
        if listed.source.is_some() {
            *last = listed.source;
        }
        Some(Cell {
            at,
            source,
            tokens: listed.tokens,
        })
    };
    rows.iter()
        .map(|row| {
            let mut base = cell(find(both.base, row.base), &mut base_source);
            let mut fixed = cell(find(both.fixed, row.fixed), &mut fixed_source);
            let (class, sign, word) = match (&mut base, &mut fixed, row.same) {
                (_, _, true) => ("same", "", ""),
                (Some(one), Some(other), false) => {
                    mark(&mut one.tokens, &mut other.tokens);
                    ("changed", "≠", "differs")
                }
                (Some(_), None, false) => ("removed", "−", "base only"),
                (None, _, false) => ("added", "+", "fixed only"),
            };
            Shown {
                class,
                sign,
                word,
                base,
                fixed,
            }
        })
        .collect()
}

/// Marks the pieces in which two instructions with the same operation differ; of two
/// operations nothing needs to stand out.
fn mark(base: &mut [Token], fixed: &mut [Token]) {
    if base.first() != fixed.first() {
        return;
    }
    let mut any = false;
    for op in capture_diff_slices(Algorithm::Myers, base, fixed) {
        if op.tag() != DiffTag::Equal {
            any = true;
            let (one, other) = (&mut base[op.old_range()], &mut fixed[op.new_range()]);
            one.iter_mut()
                .chain(other)
                .for_each(|token| token.differs = true);
        }
    }
    if !any {
        // The same text with another meaning: a variable or constant with other contents.
        for token in base.iter_mut().chain(fixed).filter(|token| token.is_name) {
            token.differs = true;
        }
    }
}
