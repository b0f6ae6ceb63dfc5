//! Do two references, one in each image, mean the same?

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use invivo_image::x86_64::Line;
use invivo_image::{Entity, EntityId, EntityKind, Image, LinkAddr, Place, SectionKind, Slot};

use crate::describe::{describe, show_constant};
use crate::lengths::is_padding;
use crate::line_numbers::line_in_text;
use crate::runs::{Runs, WIDEST};
use crate::{Comparison, Difference, Extent, extent, unowned};

/// One side's reference: the place, and the instruction that refers to it (none for a
/// pointer in data).
#[derive(Clone, Copy, Debug)]
pub struct Referred<'l> {
    /// The place.
    pub at: LinkAddr,
    /// The instruction.
    pub line: Option<&'l Line>,
    /// Numbers beside it that may be its length: in the instructions around, equal on both
    /// sides; of a pointer in data of Rust the word behind it.
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
    /// Places that were found the same lately.
    lately: RefCell<Vec<(LinkAddr, LinkAddr)>>,
    runs: RefCell<Runs>,
}

/// How many pairs of places are kept.
const LATELY: usize = 1 << 13;

/// Two constants without a name, and how much of each is read.
type Waiting = (LinkAddr, LinkAddr, Option<(Extent, Extent)>);

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
    /// Constants without a name that are being compared: they have no number, and lead back to
    /// themselves as structures do.
    waiting: Vec<Waiting>,
}

impl<'c, 'a> Meaning<'c, 'a> {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(comparison: &'c Comparison<'a>) -> Self {
        Meaning {
            comparison,
            objects: RefCell::default(),
            depth: Cell::new(0),
            lately: RefCell::default(),
            runs: RefCell::default(),
        }
    }

    pub(crate) fn runs(&self) -> &RefCell<Runs> {
        &self.runs
    }

    /// True if two places were found the same, whoever refers to them.
    pub(crate) fn is_known(&self, base: LinkAddr, fixed: LinkAddr) -> bool {
        self.lately.borrow().get(kept_at(base)) == Some(&(base, fixed))
    }

    /// Keeps that two places are the same.
    pub(crate) fn know(&self, base: LinkAddr, fixed: LinkAddr) {
        let mut lately = self.lately.borrow_mut();
        lately.resize(LATELY, Default::default());
        lately[kept_at(base)] = (base, fixed);
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
        if let Some((same, [before, after])) = self.counted_back(base, fixed) {
            if !same {
                return Err(Difference::Reference {
                    base: before.describe(c.base, base.at),
                    fixed: after.describe(c.fixed, fixed.at),
                });
            }
            if before.alone && after.alone {
                return Ok(());
            }
        }
        let same = match (&one, &other) {
            (Place::In(a, x), Place::In(b, y)) if x == y && self.is_unsized(*a, *b) => {
                return self.same_constant(base.at, fixed.at, base, fixed);
            }
            (Place::In(a, x), Place::In(b, y)) => {
                let same = x == y && self.same_entity(*a, *b);
                let sizes = [c.base.entity(*a).size, c.fixed.entity(*b).size];
                let record = c.moved_records.get(a).filter(|_| {
                    let whole = (*x, *y) == (0, 0);
                    !same && whole && c.pairs.fixed_of(*a) == Some(*b)
                });
                match record {
                    Some(Some((base, fixed))) => {
                        let (base, fixed) = (*base, *fixed);
                        return Err(Difference::Record { base, fixed });
                    }
                    Some(None) => return Ok(()),
                    None => {}
                }
                if !same
                    && (*x, *y) == (0, 0)
                    && self.is_constant(*a, *b)
                    && let Some(known) = self.locations(base.at, fixed.at, sizes)
                {
                    return known;
                }
                if !same
                    && x == y
                    && c.base.entity(*a).kind == EntityKind::Object
                    && c.fixed.entity(*b).name() == c.base.entity(*a).name()
                    && let Some(doubt) =
                        self.doubt((c.base.entity(*a).addr, c.fixed.entity(*b).addr), sizes)
                {
                    return Err(doubt);
                }
                same
            }
            (Place::Stub(a), Place::Stub(b)) => self.same_slot(a, b),
            // A slot is made for a symbol; what else begins there has none.
            (Place::Slot(a), Place::Slot(b)) => self.same_empty(a, b) || self.same_slot(a, b),
            (Place::Constant(a), Place::Constant(b)) if self.other_neighbours(*a, *b) => false,
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
            (Place::Unnamed(a), Place::Unnamed(b)) => unowned::same_place(c, *a, *b),
            _ => false,
        };
        if same { Ok(()) } else { differ() }
    }

