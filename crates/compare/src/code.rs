//! Comparison of two functions, instruction by instruction, by meaning.

use std::collections::BTreeSet;
use std::ops::Range;

use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register};
use invivo_image::x86_64::{Line, Reference, ReferenceKind, decode_all, is_explained};
use invivo_image::{Image, LinkAddr};

use crate::constants::{TableEntry, guard, jump_table, relative_table};
use crate::meaning::{Meaning, Referred};
use crate::told::is_immediate;
use crate::{Difference, Differing, Parts, Usage, doubtful};

mod handed_on;

/// More differences than this say no more. It has to be many: a function is left out of the
/// patch only when all its differences are known to be line numbers.
const ENOUGH: usize = 4096;

/// Code in one or several pieces (a function with its cold parts), decoded, padding left out.
pub(crate) struct Body<'a> {
    image: &'a Image,
    usage: &'a Usage,
    lines: Vec<Vec<Line>>,
    /// For each part, in order of address: where an instruction begins, and the number of
    /// the first one from there on that is not padding.
    starts: Vec<Vec<(LinkAddr, usize)>>,
    /// Where each part begins and its number, in order of address.
    firsts: Vec<(LinkAddr, usize)>,
    /// For each part: whether each address in it that has a relocation is an operand of it.
    explained: Vec<bool>,
}

impl<'a> Body<'a> {
    /// The code of `pieces`; `None` where the file does not hold it.
    pub(crate) fn decode(
        image: &'a Image,
        usage: &'a Usage,
        pieces: impl Iterator<Item = Range<LinkAddr>>,
    ) -> Option<Self> {
        let mut lines = Vec::new();
        let mut starts = Vec::new();
        let mut explained = Vec::new();
        for piece in pieces {
            let bytes = image.bytes(piece.start, piece.end.checked_sub(piece.start)?)?;
            let mut part = decode_all(image, piece.start, bytes);
            explained.push(is_explained(image, &piece, &part));
            let (mut kept, mut flows) = (0, true);
            let mut at = Vec::with_capacity(part.len());
            let mut tables = Tables::of(&part, &piece);
            part.retain(|line| {
                at.push((line.at(), kept));
                // A trap fills up what control does not reach; anywhere else it is a trap.
                let trap = line.is_trap();
                let filler = line.is_padding() && !(trap && flows);
                let keep = tables.holds(line, flows) || !filler;
                if keep {
                    flows = !line.ends_flow();
                }
                kept += usize::from(keep);
                keep
            });
            lines.push(part);
            starts.push(at);
        }
        let parts = starts.iter().zip(0..);
        let firsts = parts.filter_map(|(at, part)| Some((at.first()?.0, part)));
        let mut firsts: Vec<(LinkAddr, usize)> = firsts.collect();
        firsts.sort_unstable();
        Some(Body {
            image,
            usage,
            lines,
            starts,
            firsts,
            explained,
        })
    }

    /// The part and the number of the instruction that begins at `at`, padding passed over.
    pub(crate) fn index(&self, at: LinkAddr) -> Option<(usize, usize)> {
        // Pieces do not overlap, and code that nobody owns may be in tens of thousands of them.
        let before = self.firsts.partition_point(|(first, _)| *first <= at);
        let part = self.firsts[before.checked_sub(1)?].1;
        let starts = &self.starts[part];
        let found = starts.binary_search_by_key(&at, |start| start.0).ok()?;
        Some((part, starts[found].1))
    }

    /// What the instruction at `at` refers to.
    pub(crate) fn references(&self, at: LinkAddr) -> impl Iterator<Item = LinkAddr> {
        let place = self.index(at);
        let line = place.and_then(|(part, line)| self.lines[part].get(line));
        let both = line.into_iter().flat_map(Line::references);
        both.map(|reference| reference.target)
    }

    fn of(image: &'a Image, usage: &'a Usage, parts: &Parts) -> Option<Self> {
        let pieces = parts.ids().map(|id| image.entity(id));
        Body::decode(image, usage, pieces.map(|entity| entity.addr..entity.end()))
    }

    /// True if there is nothing but padding in it.
    pub(crate) fn is_padding(&self) -> bool {
        self.lines.iter().flatten().all(Line::is_trap)
    }

