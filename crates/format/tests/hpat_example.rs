//! The worked example of the format, byte for byte, and each version of it.

mod scene;

use invivo_format::hpat::{ChunkKind, Options, Rule, place, read, read_metadata, validate, write};
use scene::{Scene, base_recipe, example, parse, patch_recipe};

/// Metadata of version 4 with one further word for each record, as published with the
/// description of the format.
const EXAMPLE: &str = "
04 00 00 00 A4 00 00 00 07 00 00 00 24 00 00 00
01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00
00 00 00 00 28 00 00 00 07 00 00 00 10 00 00 00
C3 B2 A1 65 F1 D2 04 00 00 00 00 00 00 00 00 00
48 00 00 00 00 00 00 00 01 C0 01 80 30 20 00 00
00 12 00 00 48 89 5C 24 02 C0 02 80 00 50 00 00
10 40 00 00 00 00 00 00 08 50 00 00 20 40 00 00
00 00 00 00 01 C0 05 80 00 60 00 00 10 60 00 00
00 00 00 00 02 C0 01 00 10 10 00 00 00 11 00 00
48 83 EC 28 30 10 00 00 80 11 00 00 40 53 48 83
00 00 00 00";

#[test]
fn the_worked_example_is_written_byte_for_byte() {
    let expected: Vec<u8> = EXAMPLE
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("two digits"))
        .collect();
    let written = write(&example()).expect("it can be written");
    assert_eq!(written, expected);
    let parsed = read_metadata(&expected).expect("it can be read");
    assert_eq!(parsed.patch, example());
}

#[test]
fn the_final_image_is_sound_and_holds_the_same_metadata() {
    let scene = Scene::new();
    let (patch, base) = (parse(&scene.patch), parse(&scene.base));
    let options = Options {
        base: Some(&base),
        capacity: None,
    };
    let report = validate(&patch, &options);
    assert_eq!(report.findings, [], "{:#?}", report.findings);
    assert!(report.is_sound() && report.without_base.is_empty());
    assert_eq!(read(&patch).expect("it can be read").patch, example());
}

#[test]
fn without_a_base_it_is_said_what_was_not_looked_at() {
    let scene = Scene::new();
    let report = validate(&parse(&scene.patch), &Options::default());
    assert!(report.is_sound());
    assert!(report.without_base.contains(&Rule::A28));
}

#[test]
fn each_version_has_its_own_header() {
    for (version, size) in [(1, 20), (2, 24), (3, 28), (4, 36)] {
        let mut patch = example();
        patch.version = version;
        if version < 3 {
            patch.extra_words = 0;
            let records = patch.bases[0].chunks.iter_mut();
            let records = records.flat_map(|chunk| &mut chunk.records);
            records.for_each(|record| record.extra.clear());
        }
        let written = write(&patch).expect("it can be written");
        let parsed = read_metadata(&written).expect("it can be read");
        assert_eq!(parsed.places.info, 0..size);
        assert_eq!(parsed.patch, patch);
    }
}

#[test]
fn what_a_version_has_no_field_for_is_not_dropped_in_silence() {
    let mut patch = example();
    patch.version = 2;
    let error = write(&patch).expect_err("records have a further word");
    assert_eq!(error.rule, Rule::A03, "{error}");
}

#[test]
fn an_empty_chunk_keeps_its_header() {
    let mut patch = example();
    patch.bases[0].chunks[2].records.clear();
    let parsed = read_metadata(&write(&patch).expect("it can be written"));
    let chunks = &parsed.expect("it can be read").patch.bases[0].chunks;
    assert_eq!(chunks.len(), 4);
    assert_eq!(chunks[2].kind, ChunkKind::Indirect);
}

#[test]
fn what_is_in_the_file_keeps_its_place() {
    let recipe = patch_recipe();
    let mut file = recipe.file();
    let sections = file.len();
    file.extend_from_slice(b"an overlay that somebody finds by its offset");
    let placed = place(&parse(&file), &example()).expect("there is room");
    assert_eq!(placed.overlay, 44);
    assert_eq!(&placed.file[sections..sections + 44], &file[sections..]);
    let made = parse(&placed.file);
    assert_eq!(made.sections.last().expect("a section").name, ".hpat");
    assert_eq!(made.size, 0xa000);
    let places = made.header_places();
    assert_eq!(
        made.checksum,
        invivo_image::pe::checksum(&placed.file, places.checksum)
    );
}

#[test]
fn a_certificate_does_not_survive_what_it_certified() {
    let mut recipe = patch_recipe();
    let start = u32::try_from(recipe.file().len()).expect("small");
    recipe.directories.push((4, start, 0x60));
    let mut file = recipe.file();
    file.resize(start as usize + 0x60, 0xaa);
    let placed = place(&parse(&file), &example()).expect("there is room");
    assert_eq!((placed.certificates, placed.overlay), (0x60, 0));
    assert!(!placed.file.windows(4).any(|bytes| bytes == [0xaa; 4]));
    assert!(parse(&placed.file).directory(4).is_none());

    // One that is not at the end may belong to anything.
    file.extend_from_slice(b"more than what fills up to eight bytes");
    let error = place(&parse(&file), &example()).expect_err("not the end of the file");
    assert!(
        error.to_string().contains("before it was signed"),
        "{error}"
    );
}

#[test]
fn an_image_that_cannot_name_metadata_is_refused() {
    let error = place(&parse(&base_recipe().file()), &example()).expect_err("no configuration");
    assert!(error.to_string().contains("_load_config_used"), "{error}");
    let error = place(&parse(&Scene::new().patch), &example()).expect_err("it has some");
    assert!(error.to_string().contains("already"), "{error}");
    let mut crowded = patch_recipe();
    for number in 0..10 {
        crowded
            .parts
            .push((".more", 0x9000 + number * 0x1000, vec![1], 0x4000_0040));
    }
    crowded.image_size = 0x13000;
    let error = place(&parse(&crowded.file()), &example()).expect_err("no room");
    assert!(error.to_string().contains("fewer"), "{error}");
}
