//! Do two references, one in each image, mean the same?

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use invivo_image::x86_64::Line;
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place, SectionKind, Slot};

use crate::{Comparison, Difference, Extent, Usage, extent};

/// One side's reference: the place, and the instruction that refers to it (none for a
/// pointer in data).
#[derive(Clone, Copy, Debug)]
pub struct Referred<'l> {
    /// The place.
    pub at: LinkAddr,
    /// The instruction.
    pub line: Option<&'l Line>,
    /// Numbers in the instructions around it, equal on both sides.
    pub numbers: &'l [u64],
}

impl Referred<'_> {
    /// A pointer in data.
    pub(crate) fn pointer(at: LinkAddr) -> Self {
        Referred {
            at,
            line: None,
            numbers: &[],
        }
    }
}

/// Answers, remembering what it found out about objects. One thread's own: an
/// answer in the making must not be taken for one that is made.
#[derive(Debug)]
pub struct Meaning<'c, 'a> {
    comparison: &'c Comparison<'a>,
    objects: RefCell<Objects>,
    /// How many pointers deep the comparison is.
    depth: Cell<u32>,
}

/// What is known about pairs of objects.
#[derive(Debug, Default)]
struct Objects {
    /// Equal, or being compared: a structure that points to itself is equal if all
    /// else in it is.
    equal: HashSet<(EntityId, EntityId)>,
    /// The same in the order of discovery: when a pair turns out to differ, all that
    /// was found equal since then may have been so only under its assumption.
    order: Vec<(EntityId, EntityId)>,
    different: HashSet<(EntityId, EntityId)>,
}

impl<'c, 'a> Meaning<'c, 'a> {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(comparison: &'c Comparison<'a>) -> Self {
        Meaning {
            comparison,
            objects: RefCell::default(),
            depth: Cell::new(0),
        }
    }

    pub(crate) fn comparison(&self) -> &'c Comparison<'a> {
        self.comparison
    }

    /// `Ok` if both mean the same.
    ///
    /// # Errors
    /// How they differ.
    pub fn same(&self, base: Referred<'_>, fixed: Referred<'_>) -> Result<(), Difference> {
        // A list of unnamed constants, or a hostile one that leads to itself, would
        // outlast the stack: what lies deeper counts as different.
        const DEEPEST: u32 = 200;
        let depth = self.depth.get();
        if depth > DEEPEST {
            return Err(Difference::Instructions);
        }
        self.depth.set(depth + 1);
        let result = self.same_here(base, fixed);
        self.depth.set(depth);
        result
    }

    fn same_here(&self, base: Referred<'_>, fixed: Referred<'_>) -> Result<(), Difference> {
        let c = self.comparison;
        let (one, other) = (c.base.place(base.at), c.fixed.place(fixed.at));
        let differ = || {
            Err(Difference::Reference {
                base: describe(c.base, base.at),
                fixed: describe(c.fixed, fixed.at),
            })
        };
        let same = match (&one, &other) {
            (Place::In(a, x), Place::In(b, y)) if x == y && self.is_unsized(*a, *b) => {
                return self.same_constant(base.at, fixed.at, base, fixed);
            }
            (Place::In(a, x), Place::In(b, y)) => {
                let same = x == y && self.same_entity(*a, *b);
                let sizes = [c.base.entity(*a).size, c.fixed.entity(*b).size];
                if !same
                    && (*x, *y) == (0, 0)
                    && self.is_constant(*a, *b)
                    && let Some(line) = self.line_of_location(base.at, fixed.at, sizes)
                {
                    return Err(line);
                }
                same
            }
            (Place::Stub(a), Place::Stub(b)) | (Place::Slot(a), Place::Slot(b)) => {
                self.same_slot(a, b)
            }
            (Place::Constant(a), Place::Constant(b)) => {
                return self.same_constant(*a, *b, base, fixed);
            }
            (Place::Outside(a), Place::Outside(b)) => {
                match (c.base.just_before(*a), c.fixed.just_before(*b)) {
                    (Some((one, x)), Some((other, y))) if x == y => {
                        return self.same_constant(one, other, base, fixed);
                    }
                    _ => same_edge(c.base, *a, c.fixed, *b),
                }
            }
            _ => false,
        };
        if same { Ok(()) } else { differ() }
    }

