//! From a patch that was planned from object files to a payload: each place of the base gets the
//! name or the address that it has in the hypervisor which runs.

use std::collections::BTreeMap;

use invivo_compare::{Comparison, Finding, Rule};
use invivo_image::{BuildId, EntityId, EntityKind, Image, demangle, is_annex};
use invivo_patch as patch;

use super::function::StructureVersion;
use super::hypervisor::Hypervisor;
use super::model::{
    Access, Contents, Payload, Reference, Relocation, RelocationKind, Section, Symbol, SymbolPlace,
};

mod functions;
mod hold;
mod names;

/// What a payload is bound to.
#[derive(Debug)]
pub struct Bound<'h> {
    /// The hypervisor that runs. Without it names are all that is known: nothing is held against
    /// its code, and what is static must have been compiled under the name that Xen gives it.
    pub hypervisor: Option<&'h Hypervisor<'h>>,
    /// The structure that this Xen knows.
    pub version: StructureVersion,
    /// The build id of what is applied last: of Xen, or of a payload.
    pub depends: BuildId,
    /// The build id of Xen.
    pub xen_depends: BuildId,
    /// True if what leads to replaced functions is to be led to the new code
    /// ([`super::splice`]): then functions without room for a jump are taken, too.
    pub spliced: bool,
}

/// A payload, and what a person should know of it.
#[derive(Debug)]
pub struct Binding {
    /// The payload.
    pub payload: Payload,
    /// Notes.
    pub findings: Vec<Finding>,
}

/// Binds `patch`, which was planned from the comparison `c` of object files.
///
/// # Errors
/// All that is in the way: what has no name or another address in the hypervisor, code that
/// the base's object files do not have as it has, functions that it cannot patch.
pub fn bind(
    c: &Comparison<'_>,
    patch: &patch::Patch,
    to: &Bound<'_>,
) -> Result<Binding, Vec<Finding>> {
    let mut binder = Binder {
        base: c.base,
        hypervisor: to.hypervisor,
        spliced: to.spliced,
        known: BTreeMap::new(),
        findings: Vec::new(),
        notes: Vec::new(),
        payload: Payload {
            version: to.version,
            functions: Vec::new(),
            hooks: Vec::new(),
            sections: Vec::new(),
            symbols: Vec::new(),
            depends: to.depends.clone(),
            xen_depends: (to.version == StructureVersion::V2).then(|| to.xen_depends.clone()),
            modinfo: Vec::new(),
        },
        anchor: None,
        symbols: Vec::new(),
    };
    if let Some(hypervisor) = to.hypervisor {
        binder.known = hold::hold(c, patch, hypervisor, &mut binder.findings);
    }
    binder.place(patch);
    binder.functions(patch);
    if binder.findings.is_empty() {
        return Ok(Binding {
            payload: binder.payload,
            findings: binder.notes,
        });
    }
    Err(binder.findings)
}

struct Binder<'b> {
    base: &'b Image,
    hypervisor: Option<&'b Hypervisor<'b>>,
    spliced: bool,
    /// Where things of the base are in the hypervisor, as the code there says.
    known: BTreeMap<EntityId, u64>,
    findings: Vec<Finding>,
    notes: Vec<Finding>,
    payload: Payload,
    /// Something of the hypervisor that is found by its name: others by their distance to it.
    anchor: Option<(u32, u64)>,
    /// The symbol of the payload for each one of the patch, and what is added to it.
    symbols: Vec<Option<Reference>>,
}