    /// True if the two are a pair, or constants with the same contents.
    pub(crate) fn same_entity(&self, base: EntityId, fixed: EntityId) -> bool {
        let c = self.comparison;
        let paired = c.pairs.fixed_of(base);
        if c.base.entity(base).kind != EntityKind::Object {
            return paired == Some(fixed) || self.same_copy(base, fixed);
        }
        if self.is_constant(base, fixed) {
            // A constant with other contents is another constant; one with another
            // name (`__func__.2`, `__func__.3`) and the same contents is the same.
            return self.same_object(base, fixed);
        }
        // What is written in one build only may be another constant.
        let copied = c.base.is_copied(base) || c.fixed.is_copied(fixed);
        let is_one = !copied && (read_only(c.base, base) || read_only(c.fixed, fixed));
        paired == Some(fixed)
            && c.base.entity(base).size == c.fixed.entity(fixed).size
            && (!is_one || self.same_object(base, fixed))
    }

    /// True for two constants whose symbols do not say how long they are, as in assembly:
    /// their names say nothing about what is there. Tables of classes in Windows images have the
    /// sizes that their formats tell.
    pub(crate) fn is_unsized(&self, base: EntityId, fixed: EntityId) -> bool {
        let one = |image: &Image, id| {
            let entity = image.entity(id);
            let section = image.section_at(entity.addr);
            entity.size == 0
                && entity.kind == EntityKind::Object
                && section.is_some_and(|s| {
                    let name = s.name.trim_start_matches(".bolt.org");
                    name.starts_with(".rodata")
                        || image.is_windows() && image.is_constant_at(entity.addr)
                })
        };
        one(self.comparison.base, base) && one(self.comparison.fixed, fixed)
    }

    fn is_constant(&self, base: EntityId, fixed: EntityId) -> bool {
        read_only(self.comparison.base, base) && read_only(self.comparison.fixed, fixed)
    }

    /// True if both objects hold the same, pointers compared by meaning.
    pub(crate) fn same_object(&self, base: EntityId, fixed: EntityId) -> bool {
        self.assuming(base, fixed, || {
            let c = self.comparison;
            let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
            one.size == other.size
                && self.same_data(one.addr, other.addr, one.size)
                && self.same_class(one, other)
        })
    }

    /// True if two tables of virtual functions of Visual C++ belong to the same class: what says so
    /// is found by the pointer before them. Of other objects nothing is asked.
    fn same_class(&self, base: &Entity, fixed: &Entity) -> bool {
        let c = self.comparison;
        let class = |image: &Image, table: &Entity| {
            let before = table.addr.0.checked_sub(image.pointer_size())?;
            let Some(Slot::Pointer(to)) = image.slots.get(&LinkAddr(before)) else {
                return None;
            };
            let Place::In(id, 0) = image.place(*to) else {
                return None;
            };
            image.entity(id).name().starts_with("??_R4").then_some(id)
        };
        if !base.name().starts_with("??_7") {
            return true;
        }
        match (class(c.base, base), class(c.fixed, fixed)) {
            (Some(one), Some(other)) => self.same_object(one, other),
            (None, None) => true,
            _ => false,
        }
    }

    /// What `compare` says of the two, assuming while it compares that they are the same.
    pub(crate) fn assuming(
        &self,
        base: EntityId,
        fixed: EntityId,
        compare: impl FnOnce() -> bool,
    ) -> bool {
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
        let same = compare();
        if !same {
            let mut objects = self.objects.borrow_mut();
            for doubtful in objects.order.split_off(assumed) {
                objects.equal.remove(&doubtful);
            }
            objects.different.insert(pair);
        }
        same
    }

    /// What `compare` says of two constants without a name, assuming while it compares that they are
    /// the same: in tables of numbers some look like addresses of the table itself.
    fn assuming_constants(
        &self,
        pair: Waiting,
        compare: impl FnOnce() -> Result<(), Difference>,
    ) -> Result<(), Difference> {
        let assumed = {
            let mut objects = self.objects.borrow_mut();
            if objects.waiting.contains(&pair) {
                return Ok(());
            }
            objects.waiting.push(pair);
            objects.order.len()
        };
        let result = compare();
        let mut objects = self.objects.borrow_mut();
        objects.waiting.pop();
        if result.is_err() {
            for doubtful in objects.order.split_off(assumed) {
                objects.equal.remove(&doubtful);
            }
        }
        result
    }

    pub(crate) fn same_slot(&self, base: &Slot, fixed: &Slot) -> bool {
        self.same_slot_of(base, &[], fixed, &[])
    }

    /// The same, where a number stands beside each.
    pub(crate) fn same_slot_of(
        &self,
        base: &Slot,
        length: &[u64],
        fixed: &Slot,
        other: &[u64],
    ) -> bool {
        let place = |at: &LinkAddr, numbers| Referred {
            at: *at,
            line: None,
            numbers,
        };
        match (base, fixed) {
            (Slot::Pointer(a), Slot::Pointer(b)) | (Slot::Resolved(a), Slot::Resolved(b)) => {
                self.same(place(a, length), place(b, other)).is_ok()
            }
            (Slot::Unknown(_), _) => false,
            (Slot::Import(name, 0), Slot::Pointer(to)) => {
                let fixed = begins_at(self.comparison.fixed, *to);
                let pair = fixed.and_then(|id| Some((self.comparison.pairs.base_of(id)?, id)));
                self.is_found_in_program(name, pair)
            }
            (Slot::Pointer(to), Slot::Import(name, 0)) => {
                let base = begins_at(self.comparison.base, *to);
                let pair = base.and_then(|id| Some((id, self.comparison.pairs.fixed_of(id)?)));
                self.is_found_in_program(name, pair)
            }
            (a, b) => a == b,
        }
    }