    fn table(&self, part: usize, line: usize, at: LinkAddr) -> Option<Vec<TableEntry>> {
        jump_table(
            self.image,
            self.usage,
            &self.lines[part],
            line,
            at,
            &|target| self.index(target).is_some(),
        )
    }

    /// True if the code itself says that the jump table has just these entries.
    fn is_whole(&self, part: usize, line: usize, table: &[TableEntry]) -> bool {
        guard(&self.lines[part], line) == Some(table.len() as u64)
    }

    fn relative_table(&self, part: usize, line: usize, at: LinkAddr) -> Option<Vec<LinkAddr>> {
        relative_table(self.image, self.usage, &self.lines[part], line, at)
    }
}

/// Tables between instructions, whose bytes may look like any of these, also like padding. One
/// begins where an instruction reads or takes the address of what control does not run into, and
/// ends where something jumps to.
struct Tables {
    /// What is read or taken, in order.
    starts: Vec<LinkAddr>,
    /// Where the code so far jumps to.
    jumps: BTreeSet<LinkAddr>,
    inside: bool,
}

impl Tables {
    fn of(lines: &[Line], piece: &Range<LinkAddr>) -> Tables {
        let references = lines.iter().flat_map(Line::references);
        let read = references.filter(|reference| !leaps(reference));
        let inside = read.filter(|reference| piece.contains(&reference.target));
        let mut starts: Vec<LinkAddr> = inside.map(|reference| reference.target).collect();
        starts.sort_unstable();
        Tables {
            starts,
            jumps: BTreeSet::new(),
            inside: false,
        }
    }

    /// True if `line`, the next one, is part of a table; `flows` if control gets there.
    fn holds(&mut self, line: &Line, flows: bool) -> bool {
        if self.starts.is_empty() {
            return false;
        }
        let at = line.at();
        if self.jumps.contains(&at) {
            self.inside = false;
        } else if !flows && !self.inside {
            let first = self.starts.partition_point(|start| *start < at);
            let end = line.instruction.next_ip();
            self.inside = self.starts.get(first).is_some_and(|start| start.0 < end);
        }
        if !self.inside {
            let targets = line.references().filter(leaps);
            self.jumps.extend(targets.map(|reference| reference.target));
        }
        self.inside
    }
}

fn leaps(reference: &Reference) -> bool {
    matches!(reference.kind, ReferenceKind::Jump | ReferenceKind::Call)
}

impl Meaning<'_, '_> {
    /// All that differs between two functions; empty if they do the same.
    pub(crate) fn differences(&self, base: &Parts, fixed: &Parts) -> Vec<Differing> {
        let c = self.comparison();
        let whole = |what| vec![Differing { what, at: None }];
        if base.cold.len() != fixed.cold.len() {
            return whole(Difference::ColdPart);
        }
        let one = Body::of(c.base, &c.base_usage, base);
        let other = Body::of(c.fixed, &c.fixed_usage, fixed);
        let (Some(one), Some(other)) = (one, other) else {
            return whole(Difference::Undecoded);
        };
        let mut found = Vec::new();
        for part in 0..one.lines.len() {
            self.differences_of_piece(&one, &other, part, &mut found);
        }
        if !self.same_unwinding(&one, base, &other, fixed) {
            found.extend(whole(Difference::ExceptionTable));
        }
        self.annex_differences((base, &one), (fixed, &other), &mut found);
        found
    }

    /// True if the instructions that have these operands, each in a part at a distance from
    /// its start, are the same in two functions that have the same instructions otherwise.
    pub(crate) fn same_lines(
        &self,
        base: &Parts,
        fixed: &Parts,
        operands: &[(usize, u64)],
    ) -> bool {
        let c = self.comparison();
        let one = Body::of(c.base, &c.base_usage, base);
        let other = Body::of(c.fixed, &c.fixed_usage, fixed);
        let (Some(one), Some(other)) = (one, other) else {
            return false;
        };
        let mut found = Vec::new();
        operands.iter().all(|(part, operand)| {
            let lines = &one.lines[*part];
            let Some(first) = one.starts[*part].first() else {
                return false;
            };
            let behind = lines.partition_point(|line| line.at().0 <= first.0.0 + operand);
            let Some(index) = behind
                .checked_sub(1)
                .filter(|_| lines.len() == other.lines[*part].len())
            else {
                return false;
            };
            self.line(&one, &other, *part, index, &mut found);
            found.is_empty()
        })
    }