impl Binder<'_> {
    fn refuse(&mut self, rule: Rule, subject: &str, text: impl Into<String>) {
        self.findings
            .push(Finding::refuse(rule, demangle(subject), text));
    }

    /// Sections, symbols, relocations.
    fn place(&mut self, patch: &patch::Patch) {
        let mut places = Vec::new();
        for section in &patch.contents.sections {
            places.push(self.add_section(section));
        }
        for symbol in &patch.contents.symbols {
            let bound = match &symbol.place {
                patch::SymbolPlace::Patch {
                    section,
                    offset,
                    size,
                } => {
                    let place = places.get(*section as usize).copied().flatten();
                    place.map(|(section, start)| {
                        let (offset, size) = (start + offset, *size);
                        let place = SymbolPlace::Section {
                            section,
                            offset,
                            size,
                        };
                        self.add_symbol("", place)
                    })
                }
                patch::SymbolPlace::Base(at) => self.bind(&symbol.name, *at),
                patch::SymbolPlace::Import(_) => {
                    self.refuse(
                        Rule::Binding,
                        &symbol.name,
                        "is to be looked up in a library",
                    );
                    None
                }
            };
            self.symbols.push(bound);
        }
        for (section, place) in patch.contents.sections.iter().zip(places) {
            if let Some((number, start)) = place {
                self.relocate(section, number, start);
            }
        }
    }

    /// Adds a section of the patch; where it is, and where it begins there. None for unwind data,
    /// which Xen has not.
    fn add_section(&mut self, section: &patch::Section) -> Option<(u32, u64)> {
        let access = match section.kind {
            patch::SectionKind::Text => Access::Code,
            patch::SectionKind::ReadOnly => Access::ReadOnly,
            patch::SectionKind::Data => Access::Data,
            patch::SectionKind::Unwind => return None,
        };
        if access == Access::Data {
            self.notes.push(Finding::note(
                Rule::Static,
                section.name.trim_start_matches(".data."),
                "is a new variable: Xen does not apply such a payload again once it was reverted",
            ));
        }
        let known = self
            .payload
            .sections
            .iter()
            .position(|s| s.name == section.name);
        if let Some(number) = known {
            let whole = &mut self.payload.sections[number];
            let Contents::Bytes(bytes) = &mut whole.contents else {
                return None;
            };
            let align = usize::try_from(section.align).ok()?;
            bytes.resize(bytes.len().checked_next_multiple_of(align)?, 0);
            let start = bytes.len() as u64;
            bytes.extend_from_slice(&section.bytes);
            whole.align = whole.align.max(section.align);
            return Some((u32::try_from(number).ok()?, start));
        }
        let zeros = access == Access::Data
            && section.relocations.is_empty()
            && section.bytes.iter().all(|byte| *byte == 0);
        self.payload.sections.push(Section {
            name: section.name.clone(),
            access,
            // Only entries of tables lie side by side with nothing between.
            align: if is_annex(&section.name) {
                4
            } else {
                section.align
            },
            contents: if zeros {
                Contents::Zeros(section.bytes.len() as u64)
            } else {
                Contents::Bytes(section.bytes.clone())
            },
            relocations: Vec::new(),
        });
        Some((u32::try_from(self.payload.sections.len() - 1).ok()?, 0))
    }

    fn add_symbol(&mut self, name: &str, place: SymbolPlace) -> Reference {
        self.payload.symbols.push(Symbol {
            name: name.to_owned(),
            place,
        });
        let symbol = u32::try_from(self.payload.symbols.len() - 1).unwrap_or(u32::MAX);
        Reference { symbol, addend: 0 }
    }

    fn relocate(&mut self, section: &patch::Section, number: u32, start: u64) {
        for relocation in &section.relocations {
            let kind = match relocation.kind {
                patch::RelocationKind::Relative32 => RelocationKind::Relative32,
                patch::RelocationKind::Absolute64 => RelocationKind::Absolute64,
                patch::RelocationKind::Absolute32 | patch::RelocationKind::Absolute32Signed => {
                    let text = "has an address of 32 bits, which Xen does not fill in; compile it \
                                with -fPIC";
                    self.refuse(Rule::Binding, &section.name, text);
                    continue;
                }
            };
            // What is not bound was refused.
            let bound = self
                .symbols
                .get(relocation.symbol as usize)
                .copied()
                .flatten();
            let Some(bound) = bound else { continue };
            self.payload.sections[number as usize]
                .relocations
                .push(Relocation {
                    offset: start + relocation.offset,
                    kind,
                    to: Reference {
                        symbol: bound.symbol,
                        addend: bound.addend + relocation.addend,
                    },
                });
        }
    }
}

/// True for a function with a body in the object files.
fn is_function(image: &Image, id: EntityId) -> bool {
    let entity = image.entity(id);
    entity.kind == EntityKind::Function && entity.size > 0
}
