//! What no function and no variable owns: start-up code of the compiler, assembly whose
//! symbols have no size, words behind a mark of the linker.
//!
//! It cannot be replaced, because nobody knows where it begins and ends; so where it
//! changed, the patch is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place, Section, SectionKind, Slot};

use crate::code::Body;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule};
use crate::{Comparison, Usage, annexes};

/// What a piece without an owner stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// The start of its section.
    Start,
    /// A symbol without a size.
    At(EntityId),
    /// The last byte of a function or object.
    Behind(EntityId),
}

/// A part of a section that no function or object with a size covers.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) anchor: Anchor,
    pub(crate) range: Range<LinkAddr>,
}

/// True for code of the program, false for the linker's stubs, which are told by their slot.
pub(crate) fn is_code(section: &Section) -> bool {
    let stubs = section.name.starts_with(".plt") || section.name == ".iplt";
    section.kind == SectionKind::Text && !stubs
}

/// True for a stub that leads to another image.
fn calls_outside(image: &Image, at: LinkAddr) -> bool {
    let place = image.place(at);
    matches!(place, Place::Stub(Slot::Import(..) | Slot::LazyImport(_)))
}

/// The pieces of `section`, in order.
pub(crate) fn pieces(image: &Image, section: &Section) -> Vec<Piece> {
    let mut found = Vec::new();
    let (mut anchor, mut start) = (Anchor::Start, section.range.start);
    let first = image.entities.partition_point(|entity| entity.addr < start);
    for (id, entity) in image.entity_ids().skip(first) {
        if entity.addr >= section.range.end {
            break;
        }
        if start < entity.addr {
            let range = start..entity.addr;
            found.push(Piece { anchor, range });
        }
        if start <= entity.addr && entity.size == 0 {
            (anchor, start) = (Anchor::At(id), entity.addr);
        } else if start < entity.end() {
            (anchor, start) = (Anchor::Behind(id), entity.end());
        }
    }
    if start < section.range.end {
        let range = start..section.range.end;
        found.push(Piece { anchor, range });
    }
    found
}

pub(crate) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    annexes::find(c, findings);
    if !same_sections(c) {
        return;
    }
    let meaning = Meaning::new(c);
    code(c, &meaning, findings);
    data(c, &meaning, findings);
    first_calls(c, findings);
    stub_frames(c, &meaning, findings);
}

/// False where another linker brings stubs and marks of its own, and has an order of its own: what
/// it wrote between the program's functions then says nothing about the fix. Sections that a source
/// brings, its first variable of a thread for example, say nothing of the linker.
fn same_sections(c: &Comparison<'_>) -> bool {
    let (base, fixed) = (&c.base.sections, &c.fixed.sections);
    let names = |section: &'_ Section| section.name.clone();
    if c.base.is_of_objects() {
        // Each function may have a section of its own.
        let all = |sections: &'_ [Section]| sections.iter().map(names).collect::<BTreeSet<_>>();
        return all(base) == all(fixed);
    }
    let of_linker = |section: &&Section| {
        const OF_SOURCES: [&str; 12] = [
            ".data",
            ".rodata",
            ".bss",
            ".tdata",
            ".tbss",
            ".init_array",
            ".fini_array",
            ".preinit_array",
            ".gcc_except_table",
            ".ctors",
            ".dtors",
            ".plt.got",
        ];
        let name = &section.name;
        let is = |of: &&str| {
            name.strip_prefix(*of)
                .is_some_and(|end| end.is_empty() || end.starts_with('.'))
        };
        name.starts_with('.') && !OF_SOURCES.iter().any(is)
    };
    let base = base.iter().filter(of_linker).map(names);
    base.eq(fixed.iter().filter(of_linker).map(names))
}

/// True if two places in code that nobody owns are as far behind functions that are a pair,
/// and hold the same up to the next thing that anything refers to. Assembly keeps constants
/// without a symbol there.
///
/// Code may be there as well, with other references in the same bytes. It is no padding,
/// as somebody refers to it, so [`find`] compares the whole of it by meaning.
pub(crate) fn same_place(c: &Comparison<'_>, a: LinkAddr, b: LinkAddr) -> bool {
    let before = |image: &Image, at: LinkAddr| {
        let section = image.section_at(at).filter(|section| is_code(section))?;
        let after = image.entities.partition_point(|entity| entity.addr <= at);
        let near = after.saturating_sub(8)..after;
        let id = EntityId(u32::try_from(after.checked_sub(1)?).ok()?);
        let entity = image.entity(id);
        let last = image.entities[near].iter().all(|e| e.end() <= entity.end());
        let distance = at.checked_sub(entity.end())?;
        (last && section.range.contains(&entity.addr)).then_some((id, distance))
    };
    let Some(((one, distance), (other, its))) = before(c.base, a).zip(before(c.fixed, b)) else {
        return false;
    };
    let contents = |image: &'_ Image, usage: &Usage, at: LinkAddr| {
        let end = image.section_at(at)?.range.end;
        let end = usage.next_boundary(at).map_or(end, |next| next.min(end));
        // Equal bytes of a pointer say nothing about where it leads.
        let holds_pointers = image.slots.range(at..end).next().is_some();
        let bytes = image.bytes(at, end.checked_sub(at)?).map(<[u8]>::to_vec);
        bytes.filter(|_| !holds_pointers)
    };
    let held = contents(c.base, &c.base_usage, a);
    distance == its
        && c.pairs.fixed_of(one) == Some(other)
        && held.is_some()
        && held == contents(c.fixed, &c.fixed_usage, b)
        && same_sections(c)
}

