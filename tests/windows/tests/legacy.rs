//! Hot patches of older Windows, made of two builds, run: each combination of hooks, patches that
//! lie over each other, and hooks in the middle of functions and in data, while threads run
//! through them.

use std::path::Path;

use invivo_compare::Comparison;
use invivo_format::hotp1::{self, FixupKind, Hook, HookKind, HookShape, read};
use windows_tests::by_hand;
use windows_tests::native::running::{Running, while_called};
use windows_tests::older::patch_module;
use windows_tests::{Build, Folder, Library, build};

/// Builds the library with room for every hook.
fn library(folder: &Path, name: &str, program: &str, how: Build) -> Library {
    build(folder, name, program, &how.roomy()).expect("it is built")
}

#[test]
fn each_combination_of_hooks_is_run() {
    let folder = Folder::new("legacy");
    let base = library(&folder, "base", "steady", Build::base());
    let fixed = library(&folder, "fixed", "steady", Build::fixed("count,weigh"));
    for shape in [
        HookShape::Short,
        HookShape::Triple,
        HookShape::Indirect,
        HookShape::Jump,
    ] {
        let mut running = Running::new(&base);
        let patch = running.load(patch_module(&base, &fixed, Some(shape)));
        let before = running.base.fixed_bytes();
        let [count, weigh] = ["count", "weigh"].map(|name| running.base.function(name).unwrap());
        assert_eq!([count(5), weigh(5)], [80, 80], "old");
        while_called(count, &[0, 1], || {
            for round in 0..10 {
                running.apply(&patch);
                assert_eq!(
                    [count(5), weigh(5)],
                    [81, 81],
                    "{shape}, round {round}: new"
                );
                running.remove(&patch);
                assert_eq!(
                    [count(5), weigh(5)],
                    [80, 80],
                    "{shape}, round {round}: old"
                );
                let now = running.base.fixed_bytes();
                assert!(now == before, "{shape}, round {round}: not byte for byte");
            }
        });
        // The state is the base's: every call was counted, and helped by its own function.
        let counted = running.base.call("get_counted", 0).unwrap();
        let weighed = running.base.call("get_weighed", 0).unwrap();
        let helped = running.base.call("get_helped", 0).unwrap();
        assert_eq!(weighed, 21, "{shape}");
        assert!(
            counted == helped && counted > 21,
            "{shape}: {counted} {helped}"
        );
        let own = patch.call("get_counted", 0).unwrap();
        assert_eq!(own, 0, "{shape}: nobody uses the patch's own copy");
    }
}

#[test]
fn a_patch_over_another_is_run() {
    let folder = Folder::new("stacked");
    let base = library(&folder, "base", "steady", Build::base());
    let first = library(&folder, "first", "steady", Build::fixed("count,weigh"));
    let second = Build::base().with("-DSECOND -fms-secure-hotpatch-functions-list=count");
    let second = library(&folder, "second", "steady", second);
    for shape in [
        HookShape::Short,
        HookShape::Triple,
        HookShape::Indirect,
        HookShape::Jump,
    ] {
        let mut running = Running::new(&base);
        let patches =
            [&first, &second].map(|fixed| running.load(patch_module(&base, fixed, Some(shape))));
        let before = running.base.fixed_bytes();
        let [count, weigh] = ["count", "weigh"].map(|name| running.base.function(name).unwrap());
        while_called(count, &[0, 1, 2], || {
            running.apply(&patches[0]);
            let with_first = running.base.fixed_bytes();
            running.apply(&patches[1]);
            assert_eq!([count(5), weigh(5)], [82, 81], "{shape}");
            let below = running
                .module
                .remove(&mut running.here, patches[0].loaded.at);
            let below = below.expect_err("it is below").to_string();
            assert!(below.contains("lies over it"), "{shape}: {below}");
            running.remove(&patches[1]);
            assert_eq!([count(5), weigh(5)], [81, 81], "{shape}");
            assert!(running.base.fixed_bytes() == with_first, "{shape}");
            running.remove(&patches[0]);
        });
        assert_eq!([count(5), weigh(5)], [80, 80], "{shape}");
        assert!(running.base.fixed_bytes() == before, "{shape}");
    }
    // A hook lies over one of its kind, and over nothing else.
    for (below, above) in [
        (HookShape::Short, HookShape::Triple),
        (HookShape::Short, HookShape::Indirect),
        (HookShape::Triple, HookShape::Short),
        (HookShape::Jump, HookShape::Short),
    ] {
        let mut running = Running::new(&base);
        let lower = running.load(patch_module(&base, &first, Some(below)));
        let upper = running.load(patch_module(&base, &second, Some(above)));
        running.apply(&lower);
        let with_first = running.base.fixed_bytes();
        let refused = running.module.apply(&mut running.here, &upper.loaded);
        let why = refused.expect_err("another kind is there").to_string();
        assert!(why.contains("0xc000003e"), "{above} over {below}: {why}");
        assert!(
            running.base.fixed_bytes() == with_first,
            "{above} over {below}"
        );
        running.remove(&lower);
    }
}

