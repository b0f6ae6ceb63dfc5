//! A hostile patch of older Windows has as many hooks as fit into its file. Nothing is looked for among all
//! of them for each: what is done here once would take hours if it was.

mod scene;

use invivo_format::hotp1::{
    Hook, HookCode, HookKind, LegacyPatch, ModuleId, Places, Rule, Validation, hook_options,
    validate, validation_flags,
};
use invivo_image::pe::{PeImage, PeMachine};
use scene::{CHECKSUM, Recipe, parse};

const CODE: u32 = 0x6000_0020;

/// Functions that are hooked.
const MANY: u32 = 500_000;

fn image() -> PeImage {
    let recipe = Recipe {
        wide: true,
        parts: vec![(".text", 0x1000, vec![0xcc; 0x1000], CODE)],
        directories: Vec::new(),
        image_size: 0x2000,
    };
    parse(&recipe.file())
}

fn hook(kind: HookKind, options: u16, at: u32, to: u32) -> Hook {
    Hook {
        kind,
        options,
        at,
        to,
        validation: None,
    }
}

fn patch(hooks: Vec<Hook>) -> LegacyPatch {
    LegacyPatch {
        target_name: "target.dll".to_owned(),
        id: ModuleId::checksum(CHECKSUM),
        hooks,
        ..LegacyPatch::default()
    }
}

/// Each short jump leads to a jump before it, but for the last one.
#[test]
fn short_jumps_are_held_against_the_jumps_once() {
    let near = hook_options::NEAR;
    let functions = (1..=MANY).map(|number| number * 16);
    let mut hooks: Vec<Hook> = functions
        .flat_map(|at| {
            [
                hook(HookKind::Jmp2B, 2, at, 0xf9),
                hook(HookKind::X86Jmp, 5 | near, at - 5, 0x1000),
            ]
        })
        .collect();
    let image = image();
    assert_eq!(validate(&image, &patch(hooks.clone()), None), []);
    hooks.pop();
    let found = validate(&image, &patch(hooks), None);
    let rules: Vec<Rule> = found.iter().map(|one| one.rule).collect();
    assert_eq!(rules, [Rule::B13]);
}

/// Each indirect jump goes through the address that another hook writes: the first one that names the same
/// place.
#[test]
fn indirect_jumps_find_their_addresses_at_once() {
    let places = Places {
        machine: PeMachine::Amd64,
        target: 0x1_8000_0000,
        patch: 0x1_9000_0000,
    };
    let functions = (1..=MANY).map(|number| number * 16);
    let hooks: Vec<Hook> = functions
        .flat_map(|at| {
            [
                hook(HookKind::Amd64Ind, 6, at, at),
                hook(HookKind::Va64, 8, at - 8, at),
            ]
        })
        .collect();
    let patch = patch(hooks);
    let codes = HookCode::of(&patch, places);
    let through = patch.hooks.iter().step_by(2);
    let written = through.map(|hook| codes.bytes(hook).expect("it reaches"));
    // 14 bytes back from its end.
    let wanted = [0xff, 0x25, 0xf2, 0xff, 0xff, 0xff];
    assert_eq!(
        written.filter(|code| *code == wanted).count(),
        MANY as usize
    );
}

/// A large validation that many hooks name would be read for each of them.
#[test]
fn one_validation_that_many_hooks_name() {
    let near = hook_options::NEAR;
    let validation = Validation {
        bytes: vec![0xcc; 0x8000],
        target: 0x1000,
        flags: validation_flags::HOOK_TARGET,
    };
    let rules = |count: u32| -> Vec<Rule> {
        let hooks = (0..count).map(|number| Hook {
            validation: Some(0),
            ..hook(HookKind::X86Jmp, 5 | near, 0x1000 + 8 * number, 0x1000)
        });
        let patch = LegacyPatch {
            validations: vec![validation.clone()],
            ..patch(hooks.collect())
        };
        let found = validate(&image(), &patch, None);
        found.iter().map(|one| one.rule).collect()
    };
    // What ordinary patches have, however small they are.
    assert_eq!(rules(0x100), []);
    assert_eq!(rules(0x1000), [Rule::B12]);
}
