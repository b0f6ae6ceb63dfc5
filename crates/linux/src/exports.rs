//! What loaded images take from each other, read from the files that were loaded.
//!
//! The loader binds a name to the first image that has it. Which one is first depends on
//! the order in which images were loaded, on preloaded ones and on private scopes, so a name
//! is only taken for known where a single image has it.

use std::collections::{HashSet, VecDeque};

use invivo_apply::{Module, TargetError};
use invivo_image::LiveAddr;
use invivo_patch::ImportVersion;
use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::SymbolIndex;
use object::read::elf::{FileHeader, Rela, SectionHeader, SectionTable, Sym, SymbolTable};

use crate::Process;
use crate::modules::Loaded;

type Elf = FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// A loaded image with its file.
struct Opened {
    loaded: Loaded,
    bytes: Vec<u8>,
}

/// The dynamic symbols of a file.
struct Dynamic<'f> {
    image: &'f Opened,
    table: SectionTable<'f, Elf>,
    symbols: SymbolTable<'f, Elf>,
    /// The names of files that it needs.
    needed: Vec<&'f [u8]>,
    /// What it is called by those that need it.
    called: &'f [u8],
}

impl Process {
    /// See [`invivo_apply::Target::importers`].
    pub(crate) fn find_importers(
        &self,
        module: &Module,
        symbol: &str,
    ) -> Result<Vec<String>, TargetError> {
        let maps = self.maps()?;
        let others = self
            .loaded()?
            .into_iter()
            .filter(|loaded| loaded.start() != module.start.0 && loaded.path != VDSO);
        let found = others.filter(|loaded| {
            let bytes = self.file_of(&maps, loaded);
            bytes.is_none_or(|bytes| imports(&bytes, symbol.as_bytes()))
        });
        Ok(found.map(|loaded| loaded.path).collect())
    }

    /// See [`invivo_apply::Target::look_up`].
    pub(crate) fn find_exports(
        &self,
        module: &Module,
        imports: &[(&str, Option<&ImportVersion>)],
    ) -> Result<Vec<Result<LiveAddr, String>>, TargetError> {
        let maps = self.maps()?;
        let mut opened = Vec::new();
        for loaded in self.loaded()? {
            if loaded.path == VDSO {
                continue;
            }
            match self.file_of(&maps, &loaded) {
                Some(bytes) => opened.push(Opened { loaded, bytes }),
                None => return Ok(vec![Err(unknown(&loaded)); imports.len()]),
            }
        }
        let mut images = Vec::new();
        for image in &opened {
            match Dynamic::of(image) {
                Some(dynamic) => images.push(dynamic),
                None => return Ok(vec![Err(unknown(&image.loaded)); imports.len()]),
            }
        }
        let scope = scope(&images, module, self.entry()?);
        let look_up = |(name, version): &(&str, Option<&ImportVersion>)| {
            self.look_up_one(&images, &scope, name.as_bytes(), *version)
        };
        Ok(imports.iter().map(look_up).collect())
    }

