//! Hot patches of modern Windows, made live in images in memory: the worked example, what is
//! refused, models that go through a file into a target and back, and steps that fail.

mod gated;
mod images;

use std::cell::Cell;

use gated::{Gate, Gated, Step};
use images::scene::{self, Scene, record};
use images::{bytes_of, load, read};
use invivo_apply::hpat::{Outcome, PatchedImage};
use invivo_apply::{ApplyError, Loaded, MemoryTarget, Stack, Target, TargetError, Thread};
use invivo_format::hpat::{Chunk, ChunkKind, HotPatch, Record, place, read as read_patch};
use invivo_image::LiveAddr;
use proptest::prelude::*;

const BASE: u64 = 0x1_8000_0000;
const PATCH: u64 = 0x1_9000_0000;
const LATER: u64 = 0x1_a000_0000;

/// The base of the worked example, patched by nothing.
fn base() -> (MemoryTarget, PatchedImage) {
    let mut target = MemoryTarget::default();
    let image = scene::parse(&Scene::new().base);
    let loaded = load(&mut target, image, BASE);
    (target, PatchedImage::new(loaded))
}

fn loaded(target: &mut MemoryTarget, patch: &HotPatch, at: u64) -> Loaded {
    let image = scene::parse(&Scene::with(patch).patch);
    load(target, image, at)
}

/// The worked example's successor: one function less.
fn successor() -> HotPatch {
    let mut patch = scene::example();
    patch.sequence = 8;
    patch.bases[0].chunks = vec![Chunk::new(
        false,
        ChunkKind::Function,
        vec![record(0x1010, 0x1140, 0x28ec_8348)],
    )];
    patch
}

#[test]
fn the_worked_example_is_live_byte_for_byte() {
    let (mut target, mut state) = base();
    let patch = loaded(&mut target, &scene::example(), PATCH);
    target
        .write(LiveAddr(BASE + 0x6010), &[7, 8, 9])
        .expect("an import");
    let before = bytes_of(&target, state.base());
    let outcome = state.apply(&mut target, &patch).expect("it fits");
    assert_eq!((outcome.fresh, outcome.replaced), (2, 0));
    assert_eq!(outcome.stopped.as_nanos(), 0);

    assert_eq!(
        read(&target, BASE + 0x100b),
        [0xe9, 0xf0, 0x6f, 0, 0, 0xeb, 0xf9]
    );
    assert_eq!(
        read(&target, BASE + 0x102b),
        [0xe9, 0xd8, 0x6f, 0, 0, 0xeb, 0xf9]
    );
    let slot = [0xff, 0x25, 0xfa, 0x0f, 0, 0, 0xcc, 0xcc];
    assert_eq!(
        [read(&target, BASE + 0x8000), read(&target, BASE + 0x8008)],
        [slot; 2]
    );
    let pointer = |target: &MemoryTarget, at| u64::from_le_bytes(read(target, at));
    assert_eq!(pointer(&target, BASE + 0x9000), PATCH + 0x1100);
    assert_eq!(pointer(&target, BASE + 0x9008), PATCH + 0x1180);
    // The patch is led back: a function, two pointers, an import.
    let table = u64::from(patch.image.size).next_multiple_of(0x1000);
    let distance = u32::try_from(table - 0x2030).expect("near").to_le_bytes();
    let [a, b, c, d] = distance;
    assert_eq!(
        read(&target, PATCH + 0x202b),
        [0xe9, a, b, c, d, 0xeb, 0xf9]
    );
    assert_eq!(pointer(&target, PATCH + table + 0x1000), BASE + 0x1200);
    assert_eq!(pointer(&target, PATCH + 0x5000), BASE + 0x4010);
    assert_eq!(pointer(&target, PATCH + 0x5008), BASE + 0x4020);
    assert_eq!(pointer(&target, PATCH + 0x6000), 0x0009_0807);

    // The successor has one function less, and takes the entry of the other one over.
    let later = loaded(&mut target, &successor(), LATER);
    let outcome = state.apply(&mut target, &later).expect("it is later");
    assert_eq!(
        (outcome.fresh, outcome.replaced, outcome.restored),
        (0, 1, 1)
    );
    assert_eq!(pointer(&target, BASE + 0x9000), LATER + 0x1140);
    assert_eq!(read(&target, BASE + 0x1030), [0x40, 0x53, 0x48, 0x83]);
    assert_eq!(state.live().collect::<Vec<_>>(), [0x1010]);

    let outcome = state.revert(&mut target).expect("it is taken back");
    assert_eq!((outcome.restored, outcome.left), (1, false));
    assert!(bytes_of(&target, state.base()) == before, "byte for byte");
    state
        .apply(&mut target, &patch)
        .expect("it can be applied again");
    state.revert(&mut target).expect("and taken back again");
    assert!(bytes_of(&target, state.base()) == before, "byte for byte");
}

