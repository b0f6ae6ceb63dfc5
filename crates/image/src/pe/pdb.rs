//! Debug data of Windows images: PDB files.
//!
//! The file is as hostile as the image. Streams of a PDB file are lists of
//! pages, and pages may be listed any number of times, so their sizes are
//! held against the file's before any is read.

mod budget;
mod layouts;
mod symbols;
mod texts;
mod types;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ms_pdb::{RandomAccessFile, ReadAt};

use super::{PeError, PeImage};
use crate::{LinkAddr, UsedTypes};

/// The file as the library reads it, from where it lies: the largest have hundreds of megabytes.
type File<F> = ms_pdb::Pdb<F>;

/// A named place of a PDB file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PdbSymbol {
    /// As the linker or the source knows it.
    pub name: Arc<str>,
    /// The section's number, from 1 on.
    pub section: u16,
    /// Bytes from the section's start.
    pub offset: u32,
    /// Bytes; 0 where the file does not say.
    pub size: u64,
    /// True if it is a function.
    pub is_function: bool,
    /// True if every object file can name it.
    pub is_global: bool,
    /// The object file that brought it, without its folder; of public symbols none.
    pub module: Option<Arc<str>>,
    /// How it is called, for functions.
    pub prototype: Option<Arc<str>>,
    /// What was inlined in it, for functions; outer ones come before those inside them.
    pub inlined: Vec<InlinedFunction>,
}

/// A function that was inlined in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlinedFunction {
    /// As the source calls it.
    pub name: Arc<str>,
    /// The one of the same list that it was inlined in; `None` for the function itself.
    pub within: Option<usize>,
}

/// What a PDB file tells.
#[derive(Clone, Debug)]
pub struct Pdb {
    /// The identity of the build, as the image's debug directory has it.
    pub guid: [u8; 16],
    /// How often it was linked; the image says the same.
    pub age: u32,
    /// Functions and variables that object files describe.
    pub symbols: Vec<PdbSymbol>,
    /// Thread-local variables: name, offset in the block, bytes.
    pub thread_locals: Vec<PdbSymbol>,
    /// Names that the linker resolved, mangled.
    pub publics: Vec<PdbSymbol>,
    /// Functions that were compiled for hot patching (`S_HOTPATCHFUNC`), by linkage name. LLVM's
    /// linker leaves these records out.
    pub hot_patch_functions: Vec<String>,
    /// What compiled its object files (`S_COMPILE3`): name, versions and flags.
    pub compilers: BTreeSet<String>,
    /// Layouts of all types, by name.
    pub types: Arc<UsedTypes>,
}

/// What an image keeps of its PDB file.
#[derive(Clone, Debug, Default)]
pub struct PdbFacts {
    /// Layouts of all types, by name.
    pub types: Arc<UsedTypes>,
    /// What functions are called in the source, and how they are called.
    pub(crate) functions: BTreeMap<LinkAddr, (Arc<str>, Arc<str>)>,
    /// Functions that were compiled for hot patching.
    pub hot_patch_functions: Vec<String>,
    /// What compiled its object files: name, versions and flags.
    pub compilers: BTreeSet<String>,
    /// What was inlined in functions.
    pub(crate) inlined: BTreeMap<LinkAddr, Vec<InlinedFunction>>,
}

impl PdbFacts {
    /// What was inlined in the function that begins at `at`: each chain from the outermost to the
    /// one that the names end with.
    #[must_use]
    pub fn inlined(&self, at: LinkAddr) -> Vec<Vec<&str>> {
        /// Longer chains are told from their inner end on.
        const LONGEST: usize = 16;
        let list = self.inlined.get(&at).map_or(&[][..], Vec::as_slice);
        let chains = (0..list.len()).map(|last| {
            let mut next = Some(last);
            let chain = std::iter::from_fn(|| {
                let one = list.get(next?)?;
                next = one.within;
                Some(&*one.name)
            });
            let mut chain: Vec<&str> = chain.take(LONGEST).collect();
            chain.reverse();
            chain
        });
        chains.collect()
    }
}

fn broken(error: impl std::fmt::Display) -> PeError {
    PeError::Inconsistent(format!("its PDB file: {error}"))
}

/// Bytes of the first page that tell what the file is, and how large.
const FIRST: usize = 0x30;

