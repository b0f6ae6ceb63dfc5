//! Patch modules of older Windows with hooks that no planner chooses: in the middle of functions and
//! in data. They are for the library `places`.

use std::sync::Arc;

use invivo_format::hotp1::{
    Fixup, FixupKind, FixupRegion, Hook, HookKind, LegacyPatch, ModuleId, hook_options, write,
};
use invivo_image::pe::{PeImage, checksum};

use crate::Library;

/// A patch module of `base` with these hooks; `code` stands at the begin of its code. Its own base is
/// `own`, where that is given: the loader cannot move it.
#[must_use]
pub fn module(base: &Library, code: &[u8], hooks: &[Hook], own: Option<u64>) -> PeImage {
    module_with(base, code, hooks, own, Vec::new())
}

/// The same with words of its code that depend on where both images are.
#[must_use]
pub fn module_with(
    base: &Library,
    code: &[u8],
    hooks: &[Hook],
    own: Option<u64>,
    fixups: Vec<FixupRegion>,
) -> PeImage {
    made(base, code, hooks, own, fixups, &[])
}

/// A patch module of `base` with these hooks, whose own variables at `pointers` are addresses of its own
/// code: those of the base that it is a copy of, which the loader moves with it.
#[must_use]
pub fn module_with_pointers(base: &Library, hooks: &[Hook], pointers: &[u32]) -> PeImage {
    made(base, &[], hooks, None, Vec::new(), pointers)
}

fn made(
    base: &Library,
    code: &[u8],
    hooks: &[Hook],
    own: Option<u64>,
    fixups: Vec<FixupRegion>,
    pointers: &[u32],
) -> PeImage {
    let image = base.image().expect("a Windows image");
    let mut file = image.file().to_vec();
    let text = image
        .sections
        .iter()
        .find(|s| s.is_executable())
        .expect("code");
    let start = text.file_start().expect("in the file");
    file[start..start + code.len()].copy_from_slice(code);
    // The last section becomes the patch's; nothing of it is needed here.
    let model = LegacyPatch {
        hotp_base: own.unwrap_or(image.image_base),
        target_base: image.image_base,
        target_name: base
            .path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned(),
        id: ModuleId::checksum(image.checksum),
        hooks: hooks.to_vec(),
        fixups,
        ..LegacyPatch::default()
    };
    let last = image.sections.last().expect("a section");
    let at = u32::try_from(last.range.start.0).expect("it is small");
    let mut bytes = write(&model, image.machine, at).expect("it can be written");
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    // The relocations were there; those that are left stand behind the patch.
    let relocations = at + u32::try_from(bytes.len()).expect("it is small");
    bytes.extend(pointers.iter().flat_map(|at| relocation(&image, *at)));
    let left = if pointers.is_empty() {
        [0; 2]
    } else {
        let blocks = bytes.len() - (relocations - at) as usize;
        [relocations, u32::try_from(blocks).expect("it is small")]
    };
    let start = last.file_start().expect("in the file");
    assert!(bytes.len() as u64 <= last.file_size(), "it has room");
    file[start..start + bytes.len()].copy_from_slice(&bytes);
    let places = image.header_places();
    let header = places.section_table + 40 * (image.sections.len() - 1);
    file[header..header + 8].copy_from_slice(b".hotp1  ");
    let size = u32::try_from(bytes.len()).expect("it is small");
    file[header + 8..header + 12].copy_from_slice(&size.to_le_bytes());
    let directory = places.directories + 8 * invivo_image::pe::directory::BASE_RELOCATION;
    file[directory..directory + 4].copy_from_slice(&left[0].to_le_bytes());
    file[directory + 4..directory + 8].copy_from_slice(&left[1].to_le_bytes());
    file[places.entry_point..places.entry_point + 4].fill(0);
    if let Some(own) = own {
        file[places.image_base..places.image_base + 8].copy_from_slice(&own.to_le_bytes());
    }
    // By it one patch is told from another.
    let sum = checksum(&file, places.checksum);
    file[places.checksum..places.checksum + 4].copy_from_slice(&sum.to_le_bytes());
    PeImage::parse(Arc::from(file)).expect("a Windows image")
}

