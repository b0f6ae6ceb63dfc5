//! Hostile debug data: everything is asked that the comparison asks.

#![no_main]

use std::collections::BTreeSet;
use std::sync::Arc;

use invivo_image::{DebugSections, Image};
use libfuzzer_sys::fuzz_target;

/// Places of code in the seeds, for when the input's symbols are lost.
const PLACES: std::ops::Range<u64> = 0x40_0000..0x40_1200;

fuzz_target!(|data: &[u8]| {
    let Ok(image) = Image::parse(Arc::from(data), None) else {
        return;
    };
    let Ok(Some(sections)) = DebugSections::of(&image) else {
        return;
    };
    let Ok(debug) = sections.open() else {
        return;
    };
    let starts = image.entities.iter().map(|entity| entity.addr);
    let places = PLACES.step_by(16).map(invivo_image::LinkAddr);
    let mut functions = Vec::new();
    for at in starts.chain(places).take(400) {
        let _ = debug.place_of(at);
        let _ = debug.compiled_at(at);
        functions.extend(debug.function(at));
    }
    for function in &functions {
        for inlined in &function.inlined {
            let at = inlined.ranges.first().map(|range| range.start);
            let _ = at.map(|at| function.chain(at));
        }
    }
    let all: Vec<_> = functions.iter().collect();
    let _ = debug.types_beside(&all);
    let names = BTreeSet::from(["state"]);
    let asked: Vec<_> = all.iter().map(|f| (*f, names.clone())).collect();
    let _ = debug.types_used(&asked, []);
    let _ = debug.types_named(&BTreeSet::from(["outer", "inner"]));
});
