//! Object files that are not linked, read into the same view as a linked program.
//!
//! They are laid out at addresses that are made up, as a linker would do it, so that all that
//! looks at images serves for them, too. What an address means is known better than in a
//! linked program: each comes from a relocation. What the files do not define, the rest of
//! the program has; such a thing is an entity without contents.

mod annex;
mod file;
mod layout;
mod relocate;
mod set;
mod symbols;
mod written;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use annex::{Annex, AnnexField, is_annex};
use file::Object;
use layout::{BASE, Layout};
pub(crate) use layout::{GAP, TEXTS};
use relocate::Linked;
use set::{Externals, Set};

use crate::model::{Image, Link, Machine, Section, SectionKind};
use crate::{ImageError, LinkAddr, UnwindTable};

/// The name of the section that holds what the files only refer to.
pub const EXTERNAL: &str = ".external";

/// An object file.
#[derive(Clone, Debug)]
pub struct ObjectFile {
    /// Its path in the folder of its set: the same for the base and for the fixed build.
    pub label: String,
    /// All of it.
    pub bytes: Arc<[u8]>,
}

impl Image {
    /// Reads the object files of two builds of one program, or of the part of it that the fix
    /// concerns, into one image for each build.
    ///
    /// # Errors
    /// When a file is no object file for x86-64, is broken, or contradicts another one; the
    /// message names it.
    pub fn of_objects(
        base: &[ObjectFile],
        fixed: &[ObjectFile],
    ) -> Result<(Image, Image), ImageError> {
        let (one, other) = (read(base)?, read(fixed)?);
        let (one, other) = (Set::new(&one)?, Set::new(&other)?);
        let externals = joint(&one, &other);
        Ok((link(&one, &externals)?, link(&other, &externals)?))
    }
}

fn read(files: &[ObjectFile]) -> Result<Vec<Object<'_>>, ImageError> {
    let mut labels = BTreeSet::new();
    if let Some(twice) = files.iter().find(|file| !labels.insert(&file.label)) {
        let text = format!("the object file {} is there twice", twice.label);
        return Err(ImageError::Inconsistent(text));
    }
    let objects: Result<Vec<_>, _> = files.iter().map(Object::parse).collect();
    objects.map(without_joined)
}

/// Leaves out what `ld -r` made of other files that are there, too (`built_in.o`).
fn without_joined(mut objects: Vec<Object<'_>>) -> Vec<Object<'_>> {
    let alone = objects.iter().filter(|object| !object.is_joined());
    let alone = alone.flat_map(|object| object.definitions().cloned());
    let alone: BTreeSet<Arc<str>> = alone.collect();
    objects.retain(|object| {
        let mut own = object.definitions().peekable();
        !object.is_joined() || own.peek().is_none() || own.any(|name| !alone.contains(name))
    });
    objects
}

/// What either set wants and does not have: both get the same, so that what only one refers to
/// has a counterpart.
fn joint(base: &Set<'_, '_>, fixed: &Set<'_, '_>) -> Externals {
    let mut all = base.externals();
    for (name, external) in fixed.externals() {
        let known = all.entry(name).or_default();
        known.called |= external.called;
        known.reach = known.reach.max(external.reach);
    }
    all
}

fn link(set: &Set<'_, '_>, externals: &Externals) -> Result<Image, ImageError> {
    let own = set.names();
    let wanted = externals.iter().filter(|(name, _)| !own.contains(name));
    let wanted: Externals = wanted.map(|(name, what)| (name.clone(), *what)).collect();
    let layout = Layout::new(set, &wanted)?;
    let mut image = empty();
    image.tls_block = layout.tls_block;
    image.sections = layout.sections.clone();
    let mut linked = Linked::new(set, layout);
    linked.relocate(&mut image)?;
    push_slots(&mut image, &mut linked);
    let names = symbols::read(&mut image, &linked, &wanted)?;
    written::write(&mut image, &mut linked.layout);
    annex::read(&mut image, &linked, names)?;
    image.unwind = UnwindTable::parse(&image)?;
    Ok(image)
}

/// Adds the slots that code asked for.
fn push_slots(image: &mut Image, linked: &mut Linked<'_, '_, '_>) {
    let (table, slots) = linked.table();
    let places = (0u64..).map(|number| LinkAddr(table.0 + 8 * number));
    image.slots.extend(places.zip(slots.iter().cloned()));
    let (count, size) = (slots.len(), 8 * slots.len() as u64);
    let file = &mut linked.layout.file;
    let start = file.len();
    file.resize(start + 8 * count, 0);
    if count > 0 {
        image.sections.push(Section {
            name: ".got".to_owned(),
            range: table..LinkAddr(table.0 + size),
            kind: SectionKind::Got,
            bytes: start..file.len(),
        });
    }
}

fn empty() -> Image {
    Image {
        file: Arc::from(Vec::new()),
        debug_file: None,
        supplementary_file: None,
        split_files: Vec::new(),
        machine: Machine::X86_64,
        link: Link::Relocatable,
        build_id: None,
        base: LinkAddr(BASE),
        segments: Vec::new(),
        sections: Vec::new(),
        entities: Vec::new(),
        starts: Vec::new(),
        starts_index: Default::default(),
        thread_locals: Vec::new(),
        tls_block: 0,
        relative_words: Default::default(),
        handling: Vec::new(),
        edges: Default::default(),
        slots: Default::default(),
        stubs: Default::default(),
        lazy: Default::default(),
        code_relocations: Default::default(),
        relocations_kept: true,
        needed: Vec::new(),
        soname: None,
        imports: Default::default(),
        is_library: false,
        unwind: UnwindTable::default(),
        guard_flags: 0,
        has_symbols: true,
        names_locals: true,
        pdb: None,
        annexes: Vec::new(),
    }
}