/// A block of base relocations for the one address at `at`.
fn relocation(image: &PeImage, at: u32) -> Vec<u8> {
    let kind = match image.machine.pointer_size() {
        4 => 3,
        _ => 10,
    };
    let words = [at & !0xfff, 12, kind << 12 | (at & 0xfff)];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Where an export is.
#[must_use]
pub fn place_of(image: &PeImage, name: &str) -> u32 {
    let mut exports = image.exports.iter();
    let export = exports.find(|export| export.names.iter().any(|known| known == name));
    let at = export.and_then(|export| export.at).expect("it is exported");
    u32::try_from(at.0).expect("it is small")
}

/// A hook, and what `middle(5)` and `through(5)` answer without and with it.
#[derive(Clone, Debug)]
pub struct Case {
    /// For a person.
    pub name: &'static str,
    /// The hook.
    pub hook: Hook,
    /// The answers before.
    pub old: [i32; 2],
    /// The answers with it.
    pub new: [i32; 2],
}

/// A jump over one long instruction in the middle of a function, a number of two bytes in an
/// instruction, and a pointer in data.
#[must_use]
pub fn cases(base: &Library) -> [Case; 3] {
    let image = base.image().expect("a Windows image");
    let mut sections = image.sections.iter();
    let text = sections.find(|s| s.is_executable()).expect("code");
    let text = u32::try_from(text.range.start.0).expect("it is small");
    // `middle` holds `imul ecx, ecx, 1000`, six bytes; the patch has `imul ecx, ecx, 2000`, and
    // leads back behind it.
    let middle = place_of(&image, "middle");
    let whole = image.bytes(invivo_image::Rva(middle.into()), 64);
    let long = [0x69, 0xc9, 0xe8, 0x03, 0, 0];
    let mut parts = whole.expect("the function").windows(6);
    let offset = parts
        .position(|bytes| bytes == long)
        .expect("it is compiled so");
    let at = middle + u32::try_from(offset).expect("it is small");
    let hook = |kind, options, at, to| Hook {
        kind,
        options,
        at,
        to,
        validation: None,
    };
    let case = |name, hook, new| Case {
        name,
        hook,
        old: [5007, 35],
        new,
    };
    let (pointer, other) = (place_of(&image, "pointer"), place_of(&image, "other"));
    let near = hook_options::NEAR;
    [
        case(
            "jump",
            hook(HookKind::X86Jmp, 6 | near, at, text),
            [10007, 35],
        ),
        case(
            "number",
            hook(HookKind::Amd64Cnt, 2, at + 2, 2000),
            [10007, 35],
        ),
        case(
            "pointer",
            hook(HookKind::Va64, 8, pointer, other),
            [5007, 40],
        ),
    ]
}

/// What stands at the begin of a patch's code, for a target that is loaded at `target`:
/// `imul ecx, ecx, 2000; jmp [rip]`, and where to.
#[must_use]
pub fn code(hook: &Hook, target: u64) -> Vec<u8> {
    let mut code = vec![0x69, 0xc9, 0xd0, 0x07, 0, 0, 0xff, 0x25, 0, 0, 0, 0];
    let back = target + u64::from(hook.at) + 6;
    code.extend(back.to_le_bytes());
    code
}

/// The same code with nothing in it that depends on where the target is but a word that the engine fixes
/// up: where to go on, or how far from the word that is.
#[must_use]
pub fn fixed_code(base: &Library, hook: &Hook, kind: FixupKind) -> (Vec<u8>, Vec<FixupRegion>) {
    let image = base.image().expect("a Windows image");
    let text = image.sections.iter().find(|s| s.is_executable());
    let text = text.expect("code").range.start.0;
    let mut code = vec![0x69, 0xc9, 0xd0, 0x07, 0, 0];
    let back = image.image_base + u64::from(hook.at) + 6;
    let word = match kind {
        FixupKind::Va64 => {
            // jmp [rip]
            code.extend([0xff, 0x25, 0, 0, 0, 0]);
            back
        }
        _ => {
            assert_eq!(kind, FixupKind::Pc64, "a word of 64 bits");
            // lea rax, [rip+5]; add rax, [rax]; jmp rax
            code.extend([0x48, 0x8d, 0x05, 5, 0, 0, 0, 0x48, 0x03, 0x00, 0xff, 0xe0]);
            back.wrapping_sub(image.image_base + text + code.len() as u64)
        }
    };
    let place = text + code.len() as u64;
    code.extend(word.to_le_bytes());
    let region = FixupRegion {
        page: u32::try_from(place >> 12).expect("it is small"),
        // An even number of them, by the format.
        fixups: vec![
            Fixup {
                offset: u16::try_from(place & 0xfff).expect("it is small"),
                kind,
            },
            Fixup {
                offset: 0,
                kind: FixupKind::None,
            },
        ],
    };
    (code, vec![region])
}
