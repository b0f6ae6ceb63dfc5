//! The section `.hotp1`: the worked example, models that go through a file and come back, and an
//! image for each way to break a rule.

mod scene;

use std::collections::BTreeSet;

use invivo_format::hotp1::{
    Finding, Fixup, FixupKind, FixupRegion, Hook, HookKind, LegacyPatch, ModuleId, Rule,
    Validation, cold, cold_mark, hook_options, read, validate, validate_cold, validation_flags,
    write,
};
use invivo_image::Rva;
use invivo_image::pe::{PeImage, PeMachine, checksum};
use proptest::prelude::*;
use scene::{CHECKSUM, Recipe, parse, put};

const AT: u32 = 0x5000;
const CODE: u32 = 0x6000_0020;
const DATA: u32 = 0xc000_0040;

/// The example of the format's description: two hooks on a function that was made for it.
fn example() -> LegacyPatch {
    let hook = |kind, options, at, to, validation| Hook {
        kind,
        options,
        at,
        to,
        validation: Some(validation),
    };
    let fixup = |offset, kind| Fixup { offset, kind };
    let validation = |bytes: &[u8], target| Validation {
        bytes: bytes.to_vec(),
        target,
        flags: validation_flags::HOOK_TARGET,
    };
    LegacyPatch {
        hotp_base: 0x3333_0000,
        target_base: 0x2222_0000,
        target_name: "target.dll".to_owned(),
        id: ModuleId::checksum(CHECKSUM),
        fixups: vec![FixupRegion {
            page: 1,
            fixups: vec![fixup(0x24, FixupKind::Va32), fixup(0x31, FixupKind::Pc32)],
        }],
        validations: vec![
            validation(&[0x90; 5], 0x106b),
            validation(&[0x8b, 0xff], 0x1070),
        ],
        hooks: vec![
            hook(HookKind::X86Jmp, 5, 0x106b, 0x1000, 0),
            hook(HookKind::Jmp2B, 2, 0x1070, 0xffff_fff9, 1),
        ],
    }
}

const EXAMPLE: &str = "
48 4F 54 31 00 00 01 00 01 00 00 00 98 50 00 00
02 00 00 00 60 50 00 00 02 00 00 00 78 50 00 00
00 00 33 33 00 00 00 00 00 00 22 22 00 00 00 00
A0 50 00 00 03 00 00 00 F1 D2 04 00 00 00 00 00
00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
90 90 90 90 90 00 00 00 8B FF 00 00 00 00 00 00
50 50 00 00 6B 10 00 00 05 00 01 00 58 50 00 00
70 10 00 00 02 00 01 00 02 00 05 00 6B 10 00 00
00 10 00 00 60 50 00 00 04 00 02 00 70 10 00 00
F9 FF FF FF 6C 50 00 00 01 00 20 00 24 10 31 20
74 61 72 67 65 74 2E 64 6C 6C 00";

/// A patch module with these bytes as its section.
fn module(wide: bool, section: &[u8]) -> PeImage {
    let recipe = Recipe {
        wide,
        parts: vec![
            (".text", 0x1000, vec![0xcc; 0x1000], CODE),
            (".hotp1", AT, section.to_vec(), DATA),
        ],
        directories: Vec::new(),
        image_size: 0x4_0000,
    };
    parse(&recipe.file())
}

/// The target: a function with padding before it.
fn target() -> PeImage {
    let mut code = vec![0xcc; 0x1000];
    code[0x6b..0x70].fill(0x90);
    code[0x70..0x72].copy_from_slice(&[0x8b, 0xff]);
    let recipe = Recipe {
        wide: false,
        parts: vec![(".text", 0x1000, code, CODE)],
        directories: Vec::new(),
        image_size: 0x3000,
    };
    parse(&recipe.file())
}

fn bytes_of(patch: &LegacyPatch) -> Vec<u8> {
    write(patch, PeMachine::I386, AT).expect("it can be written")
}

#[test]
fn the_worked_example_is_written_and_read_byte_for_byte() {
    let digits = EXAMPLE.split_whitespace();
    let bytes: Vec<u8> = digits
        .map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal digits"))
        .collect();
    assert_eq!(bytes_of(&example()), bytes);
    let image = module(false, &bytes);
    assert_eq!(read(&image), Ok(Some(example())));
    assert_eq!(validate(&image, &example(), Some(&target())), []);
}