    /// True if the two are a pair, or constants with the same contents.
    fn same_entity(&self, base: EntityId, fixed: EntityId) -> bool {
        let c = self.comparison;
        let paired = c.pairs.fixed_of(base);
        if c.base.entity(base).kind != EntityKind::Object {
            return paired == Some(fixed);
        }
        if self.is_constant(base, fixed) {
            // A constant with other contents is another constant; one with another
            // name (`__func__.2`, `__func__.3`) and the same contents is the same.
            return self.same_object(base, fixed);
        }
        paired == Some(fixed) && c.base.entity(base).size == c.fixed.entity(fixed).size
    }

    /// True for two constants whose symbols do not say how long they are, as in assembly:
    /// their names say nothing about what is there.
    fn is_unsized(&self, base: EntityId, fixed: EntityId) -> bool {
        let one = |image: &Image, id| {
            let entity = image.entity(id);
            let section = image.section_at(entity.addr);
            entity.size == 0
                && entity.kind == EntityKind::Object
                && section.is_some_and(|s| s.name.starts_with(".rodata"))
        };
        one(self.comparison.base, base) && one(self.comparison.fixed, fixed)
    }

    fn is_constant(&self, base: EntityId, fixed: EntityId) -> bool {
        let read_only = |image: &Image, id| {
            let section = image.section_at(image.entity(id).addr);
            section.is_some_and(|s| s.kind == SectionKind::ReadOnly)
        };
        read_only(self.comparison.base, base) && read_only(self.comparison.fixed, fixed)
    }

    /// True if both objects hold the same, pointers compared by meaning.
    pub(crate) fn same_object(&self, base: EntityId, fixed: EntityId) -> bool {
        let pair = (base, fixed);
        let assumed = {
            let mut objects = self.objects.borrow_mut();
            if objects.different.contains(&pair) {
                return false;
            }
            if !objects.equal.insert(pair) {
                return true;
            }
            objects.order.push(pair);
            objects.order.len() - 1
        };
        let c = self.comparison;
        let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
        let same = one.size == other.size && self.same_data(one.addr, other.addr, one.size);
        if !same {
            let mut objects = self.objects.borrow_mut();
            for doubtful in objects.order.split_off(assumed) {
                objects.equal.remove(&doubtful);
            }
            objects.different.insert(pair);
        }
        same
    }

    pub(crate) fn same_slot(&self, base: &Slot, fixed: &Slot) -> bool {
        let place = |at: &LinkAddr| Referred::pointer(*at);
        match (base, fixed) {
            (Slot::Pointer(a), Slot::Pointer(b)) | (Slot::Resolved(a), Slot::Resolved(b)) => {
                self.same(place(a), place(b)).is_ok()
            }
            (Slot::Unknown(_), _) => false,
            (a, b) => a == b,
        }
    }

    /// True if what follows two constants of `size` bytes, up to the next references, is
    /// the same but for padding.
    pub(crate) fn same_rest(&self, a: LinkAddr, b: LinkAddr, size: u64) -> bool {
        let c = self.comparison;
        let rest = |image: &Image, usage: &Usage, at: LinkAddr| {
            let limit = image.section_at(at)?.range.end;
            let end = usage
                .next_boundary(at)
                .map_or(limit, |next| next.min(limit));
            Some(end.0.saturating_sub(at.0).max(size))
        };
        let sizes = rest(c.base, &c.base_usage, a).zip(rest(c.fixed, &c.fixed_usage, b));
        sizes.is_some_and(|(one, other)| {
            let least = one.min(other);
            let (start, there) = (LinkAddr(a.0 + size), LinkAddr(b.0 + size));
            self.same_data(start, there, least - size)
                && is_padding(c.base, a, least, one)
                && is_padding(c.fixed, b, least, other)
        })
    }

