//! What is in this file? One view over linked images: identity, sections,
//! functions, data objects, references, unwind data.
//!
//! Nothing here does I/O, judges, or trusts the file: every number that comes
//! out of it is checked before it is used.

mod aarch64;
mod addr;
mod debug;
mod elf;
mod error;
mod model;
mod names;
mod objects;
mod order;
pub mod pe;
mod place;
mod plt;
mod unwind;
pub mod x86_64;

pub use aarch64::{Flow, Word};
pub use addr::{FileOffset, LinkAddr, LiveAddr, Rva};
pub use debug::{
    DebugData, DebugError, DebugSections, Declared, Enumerator, Enumerators, Home, Inlined, Member,
    SourceFunction, SourcePlace, TraitTable, TypeLayout, UnitFacts, UsedType, UsedTypes,
    VariableType,
};
pub use elf::debug_files::{DebugLink, SplitUnit, SupplementaryLink};
pub use error::ImageError;
pub use model::{
    Binding, BuildId, Entity, EntityId, EntityKind, Image, Import, Link, Machine, Section,
    SectionKind, Segment, Slot, Symbol, SymbolKind,
};
pub use names::{
    Spoken, clone_sorts, demangle, is_rust, source_name, stem, whole_of, without_discriminator,
};
pub use objects::{Annex, AnnexField, EXTERNAL, ObjectFile, is_annex};
pub use order::AddressIndex;
pub use place::Place;
pub use plt::StubStep;
pub use unwind::{Cie, Fde, Lsda, UnwindStep, UnwindTable, encoding};