    /// Adds what differs between piece `part` of two bodies.
    pub(crate) fn differences_of_piece(
        &self,
        one: &Body<'_>,
        other: &Body<'_>,
        part: usize,
        found: &mut Vec<Differing>,
    ) {
        let whole = |what| Differing { what, at: None };
        let (lines, others) = (&one.lines[part], &other.lines[part]);
        if lines.len() != others.len() {
            found.push(whole(Difference::Instructions));
        }
        if !one.explained[part] || !other.explained[part] {
            found.push(whole(Difference::Undecoded));
        }
        let mut here = Vec::new();
        for (index, (a, b)) in lines.iter().zip(others).enumerate() {
            self.line(one, other, part, index, &mut here);
            let at = Some((a.at(), b.at()));
            found.extend(here.drain(..).map(|what| Differing { what, at }));
            if found.len() >= ENOUGH {
                found.push(whole(Difference::Instructions));
                return;
            }
        }
    }

    fn line(
        &self,
        base: &Body<'_>,
        fixed: &Body<'_>,
        part: usize,
        index: usize,
        found: &mut Vec<Difference>,
    ) {
        let (a, b) = (&base.lines[part][index], &fixed.lines[part][index]);
        let (one, other) = (&a.instruction, &b.instruction);
        let data = Code::DeclareByte;
        if let (Some(one), Some(other)) = (&a.word, &b.word) {
            // What is not known is never the same.
            if one.told != other.told || one.is_unknown || other.is_unknown {
                found.push(Difference::Instructions);
                return;
            }
        } else if !same_shape(one, other) {
            if self.same_relaxed(a, b) == Some(true) {
                return;
            }
            found.push(if [one.code(), other.code()].contains(&data) {
                Difference::Undecoded
            } else {
                Difference::Instructions
            });
            return;
        }
        if one.code() == data {
            if one.get_declare_byte_value(0) != other.get_declare_byte_value(0) {
                found.push(Difference::Undecoded);
            }
            return;
        }
        if a.immediate.is_none() && b.immediate.is_none() {
            for op in (0..one.op_count()).filter(|op| is_immediate(one.op_kind(*op))) {
                let numbers = [one.immediate(op), other.immediate(op)];
                let undefined = || [base.image, fixed.image].map(Image::no_thread_local);
                if numbers[0] != numbers[1] && numbers.map(Some) != undefined() {
                    let [base, fixed] = numbers;
                    found.push(Difference::Number { base, fixed });
                }
            }
        }
        let relative = |i: &Instruction| i.memory_base() == Register::RIP;
        let displaced = a.address.is_none() && b.address.is_none() && !relative(one);
        if displaced && one.memory_displacement64() != other.memory_displacement64() {
            found.push(Difference::Instructions);
        }
        for pair in [(a.address, b.address), (a.immediate, b.immediate)] {
            let (from, to) = match pair {
                (Some(from), Some(to)) => (from.target, to.target),
                (None, None) => continue,
                // A number on one side and an address on the other.
                _ => {
                    let doubt = doubtful::of_code(self.comparison(), (a, b), pair);
                    found.push(doubt.unwrap_or(Difference::Instructions));
                    continue;
                }
            };
            match (base.index(from), fixed.index(to)) {
                (Some(here), Some(there)) if here == there => continue,
                (Some(_), Some(_)) => found.push(Difference::Instructions),
                _ => {
                    let tables = base
                        .table(part, index, from)
                        .zip(fixed.table(part, index, to));
                    let relative = base
                        .relative_table(part, index, from)
                        .zip(fixed.relative_table(part, index, to));
                    // An entry behind the last one that is understood is compared, too.
                    let rest = |size: u64| {
                        let same = self.same_rest(from, to, size);
                        same.then_some(()).ok_or(Difference::Instructions)
                    };
                    let result = match (tables, relative) {
                        (Some((one, other)), _) => {
                            let size = one.iter().map(|entry| u64::from(entry.width)).sum();
                            let known = base.is_whole(part, index, &one)
                                && fixed.is_whole(part, index, &other)
                                && self.ends_at(from, to, size);
                            same_tables(base, &one, fixed, &other).and_then(|()| match known {
                                true => Ok(()),
                                false => rest(size),
                            })
                        }
                        (None, Some((one, other))) => {
                            let lengths =
                                tables_around(&base.lines[part], &fixed.lines[part], index);
                            self.same_targets(&one, &other, (a, b), &lengths)
                                .and_then(|()| rest(one.len() as u64 * 4))
                        }
                        (None, None) => {
                            let numbers = numbers_around(base, fixed, part, index);
                            let same = self.same(
                                Referred {
                                    at: from,
                                    line: Some(a),
                                    numbers: &numbers,
                                },
                                Referred {
                                    at: to,
                                    line: Some(b),
                                    numbers: &numbers,
                                },
                            );
                            let empty = || {
                                base.hands_on_empty(part, index, from)
                                    && fixed.hands_on_empty(part, index, to)
                            };
                            same.or_else(|differ| match differ {
                                Difference::Constant { .. } if empty() => Ok(()),
                                differ => Err(differ),
                            })
                        }
                    };
                    let one = Referred {
                        at: from,
                        line: Some(a),
                        numbers: &[],
                    };
                    let other = Referred {
                        at: to,
                        line: Some(b),
                        ..one
                    };
                    let counted = self.counted_back(one, other).is_some();
                    found.extend(result.err().map(|differ| {
                        if counted {
                            return differ;
                        }
                        let doubt = doubtful::of_code(self.comparison(), (a, b), pair);
                        doubt.unwrap_or(differ)
                    }));
                }
            }
        }
    }

