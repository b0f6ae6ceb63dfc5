//! A patch of older Windows with as many hooks as fit into a file, over another one: nothing is looked for
//! among all hooks for each of them, which would take hours.

mod images;

use std::sync::Arc;

use images::scene::{CHECKSUM, Recipe, parse};
use invivo_apply::hotp1::PatchedModule;
use invivo_apply::{Loaded, MemoryTarget, Protection, Target};
use invivo_format::hotp1::{Hook, HookKind, LegacyPatch, ModuleId, write};
use invivo_image::LiveAddr;
use invivo_image::pe::{PeImage, PeMachine};

const CODE: u32 = 0x6000_0020;
const DATA: u32 = 0xc000_0040;

/// Functions that are hooked, each at a multiple of 16 with padding before it.
const MANY: u32 = 200_000;
const TARGET: u64 = 0x1000_0000;

/// Where the section of a patch module is.
const AT: u32 = 0x3000;

/// Maps an image, each section as one piece.
fn load(memory: &mut MemoryTarget, image: PeImage, at: u64) -> Loaded {
    let headers = image.file()[..image.headers_size as usize].to_vec();
    let mut pieces = vec![(0, Protection::ReadWrite, headers)];
    for section in &image.sections {
        let (start, size) = (section.range.start, section.file_size());
        let protection = match section.is_executable() {
            true => Protection::ReadExecute,
            false => Protection::ReadWrite,
        };
        let bytes = image.bytes(start, size).expect("it is in the file");
        pieces.push((start.0, protection, bytes.to_vec()));
    }
    for (start, protection, bytes) in pieces {
        let (start, size) = (at + start, bytes.len() as u64);
        let end = start + size.next_multiple_of(0x1000);
        memory.add(LiveAddr(start)..LiveAddr(end), protection);
        memory.write(LiveAddr(start), &bytes).expect("it is there");
    }
    Loaded {
        image: Arc::new(image),
        at: LiveAddr(at),
        reserve: 0,
        table: None,
    }
}

/// A target of functions that begin with an instruction of two bytes.
fn target() -> Vec<u8> {
    let function = [
        0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0x8b, 0xff, 0x31, 0xc0, 0xc3, 0xcc, 0xcc,
        0xcc,
    ];
    let code = function.repeat(MANY as usize);
    let end = 0x1000 + code.len() as u32;
    let recipe = Recipe {
        wide: false,
        parts: vec![(".text", 0x1000, code, CODE)],
        directories: Vec::new(),
        image_size: end.next_multiple_of(0x1000),
    };
    recipe.file()
}

/// A patch that leads each function to its own place, where `to` begins.
fn patch(target: &mut MemoryTarget, at: u64, to: u32) -> Loaded {
    let hook = |kind, options, at, to| Hook {
        kind,
        options,
        at,
        to,
        validation: None,
    };
    let functions = (0..MANY).map(|number| 0x1008 + 16 * number);
    let hooks = functions.flat_map(|at| {
        [
            hook(HookKind::X86Jmp, 5, at - 5, to),
            hook(HookKind::Jmp2B, 2, at, 0xf9),
        ]
    });
    let patch = LegacyPatch {
        target_name: "target.dll".to_owned(),
        id: ModuleId::checksum(CHECKSUM),
        hooks: hooks.collect(),
        ..LegacyPatch::default()
    };
    let section = write(&patch, PeMachine::I386, AT).expect("it can be written");
    let end = AT + section.len() as u32;
    let recipe = Recipe {
        wide: false,
        parts: vec![
            (".text", 0x1000, vec![0xcc; 0x1000], CODE),
            (".hotp1", AT, section, DATA),
        ],
        directories: Vec::new(),
        image_size: end.next_multiple_of(0x1000),
    };
    load(target, parse(&recipe.file()), at)
}

#[test]
fn patches_with_many_hooks() {
    let mut memory = MemoryTarget::default();
    let module = load(&mut memory, parse(&target()), TARGET);
    let mut module = PatchedModule::new(module);
    let first = patch(&mut memory, 0x4000_0000, 0x1000);
    let second = patch(&mut memory, 0x6000_0000, 0x1100);
    let all = 2 * MANY as usize;
    let mut apply = |patch: &Loaded| {
        let done = module.apply(&mut memory, patch).expect("it is applied");
        assert_eq!(done.hooks, all);
    };
    apply(&first);
    apply(&second);
    let under = module.remove(&mut memory, first.at);
    let text = under.expect_err("another one lies over it").to_string();
    assert!(text.contains("lies over it"), "{text}");
    let done = module.remove(&mut memory, second.at);
    assert_eq!(done.expect("it is removed").hooks, all);
}
