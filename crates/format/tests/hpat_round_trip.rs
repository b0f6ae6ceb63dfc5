//! Whatever can be written is read back as it was; and what is broken is
//! never more than an error.

mod scene;

use invivo_format::hpat::{
    Base, Chunk, ChunkKind, HotPatch, Integrity, Record, read_metadata, write,
};
use proptest::prelude::*;

fn record(extra: usize) -> impl Strategy<Value = Record> {
    let extra = prop::collection::vec(any::<u32>(), extra);
    (any::<u32>(), any::<u32>(), extra).prop_map(|(source, target, extra)| Record {
        source,
        target,
        extra,
    })
}

fn chunk(extra: usize) -> impl Strategy<Value = Chunk> {
    let records = prop::collection::vec(record(extra), 0..6);
    (any::<bool>(), 0..8usize, records).prop_filter_map(
        "an empty NONE ends the stream",
        |(inverse, kind, records)| {
            let kind = ChunkKind::KNOWN[kind];
            let chunk = Chunk::new(inverse, kind, records);
            let ends = !inverse && kind == ChunkKind::None && chunk.records.is_empty();
            (!ends).then_some(chunk)
        },
    )
}

fn integrity() -> impl Strategy<Value = Integrity> {
    prop_oneof![
        Just(Integrity::None),
        (any::<[u8; 32]>(), any::<[u8; 20]>())
            .prop_map(|(sha256, sha1)| Integrity::Hashes { sha256, sha1 }),
    ]
}

fn base(extra: usize) -> impl Strategy<Value = Base> {
    let header = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let chunks = prop::collection::vec(chunk(extra), 0..6);
    (header, integrity(), chunks).prop_map(|(header, integrity, chunks)| Base {
        sequence: header.0,
        flags: header.1,
        time_stamp: header.2,
        checksum: header.3,
        integrity,
        buffer_offset: 0,
        chunks,
    })
}

fn hot_patch() -> impl Strategy<Value = HotPatch> {
    (1..=4u32, 0..4u32).prop_flat_map(|(version, extra)| {
        let extra_words = if version >= 3 { extra } else { 0 };
        let later = if version >= 4 { u32::MAX } else { 0 };
        let bases = prop::collection::vec(base(extra_words as usize), 0..4);
        (1..=u32::MAX, any::<u32>(), any::<u32>(), bases).prop_map(
            move |(sequence, min_sequence, flags, bases)| HotPatch {
                version,
                sequence,
                buffer_offset: 0,
                extra_words,
                min_sequence: min_sequence & later,
                flags: flags & later,
                bases,
            },
        )
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(patch in hot_patch()) {
        let bytes = write(&patch).expect("every such patch can be written");
        prop_assert_eq!(&bytes, &write(&patch).expect("again"), "one model, one file");
        let parsed = read_metadata(&bytes).expect("and read");
        prop_assert_eq!(parsed.patch, patch);
        prop_assert_eq!(parsed.places.size as usize, bytes.len());
    }

    #[test]
    fn metadata_that_end_anywhere_are_an_error(patch in hot_patch(), cut in any::<prop::sample::Index>()) {
        let mut bytes = write(&patch).expect("every such patch can be written");
        let cut = cut.index(bytes.len());
        prop_assert!(read_metadata(&bytes[..cut]).is_err());
        // Also when they know that they are shorter, unless only what nobody reads is gone.
        if cut >= 8 {
            bytes.truncate(cut);
            scene::put(&mut bytes, 4, u32::try_from(cut).expect("small"));
            let _ = read_metadata(&bytes);
        }
    }

    #[test]
    fn any_change_is_an_error_or_a_patch(patch in hot_patch(), at in any::<prop::sample::Index>(), value in any::<u32>()) {
        let mut bytes = write(&patch).expect("every such patch can be written");
        let at = at.index(bytes.len() / 4) * 4;
        scene::put(&mut bytes, at, value);
        if let Ok(parsed) = read_metadata(&bytes) {
            let records = parsed.patch.bases.iter().flat_map(|base| &base.chunks);
            let words: usize = records.map(|chunk| chunk.records.len()).sum();
            prop_assert!(words * 8 <= bytes.len(), "no more than the bytes can hold");
        }
    }
}

#[test]
fn many_records_take_several_chunks() {
    let records = vec![Record::default(); 9000];
    let chunks = Chunk::split(true, ChunkKind::Absolute, records);
    let sizes: Vec<usize> = chunks.iter().map(|chunk| chunk.records.len()).collect();
    assert_eq!(sizes, [4095, 4095, 810]);
}