#[test]
fn an_image_without_the_section_has_no_patch() {
    assert_eq!(read(&target()), Ok(None));
}

/// All that is found in a module with this section.
fn found_in(bytes: &[u8]) -> Vec<Finding> {
    let image = module(false, bytes);
    match read(&image) {
        Ok(patch) => validate(
            &image,
            &patch.expect("the section is there"),
            Some(&target()),
        ),
        Err(error) => vec![error],
    }
}

fn rules(findings: &[Finding]) -> BTreeSet<Rule> {
    findings.iter().map(|finding| finding.rule).collect()
}

/// The example with one thing broken in the file.
fn forged(change: impl Fn(&mut Vec<u8>)) -> Vec<Finding> {
    let mut bytes = bytes_of(&example());
    change(&mut bytes);
    found_in(&bytes)
}

/// The example with one thing broken in the model.
fn changed(change: impl Fn(&mut LegacyPatch)) -> Vec<Finding> {
    let mut patch = example();
    change(&mut patch);
    found_in(&bytes_of(&patch))
}

macro_rules! attacks {
    ($($name:ident $rule:ident $broken:expr;)*) => {
        $(#[test]
        fn $name() {
            let findings = $broken;
            assert_eq!(rules(&findings), BTreeSet::from([Rule::$rule]), "{findings:?}");
        })*
    };
}

attacks! {
    b01_a_header_that_is_cut_off B01 forged(|bytes| bytes.truncate(79));
    b02_another_signature B02 forged(|bytes| bytes[0] = b'h');
    b02_a_later_version B02 forged(|bytes| put(bytes, 4, 0x0002_0000));
    b03_hooks_behind_the_image B03 forged(|bytes| put(bytes, 0x1c, 0x3_fff8));
    b03_millions_of_hooks B03 forged(|bytes| put(bytes, 0x18, 0x0fff_ffff));
    b03_validations_at_an_odd_place B03 forged(|bytes| put(bytes, 0x14, AT + 0x61));
    b03_regions_without_end B03 forged(|bytes| {
        put(bytes, 0x08, u32::MAX);
        put(bytes, 0x0c, AT + 172);
    });
    b03_no_hooks B03 changed(|patch| patch.hooks.clear());
    b03_a_hook_across_the_end_of_the_target B03 changed(|patch| patch.hooks.push(Hook {
        kind: HookKind::Va32, options: 4, at: 0x2ffe, to: 0x1000, validation: None,
    }));
    b03_a_hook_that_leads_out_of_the_patch B03 changed(|patch| patch.hooks[0].to = 0x4_0000);
    b04_an_odd_number_of_fixups B04 forged(|bytes| put(bytes, 0x98, 1 << 20 | 1));
    b05_a_type_that_nobody_knows B05 forged(|bytes| bytes[0x9d] = 0x50);
    b05_padding_before_a_fixup B05 changed(|patch| patch.fixups[0].fixups[0].kind = FixupKind::None);
    b06_a_fixup_outside B06 changed(|patch| patch.fixups[0].page = 0x3f);
    b06_two_fixups_of_one_word B06 changed(|patch| patch.fixups[0].fixups[1].offset = 0x26);
    b07_a_validation_behind_the_target B07 changed(|patch| {
        patch.hooks[0].validation = None;
        patch.validations[0].target = 0x2fff;
    });
    b07_a_target_with_other_bytes B07 changed(|patch| patch.validations[0].bytes[4] = 0xcc);
    b07_bytes_that_are_not_there B07 forged(|bytes| put(bytes, 0x60, 0x4_0000));
    b06_a_fixup_of_an_address_that_is_too_wide B06 changed(|patch| {
        patch.fixups[0].fixups[0].kind = FixupKind::Va64;
    });
    b08_a_hook_of_code_with_wide_addresses B08 changed(|patch| patch.hooks.push(Hook {
        kind: HookKind::Va64, options: 8, at: 0x1100, to: 0x1000, validation: None,
    }));
    b08_a_type_that_is_none B08 changed(|patch| patch.hooks.push(Hook {
        kind: HookKind::None, options: 4, at: 0x1100, to: 0x1000, validation: None,
    }));
    b08_a_type_that_no_system_implements B08 changed(|patch| patch.hooks.push(Hook {
        kind: HookKind::PcRel32, options: 4, at: 0x1100, to: 0x1000, validation: None,
    }));
    b08_a_hook_for_another_machine B08 changed(|patch| patch.hooks.push(Hook {
        kind: HookKind::Other(32), options: 4, at: 0x1100, to: 0x1000, validation: None,
    }));
    b09_a_jump_in_four_bytes B09 changed(|patch| patch.hooks[0].options = 4);
    b10_two_hooks_in_one_place B10 changed(|patch| patch.hooks.push(Hook {
        kind: HookKind::Va32, options: 4, at: 0x1071, to: 0x1000, validation: None,
    }));
    b12_a_hook_that_names_no_validation B12 forged(|bytes| put(bytes, 0x84, AT + 0x64));
    b12_a_validation_of_another_place B12 changed(|patch| patch.hooks[0].validation = Some(1));
    b13_a_short_jump_into_old_code B13 changed(|patch| patch.hooks[1].to = 0xffff_fff8);
    b13_a_short_jump_to_itself B13 changed(|patch| patch.hooks[1].to = 0xffff_fffe);
    b13_a_short_jump_to_an_address B13 changed(|patch| patch.hooks[0].kind = HookKind::Va32);
    b13_two_short_jumps_at_each_other B13 changed(|patch| {
        patch.hooks[0].kind = HookKind::Jmp2B;
        patch.hooks[0].to = 3;
    });
    b14_a_checksum_that_every_file_has B14 {
        let id = ModuleId::checksum(0);
        let patch = LegacyPatch { id, ..example() };
        validate(&module(false, &bytes_of(&patch)), &patch, None)
    };
    b14_a_method_that_is_none B14 changed(|patch| patch.id.method = 0);
    b14_a_hash_that_is_not_public B14 changed(|patch| patch.id.method = 1);
    b14_a_method_that_is_not_known B14 changed(|patch| patch.id.method = 16);
    b14_a_method_that_cannot_be_checked B14 changed(|patch| patch.id.method = 2);
    b14_another_build B14 changed(|patch| patch.id = ModuleId::checksum(1));
    b14_something_behind_the_checksum B14 changed(|patch| patch.id.value[20] = 1);
    b15_a_name_without_end B15 forged(|bytes| put(bytes, 0x30, AT + 0x50));
    b15_a_name_with_a_folder B15 changed(|patch| patch.target_name = "..\\target.dll".to_owned());
}

