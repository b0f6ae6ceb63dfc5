//! From a comparison to a patch.
//!
//! Everything that is hot is copied from the fixed image, with what only the
//! fixed image has; every reference that leads out of the copy is bound to the
//! base. What cannot be bound to exactly one place is refused.

mod callouts;
mod redirects;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use invivo_compare::{Comparison, Finding, Parts, Rule, Severity};
use invivo_image::{EntityId, Image, LinkAddr, Place, Slot, demangle};

use crate::doubt::Doubt;
use crate::model::{
    Contents, Hex, Identity, Moment, Order, Patch, Redirect, Section, SectionKind, Symbol,
    SymbolPlace, TargetImage,
};
use crate::{annexes, frames};
pub(crate) use redirects::checks;

/// What a person says about a patch.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// What it fixes.
    pub labels: Vec<String>,
    /// The program and version that makes it.
    pub creator: String,
    /// The name of the base's file.
    pub file_name: String,
    /// Its place in the order of patches.
    pub sequence: u32,
    /// Functions of the fixed image that are called before and after.
    pub callouts: Vec<(Moment, String)>,
}

/// Why there is no patch.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// The images are equal.
    #[error("the two images do not differ in anything that runs")]
    Unchanged,
    /// The base has no build id, so a process that runs it cannot be recognised.
    #[error("the base image has no build id")]
    NoBuildId,
    /// It is not safe, or cannot be bound.
    #[error("{} in the way of a live patch", count(.0.len()))]
    Findings(Vec<Finding>),
}

fn count(things: usize) -> String {
    if things == 1 {
        "1 thing stands".to_owned()
    } else {
        format!("{things} things stand")
    }
}

/// What has a symbol in the patch already.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Placed {
    /// A function or object of the fixed image.
    Copy(EntityId),
    /// Unnamed constants of the fixed image.
    Constant(LinkAddr, u64),
    /// A slot that the base lacks.
    Slot(Slot),
    /// A place of the base.
    Base(LinkAddr),
    /// Something of another image that the base does not import.
    Import(Arc<str>),
    /// A stub that jumps to something of another image.
    Stub(Arc<str>),
    /// A place among the replacements of `.altinstructions`.
    Replacements,
}

/// The patch in the making.
pub(crate) struct Planner<'c, 'a> {
    pub(crate) c: &'c Comparison<'a>,
    pub(crate) contents: Contents,
    pub(crate) placed: HashMap<Placed, u32>,
    /// Functions of the fixed image that are copied although the base has them.
    pub(crate) hot: HashMap<EntityId, Parts>,
    /// Cold parts → the function that they are part of.
    pub(crate) cold: HashMap<EntityId, EntityId>,
    /// Functions that still have to be copied.
    pub(crate) waiting: VecDeque<Parts>,
    pub(crate) refused: Vec<Finding>,
    /// Functions of which frames inside old code must not meet the new.
    pub(crate) apart: Vec<String>,
    /// Operands that may be numbers.
    pub(crate) doubts: Vec<Doubt>,
    pub(crate) base_slots: HashMap<Slot, LinkAddr>,
    pub(crate) base_stubs: HashMap<Slot, LinkAddr>,
}

