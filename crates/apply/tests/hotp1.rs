//! Hot patches of Windows Server 2003 to 7, made live in images in memory: the worked example,
//! what is refused, patches that lie over each other, files that were patched on disk, threads in
//! the way, and steps that fail.

mod gated;
mod images;
mod older;

use std::cell::Cell;

use gated::{Gate, Gated, Step};
use images::scene::{CHECKSUM, parse};
use images::{bytes_of, load, read};
use invivo_apply::hotp1::{COLD_PATCH_VALID, PatchedModule};
use invivo_apply::{
    ApplyError, Loaded, MemoryTarget, Protection, Stack, Target, TargetError, Thread,
};
use invivo_format::hotp1::{Hook, HookKind, LegacyPatch, ModuleId, hook_options};
use invivo_image::LiveAddr;
use older::{example, hook, patch_file, target_file, validation};

/// Where the target and the patch are: not where they were linked.
const TARGET: u64 = 0x2300_0000;
const PATCH: u64 = 0x3400_0000;
const LATER: u64 = 0x3500_0000;

fn module(target: &mut MemoryTarget, mark: Option<u64>) -> PatchedModule {
    PatchedModule::new(load(target, parse(&target_file(mark)), TARGET))
}

fn patch(target: &mut MemoryTarget, model: &LegacyPatch, at: u64) -> Loaded {
    load(target, parse(&patch_file(model)), at)
}

#[test]
fn the_worked_example_is_live_and_removed_byte_for_byte() {
    let mut target = MemoryTarget::default();
    let mut module = module(&mut target, None);
    let patch = patch(&mut target, &example(), PATCH);
    let before = bytes_of(&target, module.target());
    assert_eq!(module.preflight(&target, &patch).expect("it fits"), 2);
    let outcome = module.apply(&mut target, &patch).expect("it fits");
    assert_eq!(outcome.hooks, 2);
    // From 0x23001070 to 0x34001000.
    assert_eq!(
        read(&target, TARGET + 0x106b),
        [0xe9, 0x90, 0xff, 0xff, 0x10, 0xeb, 0xf9]
    );
    // The target is 0xde0000 further on, the patch 0xcd0000.
    assert_eq!(
        u32::from_le_bytes(read(&target, PATCH + 0x1024)),
        0x2300_2000
    );
    let far = 0xeeee_0000_u32 + (0x00de_0000 - 0x00cd_0000);
    assert_eq!(u32::from_le_bytes(read(&target, PATCH + 0x1031)), far);
    let error = module.apply(&mut target, &patch).expect_err("it is there");
    assert!(error.to_string().contains("active already"), "{error}");

    module.remove(&mut target, patch.at).expect("it is removed");
    assert!(
        bytes_of(&target, module.target()) == before,
        "byte for byte"
    );
    assert!(!module.list()[0].active);
    module
        .remove(&mut target, patch.at)
        .expect_err("it is removed already");
    // Again: its words are fixed up once only.
    module.apply(&mut target, &patch).expect("again");
    assert_eq!(
        u32::from_le_bytes(read(&target, PATCH + 0x1024)),
        0x2300_2000
    );
    module.remove(&mut target, patch.at).expect("it is removed");
    assert!(
        bytes_of(&target, module.target()) == before,
        "byte for byte"
    );
}

