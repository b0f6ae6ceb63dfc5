//! The view itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::objects::{EXTERNAL, TEXTS};
use crate::pe::{Handling, PdbFacts, PeError, PeImage};
use crate::{AddressIndex, Annex, LinkAddr, Rva, SourceFunction, UnwindTable};

/// The instruction set of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// AMD64, Intel 64.
    X86_64,
    /// i386, 32-bit; Windows images only.
    X86,
    /// ARM64; Windows images only.
    Aarch64,
}

impl Machine {
    /// How many bits an address has, 32 or 64.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Machine::X86_64 | Machine::Aarch64 => 64,
            Machine::X86 => 32,
        }
    }

    /// What it is called, for a person.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Machine::X86_64 => "x86-64",
            Machine::X86 => "x86",
            Machine::Aarch64 => "ARM64",
        }
    }
}

/// `NT_GNU_BUILD_ID`: the name that the linker gave to one exact build.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(pub Vec<u8>);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

/// How an image was linked; decides what an address inside an instruction may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// `ET_EXEC`: fixed addresses, 32-bit absolute operands are usual.
    Fixed,
    /// `ET_DYN`: a program or library that runs at any address.
    PositionIndependent,
    /// A Windows image for x86: addresses are absolute, and the loader adds to each of them how far
    /// the image is from its own base. So each is known from its base relocation, in code and in
    /// data, and what has none is a number.
    Rebased,
    /// `ET_REL`, not linked at all: every reference is known from its relocation, and addresses
    /// are made up.
    Relocatable,
}

/// What a section holds once it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// Machine code.
    Text,
    /// Constants; also what the loader write-protects after relocation (`.data.rel.ro`).
    ReadOnly,
    /// What the linker makes for the loader: `.got`, `.got.plt`, `.dynamic`.
    Got,
    /// Variables.
    Data,
    /// The image of each thread's own variables.
    Tls,
}

/// A section that is part of the running image.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name, such as `.rodata`.
    pub name: String,
    /// Where it is linked to.
    pub range: Range<LinkAddr>,
    /// What it holds.
    pub kind: SectionKind,
    /// Its bytes in the file; empty for `.bss`.
    pub(crate) bytes: Range<usize>,
}

impl Section {
    /// True if only the loader, the unwinder and debuggers read it: tables that the linker
    /// makes, notes. BOLT keeps the former ones under another name.
    #[must_use]
    pub fn belongs_to_loader(&self) -> bool {
        let name = self.name.strip_prefix(".bolt.org").unwrap_or(&self.name);
        let starts = [
            ".dyn",
            ".gnu",
            ".rel",
            ".hash",
            ".interp",
            ".note",
            ".eh_frame",
            ".gcc_except_table",
        ];
        starts.iter().any(|start| name.starts_with(start))
    }
}

/// A `PT_LOAD` entry.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Where it is linked to.
    pub range: Range<LinkAddr>,
    /// Its bytes in the file.
    pub file: Range<u64>,
    /// `PF_X`.
    pub executable: bool,
    /// `PF_W`.
    pub writable: bool,
}

/// Who sees a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Binding {
    /// Everybody (also weak and unique symbols).
    Global,
    /// Its own source file only.
    Local,
}

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SymbolKind {
    /// `STT_FUNC`.
    Function,
    /// `STT_GNU_IFUNC`: a function that chooses a function when the program is loaded.
    Resolver,
    /// `STT_OBJECT`, and untyped symbols in data.
    Object,
    /// `STT_TLS`: the value is an offset into the thread's block.
    ThreadLocal,
}

/// A named place, as the symbol table has it.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// As written in the file, mangled; without its `@VERSION`.
    pub name: Arc<str>,
    /// Where it is; for thread-locals an offset into the block.
    pub addr: LinkAddr,
    /// Bytes, 0 if the file does not say.
    pub size: u64,
    /// What it names.
    pub kind: SymbolKind,
    /// Who sees it.
    pub binding: Binding,
    /// `STT_FILE` of a local symbol.
    pub file: Option<Arc<str>>,
    /// True if other images can bind to it (it is a dynamic symbol).
    pub exported: bool,
    /// True if another image may have its own copy, which serves as well (weak and unique
    /// symbols: inline functions of C++, say).
    pub weak: bool,
}

/// Something of another image that this one wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// Its name, mangled.
    pub name: Arc<str>,
    /// The version that is wanted and the library that has it, where the symbol is versioned.
    pub version: Option<(Arc<str>, Arc<str>)>,
    /// True for a variable that the loader copies into this image (`R_X86_64_COPY`).
    pub copied: bool,
}

