//! The hooks of Windows images for x86-64 and x86: what a patch of Windows writes, and no other form.

use invivo_compare::{Parts, Usage};
use invivo_format::hotp1::HookShape;
use invivo_image::pe::PeImage;
use invivo_image::x86_64::instructions;
use invivo_image::{Image, Machine, Rva, demangle};
use invivo_patch::HookRoom;

use super::{Function, Hook};
use crate::failure::{Failure, REFUSED};

/// Two bytes at the function, of one instruction, and a long jump in the padding before it: what final
/// images have written while all threads run, and modules of older Windows in one stop.
const SHORT: &str = "short jump to padding";
/// The same where those two bytes cut an instruction in two: modules of older Windows alone.
const SHORT_OVER_SEVERAL: &str = "short jump to padding over several instructions";
/// No padding: modules of older Windows alone.
const JUMP: &str = "jump over the first instructions";

/// All of them, in the order in which they are tried, and whether all threads stop.
pub(super) const FORMS: [(&str, bool); 3] =
    [(SHORT, false), (SHORT_OVER_SEVERAL, true), (JUMP, true)];

/// The image as Windows has it, where its functions are hooked in these ways.
///
/// # Errors
/// When it cannot be read so.
pub(super) fn of(image: &Image) -> Result<Option<PeImage>, Failure> {
    if !image.is_windows() || image.machine == Machine::Aarch64 {
        return Ok(None);
    }
    let read = image.windows().map(Some);
    read.map_err(|error| Failure::new(REFUSED, error.to_string()))
}

/// The hook of one function, chosen as for a patch module.
pub(super) fn look(image: &Image, pe: &PeImage, usage: &Usage, parts: &Parts) -> Function {
    let entity = image.entity(parts.main);
    let found = choose(image, pe, usage, parts);
    let (hook, reason) = match found {
        Ok(hook) => (Some(hook), None),
        Err(reason) => (None, Some(reason)),
    };
    Function {
        name: demangle(entity.name()),
        at: entity.addr.to_string(),
        size: entity.size,
        prepared: hook.as_ref().is_some_and(|hook| hook.form == SHORT),
        hook,
        reason,
    }
}

fn choose(image: &Image, pe: &PeImage, usage: &Usage, parts: &Parts) -> Result<Hook, String> {
    let room = HookRoom::around(image, usage, parts.main)?;
    let at = image.rva(image.entity(parts.main).addr);
    let at = at.and_then(|at| u32::try_from(at.0).ok());
    let at = at.ok_or("it is not in the image")?;
    let mut reasons = Vec::new();
    // The others need more room than the first, or a fix to know what is the same in its middle.
    for shape in [HookShape::Short, HookShape::Jump] {
        let hooks = match shape.hooks(pe, at, 0, Some(&room)) {
            Ok(hooks) => hooks,
            Err(reason) => {
                reasons.push(reason);
                continue;
            }
        };
        let length = hooks.last().map_or(0, |(hook, _)| u64::from(hook.length()));
        let (form, needs_stop) = match shape {
            HookShape::Short if length <= first(pe, at) => FORMS[0],
            HookShape::Short => FORMS[1],
            _ => FORMS[2],
        };
        // Nothing writes two bytes at once where they lie in two words.
        let needs_stop = needs_stop || at % 8 == 7;
        let before = hooks.first().filter(|_| hooks.len() > 1);
        return Ok(Hook {
            form,
            needs_stop,
            offset: 0,
            length,
            pad: before.map(|(hook, _)| i64::from(hook.at) - i64::from(at)),
        });
    }
    Err(reasons.join("; "))
}

/// Bytes of the instruction at `at`.
fn first(pe: &PeImage, at: u32) -> u64 {
    let code: Option<[u8; 15]> = pe.array(Rva(at.into()));
    let all = code.map(|code| instructions(&code, pe.machine.pointer_size() * 8));
    let first = all.and_then(|all| all.first().map(|one| one.length));
    first.map_or(0, |length| length as u64)
}