    fn same_constant(
        &self,
        a: LinkAddr,
        b: LinkAddr,
        base: Referred<'_>,
        fixed: Referred<'_>,
    ) -> Result<(), Difference> {
        let c = self.comparison;
        let sizes = match (base.line, fixed.line) {
            (Some(one), Some(other)) => {
                extent(c.base, &c.base_usage, one, a).zip(extent(c.fixed, &c.fixed_usage, other, b))
            }
            // A pointer in data: the same rules as for `lea`.
            _ => {
                let lea = Line {
                    instruction: Default::default(),
                    address: None,
                    immediate: None,
                };
                extent(c.base, &c.base_usage, &lea, a).zip(extent(c.fixed, &c.fixed_usage, &lea, b))
            }
        };
        let same = match sizes {
            Some((Extent::Text(x), Extent::Text(y))) => x == y && self.same_data(a, b, x),
            // What follows up to the next reference is read by nobody else, so it may well
            // be read from here: an array whose first element one instruction reads.
            Some((Extent::Operand(x), Extent::Operand(y))) => {
                x == y && self.same_data(a, b, x) && self.same_rest(a, b, x)
            }
            Some((one, other)) => {
                // Between two constants lies padding, whose length depends on what follows.
                let least = one.size().min(other.size());
                // Rust's texts have no NUL but a length, which stands beside the address;
                // `fmt::Arguments` keeps twice the length plus one.
                let lengths = [least, 2 * least + 1];
                let told = one.size() != other.size()
                    && base.numbers.iter().any(|number| lengths.contains(number));
                self.same_data(a, b, least)
                    && (told
                        || is_padding(c.base, a, least, one.size())
                            && is_padding(c.fixed, b, least, other.size()))
            }
            None => false,
        };
        if same {
            return Ok(());
        }
        if let Some((one, other)) = sizes {
            let line = match (one, other) {
                (Extent::Text(x), Extent::Text(y)) => {
                    line_in_text(c.base.bytes(a, x), c.fixed.bytes(b, y))
                }
                _ => self.line_of_location(a, b, [one.size(), other.size()]),
            };
            if let Some(line) = line {
                return Err(line);
            }
        }
        let show = |image: &Image, at, extent: Option<Extent>| {
            extent.map_or("nothing".to_owned(), |extent| {
                show_constant(image, at, extent)
            })
        };
        let (one, other) = sizes.unzip();
        Err(Difference::Constant {
            base: show(c.base, a, one),
            fixed: show(c.fixed, b, other),
        })
    }
}

impl Meaning<'_, '_> {
    /// The difference, if both are places that a panic of Rust reports (`core::panic::Location`:
    /// file, its length, line, column) and differ in nothing but the line.
    fn line_of_location(&self, a: LinkAddr, b: LinkAddr, sizes: [u64; 2]) -> Option<Difference> {
        const FILE: u64 = 16;
        const WHOLE: u64 = 24;
        let c = self.comparison;
        let plausible = sizes.iter().all(|size| (WHOLE..WHOLE + 8).contains(size));
        let pointer = |image: &Image, at| matches!(image.slots.get(&at), Some(Slot::Pointer(_)));
        if !plausible || !pointer(c.base, a) || !pointer(c.fixed, b) {
            return None;
        }
        let numbers = |image: &Image, at: LinkAddr| {
            let bytes = image.bytes(at.checked_offset(16)?, 8)?;
            let half = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?));
            Some((half(&bytes[..4])?, half(&bytes[4..])?))
        };
        let ((base, column), (fixed, other)) = (numbers(c.base, a)?, numbers(c.fixed, b)?);
        (column == other && base != fixed && self.same_data(a, b, FILE)).then(|| Difference::Line {
            base: base.into(),
            fixed: fixed.into(),
        })
    }
}