/// An index into [`Image::entities`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityId(pub u32);

/// What an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntityKind {
    /// A function.
    Function,
    /// A resolver of an indirect function.
    Resolver,
    /// A variable or constant.
    Object,
}

/// A function or data object: one address, one or several names.
///
/// Aliases are usual (`__GI_`, `.symver`, identical code folding): the libc of
/// a system has thousands more names than functions.
#[derive(Clone, Debug)]
pub struct Entity {
    /// Where it is.
    pub addr: LinkAddr,
    /// Bytes; of aliases the largest.
    pub size: u64,
    /// What it is.
    pub kind: EntityKind,
    /// Its symbols, the most telling one first; never empty.
    pub names: Vec<Symbol>,
}

impl Entity {
    /// The most telling symbol.
    #[must_use]
    pub fn symbol(&self) -> &Symbol {
        &self.names[0]
    }

    /// The mangled name of the most telling symbol.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.names[0].name
    }

    /// First byte behind it.
    #[must_use]
    pub fn end(&self) -> LinkAddr {
        LinkAddr(self.addr.0.saturating_add(self.size))
    }
}

/// What the loader writes into a pointer-sized place (a dynamic relocation).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// The run-time address of a place in this image (`RELATIVE`, or a symbol defined here).
    Pointer(LinkAddr),
    /// The address of another image's symbol, plus an addend (`GLOB_DAT`, `64`).
    Import(Arc<str>, i64),
    /// The same, but filled at the first call (`JUMP_SLOT`).
    LazyImport(Arc<str>),
    /// A library's variable of this name, which lives here (`COPY`).
    Copy(Arc<str>),
    /// What the resolver at this address returns (`IRELATIVE`).
    Resolved(LinkAddr),
    /// The module number for `__tls_get_addr`; empty name: this module.
    TlsModule(Arc<str>),
    /// An offset in the thread's block, for `__tls_get_addr`.
    TlsOffset(Arc<str>, i64),
    /// An offset from the thread pointer.
    TlsFromThreadPointer(Arc<str>, i64),
    /// A number that the linker filled in for good: zero for a weak symbol that nobody
    /// defines, an absolute symbol, a thread-local's offset in a static program.
    Number(u64),
    /// A relocation that is not understood; never equal to anything.
    Unknown(u32),
}

/// What the loader needs to fill a slot at the first call.
#[derive(Clone, Debug, Default)]
pub(crate) struct LazyBinding {
    /// `DT_PLTGOT`: the table whose first words are the loader's own.
    pub(crate) table: Option<LinkAddr>,
    /// The places of `DT_JMPREL` in their order: a stub tells its slot by this number.
    pub(crate) order: Vec<LinkAddr>,
    /// True if all slots are filled before the program starts (`DF_BIND_NOW`).
    pub(crate) never: bool,
}

