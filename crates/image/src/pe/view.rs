//! A Windows image and its PDB file as the view that comparisons work on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::class_tables::ClassTables;
use super::headers::directory;
use super::pdb::PdbFacts;
use super::{BaseRelocationKind, ImportedSymbol, Pdb, PdbSymbol, PeError, PeImage, PeMachine};
use crate::elf::symbols::gather;
use crate::model::{
    Binding, BuildId, Image, Import, Link, Machine, Section, SectionKind, Segment, Slot, Symbol,
    SymbolKind,
};
use crate::{LinkAddr, Rva, UnwindTable};

/// What the compiler calls the pointer through which a patch reaches a variable, on x86-64 and ARM64.
const REFERENCE: &str = "__ref_";
/// The same on x86, where linkers know all names of C with an underscore before them.
const REFERENCE_X86: &str = "___ref_";

/// The name of the variable to which a pointer leads that the compiler made for patches; `None` for
/// any other name. Both are names of the compiler, without what linkers add.
#[must_use]
pub fn referenced(machine: Machine, pointer: &str) -> Option<&str> {
    pointer.strip_prefix(match machine {
        Machine::X86_64 | Machine::Aarch64 => REFERENCE,
        Machine::X86 => REFERENCE_X86,
    })
}

impl Image {
    /// The view on a Windows image: what its PDB file names, what the loader writes.
    ///
    /// What only the loader and debuggers read (export and debug directories, exception table,
    /// relocations, resources) is left out. Unwind data are left out too: code never runs with those
    /// of another image.
    ///
    /// # Errors
    /// When the PDB file belongs to another build, when they contradict each other, or when the image has
    /// no base relocations, or code for two machines.
    pub fn from_pe(pe: &PeImage, pdb: &Pdb) -> Result<Image, PeError> {
        let (machine, link) = match pe.machine {
            PeMachine::Amd64 => (Machine::X86_64, Link::PositionIndependent),
            PeMachine::I386 => (Machine::X86, Link::Rebased),
            PeMachine::Arm64 => (Machine::Aarch64, Link::PositionIndependent),
        };
        pdb.check(pe)?;
        check_hybrid(pe)?;
        let sections = sections(pe)?;
        let rebased = link == Link::Rebased;
        let (slots, code_relocations) = slots(pe, rebased)?;
        let identity = [pe.time_stamp.to_be_bytes(), pe.checksum.to_be_bytes()].concat();
        let mut image = Image {
            file: Arc::clone(&pe.file),
            debug_file: None,
            supplementary_file: None,
            split_files: Vec::new(),
            machine,
            link,
            build_id: Some(BuildId(identity)),
            base: LinkAddr(pe.image_base),
            segments: segments(pe, &sections),
            sections,
            entities: Vec::new(),
            starts: Vec::new(),
            starts_index: Default::default(),
            thread_locals: Vec::new(),
            tls_block: 0,
            relative_words: BTreeMap::new(),
            handling: super::handling::read(pe)?,
            edges: BTreeMap::new(),
            slots,
            stubs: BTreeMap::new(),
            lazy: Default::default(),
            code_relocations,
            relocations_kept: rebased,
            soname: None,
            needed: pe
                .imports
                .iter()
                .map(|library| library.name.clone())
                .collect(),
            imports: imports(pe),
            is_library: pe.is_library,
            unwind: UnwindTable::default(),
            guard_flags: pe.guard_flags(),
            has_symbols: true,
            names_locals: pdb.symbols.iter().any(|s| !s.is_function && !s.is_global),
            pdb: None,
            annexes: Vec::new(),
        };
        let (symbols, relative) = Symbols::of(pe, pdb, &image.slots);
        image.relative_words = relative;
        image.pdb = Some(Arc::new(symbols.facts(pdb)));
        image.thread_locals = symbols.thread_locals(pdb);
        gather(&mut image, symbols.all.into_values().flatten());
        Ok(image)
    }
}

