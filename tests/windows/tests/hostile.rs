//! Images, PDB files and object files that somebody changed: an error or a view, never a panic.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use invivo_image::Image;
use invivo_image::pe::{CodeView, HotPatchObject, Pdb, PeImage};
use windows_tests::{Build, Folder, Library, build};

fn library(folder: &Folder) -> Library {
    build(folder, "fixed", "service", &Build::fixed("answer")).expect("it is built")
}

/// One look must be over by then, on a slow machine too.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn any_word_of_an_image_may_be_anything() {
    let folder = Folder::new("hostile-image");
    let library = library(&folder);
    let good = std::fs::read(&library.path).expect("it can be read");
    for at in (0..good.len() - 4).step_by(2) {
        for value in [0, 0xffff_ffff_u32, 0x8000_0000, 0x7fff_fff0, 0x1000] {
            let mut file = good.clone();
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let start = Instant::now();
            let _ = PeImage::parse(Arc::from(file));
            assert!(start.elapsed() < LIMIT, "{at:#x} {value:#x}");
        }
    }
}

#[test]
fn any_word_of_a_pdb_file_may_be_anything() {
    let folder = Folder::new("hostile-pdb");
    let library = library(&folder);
    let image = library.image().expect("a Windows image");
    let good = std::fs::read(&library.pdb).expect("it can be read");
    assert!(Image::from_pe(&image, &Pdb::parse(&good).expect("a PDB file")).is_ok());
    // Pages that hold nothing are left out.
    let used = |at: &usize| good[*at..*at + 4] != [0; 4];
    for at in (0..good.len() - 4).step_by(12).filter(used) {
        for value in [0xffff_ffff_u32, 0x7fff_fff0] {
            let mut file = good.clone();
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let start = Instant::now();
            if let Ok(pdb) = Pdb::parse(&file) {
                let _ = Image::from_pe(&image, &pdb);
            }
            assert!(start.elapsed() < LIMIT, "{at:#x} {value:#x}");
        }
    }
}

#[test]
fn a_pdb_file_that_ends_anywhere_and_one_of_another_build() {
    let (folder, elsewhere) = (Folder::new("cut"), Folder::new("other"));
    let (library, other) = (library(&folder), library(&elsewhere));
    let good = std::fs::read(&library.pdb).expect("it can be read");
    // Read a piece at a time it is the same file, also where it breaks off.
    let open = || Pdb::open(File::open(&library.pdb).expect("it can be read"));
    let read = |pdb: Result<Pdb, _>| pdb.map(|pdb| format!("{pdb:?}")).ok();
    assert_eq!(read(open()), read(Pdb::parse(&good)));
    assert!(open().is_ok());
    for length in (0..good.len()).step_by(509).rev() {
        let cut = File::options().write(true).open(&library.pdb);
        let cut = cut.expect("it can be written");
        cut.set_len(length as u64).expect("it is cut");
        let whole = Pdb::parse(&good[..length]);
        assert_eq!(open().is_ok(), whole.is_ok(), "{length}");
    }
    let pdb = Pdb::parse(&good).expect("a PDB file");
    type Forge = fn(&mut CodeView);
    let forged: [(&str, Forge); 3] = [
        ("another build", |view| view.guid[0] ^= 1),
        ("that of link 1, the image that of link 2", |view| {
            view.age += 1
        }),
        ("that of link 1, the image that of link 0", |view| {
            view.age -= 1
        }),
    ];
    for (text, forge) in forged {
        let mut image = library.image().expect("a Windows image");
        let views = image.debug.iter_mut();
        let mut views = views.filter_map(|entry| entry.code_view.as_mut());
        forge(views.next().expect("it names its PDB file"));
        let error = Image::from_pe(&image, &pdb).expect_err("another build");
        assert!(error.to_string().contains(text), "{error}");
    }
    let image = other.image().expect("a Windows image");
    let error = Image::from_pe(&image, &pdb).expect_err("another build");
    assert!(error.to_string().contains("another build"), "{error}");
}

/// The header of an object file for x86-64 with so many sections, and with symbols where they are.
fn coff_header(sections: u16, symbols: (u32, u32)) -> Vec<u8> {
    let mut file = 0x8664_u16.to_le_bytes().to_vec();
    file.extend(sections.to_le_bytes());
    file.extend([0; 4]);
    file.extend(symbols.0.to_le_bytes());
    file.extend(symbols.1.to_le_bytes());
    file.extend([0; 4]);
    file
}

/// A thousand sections of an object file may be one place of it, and a thousand symbols have one name: what
/// is read of it stays below what a file of its size can hold.
#[test]
fn sections_that_lie_over_each_other() {
    /// Bytes of a section's header and of the parts before a section's records.
    const HEADER: u32 = 40;
    const HEAD: u32 = 12;
    let name = [b'n'; 120];
    let mut record = vec![];
    record.extend(
        u16::try_from(2 + 4 + name.len() + 1)
            .expect("small")
            .to_le_bytes(),
    );
    record.extend([0x69, 0x11, 0, 0, 0, 0]);
    record.extend(name);
    record.push(0);
    let records = record.repeat(100);
    let length = u32::try_from(records.len()).expect("small");
    let file = |sections: u16| {
        let mut file = coff_header(sections, (0, 0));
        let at = 20 + u32::from(sections) * HEADER;
        for _ in 0..sections {
            file.extend(b".debug$S");
            file.extend([0; 8]);
            file.extend((HEAD + length).to_le_bytes());
            file.extend(at.to_le_bytes());
            file.extend([0; 16]);
        }
        for word in [4, 0xf1, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(&records);
        file
    };
    let one = HotPatchObject::parse(&file(1)).expect("an object file");
    assert_eq!(one.functions.len(), 100);
    let why = HotPatchObject::parse(&file(1000)).expect_err("one place, a thousand times");
    assert!(why.to_string().contains("a file of this size"), "{why}");
}

#[test]
fn symbols_that_share_a_name() {
    let shared = |count: u32| {
        let mut file = coff_header(0, (20, 2 * count));
        let name = format!("__ref_{}", "n".repeat(4000));
        for _ in 0..count {
            // The name stands behind the length of all names; a weak external with one more record.
            file.extend([0, 0, 0, 0, 4, 0, 0, 0]);
            file.extend([0, 0, 0, 0, 0, 0, 0, 0, 105, 1]);
            file.extend([0, 0, 0, 0, 3, 0, 0, 0]);
            file.extend([0; 10]);
        }
        file.extend(
            u32::try_from(4 + name.len() + 1)
                .expect("small")
                .to_le_bytes(),
        );
        file.extend(name.as_bytes());
        file.push(0);
        file
    };
    let one = HotPatchObject::parse(&shared(1)).expect("an object file");
    assert_eq!(one.references.len(), 1);
    let why = HotPatchObject::parse(&shared(1000)).expect_err("one name, a thousand times");
    assert!(why.to_string().contains("a file of this size"), "{why}");
}