/// The difference, if two texts differ in nothing but one decimal number.
fn line_in_text(base: Option<&[u8]>, fixed: Option<&[u8]>) -> Option<Difference> {
    let (base, fixed) = (base?, fixed?);
    let same = base.iter().zip(fixed).take_while(|(a, b)| a == b).count();
    // The number begins before the first digit that differs.
    let digits = base[..same].iter().rev().take_while(|b| b.is_ascii_digit());
    let start = same - digits.count();
    let number = |text: &[u8]| {
        let end = text[start..].iter().take_while(|b| b.is_ascii_digit());
        let (digits, rest) = text[start..].split_at(end.count());
        let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some((number, rest.to_vec()))
    };
    let ((base, rest), (fixed, other)) = (number(base)?, number(fixed)?);
    (rest == other && base != fixed).then_some(Difference::Line { base, fixed })
}

fn is_padding(image: &Image, at: LinkAddr, from: u64, to: u64) -> bool {
    const LARGEST_ALIGNMENT: u64 = 64;
    if to == from {
        return true;
    }
    to - from < LARGEST_ALIGNMENT
        && image
            .bytes(LinkAddr(at.0 + from), to - from)
            .is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

/// True if both have the same name, are at the same edge of the section of the same
/// name, or are the same place of the headers (also the zero of a weak symbol that
/// nobody defines).
fn same_edge(base: &Image, a: LinkAddr, fixed: &Image, b: LinkAddr) -> bool {
    let first = |image: &Image| {
        image
            .sections
            .first()
            .map_or(LinkAddr(0), |s| s.range.start)
    };
    if a == b && base.base == fixed.base && a < first(base) && b < first(fixed) {
        return true;
    }
    let names = |image: &Image, at: LinkAddr| image.edges.get(&at).cloned().unwrap_or_default();
    if names(base, a)
        .iter()
        .any(|name| names(fixed, b).contains(name))
    {
        return true;
    }
    let ends = |image: &Image, at: LinkAddr| {
        image
            .sections
            .iter()
            .find(|s| s.range.end == at || s.range.start == at)
            .map(|s| s.name.clone())
    };
    let name = ends(base, a);
    name.is_some() && name == ends(fixed, b)
}

fn show_constant(image: &Image, at: LinkAddr, extent: Extent) -> String {
    const LONGEST: usize = 60;
    let bytes = image.bytes(at, extent.size()).unwrap_or_default();
    match extent {
        Extent::Text(_) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().saturating_sub(1)]);
            let short: String = text.chars().take(LONGEST).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            format!("{short:?}{more}")
        }
        Extent::Operand(_) | Extent::UpToNext(_) => {
            let hex: String = bytes
                .iter()
                .take(16)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!(
                "{} bytes {hex}{}",
                bytes.len(),
                if bytes.len() > 16 { "…" } else { "" }
            )
        }
    }
}

/// What is at `at`, for a person.
pub(crate) fn describe(image: &Image, at: LinkAddr) -> String {
    let name = |slot: &Slot| match slot {
        Slot::Import(name, _) | Slot::LazyImport(name) => format!("import {name}"),
        Slot::Copy(name) => format!("the copy of {name}"),
        Slot::Pointer(at) => format!("the slot of {}", short(image, *at)),
        Slot::Resolved(at) => format!("the function chosen by {}", short(image, *at)),
        Slot::TlsModule(name) | Slot::TlsOffset(name, _) | Slot::TlsFromThreadPointer(name, _) => {
            format!("thread-local {name}")
        }
        Slot::Number(number) => format!("the number {number:#x}"),
        Slot::Unknown(kind) => format!("a slot with relocation {kind}"),
    };
    match image.place(at) {
        Place::Stub(slot) | Place::Slot(slot) => name(&slot),
        _ => short(image, at),
    }
}

fn short(image: &Image, at: LinkAddr) -> String {
    match image.place(at) {
        Place::In(id, 0) => invivo_image::demangle(image.entity(id).name()),
        Place::In(id, offset) => {
            format!(
                "{}+{offset:#x}",
                invivo_image::demangle(image.entity(id).name())
            )
        }
        _ => image
            .section_at(at)
            .map_or_else(|| at.to_string(), |s| format!("{} at {at}", s.name)),
    }
}