/// One linked program or library.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) file: Arc<[u8]>,
    pub(crate) debug_file: Option<Arc<[u8]>>,
    /// What `dwz` moved out of the debug data, to share it with other programs.
    pub(crate) supplementary_file: Option<Arc<[u8]>>,
    /// `.dwo` files or one `.dwp`: debug data that were left outside when it was linked.
    pub(crate) split_files: Vec<Arc<[u8]>>,
    /// The instruction set.
    pub machine: Machine,
    /// How it was linked.
    pub link: Link,
    /// Its build id, if the linker wrote one.
    pub build_id: Option<BuildId>,
    /// The page of the lowest segment: where [`Rva`] 0 is.
    pub base: LinkAddr,
    /// `PT_LOAD` entries in order.
    pub segments: Vec<Segment>,
    /// Loaded sections, in order of address.
    pub sections: Vec<Section>,
    /// Functions and objects, in order of address.
    pub entities: Vec<Entity>,
    /// Where each of them begins: what is looked for most, close together.
    pub(crate) starts: Vec<LinkAddr>,
    pub(crate) starts_index: AddressIndex,
    /// Thread-locals, in order of offset.
    pub thread_locals: Vec<Symbol>,
    /// `p_memsz` of `PT_TLS`, rounded up to its alignment: the distance from a
    /// block's start to the thread pointer.
    pub tls_block: u64,
    /// Words of four bytes in data of a Windows image that hold a place relative to [`Image::base`],
    /// as the format of what they are in says, and that place.
    pub relative_words: BTreeMap<LinkAddr, LinkAddr>,
    /// How exceptions are handled in functions of a Windows image, in order of address.
    pub(crate) handling: Vec<Handling>,
    /// Names of places that lie in no section: `_end`, `__ehdr_start`.
    pub edges: BTreeMap<LinkAddr, Vec<Arc<str>>>,
    /// What the loader writes, by place.
    pub slots: BTreeMap<LinkAddr, Slot>,
    /// Stubs that jump through a slot, by address: `.plt`, `.plt.sec`, `.plt.got`.
    pub stubs: BTreeMap<LinkAddr, LinkAddr>,
    /// How slots are filled at the first call.
    pub(crate) lazy: LazyBinding,
    /// Absolute operands in code, by the place of the operand, with what they mean: from
    /// `--emit-relocs`, or the base relocations of a Windows image for x86; otherwise empty.
    pub code_relocations: BTreeMap<LinkAddr, i64>,
    /// True if all absolute operands in code are known.
    pub relocations_kept: bool,
    /// `DT_NEEDED`.
    pub needed: Vec<String>,
    /// `DT_SONAME`: what other images call it in theirs.
    pub soname: Option<String>,
    /// What it wants of other images.
    pub imports: BTreeSet<Import>,
    /// True for a library: a position-independent image that is not marked as a program.
    pub is_library: bool,
    /// `.eh_frame`.
    pub unwind: UnwindTable,
    /// `GuardFlags` of a Windows image: how its calls through pointers are checked. 0 elsewhere.
    pub guard_flags: u32,
    /// True if a full symbol table was found here or in the debug file.
    pub has_symbols: bool,
    /// True if the symbol table names variables of single files too.
    pub names_locals: bool,
    /// What the PDB file of a Windows image tells beyond symbols.
    pub pdb: Option<Arc<PdbFacts>>,
    /// Entries of tables beside the code (`.altinstructions` and the like), in order of the
    /// code that they are about; read from object files only.
    pub annexes: Vec<Annex>,
}

impl Image {
    /// Bytes of the loaded image at `range`; zeros where the file holds none
    /// (`.bss`), `None` where nothing is loaded.
    #[must_use]
    pub fn bytes(&self, at: LinkAddr, size: u64) -> Option<&[u8]> {
        let section = self.section_at(at)?;
        let skip = usize::try_from(at.checked_sub(section.range.start)?).ok()?;
        let size = usize::try_from(size).ok()?;
        let bytes = self.file.get(section.bytes.clone())?;
        bytes.get(skip..skip.checked_add(size)?)
    }

    /// All bytes of `section`; empty for `.bss`.
    #[must_use]
    pub fn section_bytes(&self, section: &Section) -> &[u8] {
        self.file.get(section.bytes.clone()).unwrap_or_default()
    }

    /// The loaded section that holds `at`.
    #[must_use]
    pub fn section_at(&self, at: LinkAddr) -> Option<&Section> {
        // Most numbers that are asked about are small ones that lead nowhere.
        if at < self.sections.first()?.range.start {
            return None;
        }
        // Or large ones.
        if at >= self.sections.last()?.range.end {
            return None;
        }
        let after = self.sections.partition_point(|s| s.range.start <= at);
        let section = self.sections.get(after.checked_sub(1)?)?;
        section.range.contains(&at).then_some(section)
    }