/// On x86-64 a patch may be loaded farther away than a jump reaches.
#[test]
fn b11_a_jump_that_may_not_reach() {
    let mut patch = example();
    let found = |patch: &LegacyPatch| {
        let bytes = write(patch, PeMachine::Amd64, AT).expect("it can be written");
        let image = module(true, &bytes);
        validate(
            &image,
            &read(&image).expect("it is sound").expect("it is there"),
            None,
        )
    };
    assert_eq!(rules(&found(&patch)), BTreeSet::from([Rule::B11]));
    patch.hooks[0].options |= hook_options::NEAR;
    assert_eq!(found(&patch), []);
    patch.hooks.push(Hook {
        kind: HookKind::Va32,
        options: 4,
        at: 0x1100,
        to: 0x1000,
        validation: None,
    });
    assert_eq!(rules(&found(&patch)), BTreeSet::from([Rule::B11]));
}

/// A module with these marks of type 10 in its debug directory: the word of each, how many bytes of it there
/// are, and where they lie.
fn b16(marks: &[(u32, u32, u32)]) -> BTreeSet<Rule> {
    let mut data = vec![0; 0x80];
    for (number, (word, size, at)) in marks.iter().enumerate() {
        let entry = number * 28;
        put(&mut data, entry + 12, 10);
        put(&mut data, entry + 16, *size);
        put(&mut data, entry + 20, *at);
        // Where the data of the entry are in the file: behind headers and code.
        put(&mut data, entry + 24, 0x400 + at.saturating_sub(0x2000));
        if let Some(place) = at.checked_sub(0x3000).filter(|place| *place < 0x80) {
            put(&mut data, place as usize, *word);
        }
    }
    let recipe = Recipe {
        wide: false,
        parts: vec![
            (".text", 0x1000, vec![0xcc; 0x1000], CODE),
            (".rdata", 0x3000, data, DATA),
            (".hotp1", AT, bytes_of(&example()), DATA),
        ],
        directories: vec![(6, 0x3000, 28 * marks.len() as u32)],
        image_size: 0x4_0000,
    };
    let image = parse(&recipe.file());
    rules(&validate(&image, &example(), Some(&target())))
}

