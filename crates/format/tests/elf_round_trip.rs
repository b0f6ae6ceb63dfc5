//! What is written is read back, equal; what was changed is an error, never a panic.

mod model;

use std::fmt::Debug;

use invivo_format::elf::{PatchError, read, write};
use invivo_patch::{Patch, SectionKind, SymbolPlace};
use object::read::{File, Object as _, ObjectSection as _, ObjectSymbol as _};
use object::{RelocationFlags, RelocationTarget, SectionFlags, elf};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;
use sha2::{Digest as _, Sha256};

fn ok<T, E: Debug>(result: Result<T, E>) -> Result<T, TestCaseError> {
    result.map_err(|error| TestCaseError::fail(format!("{error:?}")))
}

/// Fills in the digest again, as whoever forges a patch would.
fn seal(file: &mut [u8]) -> Option<()> {
    let place = {
        let object = File::parse(&*file).ok()?;
        let (start, size) = object.section_by_name(".invivo.digest")?.file_range()?;
        let start = usize::try_from(start).ok()?;
        start..start.checked_add(usize::try_from(size).ok()?)?
    };
    file.get_mut(place.clone())?.fill(0);
    let digest = Sha256::digest(&*file);
    file.get_mut(place)
        .filter(|place| place.len() == digest.len())?
        .copy_from_slice(&digest);
    Some(())
}

/// Another reader of the format sees the same sections, symbols and relocations.
fn other_reader_agrees(patch: &Patch, file: &[u8]) -> Result<(), TestCaseError> {
    let object = ok(File::parse(file))?;
    let allocated = |flags| matches!(flags, SectionFlags::Elf { sh_flags, .. } if sh_flags.contains(elf::SHF_ALLOC));
    let sections: Vec<_> = object.sections().filter(|s| allocated(s.flags())).collect();
    prop_assert_eq!(sections.len(), patch.contents.sections.len());
    let symbols: Vec<_> = object.symbols().collect();
    prop_assert_eq!(symbols.len(), patch.contents.symbols.len());
    for (seen, section) in sections.iter().zip(&patch.contents.sections) {
        prop_assert_eq!(ok(seen.name())?, &section.name);
        prop_assert_eq!(ok(seen.data())?, &section.bytes[..]);
        prop_assert_eq!(seen.align(), section.align);
        let SectionFlags::Elf { sh_flags, .. } = seen.flags() else {
            unreachable!("an ELF file")
        };
        prop_assert_eq!(
            sh_flags.contains(elf::SHF_EXECINSTR),
            section.kind == SectionKind::Text
        );
        prop_assert_eq!(
            sh_flags.contains(elf::SHF_WRITE),
            section.kind == SectionKind::Data
        );
        let relocations: Vec<_> = seen.relocations().collect();
        prop_assert_eq!(relocations.len(), section.relocations.len());
        for ((offset, relocation), expected) in relocations.iter().zip(&section.relocations) {
            prop_assert_eq!(*offset, expected.offset);
            prop_assert_eq!(relocation.addend(), expected.addend);
            let RelocationTarget::Symbol(symbol) = relocation.target() else {
                return Err(TestCaseError::fail("a relocation without a symbol"));
            };
            prop_assert_eq!(symbol, symbols[expected.symbol as usize].index());
            let wide = matches!(
                relocation.flags(),
                RelocationFlags::Elf { r_type } if r_type == elf::R_X86_64_64
            );
            prop_assert_eq!(wide, expected.kind.width() == 8);
        }
    }
    for (seen, symbol) in symbols.iter().zip(&patch.contents.symbols) {
        prop_assert_eq!(ok(seen.name())?, &symbol.name);
        match symbol.place {
            SymbolPlace::Base(_) | SymbolPlace::Import(_) => prop_assert!(seen.is_undefined()),
            SymbolPlace::Patch {
                section,
                offset,
                size,
            } => {
                prop_assert_eq!(
                    seen.section_index(),
                    Some(sections[section as usize].index())
                );
                prop_assert_eq!((seen.address(), seen.size()), (offset, size));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(patch in model::patch()) {
        let file = ok(write(&patch))?;
        prop_assert_eq!(&ok(read(&file))?, &patch);
        prop_assert_eq!(ok(write(&patch))?, file.clone());
        other_reader_agrees(&patch, &file)?;
    }

    #[test]
    fn a_changed_byte_is_an_error(patch in model::patch(), at: Index, bits in 1u8..) {
        let mut file = ok(write(&patch))?;
        let at = at.index(file.len());
        file[at] ^= bits;
        prop_assert!(read(&file).is_err(), "byte {} was changed by {:#x}", at, bits);
    }

    #[test]
    fn a_cut_file_is_an_error(patch in model::patch(), size: Index) {
        let file = ok(write(&patch))?;
        prop_assert!(read(&file[..size.index(file.len())]).is_err());
    }

    /// A forger fills in the right digest: what is behind it must be checked all the same.
    #[test]
    fn a_forged_patch_is_an_error_or_keeps_the_invariants(
        patch in model::patch(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = ok(write(&patch))?;
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if seal(&mut file).is_some() && let Ok(forged) = read(&file) {
            ok(forged.validate())?;
        }
    }

    #[test]
    fn noise_is_not_a_patch(noise in prop::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(matches!(read(&noise), Err(PatchError::NotAPatch(_))));
    }
}

/// Every byte of one patch, each bit of it.
#[test]
fn no_single_bit_can_be_changed() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let patch = model::patch()
        .new_tree(&mut runner)
        .expect("a patch")
        .current();
    let file = write(&patch).expect("a valid patch is written");
    let mut changed = file.clone();
    for at in 0..file.len() {
        for bit in 0..8 {
            changed[at] ^= 1 << bit;
            assert!(read(&changed).is_err(), "bit {bit} of byte {at}");
            changed[at] = file[at];
        }
    }
    for size in 0..file.len() {
        assert!(read(&file[..size]).is_err(), "cut to {size} bytes");
    }
    let mut longer = file;
    longer.push(0);
    assert!(read(&longer).is_err(), "a byte more");
}

/// A forger's digest is right, and a broken invariant behind it is still found.
#[test]
fn a_right_digest_alone_makes_no_patch() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut patch = model::patch()
        .new_tree(&mut runner)
        .expect("a patch")
        .current();
    patch.identity.name = "aaaa".to_owned();
    let mut file = write(&patch).expect("a valid patch is written");
    let name = br#""name":"aaaa""#;
    let at = file
        .windows(name.len())
        .position(|w| w == name)
        .expect("the manifest is plain JSON");
    file[at..at + name.len()].copy_from_slice(br#""name":"aa\n""#);
    seal(&mut file).expect("the digest is found");
    assert!(matches!(read(&file), Err(PatchError::Broken(_))));
}

#[test]
fn a_newer_form_is_told_from_a_broken_one() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let patch = model::patch()
        .new_tree(&mut runner)
        .expect("a patch")
        .current();
    let mut file = write(&patch).expect("a valid patch is written");
    let form = br#"{"version":2"#;
    let at = file
        .windows(form.len())
        .position(|w| w == form)
        .expect("the manifest is plain JSON");
    file[at + form.len() - 1] = b'3';
    seal(&mut file).expect("the digest is found");
    assert!(matches!(read(&file), Err(PatchError::Version(3))));
}