/// A jump over one long instruction in the middle of a function, a number of two bytes in an
/// instruction, and a pointer in data.
#[test]
fn hooks_in_the_middle_and_in_data_are_run() {
    let folder = Folder::new("middle");
    let base = library(&folder, "base", "places", Build::base());
    for by_hand::Case {
        name,
        hook,
        old,
        new,
    } in by_hand::cases(&base)
    {
        let mut running = Running::new(&base);
        let calls = ["middle", "through"].map(|name| running.base.function(name).unwrap());
        let answers = || calls.map(|function| function(5));
        let code = by_hand::code(&hook, running.base.loaded.at.0);
        let by = usize::from(hook.kind == HookKind::Va64);
        let [patch, later] = [(); 2].map(|()| {
            let module = by_hand::module(&base, &code, std::slice::from_ref(&hook), None);
            running.load(module)
        });
        let before = running.base.fixed_bytes();
        assert_eq!(answers(), old, "{name}");
        // The threads come by the place that is hooked.
        let added = [old[by], new[by]].map(|answer| answer - 80);
        while_called(calls[by], &added, || {
            for _ in 0..10 {
                running.apply(&patch);
                assert_eq!(answers(), new, "{name}");
                running.remove(&patch);
                assert_eq!(answers(), old, "{name}");
            }
        });
        running.apply(&patch);
        running.apply(&later);
        assert_eq!(answers(), new, "{name}: one over another");
        running.remove(&later);
        assert_eq!(answers(), new, "{name}: the first alone");
        running.remove(&patch);
        assert!(
            running.base.fixed_bytes() == before,
            "{name}: byte for byte"
        );
    }
}

/// Words of the patch that hold an address of the target, or how far that is: code that goes where they
/// lead comes back, wherever both images are.
#[test]
fn words_that_depend_on_both_images_are_run() {
    let folder = Folder::new("fixups");
    let base = library(&folder, "base", "places", Build::base());
    let [case, ..] = by_hand::cases(&base);
    for kind in [FixupKind::Va64, FixupKind::Pc64] {
        let mut running = Running::new(&base);
        let middle = running.base.function("middle").unwrap();
        let (code, fixups) = by_hand::fixed_code(&base, &case.hook, kind);
        let hooks = [case.hook.clone()];
        let made = by_hand::module_with(&base, &code, &hooks, None, fixups);
        let patch = running.load(made);
        let own = base.image().unwrap().image_base;
        for at in [running.base.loaded.at.0, patch.loaded.at.0] {
            assert_ne!(at, own, "it was moved");
        }
        let before = running.base.fixed_bytes();
        while_called(middle, &[5007 - 80, 10007 - 80], || {
            for _ in 0..10 {
                running.apply(&patch);
                assert_eq!(middle(5), 10007, "{kind:?}");
                running.remove(&patch);
                assert_eq!(middle(5), 5007, "{kind:?}");
            }
        });
        assert!(running.base.fixed_bytes() == before, "{kind:?}");
    }
}