    /// `Ok` if both tables of distances lead to the same, in the same order. `lengths` are
    /// tables in which the lengths of what they lead to may stand.
    fn same_targets(
        &self,
        one: &[LinkAddr],
        other: &[LinkAddr],
        (a, b): (&Line, &Line),
        lengths: &[(LinkAddr, LinkAddr)],
    ) -> Result<(), Difference> {
        if one.len() != other.len() {
            return Err(Difference::Instructions);
        }
        let c = self.comparison();
        one.iter()
            .zip(other)
            .zip(0..)
            .try_for_each(|((here, there), entry)| {
                let word = |image: &Image, table: LinkAddr| {
                    let bytes = image.bytes(table.checked_add(entry * 8)?, 8)?;
                    Some(u64::from_le_bytes(bytes.try_into().ok()?))
                };
                let numbers = lengths.iter().filter_map(|(table, counterpart)| {
                    word(c.base, *table).filter(|n| word(c.fixed, *counterpart) == Some(*n))
                });
                let numbers: Vec<u64> = numbers.collect();
                // Texts of one table lie side by side: where one begins, another ends.
                let ends = |list: &[LinkAddr], at: &LinkAddr, length: u64| {
                    at.checked_add(length)
                        .is_some_and(|end| list.contains(&end))
                };
                if numbers.iter().any(|n| {
                    *n > 0
                        && (ends(one, here, *n) || ends(other, there, *n))
                        && self.same_data(*here, *there, *n)
                }) {
                    return Ok(());
                }
                let place = |at: &LinkAddr, line| Referred {
                    at: *at,
                    line: Some(line),
                    numbers: &numbers,
                };
                self.same(place(here, a), place(there, b))
            })
    }
}

/// Numbers that instructions around `lines[index]` load, where both sides load the same; a
/// jump is followed, since several texts of one length may share the end of their way.
fn numbers_around(base: &Body<'_>, fixed: &Body<'_>, part: usize, index: usize) -> Vec<u64> {
    const AROUND: usize = 4;
    let load = |line: &Line| {
        let instruction = line.instruction;
        if let Some(word) = line.word {
            return word.number();
        }
        let plain = instruction.mnemonic() == Mnemonic::Mov && is_immediate(instruction.op1_kind());
        plain.then(|| instruction.immediate(1))
    };
    let both = |(part, index): (usize, usize)| {
        let line = |body: &Body<'_>| body.lines.get(part)?.get(index).copied();
        line(base).zip(line(fixed))
    };
    let mut found = chosen(&base.lines[part], &fixed.lines[part], index);
    let mut note = |(one, other): (Line, Line)| {
        found.extend(load(&one).filter(|number| load(&other) == Some(*number)));
    };
    let before = (index.saturating_sub(AROUND)..index).map(|near| (part, near));
    before.filter_map(both).for_each(&mut note);
    let mut place = (part, index);
    for _ in 0..=AROUND {
        let Some((one, other)) = both(place) else {
            break;
        };
        note((one, other));
        let jump = |line: &Line, body: &Body<'_>| {
            let leaps = line.instruction.flow_control() == FlowControl::UnconditionalBranch;
            body.index(line.address.filter(|_| leaps)?.target)
        };
        place = match (jump(&one, base), jump(&other, fixed)) {
            (Some(here), Some(there)) if here == there => here,
            _ => (place.0, place.1 + 1),
        };
    }
    found
}

