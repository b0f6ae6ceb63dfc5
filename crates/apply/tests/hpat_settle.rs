//! A tool that died in the middle of an apply: whatever it had done, the next one undoes it.

mod images;

use images::scene::{self, Scene};
use images::{bytes_of, load};
use invivo_apply::hpat::{HotPatchRecord, PatchedImage};
use invivo_apply::{MemoryTarget, Target};
use invivo_image::LiveAddr;

const BASE: u64 = 0x1_8000_0000;
const PATCH: u64 = 0x1_9000_0000;

#[test]
fn what_a_tool_that_died_left_is_undone() {
    let mut steps = 0;
    // It died before anything, or with so many functions already led to the patch.
    for done in 0.. {
        let mut target = MemoryTarget::default();
        let base = load(&mut target, scene::parse(&Scene::new().base), BASE);
        let patch = scene::parse(&Scene::with(&scene::example()).patch);
        let patch = load(&mut target, patch, PATCH);
        let before = bytes_of(&target, &base);
        let mut record = HotPatchRecord::default();
        let mut state = PatchedImage::new(base.clone());
        let applied = state.apply_before(&mut target, &patch, &mut |_, intent| {
            record.entries.clone_from(&intent.entries);
            record.words.clone_from(&intent.words);
            Ok(())
        });
        applied.expect("it fits");
        steps = record.words.len();
        if done > steps {
            break;
        }
        for word in record.words[done..].iter().rev() {
            let undone = target.store(LiveAddr(word.at), &word.old);
            undone.expect("it was not done yet");
        }
        let settled = PatchedImage::settle(&mut target, base.clone(), vec![patch], &record);
        let (mut state, settled) = settled.expect("it can be undone");
        assert!(settled, "something was open");
        assert_eq!(state.live().count(), 0, "{done} done: none is live");
        // What is left of it leads nowhere, and goes with the next revert.
        state.revert(&mut target).expect("nothing is live");
        assert!(
            bytes_of(&target, &base) == before,
            "{done} done: not byte for byte"
        );
        // Somebody else's change is not undone.
        let word = &record.words[0];
        target
            .write(LiveAddr(word.at), &vec![0xf4; word.new.len()])
            .expect("memory");
        let refused = PatchedImage::settle(&mut target, base, Vec::new(), &record);
        assert!(refused.is_err(), "{done} done");
    }
    assert!(steps >= 2, "the example has two functions");
}
