//! What each hook writes, and whether its place is as it expects.

use std::collections::HashSet;
use std::ops::Range;

use invivo_format::hotp1::{CodeError, Hook, HookCode, HookKind, LegacyPatch, hook_options};
use invivo_image::pe::PeMachine;
use invivo_image::x86_64::instructions;
use invivo_image::{LiveAddr, Rva};

use super::earlier::Earlier;
use super::{Look, at_status, status};
use crate::{ApplyError, Loaded, Target};

/// A place of the target that is changed (`HOTPATCH_HOOK_DESCRIPTOR`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) at: LiveAddr,
    pub(super) kind: HookKind,
    /// What is there while the patch is active.
    pub(super) code: Vec<u8>,
    /// What was there before: the target's own bytes, or the code of an earlier patch.
    pub(super) original: Vec<u8>,
    /// True if only other hooks lead there: padding, or data.
    pub(super) beside: bool,
    /// True if the original calls something, so that somebody may return into it. A call at its end
    /// comes back behind it.
    pub(super) calls: bool,
}

impl Descriptor {
    pub(super) fn range(&self) -> Range<LiveAddr> {
        self.at..LiveAddr(self.at.0 + self.code.len() as u64)
    }
}

/// All hooks of a patch, in their order; refuses what cannot be reached, or is not as expected.
pub(super) fn descriptors(
    look: &Look<'_>,
    target: &dyn Target,
) -> Result<Vec<Descriptor>, ApplyError> {
    let hooks = Hooks {
        look,
        codes: HookCode::of(look.model, look.places()),
        targets: targets(look.model),
        earlier: Earlier::of(look.module.list()),
    };
    let all = look.model.hooks.iter();
    all.map(|hook| hooks.descriptor(target, hook)).collect()
}

/// Places to which short jumps lead.
fn targets(model: &LegacyPatch) -> HashSet<i64> {
    let short = model
        .hooks
        .iter()
        .filter(|hook| hook.kind == HookKind::Jmp2B);
    let target = |hook: &Hook| {
        let distance = i64::from(hook.to.to_le_bytes()[0].cast_signed());
        i64::from(hook.at) + 2 + distance
    };
    short.map(target).collect()
}

/// What the hooks of a patch are held against. A hostile patch has as many as fit into its file, so
/// nothing is looked for among all of them.
struct Hooks<'l> {
    look: &'l Look<'l>,
    codes: HookCode,
    targets: HashSet<i64>,
    earlier: Earlier<'l>,
}