/// How unwinding passes the linker's stubs.
fn stub_frames(c: &Comparison<'_>, meaning: &Meaning<'_, '_>, findings: &mut Vec<Finding>) {
    for section in &c.base.sections {
        let stubs = section.kind == SectionKind::Text && !is_code(section);
        let Some(other) = c.fixed.section_named(&section.name).filter(|_| stubs) else {
            continue;
        };
        let (range, there) = (section.range.clone(), other.range.clone());
        let one = Body::decode(c.base, &c.base_usage, std::iter::once(range));
        let other = Body::decode(c.fixed, &c.fixed_usage, std::iter::once(there.clone()));
        let same = one
            .zip(other)
            .is_some_and(|(one, other)| meaning.same_frames(&one, &section.range, &other, &there));
        if !same {
            findings.push(Finding::refuse(
                Rule::Unwind,
                section.name.as_str(),
                "is passed by unwinding in another way in the fixed image",
            ));
        }
    }
}

/// How an import is bound at its first call: the code and the words that only the linker
/// knows of.
fn first_calls(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let imports = |image: &'_ Image| -> BTreeMap<Arc<str>, _> {
        let slots = image.slots.iter().filter_map(|(place, slot)| match slot {
            Slot::LazyImport(name) => Some((name.clone(), image.first_call(*place))),
            _ => None,
        });
        slots.collect()
    };
    let fixed = imports(c.fixed);
    for (name, way) in imports(c.base) {
        if fixed.get(&name).is_some_and(|other| *other != way) {
            findings.push(Finding::refuse(
                Rule::Import,
                &*name,
                "is bound in another way at its first call",
            ));
        }
    }
}

/// One side's pieces of code, without those that hold only padding.
fn code_pieces<'a>(image: &'a Image, usage: &'a Usage) -> Vec<(String, Piece)> {
    let text = image.sections.iter().filter(|section| is_code(section));
    text.flat_map(|section| {
        pieces(image, section)
            .into_iter()
            .map(|p| (section.name.clone(), p))
    })
    .filter(|(_, piece)| !usage.is_dead(&piece.range) && !is_filler(image, usage, piece))
    .collect()
}

/// True for padding: nothing in it does anything, or control cannot get there, since nothing
/// refers to it and the function before it does not run into it. Linkers fill up with what
/// they like, also with zeros.
fn is_filler(image: &Image, usage: &Usage, piece: &Piece) -> bool {
    let range = std::iter::once(piece.range.clone());
    if Body::decode(image, usage, range).is_some_and(|body| body.is_padding()) {
        return true;
    }
    let Anchor::Behind(before) = piece.anchor else {
        return false;
    };
    let first = usage
        .boundaries
        .partition_point(|at| *at < piece.range.start);
    let referred = usage
        .boundaries
        .get(first)
        .is_some_and(|at| *at < piece.range.end);
    !referred && !usage.runs_on.contains(&before) && image.unwind.fdes_in(&piece.range).is_empty()
}

/// True for code that is something on its own: it has a name, or the function before it runs into it.
fn counts(usage: &Usage, anchor: Anchor) -> bool {
    match anchor {
        Anchor::At(_) => true,
        Anchor::Behind(before) => usage.runs_on.contains(&before),
        Anchor::Start => false,
    }
}

fn code(c: &Comparison<'_>, meaning: &Meaning<'_, '_>, findings: &mut Vec<Finding>) {
    let of_base = code_pieces(c.base, &c.base_usage);
    let of_fixed = code_pieces(c.fixed, &c.fixed_usage);
    let mut pairs = Vec::new();
    let mut left: Vec<bool> = vec![true; of_fixed.len()];
    for (section, piece) in &of_base {
        let anchor = in_fixed(c, piece.anchor);
        let other = of_fixed
            .iter()
            .position(|(name, other)| name == section && Some(other.anchor) == anchor);
        match other {
            Some(index) => {
                left[index] = false;
                pairs.push((piece, &of_fixed[index].1));
            }
            // Whoever refers to code without a name and a counterpart is not equal.
            None if !counts(&c.base_usage, piece.anchor) => {}
            None => findings.push(refuse(c.base, piece, "is missing in the fixed image")),
        }
    }
    for (_, piece) in of_fixed
        .iter()
        .zip(left)
        .filter(|((_, piece), left)| *left && counts(&c.fixed_usage, piece.anchor))
        .map(|(piece, _)| piece)
    {
        findings.push(refuse(c.fixed, piece, "is new in the fixed image"));
    }
    // All in one body: one piece may jump into another.
    let one = pairs.iter().map(|(piece, _)| piece.range.clone());
    let other = pairs.iter().map(|(_, piece)| piece.range.clone());
    let bodies =
        Body::decode(c.base, &c.base_usage, one).zip(Body::decode(c.fixed, &c.fixed_usage, other));
    let Some((one, other)) = bodies else {
        return;
    };
    for (index, (base, fixed)) in pairs.iter().enumerate() {
        let mut found = Vec::new();
        meaning.differences_of_piece(&one, &other, index, &mut found);
        if is_start_up(c.base, base) {
            // Its marks are anywhere; what the loader fills in for it is not, nor the stubs
            // by which it calls other images. (Static programs have stubs for what nobody
            // defines; these calls are never made.)
            let slot = |image: &Image, body: &Body<'_>, at| {
                body.references(at).any(|target| {
                    let section = image.section_at(target);
                    section.is_some_and(|s| s.kind == SectionKind::Got)
                        || calls_outside(image, target)
                })
            };
            found.retain(|differing| {
                let at = differing.at;
                at.is_some_and(|(a, b)| slot(c.base, &one, a) || slot(c.fixed, &other, b))
            });
        }
        if !found.is_empty() || !meaning.same_frames(&one, &base.range, &other, &fixed.range) {
            findings.push(refuse(c.base, base, "differs"));
        }
    }
}