fn address(pe: &PeImage, at: Rva) -> LinkAddr {
    LinkAddr(pe.image_base.wrapping_add(at.0))
}

/// Ranges that only the loader and debuggers read.
fn loaders_own(pe: &PeImage) -> Vec<Range<u64>> {
    let kinds = [
        directory::EXPORT,
        directory::IMPORT,
        directory::EXCEPTION,
        directory::BASE_RELOCATION,
        directory::DEBUG,
        directory::DELAY_IMPORT,
        // Resources.
        2,
    ];
    let directories = kinds.into_iter().filter_map(|kind| pe.directory(kind));
    let mut ranges: Vec<Range<u64>> = directories
        .map(|found| found.at.0..found.at.0 + u64::from(found.size))
        .collect();
    let debug = pe.debug.iter().filter(|entry| entry.at.0 != 0);
    ranges.extend(debug.map(|entry| entry.at.0..entry.at.0 + u64::from(entry.size)));
    ranges
}

/// What threads' own variables begin with: in nobody's reach but the loader's. Without a C runtime
/// no directory names it, and its section does.
fn templates(pe: &PeImage) -> Vec<Range<u64>> {
    let named = pe.tls.iter().map(|tls| &tls.template);
    let sections = pe.sections.iter().filter(|section| section.name == ".tls");
    let mut ranges: Vec<Range<u64>> = named
        .chain(sections.map(|section| &section.range))
        .map(|range| range.start.0..range.end.0)
        .collect();
    ranges.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
    ranges
}

/// Slots that the loader fills with imported addresses.
fn import_slots(pe: &PeImage) -> Vec<Range<u64>> {
    let thunks = pe.imports.iter().flat_map(|library| &library.thunks);
    let size = u64::from(pe.machine.pointer_size());
    thunks
        .map(|thunk| thunk.slot.0..thunk.slot.0 + size)
        .collect()
}

/// The sections, cut where something in them has another owner.
fn sections(pe: &PeImage) -> Result<Vec<Section>, PeError> {
    let mut cuts: Vec<(Range<u64>, Option<SectionKind>)> = Vec::new();
    cuts.extend(loaders_own(pe).into_iter().map(|range| (range, None)));
    let slots = import_slots(pe).into_iter();
    cuts.extend(slots.map(|range| (range, Some(SectionKind::Got))));
    // What threads' own variables begin with is in nobody's reach but the loader's.
    let template = pe
        .tls
        .iter()
        .map(|tls| tls.template.start.0..tls.template.end.0);
    cuts.extend(template.map(|range| (range, Some(SectionKind::Tls))));
    cuts.retain(|(range, _)| range.start < range.end);
    cuts.sort_by_key(|(range, _)| (range.start, range.end));
    let mut found: Vec<Section> = Vec::new();
    for section in &pe.sections {
        let kind = if section.is_executable() {
            SectionKind::Text
        } else if section.is_writable() {
            SectionKind::Data
        } else {
            SectionKind::ReadOnly
        };
        let (mut at, end) = (section.range.start.0, section.range.end.0);
        let mut add = |range: Range<u64>, kind: SectionKind| {
            piece(pe, section, range, kind, &mut found);
        };
        for (range, own) in &cuts {
            if range.end <= at || range.start >= end {
                continue;
            }
            add(at..range.start.max(at), kind);
            let own_start = range.start.max(at);
            at = range.end.min(end);
            if let Some(own) = own {
                add(own_start..at, *own);
            }
        }
        add(at..end, kind);
    }
    Ok(found)
}