/// Every type writes its bytes, and `CC` behind a jump.
#[test]
fn what_each_type_writes() {
    let cases: [(Hook, &[u8]); 5] = [
        (
            hook(HookKind::Va32, 4, 0x2010, 0x1234, None),
            &[0x34, 0x12, 0, 0x34],
        ),
        (
            hook(HookKind::Va32, 6, 0x2010, 0x1234, None),
            &[0x34, 0x12, 0, 0x34, 0, 0],
        ),
        (
            hook(HookKind::X86Jmp, 6, 0x1100, 0x1105, None),
            &[0xe9, 0, 0, 0, 0x11, 0xcc],
        ),
        (
            hook(HookKind::X86Jmp, 5, 0x1100, 0x1105, None),
            &[0xe9, 0, 0, 0, 0x11, 0xc3],
        ),
        (
            hook(HookKind::X86Jmp, 8, 0x1120, 0x1125, None),
            &[0xe9, 0, 0, 0, 0x11, 0xcc, 0xcc, 0xcc],
        ),
    ];
    for (hook, bytes) in cases {
        let mut target = MemoryTarget::default();
        let mut module = module(&mut target, None);
        let before = bytes_of(&target, module.target());
        let mut model = example();
        let at = TARGET + u64::from(hook.at);
        model.hooks = vec![hook];
        let patch = patch(&mut target, &model, PATCH);
        module.apply(&mut target, &patch).expect("it fits");
        let mut found = vec![0; bytes.len()];
        target.read(LiveAddr(at), &mut found).expect("it is there");
        assert_eq!(found, bytes, "{:?}", model.hooks);
        module.remove(&mut target, patch.at).expect("it is removed");
        assert!(
            bytes_of(&target, module.target()) == before,
            "byte for byte"
        );
    }
}

/// What is changed makes the patch refused, with this text, and nothing is written.
fn refusal(change: impl Fn(&mut MemoryTarget, &mut LegacyPatch), text: &str) {
    let mut target = MemoryTarget::default();
    let mut module = module(&mut target, None);
    let mut model = example();
    change(&mut target, &mut model);
    let patch = patch(&mut target, &model, PATCH);
    let both = |target: &MemoryTarget, module: &PatchedModule| {
        [module.target(), &patch].map(|image| bytes_of(target, image))
    };
    let before = both(&target, &module);
    let error = module.apply(&mut target, &patch).expect_err(text);
    assert!(matches!(error, ApplyError::Refused(_)), "{error}");
    assert!(error.to_string().contains(text), "{error}");
    assert!(both(&target, &module) == before, "nothing is written");
}

#[test]
fn what_does_not_fit_is_refused_before_the_first_write() {
    let at = |place: u64, bytes: &'static [u8]| {
        move |target: &mut MemoryTarget, _: &mut LegacyPatch| {
            target
                .write(LiveAddr(TARGET + place), bytes)
                .expect("it is there");
        }
    };
    refusal(at(0x106d, &[0xcc]), "0xc000003e");
    refusal(at(0x1070, &[0xeb, 0xf9]), "0xc000003e");
    refusal(|_, patch| patch.id = ModuleId::checksum(1), "0xc0000059");
    refusal(|_, patch| patch.hooks[1].to = 0xffff_fff8, "B13");
    refusal(|_, patch| patch.hooks[0].kind = HookKind::PcRel32, "B08");
    refusal(|_, patch| patch.hooks[0].at = 0x2fff, "0xc000007b");
    refusal(|_, patch| patch.validations[1].target = 0x2fff, "B12");
    let general = |patch: &mut LegacyPatch, bytes: &[u8], at| {
        let mut one = validation(bytes, at);
        one.flags = 0;
        patch.validations.push(one);
    };
    refusal(|_, patch| general(patch, &[0x31], 0x1076), "0xc000003e");
    refusal(|_, patch| general(patch, &[0], 0x3000), "0xc000007b");
    refusal(
        |_, patch| {
            patch.hooks[0].options |= hook_options::NEAR;
            patch.hooks[0].at = 0x2010;
            patch.hooks[0].validation = None;
            patch.hooks.truncate(1);
        },
        "code into data",
    );
}

