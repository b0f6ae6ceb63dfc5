//! Hooks of each shape and type for x86-64: the very bytes that they write, what their rules say, and what
//! becomes of them in a file that is patched on disk.

mod scene;

use std::collections::BTreeSet;

use invivo_format::hotp1::{
    CodeError, ColdError, Finding, Hook, HookCode, HookKind, HookShape, LegacyPatch, ModuleId,
    Places, Rule, cold, hook_options, read, validate, validate_cold, write,
};
use invivo_image::Rva;
use invivo_image::pe::{BaseRelocation, BaseRelocationKind, PeImage, PeMachine};
use invivo_patch::HookRoom;
use scene::{CHECKSUM, Recipe, parse, put};

/// Where the section of a patch module is.
const AT: u32 = 0x5000;
const CODE: u32 = 0x6000_0020;
const DATA: u32 = 0xc000_0040;

/// The function that is hooked, and the new one.
const FUNCTION: u32 = 0x1040;
const NEW: u32 = 0x2000;

/// Where both are in a process.
const PLACES: Places = Places {
    machine: PeMachine::Amd64,
    target: 0x1_8000_0000,
    patch: 0x1_9000_0000,
};

/// A function with padding before it: `sub rsp, 28h`, seven bytes, and `mov eax, 1`, five bytes.
fn target() -> PeImage {
    let mut code = vec![0xcc; 0x200];
    let function = [0x48, 0x81, 0xec, 0x28, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xc3];
    code[0x40..0x40 + function.len()].copy_from_slice(&function);
    let recipe = Recipe {
        wide: true,
        parts: vec![(".text", 0x1000, code, CODE)],
        directories: Vec::new(),
        image_size: 0x2000,
    };
    parse(&recipe.file())
}

/// A patch with these hooks, and no validations but those that `shape` makes.
fn patch(hooks: Vec<Hook>) -> LegacyPatch {
    LegacyPatch {
        target_name: "target.dll".to_owned(),
        id: ModuleId::checksum(CHECKSUM),
        hooks,
        ..LegacyPatch::default()
    }
}