/// A part of a section: what the file has of it, and zeros behind.
fn piece(
    pe: &PeImage,
    section: &super::PeSection,
    range: Range<u64>,
    kind: SectionKind,
    found: &mut Vec<Section>,
) {
    let start = section.range.start.0;
    let held = start + section.file.len() as u64;
    let mut add = |range: Range<u64>, in_file: bool| {
        if range.start >= range.end {
            return;
        }
        let place = |at: u64| section.file.start + usize::try_from(at - start).unwrap_or(0);
        let bytes = if in_file {
            place(range.start)..place(range.end)
        } else {
            0..0
        };
        found.push(Section {
            name: section.name.clone(),
            range: address(pe, Rva(range.start))..address(pe, Rva(range.end)),
            kind,
            bytes,
        });
    };
    add(range.start..range.end.min(held), true);
    add(range.start.max(held)..range.end, false);
}

fn segments(pe: &PeImage, sections: &[Section]) -> Vec<Segment> {
    let segments = sections.iter().map(|section| {
        let of = pe.section_at(Rva(section.range.start.0.wrapping_sub(pe.image_base)));
        Segment {
            range: section.range.clone(),
            file: section.bytes.start as u64..section.bytes.end as u64,
            executable: of.is_some_and(|of| of.is_executable()),
            writable: of.is_some_and(|of| of.is_writable()),
        }
    });
    segments.collect()
}

fn imported(library: &str, symbol: &ImportedSymbol) -> Arc<str> {
    match symbol {
        ImportedSymbol::Name(name) => format!("{library}!{name}").into(),
        ImportedSymbol::Ordinal(number) => format!("{library}!#{number}").into(),
    }
}

/// Addresses in data, and those in code.
type Addresses = (BTreeMap<LinkAddr, Slot>, BTreeMap<LinkAddr, i64>);

/// What the loader writes. Where addresses in code are absolute (`rebased`), they are told from
/// those in data: code is read for what it refers to.
fn slots(pe: &PeImage, rebased: bool) -> Result<Addresses, PeError> {
    let (mut slots, mut code) = (BTreeMap::new(), BTreeMap::new());
    if pe.is_fixed || rebased && pe.relocations.is_empty() {
        let text = format!(
            "an image for {} without base relocations: nothing tells which of its numbers are \
             addresses; link it without /fixed",
            pe.machine.name()
        );
        return Err(PeError::Unsupported(text));
    }
    if rebased {
        check_rebased(pe)?;
    }
    for relocation in &pe.relocations {
        let word = || {
            let value = pe.array(relocation.at).map(u32::from_le_bytes);
            value.ok_or_else(|| super::error::outside("an address", relocation.at))
        };
        let section = pe.section_at(relocation.at);
        if rebased && section.is_some_and(|section| section.is_executable()) {
            code.insert(address(pe, relocation.at), word()?.into());
            continue;
        }
        let slot = match relocation.kind {
            BaseRelocationKind::Address64 => {
                let value = pe.array(relocation.at).map(u64::from_le_bytes);
                let value =
                    value.ok_or_else(|| super::error::outside("a pointer", relocation.at))?;
                Slot::Pointer(LinkAddr(value))
            }
            BaseRelocationKind::Address32 if rebased => Slot::Pointer(LinkAddr(word()?.into())),
            BaseRelocationKind::Address32 => Slot::Unknown(3),
            BaseRelocationKind::Other(kind) => Slot::Unknown(kind.into()),
        };
        slots.insert(address(pe, relocation.at), slot);
    }
    for library in &pe.imports {
        for thunk in &library.thunks {
            let slot = Slot::Import(imported(&library.name, &thunk.symbol), 0);
            slots.insert(address(pe, thunk.slot), slot);
        }
    }
    Ok((slots, code))
}

/// Refuses code that is not all for one machine (ARM64EC, ARM64X, CHPE).
fn check_hybrid(pe: &PeImage) -> Result<(), PeError> {
    let hybrid = pe.load_config.is_some_and(|config| config.chpe != 0);
    if hybrid && pe.machine != PeMachine::I386 {
        let text = "an image with code for two machines (ARM64EC or ARM64X)";
        return Err(PeError::Unsupported(text.to_owned()));
    }
    Ok(())
}