/// Functions that nobody made for hot patching and that begin with `push rbp`, one byte, with padding
/// before them by chance: each kind of jump takes the place of whole instructions.
#[test]
fn functions_that_were_not_made_for_it_are_run() {
    let folder = Folder::new("semi");
    let plain = Build::default().with("-fno-omit-frame-pointer -falign-functions=64");
    let fixed = Build::fixed("count,weigh").with("-fno-omit-frame-pointer");
    let [short, triple, indirect, jump] = [
        &[HookKind::X86Jmp, HookKind::Jmp2B][..],
        &[HookKind::Va64, HookKind::Amd64Ind, HookKind::Jmp2B],
        &[HookKind::Va64, HookKind::Amd64Ind],
        &[HookKind::X86Jmp],
    ];
    let cases = [
        (None, short),
        (Some(HookShape::Short), short),
        (Some(HookShape::Triple), triple),
        (Some(HookShape::Indirect), indirect),
        (Some(HookShape::Jump), jump),
    ];
    let base = build(&folder, "base", "steady", &plain).expect("it is built");
    let fixed = library(&folder, "fixed", "steady", fixed);
    for (shape, kinds) in cases {
        let module = patch_module(&base, &fixed, shape);
        let model = read(&module).expect("it can be read").expect("it has one");
        let found: Vec<HookKind> = model.hooks.iter().map(|hook| hook.kind).collect();
        assert_eq!(found, kinds.repeat(2), "{shape:?}");
        // What is written at the function's begin takes the place of several instructions.
        let first = model.hooks[kinds.len() - 1].clone();
        let target = base.image().expect("a Windows image");
        let begin: [u8; 1] = target
            .array(invivo_image::Rva(first.at.into()))
            .expect("code");
        assert_eq!(begin, [0x55], "push rbp");
        assert!(first.length() > 2, "{shape:?}: {}", first.length());
        let mut running = Running::new(&base);
        let patch = running.load(module);
        let before = running.base.fixed_bytes();
        let [count, weigh] = ["count", "weigh"].map(|name| running.base.function(name).unwrap());
        while_called(count, &[0, 1], || {
            for _ in 0..10 {
                running.apply(&patch);
                assert_eq!([count(5), weigh(5)], [81, 81], "{shape:?}: new");
                running.remove(&patch);
                assert_eq!([count(5), weigh(5)], [80, 80], "{shape:?}: old");
            }
        });
        assert!(running.base.fixed_bytes() == before, "{shape:?}");
    }
}