/// Nothing is written, and the text names what is wrong.
fn refusal(prepare: impl Fn(&mut MemoryTarget, &mut HotPatch), text: &str) {
    let (mut target, mut state) = base();
    let mut model = scene::example();
    prepare(&mut target, &mut model);
    let patch = loaded(&mut target, &model, PATCH);
    let images = |target: &MemoryTarget| [&patch, state.base()].map(|i| bytes_of(target, i));
    let before = images(&target);
    let error = state.preflight(&target, &patch).expect_err(text);
    assert!(
        matches!(error, ApplyError::Refused(_)) && error.to_string().contains(text),
        "{error}"
    );
    assert!(images(&target) == before);
    let error = state.apply(&mut target, &patch).expect_err(text);
    assert!(error.to_string().contains(text), "{error}");
    let now = [&patch, state.base()].map(|image| bytes_of(&target, image));
    assert!(now == before, "nothing is written");
}

#[test]
fn what_does_not_fit_is_refused_before_the_first_write() {
    let write = |at: u64, bytes: &'static [u8]| {
        move |target: &mut MemoryTarget, _: &mut HotPatch| {
            target
                .write(LiveAddr(BASE + at), bytes)
                .expect("it is there");
        }
    };
    refusal(write(0x1030, &[0xeb, 0xf0]), "somebody else hooked");
    refusal(write(0x1010, &[0xe9]), "in the file they are");
    refusal(write(0x100d, &[0xe9]), "in the file they are");
    refusal(write(0x8008, &[1]), "somebody else uses the address table");
    refusal(write(0x88, &[1]), "time stamp");
    refusal(write(0xd8, &[1]), "checksum");
    refusal(|_, patch| patch.bases[0].checksum = 1, "A28");
    refusal(|_, patch| patch.min_sequence = 3, "goes over sequence 3");
    let forward = |patch: &mut HotPatch, change: &dyn Fn(&mut Record)| {
        change(&mut patch.bases[0].chunks[3].records[0]);
    };
    refusal(
        |_, patch| forward(patch, &|record| record.target = 0x8f_0000),
        "A16",
    );
    refusal(
        |_, patch| forward(patch, &|record| record.extra[0] = 1),
        "A24",
    );
    refusal(
        |_, patch| forward(patch, &|record| record.source = 0x1031),
        "A2",
    );
    refusal(
        |_, patch| patch.bases[0].chunks[1].kind = ChunkKind::DynamicValue,
        "DYNAMIC_VALUE",
    );
    refusal(
        |_, patch| {
            let many = (0..513)
                .map(|n| record(0x2030 + 8 * n, 0x1200, 0))
                .collect();
            patch.bases[0].chunks[0].records = many;
        },
        "(and",
    );
}

#[test]
fn a_patch_that_comes_too_late_is_refused() {
    let (mut target, mut state) = base();
    let later = loaded(&mut target, &successor(), LATER);
    let patch = loaded(&mut target, &scene::example(), PATCH);
    state.apply(&mut target, &later).expect("it fits");
    let error = state.apply(&mut target, &patch).expect_err("7 is before 8");
    assert!(error.to_string().contains("sequence 8 is live"), "{error}");
}

#[test]
fn a_place_that_somebody_changed_meanwhile_is_refused() {
    for at in [0x100c, 0x1010, 0x8003, 0x9008] {
        let (mut target, mut state) = base();
        let patch = loaded(&mut target, &scene::example(), PATCH);
        let later = loaded(&mut target, &successor(), LATER);
        state.apply(&mut target, &patch).expect("it fits");
        target
            .write(LiveAddr(BASE + at), &[0x55])
            .expect("it is there");
        let error = state.revert(&mut target).expect_err("not ours any more");
        assert!(error.to_string().contains("somebody changed"), "{error}");
        let error = state
            .apply(&mut target, &later)
            .expect_err("not ours any more");
        assert!(error.to_string().contains("somebody changed"), "{error}");
    }
}

