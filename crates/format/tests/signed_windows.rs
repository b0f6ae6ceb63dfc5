//! A Windows file that was patched on disk and signed afterwards: it says of itself what it said before.

mod scene;

use invivo_format::final_image::{FileIdentity, FinalError, Manifest, read, write_windows};
use invivo_image::pe::checksum;
use invivo_patch::{Hex, Identity};
use scene::{Recipe, parse, put};

/// Bytes of the certificates, with their head.
const SIZE: usize = 0x60;

fn manifest() -> Manifest {
    let file = FileIdentity {
        file_name: "target.dll".to_owned(),
        build_id: None,
        sha256: Hex(vec![7; 32]),
        size: 1,
    };
    let identity = Identity {
        name: "fix".to_owned(),
        ..Identity::default()
    };
    Manifest::new(identity, file.clone(), file)
}

/// A library that carries what is said of it.
fn file() -> Vec<u8> {
    let recipe = Recipe {
        wide: true,
        parts: vec![
            (".text", 0x1000, vec![0xcc; 0x200], 0x6000_0020),
            (".rdata", 0x2000, vec![0x11; 0x200], 0x4000_0040),
        ],
        directories: Vec::new(),
        image_size: 0x3000,
    };
    write_windows(&parse(&recipe.file()), &manifest()).expect("there is room")
}

/// The file with its checksum right, as all who sign it leave it.
fn summed(mut file: Vec<u8>) -> Vec<u8> {
    let place = parse(&file).header_places().checksum;
    let sum = checksum(&file, place);
    put(&mut file, place, sum);
    file
}

/// Certificates behind a file, as `signtool` puts them there.
fn signed(file: &[u8]) -> Vec<u8> {
    let (mut signed, end) = (file.to_vec(), file.len());
    signed.resize(end + SIZE, 0x5a);
    put(&mut signed, end, u32::try_from(SIZE).expect("small"));
    put(&mut signed, end + 4, 0x0002_0200);
    let security = security(file);
    put(&mut signed, security, u32::try_from(end).expect("small"));
    put(
        &mut signed,
        security + 4,
        u32::try_from(SIZE).expect("small"),
    );
    summed(signed)
}

fn security(file: &[u8]) -> usize {
    parse(file).header_places().directories + 8 * 4
}

#[test]
fn who_signs_it_changes_nothing_of_what_it_is() {
    let file = file();
    let signed = signed(&file);
    assert_eq!(read(&signed).expect("it was signed").manifest, manifest());
    // Another certificate, of another signer.
    let mut other = signed.clone();
    other[file.len() + 0x20] ^= 1;
    assert_eq!(read(&summed(other)).expect("as well").manifest, manifest());
    // Anything else.
    let places = parse(&file).header_places();
    for at in 0..file.len() {
        let own = |place: usize, size: usize| (place..place + size).contains(&at);
        if own(places.checksum, 4) || own(security(&file), 8) {
            continue;
        }
        let mut changed = signed.clone();
        changed[at] ^= 1;
        if invivo_image::pe::PeImage::parse(changed.clone().into()).is_ok() {
            assert!(read(&summed(changed)).is_err(), "byte {at:#x}");
        }
    }
}

/// What is said to be certificates is neither in a section nor before something else.
#[test]
fn certificates_that_are_none() {
    let file = file();
    let whole = signed(&file);
    let mut more = whole.clone();
    more.extend_from_slice(&[0x90; 0x10]);
    let mut inside = whole.clone();
    put(&mut inside, security(&file), 0x600);
    let mut behind = whole;
    put(&mut behind, security(&file) + 4, 0x1_0000);
    for (case, file) in [
        ("more behind", more),
        ("in code", inside),
        ("too long", behind),
    ] {
        let file = summed(file);
        let found = read(&file);
        assert!(
            matches!(found, Err(FinalError::Broken(_))),
            "{case}: {found:?}"
        );
    }
}