/// Turns a comparison into a patch.
///
/// # Errors
/// When there is nothing to patch or when something is not proved safe; every
/// reason is in the error, not just the first.
pub fn plan(c: &Comparison<'_>, options: &Options) -> Result<Patch, Refused> {
    let in_the_way: Vec<Finding> = c
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Refuse)
        .cloned()
        .collect();
    if !in_the_way.is_empty() {
        return Err(Refused::Findings(in_the_way));
    }
    if c.hot.is_empty() {
        return Err(Refused::Unchanged);
    }
    let build_id = match &c.base.build_id {
        Some(id) => id.0.clone(),
        // What runs was made of them; whoever knows what that is, says so later.
        None if c.base.is_of_objects() => Vec::new(),
        None => return Err(Refused::NoBuildId),
    };
    let mut planner = Planner::new(c);
    let callouts = planner.callouts(&options.callouts);
    planner.copy_functions();
    planner.copy_annexes();
    planner.settle_doubts();
    let frames = frames::section(&mut planner);
    let redirects = planner.redirects();
    if !planner.refused.is_empty() {
        planner
            .refused
            .dedup_by(|a, b| a.subject == b.subject && a.text == b.text);
        return Err(Refused::Findings(planner.refused));
    }
    planner.contents.sections.extend(frames);
    let parts = c.hot.iter().flat_map(|function| function.base.ids());
    let checks = checks(c.base, parts, &redirects);
    let mut order = order(c, options.sequence);
    order.quiescent |= !planner.apart.is_empty() || leads_back(&redirects);
    order.apart = planner.apart;
    let mut patch = Patch {
        identity: Identity {
            name: options.name.clone(),
            labels: options.labels.clone(),
            creator: options.creator.clone(),
        },
        target: TargetImage {
            file_name: options.file_name.clone(),
            build_id: Hex(build_id),
            machine: c.base.machine,
            base: c.base.base,
        },
        order,
        judgements: c.judgements.clone(),
        checks,
        callouts,
        redirects,
        contents: planner.contents,
    };
    bindings_last(&mut patch);
    Ok(patch)
}

/// When the patch may go live: functions that are called in another way now, and that are
/// reached by more than calls which the comparison sees, must not meet their old callers.
fn order(c: &Comparison<'_>, sequence: u32) -> Order {
    let called_anew = c.hot.iter().filter(|hot| hot.prototypes().is_some());
    let mut order = Order {
        sequence,
        quiescent: false,
        apart: Vec::new(),
        unshared: Vec::new(),
    };
    for hot in called_anew {
        let names = &c.base.entity(hot.base.main).names;
        let exported = names.iter().filter(|symbol| symbol.exported);
        let before = order.unshared.len();
        order
            .unshared
            .extend(exported.map(|symbol| symbol.name.to_string()));
        let is_exported = order.unshared.len() > before;
        order.quiescent |= is_exported || c.base_usage.address_is_taken(hot.base.main);
    }
    order.unshared.sort_unstable();
    order.unshared.dedup();
    order
}

/// True if a frame inside a function that gets a hook may meet it: its own loop leads there.
pub(crate) fn leads_back(redirects: &[Redirect]) -> bool {
    let mut all = redirects.iter();
    all.any(|redirect| redirect.hooked && redirect.entry.again)
}

/// Puts the patch's own symbols before its bindings and imports, as symbol tables want it.
pub(crate) fn bindings_last(patch: &mut Patch) {
    let mut order: Vec<u32> = (0..index(patch.contents.symbols.len())).collect();
    order.sort_by_key(|old| patch.contents.symbols[*old as usize].place.rank());
    let mut now_at = vec![0; order.len()];
    for (new, old) in (0u32..).zip(&order) {
        now_at[*old as usize] = new;
    }
    patch.contents.symbols = order
        .iter()
        .map(|old| patch.contents.symbols[*old as usize].clone())
        .collect();
    for section in &mut patch.contents.sections {
        for relocation in &mut section.relocations {
            relocation.symbol = now_at[relocation.symbol as usize];
        }
    }
    for redirect in &mut patch.redirects {
        redirect.replacement = now_at[redirect.replacement as usize];
    }
    for callout in &mut patch.callouts {
        callout.symbol = now_at[callout.symbol as usize];
    }
}