/// A thread that stands before the jump in front of a function keeps its bytes from being given
/// back; what is left is used by the next patch, and given back later.
#[test]
fn bytes_that_a_thread_goes_through_stay() {
    let (mut target, mut state) = base();
    let before = bytes_of(&target, state.base());
    let patch = loaded(&mut target, &scene::example(), PATCH);
    state.apply(&mut target, &patch).expect("it fits");
    for place in [0x100b, 0x8000] {
        let stack = Stack {
            thread: Thread {
                tid: 1,
                name: "caller".to_owned(),
            },
            frames: vec![LiveAddr(BASE + place)],
            unknown: Some("nothing is known of it".to_owned()),
            running: true,
            handlers: false,
        };
        target.set_stacks(vec![stack]);
        let outcome = state.revert(&mut target).expect("entries are restored");
        assert_eq!((outcome.restored, outcome.left), (2, true));
        assert_eq!(read(&target, BASE + 0x1010), [0x48, 0x83]);
        assert_eq!(read(&target, BASE + 0x100b), [0xe9]);
        let outcome = state.apply(&mut target, &patch).expect("it is used again");
        assert_eq!(outcome.fresh, 2);
    }
    target.set_stacks(Vec::new());
    assert!(!state.revert(&mut target).expect("nobody is there").left);
    assert!(bytes_of(&target, state.base()) == before, "byte for byte");
}

/// A function one byte before an 8-byte boundary: no single store changes it.
#[test]
fn a_function_across_a_boundary_stops_all_threads() {
    let mut recipe = scene::base_recipe();
    recipe.parts[0].2[0x57..0x5b].copy_from_slice(&[0x48, 0x83, 0xec, 0x28]);
    let mut target = MemoryTarget::default();
    let base = load(&mut target, scene::parse(&recipe.file()), BASE);
    let mut state = PatchedImage::new(base);
    let mut model = successor();
    model.bases[0].chunks[0].records = vec![record(0x1057, 0x1140, 0x28ec_8348)];
    let patch = loaded(&mut target, &model, PATCH);
    assert!(state.preflight(&target, &patch).expect("it fits").stops());
    let before = bytes_of(&target, state.base());
    state.apply(&mut target, &patch).expect("it fits");
    assert_eq!(read(&target, BASE + 0x1057), [0xeb, 0xf9]);
    state.revert(&mut target).expect("it is taken back");
    assert!(bytes_of(&target, state.base()) == before);
}

/// Lets one step fail, once.
struct Countdown(Cell<usize>);

impl Gate for Countdown {
    fn step(&self, _: Step) -> Result<(), TargetError> {
        let left = self.0.get();
        self.0.set(left.wrapping_sub(1));
        match left {
            0 => Err(TargetError::NotNow("this step fails".to_owned())),
            _ => Ok(()),
        }
    }
}

/// Lets each step of `command` fail in turn; the base must be as it was, and the command must
/// succeed when it is given again.
fn fail_each_step(
    target: &MemoryTarget,
    state: &PatchedImage,
    command: impl Fn(&mut PatchedImage, &mut dyn Target) -> Result<Outcome, ApplyError>,
) -> usize {
    let before = bytes_of(target, state.base());
    let mut done = (target.clone(), state.clone());
    command(&mut done.1, &mut done.0).expect("nothing fails");
    let after = bytes_of(&done.0, state.base());
    for step in 0..500 {
        let mut gated = Gated::new(target.clone(), Countdown(Cell::new(step)));
        let mut state = state.clone();
        let result = command(&mut state, &mut gated);
        let failed = gated.gate.0.get() > usize::MAX / 2;
        let mut inner = gated.inner();
        let now = bytes_of(&inner, state.base());
        match result {
            Err(ApplyError::Inconsistent(text)) => unreachable!("step {step}: {text}"),
            Err(_) => assert!(now == before, "step {step}: not as before"),
            // Only giving back what is left may fail in silence.
            Ok(outcome) => assert!(now == after || outcome.left, "step {step}: not done"),
        }
        if now == before {
            command(&mut state, &mut inner).expect("again");
            assert!(
                bytes_of(&inner, state.base()) == after,
                "step {step}: not done"
            );
        }
        if !failed {
            return step;
        }
    }
    unreachable!("the command has no end")
}