    /// True if the loader, asked for `name`, finds these two: it looks into the program first, and
    /// linkers that know that may leave the name out (`DW.ref._ZTIi`, by gold).
    fn is_found_in_program(&self, name: &str, pair: Option<(EntityId, EntityId)>) -> bool {
        let c = self.comparison;
        let exports = |image: &Image, id| {
            let mut names = image.entity(id).names.iter();
            !image.is_library && names.any(|symbol| symbol.exported && *symbol.name == *name)
        };
        pair.is_some_and(|(base, fixed)| exports(c.base, base) && exports(c.fixed, fixed))
    }

    fn same_constant(
        &self,
        a: LinkAddr,
        b: LinkAddr,
        base: Referred<'_>,
        fixed: Referred<'_>,
    ) -> Result<(), Difference> {
        let c = self.comparison;
        let narrow = |reader: Referred<'_>| {
            let line = reader.line;
            line.is_none_or(|line| line.operand_size() <= WIDEST)
        };
        if narrow(base) && narrow(fixed) && self.same_bytes(a, b) == Some(true) {
            return Ok(());
        }
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
                    word: None,
                };
                extent(c.base, &c.base_usage, &lea, a).zip(extent(c.fixed, &c.fixed_usage, &lea, b))
            }
        };
        let compare = || self.same_extents((a, b), (base, fixed), sizes);
        // Who has a number beside the address may read less than others do.
        if base.numbers.is_empty() && fixed.numbers.is_empty() {
            return self.assuming_constants((a, b, sizes), compare);
        }
        compare()
    }

    /// [`Meaning::same_constant`], of which so much is read.
    fn same_extents(
        &self,
        (a, b): (LinkAddr, LinkAddr),
        (base, fixed): (Referred<'_>, Referred<'_>),
        sizes: Option<(Extent, Extent)>,
    ) -> Result<(), Difference> {
        let c = self.comparison;
        let same = match sizes {
            Some((Extent::Text(x), Extent::Text(y))) if x == y && self.same_data(a, b, x) => true,
            // What follows up to the next reference is read by nobody else, so it may well
            // be read from here: an array whose first element one instruction reads.
            Some((Extent::Operand(x), Extent::Operand(y))) => {
                x == y
                    && self.same_data(a, b, x)
                    && (self.ends_at(a, b, x) || self.same_rest(a, b, x))
            }
            Some((one, other)) => {
                let text = [one, other].iter().any(|e| matches!(e, Extent::Text(_)));
                // Between two constants lies padding, whose length depends on what follows.
                let least = one.size().min(other.size());
                !text
                    && self.same_data(a, b, least)
                    && is_padding(c.base, a, least, one.size())
                    && is_padding(c.fixed, b, least, other.size())
                    || self.same_with_length(a, b, base, fixed)
            }
            None => false,
        };
        if same {
            return Ok(());
        }
        if let Some((one, other)) = sizes {
            let known = match (one, other) {
                (Extent::Text(x), Extent::Text(y)) => {
                    let texts = c.base.bytes(a, x).zip(c.fixed.bytes(b, y));
                    let numbers = texts.and_then(|(one, other)| line_in_text(one, other));
                    numbers.map(|(base, fixed)| Err(Difference::Line { base, fixed }))
                }
                _ => self.locations(a, b, [one.size(), other.size()]),
            };
            if let Some(known) = known {
                return known;
            }
        }
        if let Some((one, other)) = sizes
            && let Some(doubt) = self.doubt((a, b), [one.size(), other.size()])
        {
            return Err(doubt);
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

/// What begins at `at`.
fn begins_at(image: &Image, at: LinkAddr) -> Option<EntityId> {
    let found = image.entity_at(at);
    found.filter(|id| image.entity(*id).addr == at)
}

fn kept_at(at: LinkAddr) -> usize {
    (at.0 ^ at.0 >> 13) as usize % LATELY
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
    // Of object files there are many sections of one name.
    if base.is_of_objects() {
        return false;
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

/// True for what nobody can write.
fn read_only(image: &Image, id: EntityId) -> bool {
    let entity = image.entity(id);
    let section = image.section_at(entity.addr);
    // Of what has no size among the code nobody knows what it holds.
    section.is_some_and(|s| s.kind == SectionKind::ReadOnly)
        || entity.size > 0 && image.is_constant_at(entity.addr)
}