/// General validations come first, whatever hooks would say.
#[test]
fn general_validations_come_before_hooks() {
    let mut target = MemoryTarget::default();
    let mut module = module(&mut target, None);
    let mut model = example();
    let mut general = validation(&[0x31], 0x1077);
    general.flags = 0;
    model.validations.push(general);
    model.validations[0].bytes[0] = 0xcc;
    let patch = patch(&mut target, &model, PATCH);
    let error = module
        .apply(&mut target, &patch)
        .expect_err("two things are wrong");
    assert!(error.to_string().contains("at 0x23001077"), "{error}");
}

#[test]
fn a_patch_lies_over_an_earlier_one() {
    let mut target = MemoryTarget::default();
    let mut module = module(&mut target, None);
    let before = bytes_of(&target, module.target());
    let first = patch(&mut target, &example(), PATCH);
    let second = patch(&mut target, &example(), LATER);
    module.apply(&mut target, &first).expect("it fits");
    let with_first = bytes_of(&target, module.target());
    // It expects the target's own bytes, and finds those of a patch of the list.
    module
        .apply(&mut target, &second)
        .expect("it lies over the first");
    assert_eq!(
        read(&target, TARGET + 0x106b),
        [0xe9, 0x90, 0xff, 0xff, 0x11, 0xeb, 0xf9]
    );
    let error = module
        .remove(&mut target, first.at)
        .expect_err("it is below");
    assert!(error.to_string().contains("lies over it"), "{error}");
    module.remove(&mut target, second.at).expect("it is above");
    assert!(
        bytes_of(&target, module.target()) == with_first,
        "the first is live again"
    );
    module.remove(&mut target, first.at).expect("it is removed");
    assert!(
        bytes_of(&target, module.target()) == before,
        "byte for byte"
    );
    // What nobody of the list wrote is not stacked upon.
    target
        .write(LiveAddr(TARGET + 0x106b), &with_first[0x106b..0x1072])
        .expect("a foreign hook");
    let error = module
        .apply(&mut target, &second)
        .expect_err("a foreign hook");
    assert!(
        error.to_string().contains("no earlier patch wrote that"),
        "{error}"
    );
}

#[test]
fn a_file_that_was_patched_on_disk_is_known_by_its_mark() {
    let mut target = MemoryTarget::default();
    let mut cold = module(&mut target, Some(CHECKSUM.into()));
    let before = bytes_of(&target, cold.target());
    let hot = patch(&mut target, &example(), PATCH);
    cold.apply(&mut target, &hot)
        .expect("jumps stand where jumps are put");
    assert_eq!(cold.list()[0].flags, COLD_PATCH_VALID);
    // A fix of the fix expects the base's bytes, too, and lies over jumps that lie over those of the file.
    let with_first = bytes_of(&target, cold.target());
    let later = patch(&mut target, &example(), LATER);
    cold.apply(&mut target, &later)
        .expect("below the first are the file's jumps");
    assert!(bytes_of(&target, cold.target()) != with_first);
    cold.remove(&mut target, later.at).expect("it is above");
    assert!(bytes_of(&target, cold.target()) == with_first);
    cold.remove(&mut target, hot.at).expect("it is removed");
    assert!(bytes_of(&target, cold.target()) == before, "byte for byte");

    // Only jumps of the same kind are excepted, and only where the mark names this build.
    let mut model = example();
    model.hooks = vec![hook(HookKind::X86Jmp, 5, 0x1100, 0x1000, Some(2))];
    model
        .validations
        .push(validation(&[0xb8, 2, 0, 0, 0], 0x1100));
    let other = patch(&mut target, &model, LATER);
    let error = cold
        .apply(&mut target, &other)
        .expect_err("no jump is there");
    assert!(error.to_string().contains("0xc000003e"), "{error}");
    let mut target = MemoryTarget::default();
    let mut foreign = module(&mut target, Some(5));
    let hot = patch(&mut target, &example(), PATCH);
    let error = foreign
        .apply(&mut target, &hot)
        .expect_err("made from another file");
    assert!(error.to_string().contains("0xc0000059"), "{error}");
}