/// Checks that every address of an image for x86 is known by its relocation.
fn check_rebased(pe: &PeImage) -> Result<(), PeError> {
    let mut relocations = pe.relocations.iter();
    if let Some(odd) = relocations.find(|one| one.kind != BaseRelocationKind::Address32) {
        return Err(PeError::Unsupported(format!(
            "the base relocation at {}, which is not HIGHLOW",
            odd.at
        )));
    }
    let end = pe.image_base.checked_add(pe.size.into());
    if end.is_none_or(|end| end > 1 << 32) {
        let text = "an image that ends behind the last 32-bit address";
        return Err(PeError::Inconsistent(text.to_owned()));
    }
    Ok(())
}

fn imports(pe: &PeImage) -> BTreeSet<Import> {
    let all = pe.imports.iter().flat_map(|library| {
        library.thunks.iter().map(|thunk| Import {
            name: imported(&library.name, &thunk.symbol),
            version: None,
            copied: false,
        })
    });
    all.collect()
}

/// The symbols of a PDB file, by place.
struct Symbols<'p> {
    pe: &'p PeImage,
    all: BTreeMap<LinkAddr, Vec<Symbol>>,
}

impl<'p> Symbols<'p> {
    /// And the words of tables without a size of their own that hold places.
    fn of(
        pe: &'p PeImage,
        pdb: &Pdb,
        slots: &BTreeMap<LinkAddr, Slot>,
    ) -> (Symbols<'p>, BTreeMap<LinkAddr, LinkAddr>) {
        let mut symbols = Symbols {
            pe,
            all: BTreeMap::new(),
        };
        let exported: BTreeSet<LinkAddr> = pe
            .exports
            .iter()
            .filter_map(|export| Some(address(pe, export.at?)))
            .collect();
        let mut publics: HashMap<LinkAddr, Vec<&PdbSymbol>> = HashMap::new();
        for public in &pdb.publics {
            if let Some(at) = symbols.place(public) {
                publics.entry(at).or_default().push(public);
            }
        }
        for symbol in &pdb.symbols {
            let Some(at) = symbols.place(symbol) else {
                continue;
            };
            // A global name is the linker's, which tells overloaded functions apart.
            let names = publics.get(&at).into_iter().flatten();
            let mut names: Vec<&Arc<str>> = names
                .filter(|public| public.is_function == symbol.is_function)
                .map(|public| &public.name)
                .collect();
            let is_global = !names.is_empty() || symbol.is_global;
            if names.is_empty() {
                names.push(&symbol.name);
            }
            for name in names {
                symbols.add(at, name, symbol, is_global, exported.contains(&at));
            }
        }
        let named = publics.keys().chain(symbols.all.keys()).copied();
        let mut tables = ClassTables::of(pe, slots, named);
        symbols.add_publics(&publics, &exported, &mut tables);
        (symbols, tables.relative)
    }

    /// Places that have nothing but a linker's name.
    fn add_publics(
        &mut self,
        publics: &HashMap<LinkAddr, Vec<&PdbSymbol>>,
        exported: &BTreeSet<LinkAddr>,
        tables: &mut ClassTables<'_>,
    ) {
        let functions: HashMap<LinkAddr, u64> = self
            .pe
            .functions
            .iter()
            .map(|function| {
                let size = function.code.end.0 - function.code.start.0;
                (address(self.pe, function.code.start), size)
            })
            .collect();
        // What the loader fills is known by what it is filled with.
        let thunks = self.pe.imports.iter().flat_map(|library| &library.thunks);
        let slots: BTreeSet<LinkAddr> = thunks.map(|thunk| address(self.pe, thunk.slot)).collect();
        let mut bare: Vec<(LinkAddr, &PdbSymbol)> = publics
            .iter()
            .filter(|(at, _)| !self.all.contains_key(at) && !slots.contains(at))
            .flat_map(|(at, publics)| publics.iter().map(|public| (*at, *public)))
            .filter(|(_, public)| !is_label(&public.name))
            .collect();
        bare.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
        for (at, public) in bare {
            let mut public = public.clone();
            public.size = match functions.get(&at) {
                Some(size) => *size,
                None if referenced(self.machine(), &public.name).is_some() => {
                    self.pe.machine.pointer_size().into()
                }
                None => tables.size(&public.name, at).unwrap_or(0),
            };
            self.add(at, &public.name, &public, true, exported.contains(&at));
        }
    }