fn shaped(shape: HookShape) -> LegacyPatch {
    let room = HookRoom {
        before: 16,
        free: 13,
        long: std::iter::once(7..12).collect(),
    };
    let made = shape.hooks(&target(), FUNCTION, NEW, Some(&room));
    let (mut hooks, mut validations) = (Vec::new(), Vec::new());
    for (number, (mut hook, validation)) in made.expect("it has room").into_iter().enumerate() {
        hook.validation = Some(number);
        hooks.push(hook);
        validations.push(validation);
    }
    LegacyPatch {
        validations,
        ..patch(hooks)
    }
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

/// The module that has this patch, and all that is found in it.
fn module(wide: bool, patch: &LegacyPatch) -> PeImage {
    let machine = if wide {
        PeMachine::Amd64
    } else {
        PeMachine::I386
    };
    let section = write(patch, machine, AT).expect("it can be written");
    with_section(wide, section)
}

fn with_section(wide: bool, section: Vec<u8>) -> PeImage {
    let recipe = Recipe {
        wide,
        parts: vec![
            (".text", 0x1000, vec![0xcc; 0x2000], CODE),
            (".hotp1", AT, section, DATA),
        ],
        directories: Vec::new(),
        image_size: 0x6000,
    };
    parse(&recipe.file())
}

fn found(patch: &LegacyPatch, target: &PeImage) -> Vec<Finding> {
    let image = module(true, patch);
    let again = read(&image).expect("it is sound").expect("it is there");
    assert_eq!(&again, patch);
    validate(&image, &again, Some(target))
}

fn rules(findings: &[Finding]) -> BTreeSet<Rule> {
    findings.iter().map(|finding| finding.rule).collect()
}

/// Places, and what is written there.
type Written = Vec<(u32, Vec<u8>)>;

/// Each shape as its hooks are written, in their order: place, bytes.
#[test]
fn what_each_shape_writes() {
    let address = [0, 0x20, 0, 0x90, 1, 0, 0, 0];
    let cases: [(HookShape, Written); 5] = [
        (
            HookShape::Short,
            vec![
                // From 0x180001040 to 0x190002000.
                (0x103b, vec![0xe9, 0xc0, 0x0f, 0, 0x10]),
                (0x1040, vec![0xeb, 0xf9, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc]),
            ],
        ),
        (
            HookShape::Triple,
            vec![
                (0x1032, address.to_vec()),
                // From 0x180001040 back to the address.
                (0x103a, vec![0xff, 0x25, 0xf2, 0xff, 0xff, 0xff]),
                (0x1040, vec![0xeb, 0xf8, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc]),
            ],
        ),
        (
            HookShape::Indirect,
            vec![
                (0x1038, address.to_vec()),
                // From 0x180001046 back to the address.
                (0x1040, vec![0xff, 0x25, 0xf2, 0xff, 0xff, 0xff, 0xcc]),
            ],
        ),
        (
            HookShape::Jump,
            vec![(0x1040, vec![0xe9, 0xbb, 0x0f, 0, 0x10, 0xcc, 0xcc])],
        ),
        (
            // From 0x18000104c to the same place of the new function.
            HookShape::Middle,
            vec![(0x1047, vec![0xe9, 0xbb, 0x0f, 0, 0x10])],
        ),
    ];
    for (shape, wanted) in cases {
        let patch = shaped(shape);
        let codes = HookCode::of(&patch, PLACES);
        let written = patch.hooks.iter().map(|hook| {
            let code = codes.bytes(hook).expect("it reaches");
            (hook.at, code)
        });
        assert_eq!(written.collect::<Vec<_>>(), wanted, "{shape}");
        assert_eq!(found(&patch, &target()), [], "{shape}");
    }
}

/// What types write that no shape has: an indirect jump through a variable of the patch, a number, an
/// address of 32 bits.
#[test]
fn what_each_type_writes_alone() {
    let near = hook_options::NEAR;
    let code = |hook: Hook, places: &Places| {
        HookCode::of(&patch(vec![hook.clone()]), *places).bytes(&hook)
    };
    // From 0x180001046 to 0x190002000, where the patch keeps the address.
    let through = hook(HookKind::Amd64Ind, 7 | near, FUNCTION, NEW);
    let bytes = vec![0xff, 0x25, 0xba, 0x0f, 0, 0x10, 0xcc];
    assert_eq!(code(through.clone(), &PLACES), Ok(bytes));
    // A jump of the longest length is filled up to its end.
    let longest = hook(HookKind::X86Jmp, 31 | near, FUNCTION, NEW);
    let bytes = code(longest, &PLACES).expect("it reaches");
    assert_eq!((bytes.len(), &bytes[5..]), (31, &[0xcc; 26][..]));
    // Numbers and addresses have their own length, whatever is replaced.
    let number = hook(HookKind::Amd64Cnt, 6, FUNCTION, 0x07d0);
    assert_eq!(code(number, &PLACES), Ok(vec![0xd0, 0x07]));
    let address = hook(HookKind::Va64, 12, FUNCTION, NEW);
    let bytes = vec![0, 0x20, 0, 0x90, 1, 0, 0, 0];
    assert_eq!(code(address, &PLACES), Ok(bytes));
    let short = hook(HookKind::Va32, 4, FUNCTION, NEW);
    let low = Places {
        patch: 0x9000_0000,
        ..PLACES
    };
    assert_eq!(code(short.clone(), &low), Ok(vec![0, 0x20, 0, 0x90]));
    let wide = CodeError::Wide(0x1_9000_2000);
    assert_eq!(code(short, &PLACES), Err(wide));
    // One byte farther than 31 bits reach, and the last one that they do.
    let last = PLACES.target + 0x1046 + 0x7fff_ffff - u64::from(NEW);
    for (patch, reaches) in [(last, true), (last + 1, false)] {
        let there = Places { patch, ..PLACES };
        let far = CodeError::Far {
            at: PLACES.target + 0x1040,
            to: patch + u64::from(NEW),
        };
        let bytes = vec![0xff, 0x25, 0xff, 0xff, 0xff, 0x7f, 0xcc];
        let wanted = if reaches { Ok(bytes) } else { Err(far) };
        assert_eq!(code(through.clone(), &there), wanted, "{patch:#x}");
    }
}

/// Only code of x86-64 jumps through a place that it names by a distance, and no shape is for ARM64.
#[test]
fn which_shape_is_for_which_machine() {
    let names = |machine: PeMachine| {
        let all = HookShape::all_for(machine).into_iter();
        all.map(HookShape::name).collect::<Vec<_>>()
    };
    let all = ["short", "triple", "indirect", "jump", "middle"];
    assert_eq!(names(PeMachine::Amd64), all);
    assert_eq!(names(PeMachine::I386), ["short", "jump", "middle"]);
    assert_eq!(names(PeMachine::Arm64), [""; 0]);
}

/// An indirect jump reaches as far as any other one, so that it asks for a patch near its target, too.
#[test]
fn b11_an_indirect_jump_that_may_not_reach() {
    for shape in [HookShape::Indirect, HookShape::Triple] {
        let mut patch = shaped(shape);
        let jumps = patch.hooks.iter_mut();
        let mut jumps = jumps.filter(|hook| hook.kind == HookKind::Amd64Ind);
        let jump = jumps.next().expect("it has one");
        jump.options &= !hook_options::NEAR;
        let findings = found(&patch, &target());
        assert_eq!(rules(&findings), BTreeSet::from([Rule::B11]), "{shape}");
        assert_eq!(findings.len(), 1, "{findings:?}");
    }
}

/// For x86-64 arrays stand at multiples of 16: eight bytes further on, as for x86, they are refused.
#[test]
fn b03_arrays_at_eight_bytes() {
    // Where the header says where validations and hooks are.
    for field in [0x14, 0x1c] {
        let mut section = write(&shaped(HookShape::Triple), PeMachine::Amd64, AT).expect("written");
        section.resize(section.len() + 0x40, 0);
        assert!(read(&with_section(true, section.clone())).is_ok());
        let at = scene::get(&section, field);
        put(&mut section, field, at + 8);
        let error = read(&with_section(true, section)).expect_err("it is not aligned");
        assert_eq!(error.rule, Rule::B03, "{error}");
        assert!(error.text.contains("a multiple of 16"), "{error}");
    }
    // For x86 the same place is one of the example's own.
    let section = write(&patch(Vec::new()), PeMachine::I386, AT + 8);
    section.expect("it is aligned for x86");
    let error = write(&patch(Vec::new()), PeMachine::Amd64, AT + 8);
    assert_eq!(error.map_err(|error| error.rule), Err(Rule::B03));
}

/// A file with code, and variables one of which may be an address already.
fn file_to_patch(wide: bool, address: Option<u32>) -> PeImage {
    let mut parts = vec![
        (".text", 0x1000, vec![0xcc; 0x1000], CODE),
        (".data", 0x2000, vec![0x11; 0x200], DATA),
    ];
    let mut directories = Vec::new();
    if let Some(at) = address {
        let kind = if wide { 0xa000 } else { 0x3000 };
        let mut block = vec![0; 12];
        put(&mut block, 0, 0x2000);
        put(&mut block, 4, 12);
        put(&mut block, 8, kind | (at & 0xfff));
        parts.push((".reloc", 0x3000, block, 0x4200_0040));
        directories.push((5, 0x3000, 12));
    }
    let recipe = Recipe {
        wide,
        image_size: if address.is_some() { 0x4000 } else { 0x3000 },
        parts,
        directories,
    };
    parse(&recipe.file())
}

/// An address in data is written into a file as what the loader moves, once, wherever it was one already.
#[test]
fn addresses_in_data_on_disk() {
    const VARIABLE: u32 = 0x2010;
    for wide in [false, true] {
        let (kind, width, relocation) = match wide {
            true => (HookKind::Va64, 8_u16, BaseRelocationKind::Address64),
            false => (HookKind::Va32, 4, BaseRelocationKind::Address32),
        };
        let own = BaseRelocation {
            at: Rva(VARIABLE.into()),
            kind: relocation,
        };
        let module = module(wide, &patch(vec![hook(kind, width, VARIABLE, 0x1234)]));
        for address in [None, Some(VARIABLE)] {
            let base = file_to_patch(wide, address);
            let made = cold(&base, &module, None).expect("it is for this file");
            let image = parse(&made.file);
            assert_eq!(validate_cold(&image, Some(&base)), []);
            let place = image.bytes(Rva(VARIABLE.into()), width.into());
            let address = image.image_base + u64::from(made.distance) + 0x1234;
            let wanted = &address.to_le_bytes()[..usize::from(width)];
            assert_eq!(place, Some(wanted), "{kind:?}");
            assert_eq!(image.relocations, [own], "{kind:?}");
            // What lies around it is the base's.
            let behind = Rva(u64::from(VARIABLE) + u64::from(width));
            assert_eq!(image.array(behind), Some([0x11; 4]));
        }
        // Half of it would be an address of the base's.
        for near in [VARIABLE - 2, VARIABLE + 2] {
            let error = cold(&file_to_patch(wide, Some(near)), &module, None);
            let error = error.expect_err("two addresses in one place").to_string();
            assert!(error.contains("the loader changes"), "{error}");
            assert!(error.contains("0x2010"), "{error}");
        }
    }
}

/// Nobody could tell a number from damage, and no word of 32 bits holds an address of 64: neither comes
/// into a file.
#[test]
fn numbers_and_short_addresses_on_disk() {
    let number = module(
        true,
        &patch(vec![hook(HookKind::Amd64Cnt, 2, 0x1010, 2000)]),
    );
    let error = cold(&file_to_patch(true, None), &number, None).expect_err("a number");
    assert!(matches!(error, ColdError::Image(_)), "{error:?}");
    assert!(error.to_string().contains("AMD64_CNT"), "{error}");
    let short = patch(vec![hook(HookKind::Va32, 4, 0x2010, 0x1234)]);
    let base = file_to_patch(true, None);
    let findings = found(&short, &base);
    assert_eq!(rules(&findings), BTreeSet::from([Rule::B11]));
    let error = cold(&base, &module(true, &short), None).expect_err("it is too short");
    assert!(matches!(error, ColdError::Rules(_)), "{error:?}");
}

/// What the fuzz target `windows` begins with has a patch, which comes back when it is written.
#[test]
fn the_seeds_of_the_fuzz_target_have_patches() {
    let seeds: [(&[u8], PeMachine); 2] = [
        (
            include_bytes!("../../../fuzz/seeds/windows/hotp1"),
            PeMachine::Amd64,
        ),
        (
            include_bytes!("../../../fuzz/seeds/windows/hotp1-x86"),
            PeMachine::I386,
        ),
    ];
    for (seed, machine) in seeds {
        let image = parse(seed);
        assert_eq!(image.machine, machine);
        let patch = read(&image).expect("it is sound").expect("it is there");
        assert!(patch.hooks.len() >= 2 && !patch.fixups.is_empty());
        assert!(!patch.validations.is_empty());
        assert_eq!(validate(&image, &patch, None), []);
        let again = module(machine != PeMachine::I386, &patch);
        assert_eq!(read(&again), Ok(Some(patch)));
    }
}
