//! The worked example of older Windows: a module, and a patch module for it.
#![allow(dead_code, reason = "each program of tests uses a part of it")]

use invivo_format::hotp1::{
    Fixup, FixupKind, FixupRegion, Hook, HookKind, LegacyPatch, ModuleId, Validation,
    validation_flags, write,
};
use invivo_image::pe::PeMachine;

use crate::images::scene::{CHECKSUM, Recipe, parse, put};

pub(crate) const AT: u32 = 0x5000;
pub(crate) const CODE: u32 = 0x6000_0020;
pub(crate) const DATA: u32 = 0xc000_0040;

pub(crate) fn hook(
    kind: HookKind,
    options: u16,
    at: u32,
    to: u32,
    validation: Option<usize>,
) -> Hook {
    Hook {
        kind,
        options,
        at,
        to,
        validation,
    }
}

pub(crate) fn validation(bytes: &[u8], target: u32) -> Validation {
    Validation {
        bytes: bytes.to_vec(),
        target,
        flags: validation_flags::HOOK_TARGET,
    }
}

/// The example of the format's description.
pub(crate) fn example() -> LegacyPatch {
    let fixup = |offset, kind| Fixup { offset, kind };
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
            hook(HookKind::X86Jmp, 5, 0x106b, 0x1000, Some(0)),
            hook(HookKind::Jmp2B, 2, 0x1070, 0xffff_fff9, Some(1)),
        ],
    }
}

/// The target: a function with padding before it; `mark` makes it one that was patched on disk.
pub(crate) fn target_file(mark: Option<u64>) -> Vec<u8> {
    let mut code = vec![0xcc; 0x1000];
    code[0x6b..0x70].fill(0x90);
    code[0x70..0x78].copy_from_slice(&[0x8b, 0xff, 0x55, 0x8b, 0xec, 0x31, 0xc0, 0xc3]);
    code[0x100..0x106].copy_from_slice(&[0xb8, 1, 0, 0, 0, 0xc3]);
    code[0x120..0x128].copy_from_slice(&[0x55, 0x8b, 0xec, 0xe8, 1, 2, 3, 4]);
    if mark.is_some() {
        code[0x6b..0x72].copy_from_slice(&[0xe9, 1, 2, 3, 0, 0xeb, 0xf9]);
    }
    target_of(false, code, vec![0; 0x40], mark)
}

/// A target with this code at 0x1000 and these variables at 0x2000, the first 0x40 bytes of which are left
/// to the mark of a file that was patched on disk.
pub(crate) fn target_of(
    wide: bool,
    code: Vec<u8>,
    mut data: Vec<u8>,
    mark: Option<u64>,
) -> Vec<u8> {
    let mut directories = Vec::new();
    if let Some(sum) = mark {
        put(&mut data, 12, 10);
        put(&mut data, 16, 20);
        put(&mut data, 20, 0x2020);
        put(&mut data, 24, 0x400 + 0x1000 + 0x20);
        put(&mut data, 0x20, 0xd202 << 16 | 1);
        data[0x2c..0x34].copy_from_slice(&sum.to_le_bytes());
        directories.push((6, 0x2000, 28));
    }
    let recipe = Recipe {
        wide,
        parts: vec![(".text", 0x1000, code, CODE), (".data", 0x2000, data, DATA)],
        directories,
        image_size: 0x3000,
    };
    let mut file = recipe.file();
    if mark.is_some() {
        let image = parse(&file);
        put(&mut file, image.header_places().checksum, 0x77);
    }
    file
}

pub(crate) fn patch_file(patch: &LegacyPatch) -> Vec<u8> {
    patch_of(false, patch)
}

/// The worked example as a module that imports from these libraries.
pub(crate) fn importing(libraries: &[&str]) -> Vec<u8> {
    /// Where the descriptors are, a table without entries for all of them, and the names.
    const DESCRIPTORS: usize = 0x800;
    const TABLE: usize = 0xa00;
    const NAMES: usize = 0xb00;
    module(false, &example(), |code| {
        code[DESCRIPTORS..].fill(0);
        let mut name = NAMES;
        for (number, library) in libraries.iter().enumerate() {
            let at = DESCRIPTORS + 20 * number;
            for (place, value) in [(0, TABLE), (12, name), (16, TABLE)] {
                put(code, at + place, 0x1000 + value as u32);
            }
            code[name..name + library.len()].copy_from_slice(library.as_bytes());
            name += library.len() + 1;
        }
        vec![(1, 0x1000 + DESCRIPTORS as u32, 0x100)]
    })
}

pub(crate) fn patch_of(wide: bool, patch: &LegacyPatch) -> Vec<u8> {
    module(wide, patch, |_| Vec::new())
}

/// A module whose code is changed; what changes it gives the directories that are in it.
fn module(
    wide: bool,
    patch: &LegacyPatch,
    change: impl FnOnce(&mut Vec<u8>) -> Vec<(usize, u32, u32)>,
) -> Vec<u8> {
    let machine = if wide {
        PeMachine::Amd64
    } else {
        PeMachine::I386
    };
    let section = write(patch, machine, AT).expect("it can be written");
    let mut code = vec![0xcc; 0x1000];
    code[0x24..0x28].copy_from_slice(&0x2222_2000_u32.to_le_bytes());
    code[0x31..0x35].copy_from_slice(&0xeeee_0000_u32.to_le_bytes());
    let directories = change(&mut code);
    let recipe = Recipe {
        wide,
        parts: vec![(".text", 0x1000, code, CODE), (".hotp1", AT, section, DATA)],
        directories,
        image_size: 0x6000,
    };
    recipe.file()
}
