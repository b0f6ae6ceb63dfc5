//! What BOLT leaves behind: the first versions of functions that it wrote anew elsewhere.
//!
//! They stay in `.bolt.org.text` without a symbol, and nothing leads there any more. A fix
//! changes them as it changes what runs, so to compare them would refuse every fix; and they
//! are as much code as all the rest. But that nothing leads there is shown and not believed:
//! what is referred to by code that runs, or by data, or by an original that is reached so,
//! is code like any other.

use std::collections::BTreeSet;
use std::ops::Range;

use invivo_image::x86_64::{AddressSpan, Step, walk};
use invivo_image::{EntityId, Image, LinkAddr, SectionKind};
use rayon::prelude::*;

use crate::scan::Scan;
use crate::unowned::{Anchor, Piece, is_code, pieces};

/// Places that an instruction refers to, with the place of the instruction.
pub(crate) type References = Vec<(LinkAddr, LinkAddr)>;

/// Code that no function owns.
#[derive(Debug, Default)]
pub(crate) struct Unowned {
    /// Originals that nothing leads to, in order.
    pub(crate) dead: Vec<Range<LinkAddr>>,
    /// What all the rest refers to.
    pub(crate) references: References,
}

impl Unowned {
    /// Looks through the code of `image` that no function owns. `roots`, in order, are the
    /// places that functions and data refer to; `runs_on` are the functions that run into what
    /// follows them.
    pub(crate) fn of(image: &Image, roots: &[LinkAddr], runs_on: &BTreeSet<EntityId>) -> Self {
        let mut waiting: Vec<Range<LinkAddr>> = Vec::new();
        let mut originals: Vec<Range<LinkAddr>> = Vec::new();
        for section in image.sections.iter().filter(|section| is_code(section)) {
            let original = section.name.starts_with(".bolt.org.");
            for Piece { anchor, range } in pieces(image, section) {
                let entered = match anchor {
                    Anchor::Start => false,
                    Anchor::At(_) => true,
                    Anchor::Behind(before) => runs_on.contains(&before),
                };
                let root = roots.partition_point(|at| *at < range.start);
                let referred = roots.get(root).is_some_and(|at| *at < range.end);
                if original && !entered && !referred {
                    originals.push(range);
                } else {
                    waiting.push(range);
                }
            }
        }
        originals.sort_by_key(|range| range.start);
        let mut dead: Vec<bool> = vec![true; originals.len()];
        let mut references = References::new();
        let mut scan = Scan::of_unowned(image);
        while let Some(range) = waiting.pop() {
            scan.read(image, &range);
            let direct = scan.references.iter().map(|to| to.reference.target);
            references.extend(direct_in(&range, &scan));
            for target in direct.chain(scan.through_tables.iter().copied()) {
                let after = originals.partition_point(|range| range.start <= target);
                let Some(index) = after.checked_sub(1) else {
                    continue;
                };
                if originals[index].contains(&target) && std::mem::take(&mut dead[index]) {
                    waiting.push(originals[index].clone());
                }
            }
        }
        let dead = originals.into_iter().zip(dead);
        Unowned {
            dead: dead
                .filter_map(|(range, dead)| dead.then_some(range))
                .collect(),
            references,
        }
    }
}

/// Constants that code which never runs refers to. The tables of its jumps are among them, and
/// where one begins what stands before it ends.
pub(crate) fn constants(image: &Image, dead: &[Range<LinkAddr>]) -> Vec<LinkAddr> {
    let is_constant = |at: &LinkAddr| {
        let section = image.section_at(*at);
        section.is_some_and(|section| section.kind == SectionKind::ReadOnly)
    };
    let addresses = AddressSpan::of(image);
    let found = dead.par_iter().flat_map_iter(|range| {
        let mut targets = Vec::new();
        walk(
            image,
            addresses,
            range.start,
            bytes(image, range),
            |step: &Step| {
                let target = step.address.map(|reference| reference.target);
                targets.extend(target.filter(is_constant));
            },
        );
        targets
    });
    let mut found: Vec<LinkAddr> = found.collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// What code refers to that no function owns and that is not among `dead`.
pub(crate) fn references(image: &Image, dead: &[Range<LinkAddr>]) -> References {
    let text = image.sections.iter().filter(|section| is_code(section));
    let pieces = text.flat_map(|section| pieces(image, section));
    let is_dead = |piece: &Piece| {
        let found = dead.binary_search_by_key(&piece.range.start, |dead| dead.start);
        found.is_ok()
    };
    let pieces = pieces.filter(|piece| !is_dead(piece));
    let (mut found, mut scan) = (References::new(), Scan::of_unowned(image));
    pieces.for_each(|piece| {
        scan.read(image, &piece.range);
        found.extend(direct_in(&piece.range, &scan));
    });
    found
}

/// What the instructions of `range` refer to themselves.
fn direct_in(range: &Range<LinkAddr>, scan: &Scan) -> impl Iterator<Item = (LinkAddr, LinkAddr)> {
    let start = range.start.0;
    let all = scan.references.iter();
    all.map(move |to| (LinkAddr(start + to.start as u64), to.reference.target))
}

fn bytes<'a>(image: &'a Image, range: &Range<LinkAddr>) -> &'a [u8] {
    let bytes = image.bytes(range.start, range.end.0 - range.start.0);
    bytes.unwrap_or_default()
}
