//! Patch modules for x86 that lie over each other, in a process of 32 bits: a fix, and a fix of the fix.

use std::path::Path;

use invivo_apply::Loaded;
use invivo_apply::hotp1::PatchedModule;
use invivo_format::hotp1::{HookKind, HookShape, read};
use windows_tests::narrow::running::Running;
use windows_tests::native::running::until_quiet;
use windows_tests::older::patch_module;
use windows_tests::{Build, Folder, Library, build};

/// Where all are: not where they were linked.
const TARGET: u64 = 0x2300_0000;
const FIRST: u64 = 0x3400_0000;
const SECOND: u64 = 0x3600_0000;

/// As code is that nobody thought of patching, with padding by chance.
const UNPREPARED: &str = "-fno-omit-frame-pointer -falign-functions=64";

fn library(folder: &Path, name: &str, how: &Build, more: &str) -> Library {
    let how = how.clone().narrow().with("-mno-sse").with(more);
    build(folder, name, "elder", &how).expect("it is built")
}

/// The base, the fix, and the fix of it.
fn builds(folder: &Path, how: &Build) -> [Library; 3] {
    [("base", ""), ("first", "-DFIXED"), ("second", "-DSECOND")]
        .map(|(name, more)| library(folder, name, how, more))
}

/// A target with two patches beside it.
struct Stacked {
    running: Running,
    module: PatchedModule,
    patches: [Loaded; 2],
}

impl Stacked {
    fn new(folder: &Path, builds: &[Library; 3], shapes: [Option<HookShape>; 2]) -> Stacked {
        let [base, first, second] = builds;
        let images = [
            (base.image().expect("a Windows image"), TARGET),
            (patch_module(base, first, shapes[0]), FIRST),
            (patch_module(base, second, shapes[1]), SECOND),
        ];
        let running = Running::new(folder, &images);
        let module = PatchedModule::new(running.loaded[0].clone());
        let patches = [running.loaded[1].clone(), running.loaded[2].clone()];
        Stacked {
            running,
            module,
            patches,
        }
    }

    fn apply(&mut self, which: usize) {
        let (narrow, patch) = (&mut self.running.narrow, &self.patches[which]);
        until_quiet(|| self.module.apply(narrow, patch));
    }

    fn remove(&mut self, which: usize) {
        let (narrow, patch) = (&mut self.running.narrow, &self.patches[which]);
        until_quiet(|| self.module.remove(narrow, patch.at));
    }

    fn bytes(&self) -> Vec<u8> {
        self.running.narrow.fixed_bytes(0)
    }

    /// What `answer(5)`, `choose(2)`, `choose(3)` and `leap(2)` say.
    fn answers(&self) -> [i32; 4] {
        [("answer", 5), ("choose", 2), ("choose", 3), ("leap", 2)]
            .map(|(name, argument)| self.running.call(name, argument))
    }
}

const OLD: [i32; 4] = [113, 36, 2, 30];
/// Each function is fixed.
const WITH_FIRST: [i32; 4] = [114, 37, 2, 31];
/// The second fix leaves `answer` to the first one.
const WITH_BOTH: [i32; 4] = [114, 38, 2, 32];
const WITH_SECOND: [i32; 4] = [113, 38, 2, 32];

#[test]
fn a_patch_over_another_is_run_and_removed() {
    let folder = Folder::new("x86-stacked");
    let prepared = [Some(HookShape::Short), None];
    let unprepared = [Some(HookShape::Short), Some(HookShape::Jump)];
    for (how, shapes) in [
        (Build::base(), prepared),
        (Build::default().with(UNPREPARED), unprepared),
    ] {
        let builds = builds(&folder, &how);
        for shape in shapes {
            let mut stacked = Stacked::new(&folder, &builds, [shape; 2]);
            let before = stacked.bytes();
            assert_eq!(stacked.answers(), OLD, "{shape:?}: old");
            let choose = stacked.running.at(0, "choose");
            // Every answer is that of one of the three.
            let known = [36, 37, 38];
            let begun = stacked.running.narrow.begin(choose, 2, known);
            begun.expect("it answers");
            for _ in 0..10 {
                stacked.apply(0);
                let with_first = stacked.bytes();
                stacked.apply(1);
                let with_both = stacked.bytes();
                assert!(with_first != before && with_both != with_first);
                let below = stacked.patches[0].at;
                let (narrow, module) = (&mut stacked.running.narrow, &mut stacked.module);
                let refused = module.remove(narrow, below).expect_err("it is below");
                let why = refused.to_string();
                assert!(why.contains("lies over it"), "{shape:?}: {why}");
                assert!(stacked.bytes() == with_both, "{shape:?}: untouched");
                stacked.remove(1);
                assert!(stacked.bytes() == with_first, "{shape:?}: the first alone");
                stacked.remove(0);
                assert!(stacked.bytes() == before, "{shape:?}: byte for byte");
            }
            let (calls, wrong) = stacked.running.narrow.end();
            assert_eq!(wrong, 0, "{shape:?}: an answer of nobody");
            assert!(calls > 1000, "{shape:?}: {calls} calls");
            stacked.apply(0);
            assert_eq!(stacked.answers(), WITH_FIRST, "{shape:?}: the first");
            stacked.apply(1);
            assert_eq!(stacked.answers(), WITH_BOTH, "{shape:?}: both");
            stacked.remove(1);
            assert_eq!(stacked.answers(), WITH_FIRST, "{shape:?}: the first again");
            stacked.remove(0);
            assert_eq!(stacked.answers(), OLD, "{shape:?}: old again");
            // The other way round: what comes first is below, whatever it fixes.
            stacked.apply(1);
            assert_eq!(stacked.answers(), WITH_SECOND, "{shape:?}: the second");
            stacked.apply(0);
            assert_eq!(stacked.answers(), WITH_FIRST, "{shape:?}: over the second");
            stacked.remove(0);
            stacked.remove(1);
            assert_eq!(stacked.answers(), OLD, "{shape:?}: old at last");
            assert!(stacked.bytes() == before, "{shape:?}: byte for byte");
        }
    }
}

/// A hook lies over one of its kind, and over nothing else.
#[test]
fn a_hook_of_another_kind_is_not_lain_over() {
    let folder = Folder::new("x86-kinds");
    let builds = builds(&folder, &Build::default().with(UNPREPARED));
    let [short, jump] = [HookShape::Short, HookShape::Jump].map(Some);
    for shapes in [[short, jump], [jump, short]] {
        let mut stacked = Stacked::new(&folder, &builds, shapes);
        for (patch, shape) in stacked.patches.iter().zip(shapes) {
            let model = read(&patch.image).expect("it can be read");
            let kinds = model.expect("it has one").hooks;
            let pairs = kinds.iter().any(|hook| hook.kind == HookKind::Jmp2B);
            assert_eq!(pairs, shape == short, "{shape:?}");
        }
        let before = stacked.bytes();
        stacked.apply(0);
        let with_first = stacked.bytes();
        let (narrow, module) = (&mut stacked.running.narrow, &mut stacked.module);
        let refused = module.apply(narrow, &stacked.patches[1]);
        let why = refused.expect_err("another kind is there").to_string();
        assert!(why.contains("0xc000003e"), "{shapes:?}: {why}");
        assert!(stacked.bytes() == with_first, "{shapes:?}: untouched");
        assert_eq!(stacked.answers(), WITH_FIRST, "{shapes:?}");
        stacked.remove(0);
        assert!(stacked.bytes() == before, "{shapes:?}: byte for byte");
    }
}