impl Hooks<'_> {
    fn descriptor(&self, target: &dyn Target, hook: &Hook) -> Result<Descriptor, ApplyError> {
        let look = self.look;
        let module = &look.module.target;
        let end = u64::from(hook.at) + u64::from(hook.length());
        if end > u64::from(module.image.size) {
            let text = format!("the hook at {:#x} is not in the target", hook.at);
            return at_status(status::BROKEN, &text);
        }
        let at = module.address(hook.at)?;
        let code = self.code(hook)?;
        let mut now = vec![0; code.len()];
        target.read(at, &mut now)?;
        let earlier = self.earlier.at(at, code.len());
        self.check_place(target, hook, &now, earlier)?;
        let section = module.image.section_at(Rva(hook.at.into()));
        let executable = section.is_some_and(|section| section.is_executable());
        let is_code = matches!(
            hook.kind,
            HookKind::X86Jmp | HookKind::Jmp2B | HookKind::Amd64Ind
        );
        if is_code && !executable {
            let text = format!("the hook at {at} would write code into data");
            return at_status(status::BROKEN, &text);
        }
        // Through an earlier patch's jump nobody comes but from its begin.
        let own = if earlier.is_some() { &[][..] } else { &now[..] };
        let padding = now.iter().all(|byte| matches!(byte, 0xcc | 0x90 | 0));
        Ok(Descriptor {
            at,
            kind: hook.kind,
            beside: !is_code || padding || self.targets.contains(&hook.at.into()),
            calls: is_code && calls_from_within(own, bits(look)),
            code,
            original: now,
        })
    }

    /// The bytes that a hook writes.
    fn code(&self, hook: &Hook) -> Result<Vec<u8>, ApplyError> {
        let look = self.look;
        let (module, patch) = (&look.module.target, look.patch);
        if hook.options & hook_options::NEAR != 0 {
            let ends = [module.at, patch.at, module.end(), patch.end()];
            let (least, most) = (ends.iter().min(), ends.iter().max());
            let span = most
                .zip(least)
                .map_or(u64::MAX, |(most, least)| most.0 - least.0);
            if span > 1 << 31 {
                let text = "the patch and its target are not within 2 GiB";
                return at_status(status::FAR, text);
            }
        }
        self.codes.bytes(hook).or_else(|error| {
            let status = match error {
                CodeError::NotImplemented(_) => status::NOT_IMPLEMENTED,
                CodeError::Outside(_) => status::BROKEN,
                _ => status::FAR,
            };
            at_status(status, &error.to_string())
        })
    }

    /// Refuses a place that holds neither what the hook expects nor what an earlier patch of the list
    /// wrote there. In a file that was patched on disk a jump may stand where another jump was put.
    fn check_place(
        &self,
        target: &dyn Target,
        hook: &Hook,
        now: &[u8],
        earlier: Option<&Descriptor>,
    ) -> Result<(), ApplyError> {
        let look = self.look;
        let module = &look.module.target;
        let at = module.address(hook.at)?;
        let stacked =
            earlier.is_some_and(|earlier| earlier.kind == hook.kind && earlier.code == now);
        let in_file = as_loaded(module, hook.at, now.len());
        let of_file = in_file.as_deref() == Some(now);
        // What was there before the patches of the list, if this one lies over theirs.
        let mut under = now.to_vec();
        if stacked {
            self.earlier.take_off(at, &mut under, None);
        }
        let of_kind = match hook.kind {
            HookKind::X86Jmp => under.first() == Some(&0xe9),
            HookKind::Jmp2B => under.first() == Some(&0xeb),
            HookKind::Amd64Ind => under.starts_with(&[0xff, 0x25]),
            _ => false,
        };
        // In memory somebody else may have put a jump there since.
        let cold = look.cold && in_file.as_ref() == Some(&under) && of_kind;
        let named = hook
            .validation
            .and_then(|number| look.model.validations.get(number));
        let expected = match named {
            Some(validation) => {
                let start = module.address(validation.target)?;
                // All of it, also what lies around the hook.
                let mut held = vec![0; validation.bytes.len()];
                target.read(start, &mut held)?;
                let own = at.0..at.0 + now.len() as u64;
                self.earlier
                    .take_off(start, &mut held, (!stacked).then_some(own));
                let place = at.0.checked_sub(start.0);
                let place = place.and_then(|place| usize::try_from(place).ok());
                if cold
                    && let Some(over) =
                        place.and_then(|place| held.get_mut(place..place + now.len()))
                    && let Some(own) = place.and_then(|p| validation.bytes.get(p..p + now.len()))
                {
                    over.copy_from_slice(own);
                }
                held == validation.bytes
            }
            None => of_file || stacked,
        };
        if expected {
            return Ok(());
        }
        let text = format!("the hook at {at} finds {now:02x?}, and no earlier patch wrote that");
        at_status(status::DATA, &text)
    }
}

fn calls_from_within(code: &[u8], bits: u32) -> bool {
    let mut end = 0;
    instructions(code, bits).iter().any(|one| {
        end += one.length;
        one.is_call && end < code.len()
    })
}

fn bits(look: &Look<'_>) -> u32 {
    match look.patch.image.machine {
        PeMachine::I386 => 32,
        _ => 64,
    }
}

/// What the loader made of the file's bytes; `None` where they are not all there, or a part of
/// an address.
pub(super) fn as_loaded(module: &Loaded, at: u32, size: usize) -> Option<Vec<u8>> {
    let start = u64::from(at);
    let mut bytes = module.image.bytes(Rva(start), size as u64)?.to_vec();
    let end = start + size as u64;
    for relocation in module.image.relocations_over(Rva(start)..Rva(end)) {
        let (from, width) = (relocation.at.0, relocation.kind.width());
        let place = usize::try_from(from.checked_sub(start)?).ok()?;
        let word = bytes.get_mut(place..place + usize::try_from(width).ok()?)?;
        let mut value = [0; 8];
        value[..word.len()].copy_from_slice(word);
        let moved = module.at.0.wrapping_sub(module.image.image_base);
        let value = u64::from_le_bytes(value).wrapping_add(moved).to_le_bytes();
        word.copy_from_slice(&value[..word.len()]);
    }
    Some(bytes)
}
