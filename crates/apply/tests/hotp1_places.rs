//! What may stand at a place that a patch of older Windows hooks: for each type of hook, in a file that was
//! patched on disk and in one that was not; and places that the loader changes.

mod images;
mod older;

use images::scene::{CHECKSUM, Recipe, parse, put};
use images::{bytes_of, load};
use invivo_apply::hotp1::{COLD_PATCH_VALID, PatchedModule};
use invivo_apply::{MemoryTarget, Target};
use invivo_format::hotp1::{Hook, HookKind, LegacyPatch, hook_options};
use invivo_image::LiveAddr;
use older::{CODE, DATA, example, hook, patch_of, target_of, validation};

/// Where the target and the patch are: not where they were linked.
const TARGET: u64 = 0x2300_0000;
const PATCH: u64 = 0x3400_0000;

/// Where the hook of each case is, in code or in data.
const IN_CODE: u32 = 0x1100;
const IN_DATA: u32 = 0x2080;

/// What a hook finds, and what it does then.
struct Case {
    /// For a person.
    name: &'static str,
    wide: bool,
    kind: HookKind,
    length: u16,
    /// What the file had there before it was patched on disk, which the hook expects.
    base: &'static [u8],
    /// What the patched file has there.
    file: &'static [u8],
    fits: bool,
}

const NARROW_CODE: &[u8] = &[0xb8, 1, 0, 0, 0, 0x90];
const WIDE_CODE: &[u8] = &[0x48, 0x81, 0xec, 0x28, 0, 0, 0];
const JUMP: &[u8] = &[0xe9, 1, 2, 3, 0, 0xcc, 0xcc];
const INDIRECT: &[u8] = &[0xff, 0x25, 1, 2, 3, 0, 0xcc];
const SHORT: &[u8] = &[0xeb, 0x10];
const OLD: &[u8] = &[0, 0x20, 0, 0x23, 0, 0, 0, 0];
const NEW: &[u8] = &[0, 0x40, 0, 0x23, 0, 0, 0, 0];

const fn case(
    name: &'static str,
    (wide, kind, length): (bool, HookKind, u16),
    base: &'static [u8],
    file: &'static [u8],
    fits: bool,
) -> Case {
    Case {
        name,
        wide,
        kind,
        length,
        base,
        file,
        fits,
    }
}

/// A jump may be where a jump of that very kind was put. Of an address or a number nobody can tell whose it
/// is. What the file's patch left alone is expected as ever.
fn cases() -> Vec<Case> {
    use HookKind::{Amd64Cnt, Amd64Ind, Va32, Va64, X86Jmp};
    let (narrow, wide) = ((false, X86Jmp, 5), (true, X86Jmp, 7));
    let (through, number) = ((true, Amd64Ind, 7), (true, Amd64Cnt, 2));
    let (short, long) = ((false, Va32, 4), (true, Va64, 8));
    vec![
        case("JMP over JMP, x86", narrow, NARROW_CODE, JUMP, true),
        case("JMP over JMP2B, x86", narrow, NARROW_CODE, SHORT, false),
        case("JMP over IND, x86", narrow, NARROW_CODE, INDIRECT, false),
        case("JMP over JMP", wide, WIDE_CODE, JUMP, true),
        case("JMP over IND", wide, WIDE_CODE, INDIRECT, false),
        case("IND over IND", through, WIDE_CODE, INDIRECT, true),
        case("IND over JMP", through, WIDE_CODE, JUMP, false),
        case("IND over JMP2B", through, WIDE_CODE, SHORT, false),
        case("VA32 over VA32", short, OLD, NEW, false),
        case("VA64 over VA64", long, OLD, NEW, false),
        case("CNT over CNT", number, &[0xe8, 3], &[0xd0, 7], false),
        case(
            "JMP, untouched, x86",
            narrow,
            NARROW_CODE,
            NARROW_CODE,
            true,
        ),
        case("JMP, untouched", wide, WIDE_CODE, WIDE_CODE, true),
        case("IND, untouched", through, WIDE_CODE, WIDE_CODE, true),
        case("VA32, untouched", short, OLD, OLD, true),
        case("VA64, untouched", long, OLD, OLD, true),
        case("CNT, untouched", number, &[0xe8, 3], &[0xe8, 3], true),
    ]
}

impl Case {
    fn at(&self) -> u32 {
        match self.kind {
            HookKind::Va32 | HookKind::Va64 => IN_DATA,
            _ => IN_CODE,
        }
    }

    /// What is loaded, with what its file has at the place.
    fn target(&self, target: &mut MemoryTarget, mark: Option<u64>) -> PatchedModule {
        let (mut code, mut data) = (vec![0xcc; 0x1000], vec![0; 0x100]);
        let (part, start) = match self.at() {
            IN_DATA => (&mut data, IN_DATA - 0x2000),
            _ => (&mut code, IN_CODE - 0x1000),
        };
        let start = start as usize;
        part[start..start + self.file.len()].copy_from_slice(self.file);
        let file = target_of(self.wide, code, data, mark);
        PatchedModule::new(load(target, parse(&file), TARGET))
    }

