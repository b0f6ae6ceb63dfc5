//! Comparison of two functions, instruction by instruction, by meaning.

use iced_x86::{Instruction, OpKind, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{EntityId, Image, LinkAddr};

use crate::constants::{TableEntry, jump_table, relative_table};
use crate::matching::is_immediate;
use crate::meaning::{Meaning, Referred};
use crate::{Difference, Differing, Parts, Usage};

/// More differences than this say no more. It has to be many: a function is left out of the
/// patch only when all its differences are known to be line numbers.
const ENOUGH: usize = 4096;

/// A function with its cold parts, decoded, padding left out.
struct Body<'a> {
    image: &'a Image,
    usage: &'a Usage,
    lines: Vec<Vec<Line>>,
    /// For each part, in order of address: where an instruction begins, and the number of
    /// the first one from there on that is not padding.
    starts: Vec<Vec<(LinkAddr, usize)>>,
}

impl<'a> Body<'a> {
    fn decode(image: &'a Image, usage: &'a Usage, parts: &Parts) -> Option<Self> {
        let mut lines = Vec::new();
        let mut starts = Vec::new();
        for id in parts.ids() {
            let mut part = decode(image, image.entity(id))?;
            let mut kept = 0;
            let mut at = Vec::with_capacity(part.len());
            part.retain(|line| {
                at.push((line.at(), kept));
                let keep = !line.is_padding();
                kept += usize::from(keep);
                keep
            });
            lines.push(part);
            starts.push(at);
        }
        Some(Body {
            image,
            usage,
            lines,
            starts,
        })
    }

    /// The part and the number of the instruction that begins at `at`, padding passed over.
    fn index(&self, at: LinkAddr) -> Option<(usize, usize)> {
        self.starts.iter().enumerate().find_map(|(part, starts)| {
            let found = starts.binary_search_by_key(&at, |start| start.0).ok()?;
            Some((part, starts[found].1))
        })
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

    fn relative_table(&self, part: usize, line: usize, at: LinkAddr) -> Option<Vec<LinkAddr>> {
        relative_table(self.image, self.usage, &self.lines[part], line, at)
    }
}

impl Meaning<'_, '_> {
    /// All that differs between two functions; empty if they do the same.
    pub(crate) fn differences(&self, base: &Parts, fixed: &Parts) -> Vec<Differing> {
        let c = self.comparison();
        let whole = |what| vec![Differing { what, at: None }];
        if base.cold.len() != fixed.cold.len() {
            return whole(Difference::ColdPart);
        }
        let one = Body::decode(c.base, &c.base_usage, base);
        let other = Body::decode(c.fixed, &c.fixed_usage, fixed);
        let (Some(one), Some(other)) = (one, other) else {
            let bytes = |image: &Image, id: EntityId| {
                let entity = image.entity(id);
                image.bytes(entity.addr, entity.size).map(<[u8]>::to_vec)
            };
            let same = base
                .ids()
                .zip(fixed.ids())
                .all(|(a, b)| bytes(c.base, a) == bytes(c.fixed, b));
            return if same {
                Vec::new()
            } else {
                whole(Difference::Undecoded)
            };
        };
        let mut found = Vec::new();
        let mut here = Vec::new();
        for (a, b) in one.lines.iter().zip(&other.lines) {
            if a.len() != b.len() {
                found.extend(whole(Difference::Instructions));
            }
        }
        for part in 0..one.lines.len() {
            for (index, (a, b)) in one.lines[part].iter().zip(&other.lines[part]).enumerate() {
                self.line(&one, &other, part, index, &mut here);
                let at = Some((a.at(), b.at()));
                found.extend(here.drain(..).map(|what| Differing { what, at }));
                if found.len() >= ENOUGH {
                    found.extend(whole(Difference::Instructions));
                    return found;
                }
            }
        }
        if !self.same_exceptions(base, fixed) {
            found.extend(whole(Difference::ExceptionTable));
        }
        found
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
        if !same_shape(one, other) {
            found.push(Difference::Instructions);
            return;
        }
        if a.immediate.is_none() && b.immediate.is_none() {
            for op in (0..one.op_count()).filter(|op| is_immediate(one.op_kind(*op))) {
                let (base, fixed) = (one.immediate(op), other.immediate(op));
                if base != fixed {
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
                    found.push(Difference::Instructions);
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
                    let result = match (tables, relative) {
                        (Some((one, other)), _) => same_tables(base, &one, fixed, &other),
                        (None, Some((one, other))) => self.same_targets(&one, &other),
                        (None, None) => {
                            let numbers =
                                numbers_around(&base.lines[part], &fixed.lines[part], index);
                            self.same(
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
                            )
                        }
                    };
                    found.extend(result.err());
                }
            }
        }
    }

    /// `Ok` if both tables of distances lead to the same, in the same order.
    fn same_targets(&self, one: &[LinkAddr], other: &[LinkAddr]) -> Result<(), Difference> {
        if one.len() != other.len() {
            return Err(Difference::Instructions);
        }
        let place = Referred::pointer;
        one.iter()
            .zip(other)
            .try_for_each(|(one, other)| self.same(place(*one), place(*other)))
    }

    /// True if unwinding passes both in the same way.
    fn same_exceptions(&self, base: &Parts, fixed: &Parts) -> bool {
        let c = self.comparison();
        base.ids().zip(fixed.ids()).all(|(a, b)| {
            let lsda = |image: &Image, id| {
                let fde = image.unwind.fde_at(image.entity(id).addr)?;
                fde.lsda.map(|at| invivo_image::Lsda::parse(image, at))
            };
            match (lsda(c.base, a), lsda(c.fixed, b)) {
                (None, None) => true,
                (Some(Ok(one)), Some(Ok(other))) => {
                    let place = Referred::pointer;
                    one.tables == other.tables
                        && one.types.len() == other.types.len()
                        && one
                            .types
                            .iter()
                            .zip(&other.types)
                            .all(|(x, y)| x.1 == y.1 && self.same(place(x.2), place(y.2)).is_ok())
                }
                _ => false,
            }
        })
    }
}

/// Numbers that instructions around `index` load, where both sides load the same.
fn numbers_around(base: &[Line], fixed: &[Line], index: usize) -> Vec<u64> {
    const AROUND: usize = 4;
    let end = (index + AROUND + 1).min(base.len()).min(fixed.len());
    (index.saturating_sub(AROUND)..end)
        .filter_map(|near| {
            let load = |line: &Line| {
                let instruction = line.instruction;
                let plain = instruction.mnemonic() == iced_x86::Mnemonic::Mov
                    && is_immediate(instruction.op1_kind());
                plain.then(|| instruction.immediate(1))
            };
            load(&base[near]).filter(|number| load(&fixed[near]) == Some(*number))
        })
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