const HOT: u32 = 0xd201 << 16 | 1;

/// The signature of a cold patch.
#[test]
fn b16_a_mark_that_says_cold() {
    let cold = 0xd202 << 16 | 1;
    assert_eq!(b16(&[(HOT, 4, 0x3060)]), BTreeSet::new());
    assert_eq!(b16(&[(cold, 4, 0x3060)]), BTreeSet::from([Rule::B16]));
    // Behind one that is right.
    let both = b16(&[(HOT, 4, 0x3060), (cold, 4, 0x3070)]);
    assert_eq!(both, BTreeSet::from([Rule::B16]));
}

/// The right signature, of which the entry says that it ends before it, or that it is nowhere.
#[test]
fn b16_a_mark_that_is_not_all_there() {
    for (size, at) in [(0, 0x3060), (3, 0x3060), (4, 0), (4, 0xffff_fff0)] {
        let found = b16(&[(HOT, size, at)]);
        assert_eq!(found, BTreeSet::from([Rule::B16]), "{size} at {at:#x}");
    }
}

/// The target with constants behind its code, as a file that can be patched.
fn file_to_patch() -> PeImage {
    let mut code = vec![0xcc; 0x1000];
    code[0x6b..0x70].fill(0x90);
    code[0x70..0x72].copy_from_slice(&[0x8b, 0xff]);
    let recipe = Recipe {
        wide: false,
        parts: vec![
            (".text", 0x1000, code, CODE),
            (".rdata", 0x2000, vec![0x11; 0x200], 0x4000_0040),
        ],
        directories: Vec::new(),
        image_size: 0x3000,
    };
    parse(&recipe.file())
}

fn patched_file() -> PeImage {
    let module = module(false, &bytes_of(&example()));
    let made = cold(&file_to_patch(), &module, None).expect("it is for this file");
    assert_eq!(made.distance, 0x2000);
    parse(&made.file)
}

#[test]
fn the_worked_example_on_disk() {
    let (base, image) = (file_to_patch(), patched_file());
    assert_eq!(validate_cold(&image, Some(&base)), []);
    assert_eq!(cold_mark(&image), Ok(CHECKSUM.into()));
    let bytes = |at: u64, size: u64| image.bytes(Rva(at), size).expect("it is in the file");
    assert_eq!(bytes(0x106b, 7), [0xe9, 0x90, 0x1f, 0, 0, 0xeb, 0xf9]);
    // Both words held `cc cc cc cc`. The target is 0x12220000 lower than it was taken to be, the
    // patch 0x2332e000.
    let word = |at: u64| image.word(Rva(at)).expect("it is in the file");
    assert_eq!(word(0x3024), 0xcccc_cccc_u32.wrapping_sub(0x1222_0000));
    let apart = 0x2332_e000_u32 - 0x1222_0000;
    assert_eq!(word(0x3031), 0xcccc_cccc_u32.wrapping_add(apart));
    let moved: Vec<Rva> = image.relocations.iter().map(|one| one.at).collect();
    assert_eq!(moved, [Rva(0x3024)], "an address; the other is a distance");
    let names: Vec<&str> = image.sections.iter().map(|s| &*s.name).collect();
    assert_eq!(names, [".text", ".rdata", ".text_CP", ".DBG_POR"]);
}

/// What is found where one byte of the patched file is another one, and the checksum right.
fn with_byte(at: usize, value: u8) -> Vec<Finding> {
    let image = patched_file();
    let mut file = image.file().to_vec();
    file[at] = value;
    let place = image.header_places().checksum;
    let sum = checksum(&file, place);
    put(&mut file, place, sum);
    validate_cold(&parse(&file), Some(&file_to_patch()))
}

