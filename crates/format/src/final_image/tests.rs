use invivo_patch::{Hex, Identity};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::{FileIdentity, FinalError, Manifest, read, write};

/// The program that runs this test: as real as an ELF file can be.
fn program() -> Vec<u8> {
    std::fs::read("/proc/self/exe").expect("the own program can be read")
}

/// The beginning of a program, as one without sections.
fn small() -> Vec<u8> {
    use std::io::Read;
    let mut bytes = vec![0; 512];
    let mut file = std::fs::File::open("/proc/self/exe").expect("the own program can be read");
    file.read_exact(&mut bytes).expect("a program is longer");
    bytes[0x28..0x30].fill(0); // e_shoff
    bytes[0x3c..0x40].fill(0); // e_shnum, e_shstrndx
    bytes
}

fn identity(bytes: &[u8]) -> FileIdentity {
    FileIdentity {
        file_name: "server".to_owned(),
        build_id: None,
        sha256: Hex(Sha256::digest(bytes).to_vec()),
        size: bytes.len() as u64,
    }
}

fn manifest(base: &[u8], fixed: &[u8], name: &str) -> Manifest {
    let identity_of_it = Identity {
        name: name.to_owned(),
        labels: vec!["CVE-2024-31228".to_owned()],
        creator: "invivo".to_owned(),
    };
    Manifest::new(identity_of_it, identity(base), identity(fixed))
}

#[test]
fn what_is_written_is_read_and_the_rest_of_the_file_stays() {
    let fixed = program();
    let manifest = manifest(b"base", &fixed, "fix");
    let file = write(&fixed, &manifest, Some(b"patch")).expect("it is an ELF file");
    let found = read(&file).expect("it was just written");
    assert_eq!(found.manifest, manifest);
    assert_eq!(found.patch, Some(&b"patch"[..]));
    // All but the three fields that lead to the table of sections.
    let header = std::mem::size_of::<object::elf::FileHeader64<object::LittleEndian>>();
    assert_eq!(file[header..fixed.len()], fixed[header..]);
    assert_eq!(
        file,
        write(&fixed, &manifest, Some(b"patch")).expect("again")
    );
    let other = object::File::parse(&*file).expect("other readers read it");
    for section in object::Object::sections(&object::File::parse(&*fixed).expect("the original")) {
        let name = object::ObjectSection::name(&section).expect("it has a name");
        if name == ".shstrtab" {
            continue;
        }
        let same = object::Object::section_by_name(&other, name).expect("it is still there");
        let (mine, its) = (
            object::ObjectSection::data(&section),
            object::ObjectSection::data(&same),
        );
        assert_eq!(mine.ok(), its.ok(), "{name}");
    }
}

#[test]
fn a_program_without_sections_carries_it_too() {
    let fixed = small();
    let manifest = manifest(b"base", &fixed, "fix");
    let file = write(&fixed, &manifest, None).expect("a program needs no sections");
    assert_eq!(read(&file).expect("it was just written").patch, None);
}

#[test]
fn a_final_image_does_not_become_another() {
    let fixed = program();
    let manifest = manifest(b"base", &fixed, "fix");
    let file = write(&fixed, &manifest, None).expect("it is an ELF file");
    let again = write(&file, &manifest, None);
    assert!(matches!(again, Err(FinalError::Unfit(_))), "{again:?}");
}

#[test]
fn every_changed_byte_is_noticed() {
    let fixed = small();
    let manifest = manifest(b"base", &fixed, "fix");
    let file = write(&fixed, &manifest, Some(b"patch")).expect("it is an ELF file");
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(read(&changed).is_err(), "byte {at}");
        assert!(read(&file[..at]).is_err(), "cut at {at}");
    }
}

proptest! {
    #[test]
    fn any_manifest_and_patch_come_back(
        name in ".{0,40}",
        base in proptest::collection::vec(any::<u8>(), 0..64),
        patch in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..256)),
    ) {
        let fixed = small();
        let manifest = manifest(&base, &fixed, &name);
        let file = write(&fixed, &manifest, patch.as_deref()).expect("it is an ELF file");
        let found = read(&file).expect("it was just written");
        prop_assert_eq!(found.manifest, manifest);
        prop_assert_eq!(found.patch, patch.as_deref());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&bytes);
    }
}