/// What the file has at a place is excepted, and not any jump: in memory somebody else may have put one
/// there since.
#[test]
fn a_foreign_jump_in_a_file_that_was_patched_on_disk() {
    for (place, foreign) in [(0x106b, vec![0xe9, 1, 2, 3, 4]), (0x1070, vec![0xeb, 0x10])] {
        let mut target = MemoryTarget::default();
        let mut cold = module(&mut target, Some(CHECKSUM.into()));
        let hot = patch(&mut target, &example(), PATCH);
        target
            .write(LiveAddr(TARGET + place), &foreign)
            .expect("a foreign hook");
        let before = bytes_of(&target, cold.target());
        let error = cold
            .apply(&mut target, &hot)
            .expect_err("somebody else's jump");
        assert!(error.to_string().contains("0xc000003e"), "{error}");
        assert!(bytes_of(&target, cold.target()) == before);
    }
}

/// Hooks that need both images within 2 GiB are refused where they are not, before the first write.
#[test]
fn images_that_are_too_far_from_each_other() {
    for (at, fits) in [(TARGET + 0x7fff_0000, true), (TARGET + 0x8000_0000, false)] {
        let mut target = MemoryTarget::default();
        let mut module = module(&mut target, None);
        let mut model = example();
        model.hooks[0].options |= hook_options::NEAR;
        let patch = patch(&mut target, &model, at);
        let before = bytes_of(&target, module.target());
        let applied = module.apply(&mut target, &patch);
        assert_eq!(applied.is_ok(), fits, "{at:#x}: {applied:?}");
        if let Err(error) = applied {
            let text = error.to_string();
            assert!(text.contains("0xc0000018"), "{text}");
            assert!(text.contains("not within 2 GiB"), "{text}");
            assert!(bytes_of(&target, module.target()) == before);
        }
    }
}

/// A validation may reach over places that an earlier patch hooked: compared is what was there before
/// them.
#[test]
fn a_validation_over_hooks_of_earlier_patches() {
    let mut target = MemoryTarget::default();
    let mut module = module(&mut target, None);
    let first = patch(&mut target, &example(), PATCH);
    let wide = |wrong: bool| {
        let mut model = example();
        // From the padding before the function to its end: both hooks of the first patch, one over
        // which this one's own lies and one that it only looks at.
        let mut bytes = [&[0x90; 5][..], &[0x8b, 0xff, 0x55, 0x8b, 0xec, 0x31, 0xc0]].concat();
        if wrong {
            bytes[8] ^= 1;
        }
        model.validations = vec![validation(&bytes, 0x106b)];
        model.hooks[0].validation = Some(0);
        model.hooks[1].validation = Some(0);
        model
    };
    let second = patch(&mut target, &wide(false), LATER);
    let third = patch(&mut target, &wide(true), LATER + 0x100_0000);
    module.apply(&mut target, &first).expect("it fits");
    module
        .apply(&mut target, &second)
        .expect("under the first patch's hooks everything is as expected");
    let error = module
        .apply(&mut target, &third)
        .expect_err("other bytes are expected");
    assert!(error.to_string().contains("0xc000003e"), "{error}");
    // A hook of the list that somebody changed excuses nothing.
    let again = patch(&mut target, &wide(false), LATER + 0x200_0000);
    target
        .write(LiveAddr(TARGET + 0x106c), &[0x77])
        .expect("somebody");
    let error = module.apply(&mut target, &again).expect_err("changed");
    assert!(error.to_string().contains("0xc000003e"), "{error}");
}

fn standing(at: u64) -> Vec<Stack> {
    vec![Stack {
        thread: Thread {
            tid: 1,
            name: "caller".to_owned(),
        },
        frames: vec![LiveAddr(at)],
        unknown: Some("nothing is known of it".to_owned()),
        running: true,
        handlers: false,
    }]
}