/// A function whose begin takes no hook: of two builds comes a jump over a long instruction in its
/// middle.
#[test]
fn a_long_instruction_in_the_middle_is_found_and_run() {
    let folder = Folder::new("long");
    // Nothing is between functions.
    let plain = Build::default().with("-Os -falign-functions=1");
    let base = build(&folder, "base", "begins", &plain).expect("it is built");
    let how = Build::fixed("digits,both").with("-Os");
    let fixed = library(&folder, "fixed", "begins", how);
    let target = base.image().expect("a Windows image");
    let [digits, both] = ["digits", "both"].map(|name| by_hand::place_of(&target, name));
    let begin: [u8; 4] = target
        .array(invivo_image::Rva(digits.into()))
        .expect("code");
    assert_eq!(begin, [0x31, 0xc0, 0x89, 0xca], "its loop begins at once");
    for (shape, second) in [(None, both), (Some(HookShape::Middle), both + 4)] {
        let module = patch_module(&base, &fixed, shape);
        let model = read(&module).expect("it can be read").expect("it has one");
        let hooks = model.hooks.iter().map(|hook| (hook.kind, hook.at));
        // `imul eax, eax, 1000`; the other one has room at its begin, and a call behind that.
        let wanted = [(HookKind::X86Jmp, digits + 14), (HookKind::X86Jmp, second)];
        assert_eq!(hooks.collect::<Vec<_>>(), wanted, "{shape:?}");
        let way = (digits, 14);
        let mut ways = model.validations.iter().filter(|way| way.flags == 0);
        assert!(ways.any(|one| (one.target, one.bytes.len()) == way));
        let mut running = Running::new(&base);
        let patch = running.load(module);
        let before = running.base.fixed_bytes();
        let [digits, both] = ["digits", "both"].map(|name| running.base.function(name).unwrap());
        assert_eq!([digits(5), both(5)], [2000, 83], "{shape:?}: old");
        while_called(digits, &[2000 - 80, 4000 - 80], || {
            for _ in 0..10 {
                running.apply(&patch);
                assert_eq!([digits(5), both(5)], [4000, 84], "{shape:?}: new");
                running.remove(&patch);
                assert_eq!([digits(5), both(5)], [2000, 83], "{shape:?}: old");
            }
        });
        assert!(running.base.fixed_bytes() == before, "{shape:?}");
        let helped = running.base.call("get_helped", 0).unwrap();
        assert_eq!(helped, 21, "{shape:?}: by the base's own function");
    }
    // Nobody would come by a jump in the middle where another patch leads away before it.
    let mut running = Running::new(&base);
    let [first, second] = [None, Some(HookShape::Middle)]
        .map(|shape| running.load(patch_module(&base, &fixed, shape)));
    running.apply(&first);
    let refused = running.module.apply(&mut running.here, &second.loaded);
    let why = refused.expect_err("it is refused").to_string();
    assert!(why.contains("0xc000003e"), "{why}");
}

/// No jump goes where old code comes by again, or where an instruction is too short.
#[test]
fn a_place_in_a_loop_takes_no_jump() {
    let folder = Folder::new("long-loop");
    let plain = Build::default().with("-Os -falign-functions=1 -DINSIDE");
    let base = build(&folder, "base", "begins", &plain).expect("it is built");
    let how = Build::fixed("digits,both").with("-Os -DINSIDE");
    let fixed = library(&folder, "fixed", "begins", how);
    let (old, new) = (base.view().expect("a view"), fixed.view().expect("a view"));
    let plan = invivo_patch::plan_module(&Comparison::new(&old, &new)).expect("nothing is refused");
    let [base, fixed] = [&base, &fixed].map(|library| library.image().expect("a Windows image"));
    let refused = hotp1::build(&base, &fixed, &plan, "begins.dll", None).expect_err("no room");
    let why = refused.to_string();
    assert!(why.contains("digits cannot be hooked"), "{why}");
    assert!(
        why.contains("middle needs an instruction of five bytes"),
        "{why}"
    );
}

/// Types that no system implements, those of IA64, and one that nobody knows: never applied.
#[test]
fn types_that_no_system_implements_are_refused() {
    let folder = Folder::new("legacy-unknown");
    let base = library(&folder, "base", "places", Build::base());
    let [case, ..] = by_hand::cases(&base);
    for code in [0, 3, 32, 33, 77] {
        let kind = HookKind::of(code);
        let hook = Hook {
            kind,
            ..case.hook.clone()
        };
        let mut running = Running::new(&base);
        let before = running.base.fixed_bytes();
        let patch = running.load(by_hand::module(&base, &[], &[hook], None));
        let applied = running.module.apply(&mut running.here, &patch.loaded);
        let why = applied.expect_err("it is refused").to_string();
        assert!(
            why.contains("B08") && why.contains("0xc000007b"),
            "{code}: {why}"
        );
        assert!(running.base.fixed_bytes() == before, "{code}: untouched");
    }
}
