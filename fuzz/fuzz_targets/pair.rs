//! Two hostile images, compared: a good one, and the same with bytes of the input in it.

#![no_main]

use std::sync::Arc;

use invivo_compare::Comparison;
use invivo_image::Image;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first byte says how the rest is taken apart: where the second image differs.
    let Some((half, rest)) = data.split_first() else {
        return;
    };
    let changes = usize::from(*half) % 64 * 5;
    let Some((changes, file)) = rest.split_at_checked(changes) else {
        return;
    };
    let Ok(base) = Image::parse(Arc::from(file), None) else {
        return;
    };
    let mut other = file.to_vec();
    for change in changes.chunks_exact(5) {
        let place: [u8; 4] = change[..4].try_into().expect("four bytes");
        let place = u32::from_le_bytes(place) as usize % other.len();
        other[place] = change[4];
    }
    let Ok(fixed) = Image::parse(Arc::from(other), None) else {
        return;
    };
    let _ = Comparison::new(&base, &fixed);
    let _ = Comparison::new(&fixed, &base);
});
