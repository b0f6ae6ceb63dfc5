//! Images whose imports were bound before (`/bind`): slots that hold addresses of some other day, and a
//! list of what they were bound to, behind the table of sections.

use invivo_format::hpat::{ChunkKind, read};
use invivo_image::pe::{PeImage, directory};
use windows_tests::{Build, Folder, Library, build, final_image, readobj};

/// The service with an import, bound: its list lies so many bytes behind the table of sections.
fn bound(folder: &Folder, name: &str, how: Build, behind: usize) -> Library {
    let how = how.with("-DIMPORTS").importing(&["GetTickCount"]);
    let library = build(folder, name, "service", &how).expect("it is built");
    let image = library.image().expect("a Windows image");
    let mut file = image.file().to_vec();
    let places = image.header_places();
    let at = places.section_table + 40 * image.sections.len() + behind;
    // Time stamp, offset of the name in the list, and its end.
    let mut list = 0x5f00_0000_u32.to_le_bytes().to_vec();
    list.extend(16_u32.to_le_bytes());
    list.extend([0; 8]);
    list.extend(b"kernel32.dll\0");
    assert!(at + list.len() <= image.headers_size as usize, "room");
    file[at..at + list.len()].copy_from_slice(&list);
    let entry = places.directories + 8 * directory::BOUND_IMPORT;
    let words = [at, list.len()].map(|word| u32::try_from(word).expect("small"));
    for (index, word) in words.into_iter().enumerate() {
        file[entry + 4 * index..entry + 4 * index + 4].copy_from_slice(&word.to_le_bytes());
    }
    // The slot holds where the function was that day; the names stand in a list of their own.
    let slot = image.imports[0].thunks[0].slot;
    let place = image.file_place(slot).expect("in the file").start;
    file[place..place + 8].copy_from_slice(&0x7ffb_1234_5678_u64.to_le_bytes());
    std::fs::write(&library.path, &file).expect("it is written");
    library
}

fn list(image: &PeImage) -> &[u8] {
    let found = image.directory(directory::BOUND_IMPORT).expect("a list");
    let start = usize::try_from(found.at.0).expect("small");
    &image.file()[start..start + found.size as usize]
}

#[test]
fn slots_of_another_day_are_passed_over() {
    let folder = Folder::new("bound");
    let room = 3 * 40;
    let old = bound(&folder, "base", Build::base(), room);
    let new = bound(&folder, "fixed", Build::fixed("answer"), room);
    let made = final_image(&old, &new, 1).expect("nothing stands in the way");
    let (old, new) = (old.image().expect("read"), new.image().expect("read"));
    // What runs alone is still bound, and what is patched takes what the running slot holds.
    assert_eq!(list(&made), list(&new));
    let metadata = read(&made).expect("it has metadata").patch;
    let mut chunks = metadata.bases[0].chunks.iter();
    let copied = chunks.find(|chunk| chunk.kind == ChunkKind::Indirect);
    let copied = &copied.expect("an import is copied").records;
    let slot = |image: &PeImage| image.imports[0].thunks[0].slot.0;
    let record = (u64::from(copied[0].source), u64::from(copied[0].target));
    assert_eq!(record, (slot(&new), slot(&old)));
    let path = folder.join("made.dll");
    std::fs::write(&path, made.file()).expect("it is written");
    let told = readobj(&["--file-headers"], &path).expect("llvm-readobj reads it");
    assert!(told.contains("BoundImportRVA: 0x"), "{told}");
}

#[test]
fn a_list_where_the_next_section_header_would_be() {
    let folder = Folder::new("bound-full");
    let old = bound(&folder, "base", Build::base(), 3 * 40);
    let new = bound(&folder, "fixed", Build::fixed("answer"), 0);
    let why = final_image(&old, &new, 1).expect_err("no room");
    let why = format!("{why:#}");
    assert!(
        why.contains("its list of bound imports is there") && why.contains("bind it later"),
        "{why}"
    );
}