/// A thread between instructions that are replaced, or on its way through a hook, is waited for.
#[test]
fn nothing_is_written_under_a_thread() {
    let mut target = MemoryTarget::default();
    let mut module = module(&mut target, None);
    // Three instructions of a semi-hot-patchable function.
    let mut model = example();
    model.hooks[1].options = 5;
    model.validations[1].bytes = vec![0x8b, 0xff, 0x55, 0x8b, 0xec];
    let patch = patch(&mut target, &model, PATCH);
    let before = bytes_of(&target, module.target());
    target.set_stacks(standing(TARGET + 0x1073));
    module
        .apply(&mut target, &patch)
        .expect_err("a thread is inside");
    assert!(
        bytes_of(&target, module.target()) == before,
        "nothing is written"
    );
    // At the first of them it goes on with either.
    target.set_stacks(standing(TARGET + 0x1070));
    module.apply(&mut target, &patch).expect("nobody is inside");
    assert_eq!(
        read(&target, TARGET + 0x1070),
        [0xeb, 0xf9, 0xcc, 0xcc, 0xcc]
    );
    let live = bytes_of(&target, module.target());
    target.set_stacks(standing(TARGET + 0x106b));
    module
        .remove(&mut target, patch.at)
        .expect_err("a thread is before the long jump");
    assert!(
        bytes_of(&target, module.target()) == live,
        "nothing is written"
    );
    target.set_stacks(standing(TARGET + 0x1070));
    module
        .remove(&mut target, patch.at)
        .expect("it goes on with the old code");
    assert!(
        bytes_of(&target, module.target()) == before,
        "byte for byte"
    );

    // A call is replaced: who is inside it comes back there, so that a stack must be known, or hold
    // no such address.
    let mut model = example();
    model.hooks = vec![hook(HookKind::X86Jmp, 9, 0x1120, 0x1000, None)];
    let over = load(&mut target, parse(&patch_file(&model)), LATER);
    let stack = LiveAddr(0x7000_0000);
    target.add(stack..LiveAddr(stack.0 + 0x1000), Protection::ReadWrite);
    let back = TARGET + 0x1128;
    target.write(stack, &back.to_le_bytes()).expect("memory");
    let error = module
        .apply(&mut target, &over)
        .expect_err("a return leads there");
    let text = error.to_string();
    assert!(text.contains("may come back"), "{text}");
    target.write(stack, &[0; 8]).expect("memory");
    module
        .apply(&mut target, &over)
        .expect("nobody returns there");
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

#[test]
fn each_step_may_fail() {
    let mut target = MemoryTarget::default();
    let mut clean = module(&mut target, None);
    let patch = patch(&mut target, &example(), PATCH);
    let bytes = |target: &MemoryTarget| [clean.target(), &patch].map(|i| bytes_of(target, i));
    let before = bytes(&target);
    let mut steps = 0;
    for step in 0..100 {
        let mut gated = Gated::new(target.clone(), Countdown(Cell::new(step)));
        let mut module = clean.clone();
        if module.apply(&mut gated, &patch).is_ok() {
            steps = step;
            break;
        }
        assert!(
            bytes(&gated.inner()) == before,
            "step {step}: not as before"
        );
        assert!(module.list().is_empty(), "step {step}");
    }
    assert!(steps > 4, "{steps}");
    let image = clean.target().clone();
    clean.apply(&mut target, &patch).expect("it fits");
    let live = bytes_of(&target, &image);
    for step in 0..100 {
        let mut gated = Gated::new(target.clone(), Countdown(Cell::new(step)));
        let mut module = clean.clone();
        if module.remove(&mut gated, patch.at).is_ok() {
            assert!(bytes_of(&gated.inner(), &image) == before[0]);
            assert!(step > 2, "{step}");
            return;
        }
        assert!(
            bytes_of(&gated.inner(), &image) == live,
            "step {step}: not as before"
        );
        assert!(module.list()[0].active, "step {step}");
    }
    unreachable!("it has no end");
}