    /// A patch for the file as it was before; without `expects` it expects nothing.
    fn patch(&self, expects: bool) -> LegacyPatch {
        let near = match (self.wide, self.kind) {
            (true, HookKind::X86Jmp | HookKind::Amd64Ind) => hook_options::NEAR,
            _ => 0,
        };
        let options = self.length | near;
        let bytes = &self.base[..usize::from(self.length).min(self.base.len())];
        LegacyPatch {
            fixups: Vec::new(),
            validations: vec![validation(bytes, self.at())],
            hooks: vec![hook(
                self.kind,
                options,
                self.at(),
                0x1000,
                expects.then_some(0),
            )],
            ..example()
        }
    }
}

/// Each type, on files that were patched on disk by a hook of the same type, by another one, and not there.
#[test]
fn what_each_type_is_excused_on_a_patched_file() {
    for case in cases() {
        let mut target = MemoryTarget::default();
        let mut cold = case.target(&mut target, Some(CHECKSUM.into()));
        let before = bytes_of(&target, cold.target());
        let file = patch_of(case.wide, &case.patch(true));
        let patch = load(&mut target, parse(&file), PATCH);
        let applied = cold.apply(&mut target, &patch);
        assert_eq!(applied.is_ok(), case.fits, "{}: {applied:?}", case.name);
        if let Err(error) = applied {
            let text = error.to_string();
            assert!(text.contains("0xc000003e"), "{}: {text}", case.name);
        } else {
            assert_eq!(cold.list()[0].flags, COLD_PATCH_VALID, "{}", case.name);
            assert!(bytes_of(&target, cold.target()) != before, "{}", case.name);
            let removed = cold.remove(&mut target, patch.at);
            removed.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        }
        assert!(bytes_of(&target, cold.target()) == before, "{}", case.name);
    }
}

/// Without the mark nobody is excused: what fits is the very bytes that the hook expects.
#[test]
fn what_each_type_is_excused_on_another_file() {
    for case in cases() {
        let mut target = MemoryTarget::default();
        let mut module = case.target(&mut target, None);
        let before = bytes_of(&target, module.target());
        let file = patch_of(case.wide, &case.patch(true));
        let patch = load(&mut target, parse(&file), PATCH);
        let applied = module.apply(&mut target, &patch);
        let same = case.base == case.file;
        assert_eq!(applied.is_ok(), same, "{}: {applied:?}", case.name);
        match applied {
            Ok(_) => assert_eq!(module.list()[0].flags, 0, "{}", case.name),
            Err(_) => assert!(bytes_of(&target, module.target()) == before),
        }
    }
}

/// A hook that expects nothing takes what the file has, and nothing that somebody put there since.
#[test]
fn hooks_that_expect_nothing_take_what_the_file_has() {
    for case in cases() {
        let mut target = MemoryTarget::default();
        let mut cold = case.target(&mut target, Some(CHECKSUM.into()));
        let before = bytes_of(&target, cold.target());
        let file = patch_of(case.wide, &case.patch(false));
        let patch = load(&mut target, parse(&file), PATCH);
        cold.apply(&mut target, &patch)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        cold.remove(&mut target, patch.at)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert!(bytes_of(&target, cold.target()) == before, "{}", case.name);
        let place = LiveAddr(TARGET + u64::from(case.at()) + 1);
        let mut byte = [0];
        target.read(place, &mut byte).expect("it is there");
        target.write(place, &[byte[0] ^ 1]).expect("somebody");
        let error = cold.apply(&mut target, &patch).expect_err(case.name);
        let text = error.to_string();
        assert!(text.contains("0xc000003e"), "{}: {text}", case.name);
    }
}

/// The short jump is excused in its place, too, and not by what else stands there.
#[test]
fn a_short_jump_on_a_patched_file() {
    let long = &[0xe9, 1, 2, 3, 0][..];
    for (entry, fits) in [
        (&[0xeb, 0xf9][..], true),
        (&[0x8b, 0xff], true),
        (&[0xe9, 0xf9], false),
        (&[0x66, 0x90], false),
    ] {
        let mut code = vec![0xcc; 0x1000];
        code[0x6b..0x70].copy_from_slice(long);
        code[0x70..0x72].copy_from_slice(entry);
        let file = target_of(false, code, vec![0; 0x100], Some(CHECKSUM.into()));
        let mut target = MemoryTarget::default();
        let mut cold = PatchedModule::new(load(&mut target, parse(&file), TARGET));
        let patch = load(&mut target, parse(&patch_of(false, &example())), PATCH);
        let applied = cold.apply(&mut target, &patch);
        assert_eq!(applied.is_ok(), fits, "{entry:x?}: {applied:?}");
    }
}