fn mark_of_it() -> usize {
    let image = patched_file();
    let mark = image.debug.iter().find(|entry| entry.kind == 10);
    mark.expect("it is there").file_offset as usize
}

attacks! {
    b17_a_constant_of_the_base_that_is_another B17 with_byte(0x1480, 0x22);
    b17_code_of_the_base_that_is_another B17 with_byte(0x400, 0xeb);
    b17_a_hook_that_leads_into_the_base B17 with_byte(0x400 + 0x6d, 0);
    b17_a_short_jump_beside_the_hook B17 with_byte(0x400 + 0x71, 0xf8);
    b17_a_mark_of_another_file B17 with_byte(mark_of_it() + 12, 0x22);
    b17_a_mark_that_says_hot B17 with_byte(mark_of_it() + 2, 1);
    b17_a_section_of_the_base_with_other_rights B17 with_byte(0x178 + 40 + 39, 0xc0);
    b17_a_checksum_that_is_wrong B17 {
        let mut file = patched_file().file().to_vec();
        file[0x1400] ^= 1;
        validate_cold(&parse(&file), None)
    };
}

/// Cut anywhere, it is an error or another patch, and never a panic.
#[test]
fn every_truncation_is_survived() {
    let whole = bytes_of(&example());
    for length in 0..whole.len() {
        let image = module(false, &whole[..length]);
        if let Ok(Some(patch)) = read(&image) {
            let _ = validate(&image, &patch, Some(&target()));
        }
    }
}

fn any_patch() -> impl Strategy<Value = LegacyPatch> {
    let kind = prop_oneof![
        Just(FixupKind::Va32),
        Just(FixupKind::Pc32),
        Just(FixupKind::Va64),
        Just(FixupKind::Pc64),
        Just(FixupKind::None),
    ];
    let fixup = (0..0x1000_u16, kind).prop_map(|(offset, kind)| Fixup { offset, kind });
    let region = (
        0..1_u32 << 20,
        prop::collection::vec((fixup.clone(), fixup), 0..4),
    );
    let region = region.prop_map(|(page, pairs)| FixupRegion {
        page,
        fixups: pairs.into_iter().flat_map(|(a, b)| [a, b]).collect(),
    });
    let validation = (
        prop::collection::vec(any::<u8>(), 0..40),
        any::<u32>(),
        any::<u16>(),
    );
    let validation = validation.prop_map(|(bytes, target, flags)| Validation {
        bytes,
        target,
        flags,
    });
    let hook = (
        any::<u16>(),
        any::<u16>(),
        any::<u32>(),
        any::<u32>(),
        any::<Option<prop::sample::Index>>(),
    );
    (
        any::<(u64, u64, u32, [u8; 24])>(),
        "[ -~]{1,40}",
        prop::collection::vec(region, 0..4),
        prop::collection::vec(validation, 0..4),
        prop::collection::vec(hook, 0..4),
    )
        .prop_map(
            |((hotp_base, target_base, method, value), target_name, fixups, validations, hooks)| {
                let hooks = hooks
                    .into_iter()
                    .map(|(kind, options, at, to, validation)| Hook {
                        kind: HookKind::of(kind),
                        options,
                        at,
                        to,
                        validation: validation
                            .filter(|_| !validations.is_empty())
                            .map(|index| index.index(validations.len())),
                    });
                LegacyPatch {
                    hotp_base,
                    target_base,
                    target_name,
                    id: ModuleId { method, value },
                    fixups,
                    hooks: hooks.collect(),
                    validations,
                }
            },
        )
}

proptest! {
    #[test]
    fn any_patch_comes_back(patch in any_patch(), wide in any::<bool>()) {
        let machine = if wide { PeMachine::Amd64 } else { PeMachine::I386 };
        let bytes = write(&patch, machine, AT).expect("it can be written");
        prop_assert_eq!(&bytes, &write(&patch, machine, AT).expect("again"));
        let image = module(wide, &bytes);
        prop_assert_eq!(read(&image).expect("it was just written"), Some(patch.clone()));
        let _ = validate(&image, &patch, Some(&target()));
    }

    #[test]
    fn any_change_is_survived(at in 0..171_usize, value in any::<u8>()) {
        let mut bytes = bytes_of(&example());
        bytes[at] = value;
        let image = module(false, &bytes);
        if let Ok(Some(patch)) = read(&image) {
            let _ = validate(&image, &patch, Some(&target()));
        }
    }
}