    /// The loaded section called `name`.
    #[must_use]
    pub fn section_named(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// True where nobody writes: among constants, and in code, where linkers put them when they are
    /// told to (`/merge:.rdata=.text`).
    #[must_use]
    pub fn is_constant_at(&self, at: LinkAddr) -> bool {
        let kind = self.section_at(at).map(|section| section.kind);
        kind == Some(SectionKind::ReadOnly)
            || kind == Some(SectionKind::Text)
                && !self
                    .segments
                    .iter()
                    .any(|one| one.writable && one.range.contains(&at))
    }

    /// The function or object with this number.
    ///
    /// # Panics
    /// If `id` comes from another image.
    #[must_use]
    pub fn entity(&self, id: EntityId) -> &Entity {
        &self.entities[id.0 as usize]
    }

    /// All functions and objects with their numbers.
    pub fn entity_ids(&self) -> impl Iterator<Item = (EntityId, &Entity)> {
        (0u32..).map(EntityId).zip(&self.entities)
    }

    /// The function or object that holds `at`.
    #[must_use]
    pub fn entity_at(&self, at: LinkAddr) -> Option<EntityId> {
        let after = self.starts_index.up_to(&self.starts, at);
        // An object may lie inside a larger one (a function's second entry
        // point), so the nearest start need not be the holder.
        (0..after).rev().take(8).find_map(|index| {
            let entity = &self.entities[index];
            let holds = at < entity.end() || at == entity.addr;
            holds.then_some(EntityId(u32::try_from(index).ok()?))
        })
    }

    /// What the PDB file of a Windows image tells of the function at `at`.
    #[must_use]
    pub fn pdb_function(&self, at: LinkAddr) -> Option<SourceFunction> {
        let (name, prototype) = self.pdb.as_ref()?.functions.get(&at)?;
        Some(SourceFunction::of_pdb(name, prototype))
    }

    /// What the compiler calls a symbol. Linkers of Windows know names of C for x86 with an underscore
    /// before them; those of functions that are not called as usual have more in them, and stay.
    #[must_use]
    pub fn compiled_name<'s>(&self, symbol: &'s Symbol) -> &'s str {
        match symbol.binding {
            Binding::Global => self.compiled_name_of(&symbol.name),
            _ => &symbol.name,
        }
    }

    /// The same of a name that all files know, as an object file has it.
    #[must_use]
    pub fn compiled_name_of<'s>(&self, name: &'s str) -> &'s str {
        let plain = self.machine == Machine::X86 && !name.contains(['@', '?']);
        name.strip_prefix('_').filter(|_| plain).unwrap_or(name)
    }

    /// `at` relative to the image base.
    #[must_use]
    pub fn rva(&self, at: LinkAddr) -> Option<Rva> {
        at.checked_sub(self.base).map(Rva)
    }

    /// Bytes of an address in data.
    #[must_use]
    pub fn pointer_size(&self) -> u64 {
        u64::from(self.machine.bits() / 8)
    }

    /// The address in the pointer-sized word at `at`, as the file has it.
    #[must_use]
    pub fn word(&self, at: LinkAddr) -> Option<u64> {
        let bytes = self.bytes(at, self.pointer_size())?;
        let mut word = [0; 8];
        word.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(word))
    }

    /// True for object files that are not linked: addresses are made up.
    #[must_use]
    pub fn is_of_objects(&self) -> bool {
        self.link == Link::Relocatable
    }

    /// True for a thing that the object files only refer to: the rest of the program has it.
    #[must_use]
    pub fn is_external(&self, id: EntityId) -> bool {
        let section = self.section_at(self.entity(id).addr);
        self.is_of_objects() && section.is_some_and(|s| s.name == EXTERNAL)
    }

    /// True for what the loader copies out of a library, to where the linker chose.
    #[must_use]
    pub fn is_copied(&self, id: EntityId) -> bool {
        matches!(self.slots.get(&self.entity(id).addr), Some(Slot::Copy(_)))
    }

    /// True for a section of object files that holds nothing but texts, each up to its NUL.
    #[must_use]
    pub fn holds_texts(&self, section: &Section) -> bool {
        self.is_of_objects() && section.name == TEXTS
    }

    /// The entries of tables beside the code that are about code in `range`.
    #[must_use]
    pub fn annexes_of(&self, range: Range<LinkAddr>) -> &[Annex] {
        let first = self.annexes.partition_point(|a| a.owner < range.start);
        let rest = &self.annexes[first..];
        &rest[..rest.partition_point(|a| a.owner < range.end)]
    }

    /// The whole file.
    #[must_use]
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// The slot that a Windows linker's jump at `at` goes through: how code calls a library that did not
    /// say that the function is imported.
    #[must_use]
    pub fn slot_of_thunk(&self, at: LinkAddr) -> Option<LinkAddr> {
        if self.machine == Machine::Aarch64 {
            return crate::aarch64::slot_of_thunk(self, at);
        }
        let [0xff, 0x25, a, b, c, d] = *self.bytes(at, 6)? else {
            return None;
        };
        let distance = i32::from_le_bytes([a, b, c, d]).into();
        at.checked_add(6)?.checked_offset(distance)
    }

    /// True for a Windows image.
    #[must_use]
    pub fn is_windows(&self) -> bool {
        self.pdb.is_some()
    }

    /// The same as a Windows image alone.
    ///
    /// # Errors
    /// When it is none.
    pub fn windows(&self) -> Result<PeImage, PeError> {
        PeImage::parse(Arc::clone(&self.file))
    }
}