/// A variable that holds an address, in a target that the loader put elsewhere or where it was linked.
fn with_address(at: u64) -> (MemoryTarget, PatchedModule) {
    let mut relocations = vec![0; 12];
    put(&mut relocations, 0, 0x2000);
    put(&mut relocations, 4, 12);
    // HIGHLOW at 0x2080.
    put(&mut relocations, 8, 0x3000 | (IN_DATA & 0xfff));
    let mut data = vec![0; 0x100];
    put(&mut data, 0x80, 0x1000_1234);
    let recipe = Recipe {
        wide: false,
        parts: vec![
            (".text", 0x1000, vec![0xcc; 0x1000], CODE),
            (".data", 0x2000, data, DATA),
            (".reloc", 0x3000, relocations, 0x4200_0040),
        ],
        directories: vec![(5, 0x3000, 12)],
        image_size: 0x4000,
    };
    let image = parse(&recipe.file());
    assert_eq!(image.image_base, 0x1000_0000);
    let mut target = MemoryTarget::default();
    let loaded = load(&mut target, image, at);
    let address = u32::try_from(at + 0x1234).expect("32 bits");
    let place = LiveAddr(at + u64::from(IN_DATA));
    let moved = target.write(place, &address.to_le_bytes());
    moved.expect("the loader's work");
    (target, PatchedModule::new(loaded))
}

/// Bytes are compared as they are in memory. What the loader changed is not what the file had, so that a
/// validation of such a place holds where the target was linked and nowhere else, and is no
/// reason to write.
#[test]
fn a_validation_of_a_place_that_the_loader_changes() {
    let bytes = 0x1000_1234_u32.to_le_bytes();
    let pointer = |expects: Option<usize>| hook(HookKind::Va32, 4, IN_DATA, 0x1000, expects);
    let general = |hook: Hook, flags: u16| {
        let mut of_place = validation(&bytes, IN_DATA);
        of_place.flags = flags;
        LegacyPatch {
            fixups: Vec::new(),
            validations: vec![of_place],
            hooks: vec![hook],
            ..example()
        }
    };
    let of_hook = validation(&bytes, IN_DATA).flags;
    for (at, moved) in [(0x1000_0000, false), (TARGET, true)] {
        for (name, model, fits) in [
            ("general", general(pointer(None), 0), !moved),
            ("of the hook", general(pointer(Some(0)), of_hook), !moved),
            // Whoever expects nothing by bytes gets what the loader makes of the file.
            ("none", general(pointer(None), of_hook), true),
        ] {
            let (mut target, mut module) = with_address(at);
            let before = bytes_of(&target, module.target());
            let patch = load(&mut target, parse(&patch_of(false, &model)), PATCH);
            let applied = module.apply(&mut target, &patch);
            assert_eq!(applied.is_ok(), fits, "{name} at {at:#x}: {applied:?}");
            match applied {
                Ok(_) => {
                    let removed = module.remove(&mut target, patch.at);
                    removed.unwrap_or_else(|error| panic!("{name} at {at:#x}: {error}"));
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("0xc000003e"), "{name}: {text}");
                }
            }
            assert!(bytes_of(&target, module.target()) == before, "{name}");
        }
    }
}

/// An address that an earlier patch put in the place of the target's own: a later one lies over it, and goes
/// first. What somebody else put there is nobody's to lie over.
#[test]
fn an_address_over_an_address() {
    let model = |to: u32| LegacyPatch {
        fixups: Vec::new(),
        validations: Vec::new(),
        hooks: vec![hook(HookKind::Va32, 4, IN_DATA, to, None)],
        ..example()
    };
    for at in [0x1000_0000, TARGET] {
        let (mut target, mut module) = with_address(at);
        let before = bytes_of(&target, module.target());
        let place = LiveAddr(at + u64::from(IN_DATA));
        let held = |target: &MemoryTarget| {
            let mut word = [0; 4];
            target.read(place, &mut word).expect("it is there");
            u64::from(u32::from_le_bytes(word))
        };
        let first = load(&mut target, parse(&patch_of(false, &model(0x1000))), PATCH);
        let behind = PATCH + 0x10_0000;
        let second = load(&mut target, parse(&patch_of(false, &model(0x1010))), behind);
        module.apply(&mut target, &first).expect("the first one");
        assert_eq!(held(&target), PATCH + 0x1000);
        module.apply(&mut target, &second).expect("the second one");
        assert_eq!(held(&target), behind + 0x1010);
        let under = module.remove(&mut target, first.at);
        let text = under.expect_err("another one lies over it").to_string();
        assert!(text.contains("lies over it"), "{text}");
        module.remove(&mut target, second.at).expect("the last one");
        assert_eq!(held(&target), PATCH + 0x1000);
        target.write(place, &[1, 2, 3, 4]).expect("somebody");
        let over = module.apply(&mut target, &second);
        let text = over.expect_err("somebody's own").to_string();
        assert!(text.contains("0xc000003e"), "{text}");
        let first_word = (PATCH as u32 + 0x1000).to_le_bytes();
        target.write(place, &first_word).expect("somebody");
        module.remove(&mut target, first.at).expect("the first one");
        assert!(bytes_of(&target, module.target()) == before, "at {at:#x}");
    }
}