#[test]
fn each_step_may_fail() {
    let (mut target, mut state) = base();
    let patch = loaded(&mut target, &scene::example(), PATCH);
    let later = loaded(&mut target, &successor(), LATER);
    let steps = fail_each_step(&target, &state, |state, target| state.apply(target, &patch));
    assert!(steps > 12, "{steps}");
    state.apply(&mut target, &patch).expect("it fits");
    let steps = fail_each_step(&target, &state, |state, target| state.apply(target, &later));
    assert_eq!(steps, 2, "a pointer, and an entry");
    let steps = fail_each_step(&target, &state, PatchedImage::revert);
    assert!(steps > 6, "{steps}");
}

/// A patch of some of the base's 24 functions, with places that are led back.
fn any_patch(sequence: u32) -> impl Strategy<Value = HotPatch> {
    let some = |most| prop::collection::btree_set(0..most, 0..12);
    (
        prop::collection::btree_set(0..24_u32, 1..12),
        some(24_u32),
        some(30),
        some(30),
    )
        .prop_map(move |(replaced, unchanged, pointers, slots)| {
            let function = |from: u32, n: u32, to| record(from + 0x20 * n, to, 0x28ec_8348);
            let records = [
                (
                    true,
                    ChunkKind::Function,
                    unchanged
                        .iter()
                        .map(|n| function(0x2010, *n, 0x1010 + 0x20 * n))
                        .collect(),
                ),
                (
                    true,
                    ChunkKind::Absolute,
                    pointers
                        .iter()
                        .map(|n| record(0x5000 + 8 * n, 0x4000 + 4 * n, 0))
                        .collect(),
                ),
                (
                    true,
                    ChunkKind::Indirect,
                    slots
                        .iter()
                        .map(|n| record(0x6000 + 8 * n, 0x6000 + 8 * n, 0))
                        .collect(),
                ),
                (
                    false,
                    ChunkKind::Function,
                    replaced
                        .iter()
                        .map(|n| function(0x1010, *n, 0x1010 + 0x20 * n))
                        .collect(),
                ),
            ];
            let mut patch = scene::example();
            patch.sequence = sequence;
            let chunks = records
                .into_iter()
                .flat_map(|(inverse, kind, r)| Chunk::split(inverse, kind, r));
            patch.bases[0].chunks = chunks.collect();
            patch
        })
}

fn with_functions(recipe: &mut scene::Recipe<'_>, starts: &[usize]) {
    recipe.parts[0].2.resize(0x1800, 0xcc);
    for start in starts {
        for n in 0..24 {
            let at = start + 0x20 * n;
            let code = &mut recipe.parts[0].2;
            code[at - 0x10..at + 0x10].fill(0xcc);
            code[at..at + 4].copy_from_slice(&[0x48, 0x83, 0xec, 0x28]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any model is written, read back, applied, replaced and taken back, and the memory of the
    /// base is what it was.
    #[test]
    fn any_patch_is_taken_back_to_the_last_byte(first in any_patch(1), second in any_patch(2), both in any::<bool>()) {
        let mut recipe = scene::base_recipe();
        with_functions(&mut recipe, &[0x10]);
        let mut target = MemoryTarget::default();
        let base = load(&mut target, scene::parse(&recipe.file()), BASE);
        let mut state = PatchedImage::new(base);
        let before = bytes_of(&target, state.base());
        let models = [(first, PATCH), (second, LATER)];
        for (model, at) in models.iter().take(1 + usize::from(both)) {
            let mut recipe = scene::patch_recipe();
            with_functions(&mut recipe, &[0x10, 0x1010]);
            let mut made = model.clone();
            made.bases[0].checksum = state.base().image.checksum;
            let placed = place(&scene::parse(&recipe.file()), &made).expect("there is room");
            let image = scene::parse(&placed.file);
            prop_assert_eq!(&read_patch(&image).expect("it was just written").patch, &made);
            let patch = load(&mut target, image, *at);
            state.apply(&mut target, &patch).expect("it fits");
            let named: Vec<u32> = made.bases[0].chunks.iter().filter(|c| !c.inverse)
                .flat_map(|c| c.records.iter().map(|r| r.source)).collect();
            prop_assert_eq!(state.live().collect::<Vec<_>>(), named);
        }
        state.revert(&mut target).expect("it is taken back");
        prop_assert!(bytes_of(&target, state.base()) == before);
    }
}