/// The library answers some broken files with a failed assertion.
fn guarded(read: impl FnOnce() -> Result<Pdb, PeError>) -> Result<Pdb, PeError> {
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    read.unwrap_or_else(|_| Err(broken("it is broken")))
}

/// Holds what the first page says of the file's size against the file: room for so many pages is
/// made before any of them is read.
fn check_pages(first: &[u8], length: u64) -> Result<(), PeError> {
    const MAGIC: &[u8; 32] = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0";
    let word = |at: usize| {
        let held = first.get(at..)?.first_chunk();
        held.map(|word| u64::from(u32::from_le_bytes(*word)))
    };
    if !first.starts_with(MAGIC) {
        return Err(PeError::Unsupported(
            "a PDB file of another kind than that of linkers".to_owned(),
        ));
    }
    let (Some(page), Some(count), Some(directory)) = (word(0x20), word(0x28), word(0x2c)) else {
        return Err(broken("it ends in its first page"));
    };
    let whole = page.is_power_of_two() && (512..=0x1_0000).contains(&page);
    if !whole || count * page > length.next_multiple_of(page) || directory > length {
        return Err(broken(format!(
            "it says that it has {count} pages of {page} bytes; it has {length} bytes"
        )));
    }
    Ok(())
}

impl Pdb {
    /// Reads a PDB file.
    ///
    /// # Errors
    /// When it is none, or is broken.
    pub fn parse(file: &[u8]) -> Result<Pdb, PeError> {
        check_pages(file, file.len() as u64)?;
        guarded(|| Pdb::read(Cow::Borrowed(file), file.len() as u64))
    }

    /// Reads a PDB file from where it is, a piece at a time: a large one is never in memory whole.
    ///
    /// # Errors
    /// When it is none, or is broken, or cannot be read; also when it is exchanged or cut meanwhile.
    pub fn open(file: std::fs::File) -> Result<Pdb, PeError> {
        let length = file.metadata().map_err(broken)?.len();
        let file = RandomAccessFile::from(file);
        let mut first = [0; FIRST];
        let held = FIRST.min(usize::try_from(length).unwrap_or(FIRST));
        let first = &mut first[..held];
        file.read_exact_at(first, 0).map_err(broken)?;
        check_pages(first, length)?;
        guarded(|| Pdb::read(file, length))
    }

    fn read<F: ReadAt>(file: F, length: u64) -> Result<Pdb, PeError> {
        let opened = File::open_from_random_file(file).map_err(broken)?;
        let streams = opened.num_streams();
        let sizes = (0..streams).map(|stream| match opened.stream_len(stream) {
            size if size == u64::from(u32::MAX) => 0,
            size => size,
        });
        if sizes.sum::<u64>() > length {
            return Err(broken("its streams are larger than itself"));
        }
        let key = opened.binding_key();
        let types = types::Types::read(&opened, budget::Budget::of(length))?;
        let mut pdb = Pdb {
            guid: key.guid.to_bytes_le(),
            // Tools that add to the file may count the other one on.
            age: opened.dbi_header().age.get(),
            symbols: Vec::new(),
            thread_locals: Vec::new(),
            publics: Vec::new(),
            hot_patch_functions: Vec::new(),
            compilers: BTreeSet::new(),
            types: layouts::layouts(&types)?.into(),
        };
        symbols::read(&opened, length, &types, &mut pdb)?;
        Ok(pdb)
    }

    /// Checks that it belongs to the image.
    ///
    /// # Errors
    /// When the image names another one, or none.
    pub fn check(&self, image: &PeImage) -> Result<(), PeError> {
        let Some(view) = image.code_view() else {
            return Err(PeError::Inconsistent(
                "the image names no PDB file; link it with /debug".to_owned(),
            ));
        };
        if view.guid != self.guid {
            return Err(PeError::Inconsistent(format!(
                "the PDB file belongs to another build; the image wants {view}"
            )));
        }
        // A linker that adds to what it made before keeps the identity and counts.
        if view.age != self.age {
            return Err(PeError::Inconsistent(format!(
                "the PDB file is that of link {}, the image that of link {}: it belongs to another \
                 build; the image wants {view}",
                self.age, view.age
            )));
        }
        Ok(())
    }
}