/// The lengths of two texts of which code around `lines[index]` takes the one or the other: `lea
/// rsi, [rax+rax*8]` and `add rsi, 16` are 16 and 25 for a `bool` in `rax`.
fn chosen(base: &[Line], fixed: &[Line], index: usize) -> Vec<u64> {
    const BEFORE: usize = 4;
    const BEHIND: usize = 8;
    let lengths = |lines: &[Line]| -> Vec<u64> {
        let near = index.saturating_sub(BEFORE)..lines.len().min(index + BEHIND);
        let pairs = lines.get(near).unwrap_or_default().windows(2);
        let both = pairs.filter_map(|pair| {
            let [scaled, added] = [&pair[0].instruction, &pair[1].instruction];
            let twice = scaled.mnemonic() == Mnemonic::Lea
                && scaled.memory_base() != Register::None
                && scaled.memory_base() == scaled.memory_index()
                && scaled.memory_displacement64() == 0;
            let adds = added.mnemonic() == Mnemonic::Add
                && is_immediate(added.op1_kind())
                && added.op0_register() == scaled.op0_register();
            let one = (twice && adds).then(|| added.immediate(1))?;
            let step = u64::from(scaled.memory_index_scale()) + 1;
            Some([one, one.checked_add(step)?])
        });
        both.flatten().collect()
    };
    let mut both = lengths(base);
    let others = lengths(fixed);
    both.retain(|length| others.contains(length));
    both
}

/// Tables of numbers that instructions around `lines[index]` load the addresses of: where
/// the lengths stand that belong to a table of texts.
fn tables_around(base: &[Line], fixed: &[Line], index: usize) -> Vec<(LinkAddr, LinkAddr)> {
    const AROUND: usize = 4;
    let end = (index + AROUND + 1).min(base.len()).min(fixed.len());
    let near = (index.saturating_sub(AROUND)..end).filter(|near| *near != index);
    let table = |line: &Line| {
        let lea = line.instruction.mnemonic() == Mnemonic::Lea;
        Some(line.address.filter(|_| lea)?.target)
    };
    near.filter_map(|near| table(&base[near]).zip(table(&fixed[near])))
        .collect()
}

fn same_tables(
    base: &Body<'_>,
    one: &[TableEntry],
    fixed: &Body<'_>,
    other: &[TableEntry],
) -> Result<(), Difference> {
    let same = one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(a, b)| base.index(a.target) == fixed.index(b.target));
    if same {
        Ok(())
    } else {
        Err(Difference::Instructions)
    }
}

/// True if two instructions differ at most in numbers and in what they refer to.
///
/// A branch in its short and its near form is the same branch.
fn same_shape(a: &Instruction, b: &Instruction) -> bool {
    a.code().as_near_branch() == b.code().as_near_branch()
        && a.op_count() == b.op_count()
        && a.segment_prefix() == b.segment_prefix()
        && a.memory_base() == b.memory_base()
        && a.memory_index() == b.memory_index()
        && a.memory_index_scale() == b.memory_index_scale()
        && prefixes(a) == prefixes(b)
        && (0..a.op_count()).all(|op| {
            let (one, other) = (a.op_kind(op), b.op_kind(op));
            one == other && (one != OpKind::Register || a.op_register(op) == b.op_register(op))
        })
}

fn prefixes(i: &Instruction) -> impl PartialEq + use<> {
    let repeat = (
        i.has_lock_prefix(),
        i.has_rep_prefix(),
        i.has_repne_prefix(),
    );
    let vector = (i.op_mask(), i.zeroing_masking(), i.is_broadcast());
    let rounding = (i.rounding_control(), i.suppress_all_exceptions());
    (repeat, vector, rounding)
}