/// True for the start-up code of the compiler. No source has it, and it refers to marks of the
/// linker, such as `__TMC_END__`, which are the address of this or that variable: it differs
/// wherever the order of data does.
fn is_start_up(image: &Image, piece: &Piece) -> bool {
    let names = [
        "deregister_tm_clones",
        "register_tm_clones",
        "__do_global_dtors_aux",
        "frame_dummy",
    ];
    matches!(piece.anchor, Anchor::At(id) if names.contains(&image.entity(id).name()))
}

/// Bytes of a variable whose symbol has no size: up to the next place that anything refers to.
fn data(c: &Comparison<'_>, meaning: &Meaning<'_, '_>, findings: &mut Vec<Finding>) {
    for (base, fixed) in c.pairs.iter() {
        let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
        // A mark between two sections, which linkers that shuffle leave somewhere in one.
        let mark = one.name() == "__TMC_END__";
        if one.kind != EntityKind::Object || one.size > 0 || other.size > 0 || mark {
            continue;
        }
        // The start-up code's handle is one word; what the linker put behind it is not its own.
        let longest = if one.name() == "__dso_handle" {
            8
        } else {
            u64::MAX
        };
        let (Some(before), Some(after)) = (
            unsized_range(c.base, &c.base_usage, one.addr, longest),
            unsized_range(c.fixed, &c.fixed_usage, other.addr, longest),
        ) else {
            continue;
        };
        let size = before.end.0 - before.start.0;
        if size != after.end.0 - after.start.0
            || !meaning.same_data(before.start, after.start, size)
        {
            let range = before;
            let anchor = Anchor::At(base);
            findings.push(refuse(c.base, &Piece { anchor, range }, "differs"));
        }
    }
}

/// What may belong to the symbol without a size at `at`, without the padding at its end.
fn unsized_range(
    image: &Image,
    usage: &Usage,
    at: LinkAddr,
    longest: u64,
) -> Option<Range<LinkAddr>> {
    let section = image.section_at(at)?;
    // What `.init_array` and its like list is a rule of its own, and a mark of the linker at
    // the start of another section is not its variable.
    let plain = section.name == ".data" || section.name.starts_with(".data.");
    if section.kind != SectionKind::Data || !plain {
        return None;
    }
    let limit = LinkAddr(section.range.end.0.min(at.0.saturating_add(longest)));
    let end = usage
        .next_boundary(at)
        .map_or(limit, |next| next.min(limit));
    let bytes = image.bytes(at, end.0 - at.0)?;
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last as u64 + 1);
    let slot = image.slots.range(at..end).next_back();
    let filled = slot.map_or(0, |(place, _)| {
        (place.0 + image.pointer_size()).min(end.0) - at.0
    });
    Some(at..LinkAddr(at.0 + used.max(filled)))
}

fn in_fixed(c: &Comparison<'_>, anchor: Anchor) -> Option<Anchor> {
    match anchor {
        Anchor::Start => Some(Anchor::Start),
        Anchor::At(id) => c.pairs.fixed_of(id).map(Anchor::At),
        Anchor::Behind(id) => c.pairs.fixed_of(id).map(Anchor::Behind),
    }
}

fn refuse(image: &Image, piece: &Piece, what: &str) -> Finding {
    let section = image.section_at(piece.range.start);
    let section = section.map_or("nothing", |section| section.name.as_str());
    let name = |id: EntityId| invivo_image::demangle(image.entity(id).name());
    let subject = match piece.anchor {
        Anchor::Start => format!("the start of {section}"),
        Anchor::At(id) => name(id),
        Anchor::Behind(id) => format!("what stands behind {}", name(id)),
    };
    Finding::refuse(
        Rule::Symbols,
        subject,
        format!(
            "{what} ({} in {section}); its symbol has no size, or it has none, so nobody knows \
             what to replace",
            piece.range.start
        ),
    )
}
