//! Whether a file can be patched on disk by a module at all.

use invivo_image::Rva;
use invivo_image::pe::{PeImage, PeMachine, directory};

use super::{ColdError, is_cold, refuse};

/// Whether the two can be one file at all.
pub(super) fn possible(base: &PeImage, module: &PeImage, known: bool) -> Result<(), ColdError> {
    const GUARD_CF: u16 = 0x4000;
    const FORCE_INTEGRITY: u16 = 0x80;
    if base.machine == PeMachine::Arm64 {
        return refuse("files for ARM64 cannot be patched so");
    }
    if base.directories.len() <= directory::BOUND_IMPORT {
        return refuse("the base has no room for the places of its directories");
    }
    if module.machine != base.machine || module.section_alignment != base.section_alignment {
        return refuse("the patch module is for another machine, or has another alignment");
    }
    if is_cold(base) {
        return refuse(
            "the base was patched on disk already; take the file as it was before (invivo uninstall)",
        );
    }
    let guarded = base
        .load_config
        .is_some_and(|config| config.guard_flags != 0);
    if base.dll_characteristics & GUARD_CF != 0 || guarded {
        return refuse(
            "the base has control-flow guard, whose tables do not know the new code; \
             link it with /guard:no",
        );
    }
    if base.dll_characteristics & FORCE_INTEGRITY != 0 {
        return refuse(
            "the base is loaded with a valid signature only (/integritycheck), and the patched file has \
             none; sign a fixed build",
        );
    }
    if !known && base.machine == PeMachine::I386 && names_handlers(base) && handles(module) {
        return refuse(
            "the patch module handles exceptions (fs:[0]), and Windows calls only handlers that the \
             base's own list names (/safeseh); take that out of it",
        );
    }
    if module.imports.iter().any(|library| library.delayed) {
        return refuse(
            "the patch module loads libraries at their first call; link it without /delayload",
        );
    }
    if module.tls.is_some() && !known {
        return refuse("the patch module has thread-local variables, which nobody would set up");
    }
    Ok(())
}

/// True if Windows calls only those handlers of an image for x86 that it lists.
fn names_handlers(image: &PeImage) -> bool {
    const NO_HANDLERS: u16 = 0x400;
    /// `SEHandlerTable` of a load configuration.
    const TABLE: u32 = 0x40;
    let table = image.load_config.filter(|config| config.size >= TABLE + 8);
    let at = table.and_then(|config| config.directory.at.checked_add(TABLE.into()));
    let listed = at.and_then(|at: Rva| image.word(at));
    image.dll_characteristics & NO_HANDLERS != 0 || listed.is_some_and(|table| table != 0)
}

/// True if code for x86 may put a handler of exceptions into the list at `fs:[0]`: what looks like an
/// operand there, since nobody says where instructions begin.
fn handles(module: &PeImage) -> bool {
    const FS: u8 = 0x64;
    const SHORT: u8 = 0x67;
    let code = module
        .sections
        .iter()
        .filter(|section| section.is_executable());
    code.filter_map(|section| module.bytes(section.range.start, section.file_size()))
        .any(|bytes| {
            bytes.windows(7).any(|at| match *at {
                // `mov eax, fs:[0]` and back.
                [FS, 0xa0..=0xa3, 0, 0, 0, 0, _] => true,
                [FS, _, form, 0, 0, 0, 0] => form & 0xc7 == 5,
                // The same with an address of 16 bits.
                [FS, SHORT, _, form, 0, 0, _] | [SHORT, FS, _, form, 0, 0, _] => form & 0xc7 == 6,
                _ => false,
            })
        })
}