/// An image that is longer than its sections would have a hole before the new ones.
#[test]
fn a_hole_before_the_new_sections_is_refused() {
    let module = module(false, &bytes_of(&example()));
    let mut file = file_to_patch().file().to_vec();
    let place = file_to_patch().header_places().image_size;
    put(&mut file, place, 0x5000);
    let error = cold(&parse(&file), &module, None).expect_err("a hole");
    assert!(error.to_string().contains("that hole"), "{error}");
}

/// What is loaded only with a valid signature would not be loaded at all.
#[test]
fn a_base_that_must_be_signed_is_refused() {
    let module = module(false, &bytes_of(&example()));
    let base = file_to_patch();
    let mut file = base.file().to_vec();
    // `DllCharacteristics` stands six bytes behind the checksum.
    file[base.header_places().checksum + 6] |= 0x80;
    let error = cold(&parse(&file), &module, None).expect_err("no signature");
    assert!(error.to_string().contains("/integritycheck"), "{error}");
}

/// Windows calls only those handlers of exceptions that the base lists, and a module's are not among them.
#[test]
fn a_module_with_handlers_of_its_own_is_refused_where_they_are_listed() {
    let with = |more: &[u8]| {
        let mut code = vec![0xcc; 0x1000];
        code[0x100..0x100 + more.len()].copy_from_slice(more);
        let recipe = Recipe {
            wide: false,
            parts: vec![
                (".text", 0x1000, code, CODE),
                (".hotp1", AT, bytes_of(&example()), DATA),
            ],
            directories: Vec::new(),
            image_size: 0x4_0000,
        };
        parse(&recipe.file())
    };
    let base = file_to_patch();
    let mut listed = base.file().to_vec();
    // It has none at all (`NO_SEH`).
    listed[base.header_places().checksum + 7] |= 4;
    let listed = parse(&listed);
    // `mov eax, fs:[0]`; `mov fs:[0], esp`, of both lengths of addresses; and `mov eax, fs:[18h]`.
    let handlers: [&[u8]; 3] = [
        &[0x64, 0xa1, 0, 0, 0, 0],
        &[0x64, 0x89, 0x25, 0, 0, 0, 0],
        &[0x64, 0x67, 0x89, 0x26, 0, 0],
    ];
    for code in handlers {
        let error = cold(&listed, &with(code), None).expect_err("nobody would call it");
        assert!(error.to_string().contains("/safeseh"), "{error}");
        cold(&base, &with(code), None).expect("any handler is called");
    }
    let other = with(&[0x64, 0xa1, 0x18, 0, 0, 0]);
    cold(&listed, &other, None).expect("no handler");
}

/// Certificates are left out of a file that is patched, and an overlay stays where it is.
#[test]
fn a_file_with_a_certificate_and_one_with_an_overlay_on_disk() {
    let module = module(false, &bytes_of(&example()));
    let base = file_to_patch();
    let end = base.file().len();
    let mut overlay = base.file().to_vec();
    overlay.extend_from_slice(b"what an installer carries");
    let overlay_base = parse(&overlay);
    let made = cold(&overlay_base, &module, None).expect("it can be patched");
    assert_eq!((made.overlay, made.certificates), (25, 0));
    assert_eq!(made.file[end..end + 25], overlay[end..]);
    assert_eq!(validate_cold(&parse(&made.file), Some(&overlay_base)), []);

    let mut signed = base.file().to_vec();
    signed.extend_from_slice(&[0x5a; 0x60]);
    let security = base.header_places().directories + 8 * 4;
    put(&mut signed, security, u32::try_from(end).expect("small"));
    put(&mut signed, security + 4, 0x60);
    let signed_base = parse(&signed);
    let made = cold(&signed_base, &module, None).expect("it can be patched");
    assert_eq!((made.overlay, made.certificates), (0, 0x60));
    let image = parse(&made.file);
    assert!(image.directory(4).is_none(), "the loader looks for none");
    assert!(!made.file.windows(0x60).any(|bytes| bytes == [0x5a; 0x60]));
    assert_eq!(validate_cold(&image, Some(&signed_base)), []);
}