impl<'c, 'a> Planner<'c, 'a> {
    fn new(c: &'c Comparison<'a>) -> Self {
        let mut hot = HashMap::new();
        let mut cold = HashMap::new();
        for function in &c.hot {
            hot.insert(function.fixed.main, function.fixed.clone());
            cold.extend(
                function
                    .fixed
                    .cold
                    .iter()
                    .map(|part| (*part, function.fixed.main)),
            );
        }
        // Slots of object files are made up; the running program has others.
        let is_linked = !c.base.is_of_objects();
        let stubs = c.base.stubs.iter();
        let base_stubs =
            stubs.filter_map(|(stub, slot)| Some((c.base.slots.get(slot)?.clone(), *stub)));
        Planner {
            c,
            contents: Contents::default(),
            placed: HashMap::new(),
            waiting: c
                .hot
                .iter()
                .map(|function| function.fixed.clone())
                .collect(),
            hot,
            cold,
            refused: Vec::new(),
            apart: Vec::new(),
            doubts: Vec::new(),
            base_stubs: base_stubs.collect(),
            base_slots: if is_linked {
                slots(c.base)
            } else {
                HashMap::new()
            },
        }
    }

    /// Notes why the patch cannot be made; the planner goes on to find all reasons.
    pub(crate) fn refuse(&mut self, rule: Rule, function: EntityId, text: impl Into<String>) {
        let name = demangle(self.c.fixed.entity(function).name());
        self.refused.push(Finding::refuse(rule, name, text));
    }

    pub(crate) fn add_section(&mut self, section: Section) -> u32 {
        self.contents.sections.push(section);
        index(self.contents.sections.len() - 1)
    }

    pub(crate) fn add_symbol(&mut self, name: impl Into<String>, place: SymbolPlace) -> u32 {
        self.contents.symbols.push(Symbol {
            name: name.into(),
            place,
        });
        index(self.contents.symbols.len() - 1)
    }

    /// The symbol of a function that is copied; made when it is first asked for.
    pub(crate) fn copied(&mut self, function: EntityId) -> u32 {
        if let Some(symbol) = self.placed.get(&Placed::Copy(function)) {
            return *symbol;
        }
        let main = self.cold.get(&function).copied().unwrap_or(function);
        let parts = self.hot.get(&main).cloned().unwrap_or_else(|| {
            let parts = self.c.fixed_parts(main);
            self.cold
                .extend(parts.cold.iter().map(|part| (*part, main)));
            self.hot.insert(main, parts.clone());
            self.waiting.push_back(parts.clone());
            parts
        });
        for part in parts.ids() {
            let entity = self.c.fixed.entity(part);
            let section = self.c.fixed.section_at(entity.addr);
            let section = section.map_or("", |section| &section.name);
            let section = self.add_section(Section {
                name: annexes::section_name(section, entity.name()),
                kind: SectionKind::Text,
                align: 16,
                bytes: Vec::new(),
                relocations: Vec::new(),
            });
            let place = SymbolPlace::Patch {
                section,
                offset: 0,
                size: entity.size,
            };
            let symbol = self.add_symbol(entity.name(), place);
            self.placed.insert(Placed::Copy(part), symbol);
        }
        self.placed[&Placed::Copy(function)]
    }

    pub(crate) fn copy_functions(&mut self) {
        let mut done = HashSet::new();
        while let Some(parts) = self.waiting.pop_front() {
            if done.insert(parts.main) {
                self.copied(parts.main);
                self.copy_code(&parts);
            }
        }
    }
}

/// Every slot of an image by what it holds: those that the loader fills, and those
/// that the linker filled for good.
fn slots(image: &Image) -> HashMap<Slot, LinkAddr> {
    let got = image
        .sections
        .iter()
        .filter(|section| section.kind == invivo_image::SectionKind::Got);
    let filled = got.flat_map(|section| {
        let places = (section.range.start.0..section.range.end.0)
            .step_by(8)
            .map(LinkAddr);
        places.filter_map(|at| match image.place(at) {
            Place::Slot(slot) => Some((slot, at)),
            _ => None,
        })
    });
    filled
        .chain(image.slots.iter().map(|(at, slot)| (slot.clone(), *at)))
        .collect()
}

pub(crate) fn index(value: usize) -> u32 {
    u32::try_from(value).expect("a patch has fewer than 2^32 parts: the images are smaller")
}