    fn look_up_one(
        &self,
        images: &[Dynamic<'_>],
        scope: &HashSet<usize>,
        name: &[u8],
        version: Option<&ImportVersion>,
    ) -> Result<LiveAddr, String> {
        let having = images.iter().enumerate();
        let having = having.filter(|(_, image)| image.defined(name).next().is_some());
        let having: Vec<(usize, &Dynamic<'_>)> = having.collect();
        let (number, image) = match having[..] {
            [one] => one,
            [] => return Err("which no loaded library has".to_owned()),
            [(_, a), (_, b), ..] => {
                let (a, b) = (&a.image.loaded.path, &b.image.loaded.path);
                return Err(format!("which both {a} and {b} have"));
            }
        };
        let path = &image.image.loaded.path;
        if !scope.contains(&number) {
            return Err(format!(
                "which only {path} has, and the image does not need that"
            ));
        }
        let mut fitting = image
            .defined(name)
            .filter(|(index, _)| image.has_version(*index, version));
        let (Some((_, symbol)), None) = (fitting.next(), fitting.next()) else {
            let version = version.map_or("no version", |version| &version.version);
            return Err(format!("at {version}, which {path} does not have"));
        };
        self.value(image, symbol)
    }

    /// Where a symbol is. What a resolver chose is read where its own image keeps the choice.
    fn value(
        &self,
        image: &Dynamic<'_>,
        symbol: &elf::Sym64<LittleEndian>,
    ) -> Result<LiveAddr, String> {
        let loaded = &image.image.loaded;
        let live = |at: u64| LiveAddr(at.wrapping_add(loaded.bias));
        let at = symbol.st_value(LE);
        match symbol.st_type() {
            elf::STT_FUNC | elf::STT_OBJECT | elf::STT_NOTYPE => Ok(live(at)),
            elf::STT_GNU_IFUNC => {
                let kept = image.choices(at).map(live);
                let mut chosen = kept.filter_map(|place| {
                    let bytes = self.memory.read_some(place, 8);
                    Some(LiveAddr(u64::from_le_bytes(bytes.try_into().ok()?)))
                });
                let inside = |at: &LiveAddr| {
                    let mut segments = loaded.segments.iter();
                    *at != live(0) && segments.any(|(start, end)| start <= at && at < end)
                };
                chosen.find(inside).ok_or_else(|| {
                    let path = &loaded.path;
                    format!(
                        "which {path} chooses when it is first called for; nothing tells the choice"
                    )
                })
            }
            _ => Err(format!(
                "which is neither function nor variable in {}",
                loaded.path
            )),
        }
    }
}

/// What is said where an image might have the name and cannot be asked.
fn unknown(image: &Loaded) -> String {
    format!(
        "which may be in {}, whose symbols cannot be read",
        image.path
    )
}

const VDSO: &str = "[vdso]";

impl<'f> Dynamic<'f> {
    /// `None` where the file does not tell its symbols: an image without section headers
    /// has them, too.
    fn of(image: &'f Opened) -> Option<Self> {
        let bytes = &image.bytes[..];
        let table = Elf::parse(bytes).ok()?.sections(LE, bytes).ok()?;
        let mut headers = table.iter();
        headers.find(|header| header.sh_type(LE) == elf::SHT_DYNSYM)?;
        let symbols = table.symbols(LE, bytes, elf::SHT_DYNSYM).ok()?;
        let dynamic = table.dynamic_table(LE, bytes).ok()?;
        let texts = |tag| {
            let entries = dynamic.iter().filter(move |entry| entry.tag == tag);
            entries.filter_map(|entry| dynamic.string(entry).ok())
        };
        let file = image.loaded.path.rsplit('/').next().unwrap_or_default();
        let called = texts(elf::DT_SONAME).next().unwrap_or(file.as_bytes());
        let needed = texts(elf::DT_NEEDED).collect();
        Some(Dynamic {
            image,
            symbols,
            needed,
            called,
            table,
        })
    }

    /// Symbols of that name which other images may bind to.
    fn defined(
        &self,
        name: &[u8],
    ) -> impl Iterator<Item = (SymbolIndex, &'f elf::Sym64<LittleEndian>)> {
        let symbols = self.symbols;
        symbols.enumerate().filter(move |(_, symbol)| {
            !symbol.is_undefined(LE)
                && symbol.st_bind() != elf::STB_LOCAL
                && matches!(
                    symbol.st_visibility(),
                    elf::STV_DEFAULT | elf::STV_PROTECTED
                )
                && symbols.symbol_name(LE, symbol) == Ok(name)
        })
    }

    /// True if the symbol has the version that is asked for; without one, if it is the
    /// default. An image without versions fits all, as it does for the loader.
    fn has_version(&self, index: SymbolIndex, wanted: Option<&ImportVersion>) -> bool {
        let Ok(Some(versions)) = self.table.versions(LE, &self.image.bytes[..]) else {
            return true;
        };
        let place = versions.version_index(LE, index);
        let version = versions.version(place.index());
        match (wanted, version) {
            (Some(wanted), Ok(Some(version))) => version.name() == wanted.version.as_bytes(),
            (None, Ok(_)) => !place.is_hidden(),
            _ => false,
        }
    }

    /// Where the image itself keeps what the resolver at `resolver` chose.
    fn choices(&self, resolver: u64) -> impl Iterator<Item = u64> {
        let bytes = &self.image.bytes[..];
        let tables = self.table.iter().filter_map(move |header| {
            let (entries, _) = header.rela(LE, bytes).ok().flatten()?;
            Some(entries)
        });
        let chosen = tables.flatten().filter(move |entry| {
            entry.r_type(LE, false) == elf::R_X86_64_IRELATIVE
                && u64::try_from(entry.r_addend(LE)) == Ok(resolver)
        });
        chosen.map(|entry| entry.r_offset(LE))
    }
}

/// The images in which the loader looks for what `module` imports: the program and what
/// it needs, the module and what that needs. `entry` is where the program begins.
fn scope(images: &[Dynamic<'_>], module: &Module, entry: LiveAddr) -> HashSet<usize> {
    let is_root = |image: &Dynamic<'_>| {
        let loaded = &image.image.loaded;
        let mut segments = loaded.segments.iter();
        loaded.start() == module.start.0
            || segments.any(|(start, end)| *start <= entry && entry < *end)
    };
    let mut waiting: VecDeque<usize> = (0..images.len()).filter(|n| is_root(&images[*n])).collect();
    let mut scope = HashSet::new();
    while let Some(number) = waiting.pop_front() {
        if scope.insert(number) {
            let needed = &images[number].needed;
            waiting.extend((0..images.len()).filter(|n| needed.contains(&images[*n].called)));
        }
    }
    scope
}

/// True if an ELF file takes `wanted` from another one, or cannot be read.
fn imports(bytes: &[u8], wanted: &[u8]) -> bool {
    let symbols = Elf::parse(bytes)
        .and_then(|header| header.sections(LE, bytes))
        .and_then(|table| table.symbols(LE, bytes, elf::SHT_DYNSYM));
    symbols.map_or(true, |symbols| {
        let mut undefined = symbols.iter().filter(|symbol| symbol.is_undefined(LE));
        undefined.any(|symbol| symbols.symbol_name(LE, symbol) == Ok(wanted))
    })
}