    fn machine(&self) -> Machine {
        match self.pe.machine {
            PeMachine::I386 => Machine::X86,
            PeMachine::Amd64 => Machine::X86_64,
            PeMachine::Arm64 => Machine::Aarch64,
        }
    }

    /// Where it is, if the image has such a place.
    fn place(&self, symbol: &PdbSymbol) -> Option<LinkAddr> {
        let index = usize::from(symbol.section).checked_sub(1)?;
        let section = self.pe.sections.get(index)?;
        let at = section.range.start.checked_add(symbol.offset.into())?;
        let inside = at < section.range.end && section.range.end.0 - at.0 >= symbol.size;
        let of_threads = templates(self.pe)
            .iter()
            .any(|template| template.contains(&at.0));
        (inside && !of_threads).then(|| address(self.pe, at))
    }

    fn add(
        &mut self,
        at: LinkAddr,
        name: &Arc<str>,
        of: &PdbSymbol,
        is_global: bool,
        exported: bool,
    ) {
        let named = self.all.entry(at).or_default();
        if named.iter().any(|known| known.name == *name) {
            return;
        }
        named.push(Symbol {
            name: Arc::clone(name),
            addr: at,
            size: of.size,
            kind: if of.is_function {
                SymbolKind::Function
            } else {
                SymbolKind::Object
            },
            binding: if is_global {
                Binding::Global
            } else {
                Binding::Local
            },
            file: of.module.clone().filter(|_| !is_global),
            exported,
            weak: false,
        });
    }

    fn facts(&self, pdb: &Pdb) -> PdbFacts {
        let functions = pdb.symbols.iter().filter_map(|symbol| {
            let prototype = symbol.prototype.clone()?;
            Some((self.place(symbol)?, (symbol.name.clone(), prototype)))
        });
        let inlined = pdb
            .symbols
            .iter()
            .filter(|symbol| !symbol.inlined.is_empty());
        let inlined = inlined.filter_map(|one| Some((self.place(one)?, one.inlined.clone())));
        PdbFacts {
            types: Arc::clone(&pdb.types),
            inlined: inlined.collect(),
            functions: functions.collect(),
            hot_patch_functions: pdb.hot_patch_functions.clone(),
            compilers: pdb.compilers.clone(),
        }
    }

    fn thread_locals(&self, pdb: &Pdb) -> Vec<Symbol> {
        let symbols = pdb.thread_locals.iter().map(|symbol| Symbol {
            name: Arc::clone(&symbol.name),
            addr: LinkAddr(symbol.offset.into()),
            size: symbol.size,
            kind: SymbolKind::ThreadLocal,
            binding: if symbol.is_global {
                Binding::Global
            } else {
                Binding::Local
            },
            file: symbol.module.clone().filter(|_| !symbol.is_global),
            exported: false,
            weak: false,
        });
        let mut symbols: Vec<Symbol> = symbols.collect();
        symbols.sort_by(|a, b| (a.addr, &a.name).cmp(&(b.addr, &b.name)));
        symbols.dedup_by(|a, b| a.addr == b.addr && a.name == b.name);
        symbols
    }
}

/// Names of constants that say nothing but their value, and second names of the compiler's pointers.
fn is_label(name: &str) -> bool {
    ["??_C@", "__xmm@", "__ymm@", "__real@", ".weak."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}
