//! Windows images that are loaded in memory.
#![allow(dead_code, reason = "each program of tests uses a part of it")]

#[path = "../../../format/tests/scene/mod.rs"]
pub(crate) mod scene;

use std::sync::Arc;

use invivo_apply::{Loaded, MemoryTarget, Protection, Target};
use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

/// Bytes of an address table.
pub(crate) const RESERVE: u64 = 0x2000;

/// Maps `image` at `at`, with room for an address table behind it, as a loader does.
pub(crate) fn load(target: &mut MemoryTarget, image: PeImage, at: u64) -> Loaded {
    let loaded = Loaded {
        at: LiveAddr(at),
        reserve: RESERVE,
        table: None,
        image: Arc::new(image),
    };
    let image = &loaded.image;
    let end = u64::from(image.size).next_multiple_of(0x1000);
    let pages = (0..end + RESERVE).step_by(0x1000);
    for page in pages {
        let section = image.section_at(invivo_image::Rva(page));
        let code = section.is_some_and(|section| section.is_executable()) || page == end;
        let protection = if code {
            Protection::ReadExecute
        } else {
            Protection::ReadWrite
        };
        target.add(
            LiveAddr(at + page)..LiveAddr(at + page + 0x1000),
            protection,
        );
        let bytes: Option<[u8; 0x1000]> = image.array(invivo_image::Rva(page));
        if let Some(bytes) = bytes {
            target.write(LiveAddr(at + page), &bytes).expect("a page");
        } else if page == 0 {
            let head = &image.file()[..image.headers_size as usize];
            target.write(LiveAddr(at), head).expect("the headers");
        }
    }
    loaded
}

/// All bytes of an image and its address table.
pub(crate) fn bytes_of(target: &MemoryTarget, loaded: &Loaded) -> Vec<u8> {
    let end = u64::from(loaded.image.size).next_multiple_of(0x1000) + RESERVE;
    let mut all = Vec::new();
    for page in (0..end).step_by(0x1000) {
        let mut bytes = [0; 0x1000];
        let at = LiveAddr(loaded.at.0 + page);
        target.read(at, &mut bytes).expect("a page");
        all.extend_from_slice(&bytes);
    }
    all
}

/// Some bytes of the target.
pub(crate) fn read<const N: usize>(target: &MemoryTarget, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    target.read(LiveAddr(at), &mut bytes).expect("it is there");
    bytes
}
