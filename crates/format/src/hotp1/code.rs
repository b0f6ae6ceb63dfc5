//! What hooks write, and what fixed-up words become: the same in a process and in a file.

use std::collections::BTreeMap;

use invivo_image::pe::PeMachine;

use super::model::{FixupKind, Hook, HookKind, LegacyPatch};

/// Where the patch and its target are; in a file, where they would be at the target's own base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The instruction set of both.
    pub machine: PeMachine,
    /// Where the target is.
    pub target: u64,
    /// Where the patch is.
    pub patch: u64,
}

/// Why a hook cannot be written, or a word not be fixed up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// No system implements it.
    #[error("a hook of type {0} is never applied")]
    NotImplemented(&'static str),
    /// A jump does not reach.
    #[error("{to:#x} is too far from the hook at {at:#x}")]
    Far {
        /// Where the jump would be.
        at: u64,
        /// Where it would lead.
        to: u64,
    },
    /// An address of 64 bits in a word of 32.
    #[error("{0:#x} is no 32-bit address")]
    Wide(u64),
    /// A place behind the end of all addresses.
    #[error("{0:#x} behind an image is no address")]
    Outside(u32),
}

impl Places {
    fn add(start: u64, at: u32) -> Result<u64, CodeError> {
        start.checked_add(at.into()).ok_or(CodeError::Outside(at))
    }

    fn distance(&self, at: u64, next: u64, to: u64) -> Result<[u8; 4], CodeError> {
        let distance = i128::from(to) - i128::from(at) - i128::from(next);
        if self.machine == PeMachine::I386 {
            // Addresses wrap around, so everything is reached.
            return Ok((distance as i32).to_le_bytes());
        }
        let distance = i32::try_from(distance).map_err(|_| CodeError::Far { at, to })?;
        Ok(distance.to_le_bytes())
    }
}

/// What each hook of a patch writes. A hostile patch has as many hooks as fit into its file, so what one
/// needs of the others is looked up.
#[derive(Clone, Debug)]
pub struct HookCode {
    places: Places,
    /// Where a hook writes the address of a place of the patch, by that place.
    words: BTreeMap<u32, u32>,
}

impl HookCode {
    /// Of the hooks of `patch`, with both images where `places` says.
    #[must_use]
    pub fn of(patch: &LegacyPatch, places: Places) -> HookCode {
        let words = patch.hooks.iter().rev();
        let words = words.filter(|hook| hook.kind == HookKind::Va64);
        HookCode {
            places,
            // The first one of several.
            words: words.map(|hook| (hook.to, hook.at)).collect(),
        }
    }

    /// The bytes that `hook`, one of the patch, writes; `CC` fills what is left of a jump's length.
    ///
    /// # Errors
    /// When it does not reach, or is of a type that is never applied.
    pub fn bytes(&self, hook: &Hook) -> Result<Vec<u8>, CodeError> {
        let places = &self.places;
        let at = Places::add(places.target, hook.at)?;
        let to = || Places::add(places.patch, hook.to);
        let mut code = match hook.kind {
            HookKind::Va32 => {
                let address = to()?;
                let address = u32::try_from(address).map_err(|_| CodeError::Wide(address))?;
                return Ok(address.to_le_bytes().to_vec());
            }
            HookKind::Va64 => return Ok(to()?.to_le_bytes().to_vec()),
            HookKind::Amd64Cnt => return Ok(hook.to.to_le_bytes()[..2].to_vec()),
            HookKind::X86Jmp => {
                let mut code = vec![0xe9];
                code.extend(places.distance(at, 5, to()?)?);
                code
            }
            HookKind::Jmp2B => vec![0xeb, hook.to.to_le_bytes()[0]],
            HookKind::Amd64Ind => {
                let mut code = vec![0xff, 0x25];
                code.extend(places.distance(at, 6, self.pointer(hook)?)?);
                code
            }
            HookKind::None | HookKind::PcRel32 | HookKind::Other(_) => {
                return Err(CodeError::NotImplemented(hook.kind.name()));
            }
        };
        code.resize(code.len().max(hook.length() as usize), 0xcc);
        Ok(code)
    }

    /// Where the address is that an indirect jump goes to. No description says how `HotpRva` names
    /// it. Here: where a hook of the same patch writes the address of the same place of the patch
    /// into the target, it is that word; otherwise `HotpRva` is a variable of the patch.
    fn pointer(&self, hook: &Hook) -> Result<u64, CodeError> {
        match self.words.get(&hook.to) {
            Some(word) => Places::add(self.places.target, *word),
            None => Places::add(self.places.patch, hook.to),
        }
    }
}

impl LegacyPatch {
    /// What a word of the patch becomes; `word` is what it is as linked, and has as many bytes as
    /// `kind` changes. `None` if it cannot hold how far the images are from each other. The
    /// formulas are those of the fields' meaning; no code of Windows is at hand that shows them.
    #[must_use]
    pub fn fixed_up(&self, kind: FixupKind, word: &[u8], places: &Places) -> Option<Vec<u8>> {
        let moved = places.target.wrapping_sub(self.target_base);
        let own = places.patch.wrapping_sub(self.hotp_base);
        let narrow = places.machine == PeMachine::I386;
        match kind {
            FixupKind::None => Some(Vec::new()),
            FixupKind::Va32 => {
                let value = u32::from_le_bytes(word.try_into().ok()?);
                let sum = u64::from(value).wrapping_add(moved);
                // On x86 addresses wrap around; elsewhere this one would be cut.
                let cut = narrow.then_some(sum as u32);
                let sum = u32::try_from(sum).ok().or(cut)?;
                Some(sum.to_le_bytes().to_vec())
            }
            FixupKind::Pc32 => {
                let value = i32::from_le_bytes(word.try_into().ok()?);
                let sum = i64::from(value).wrapping_add(moved.wrapping_sub(own).cast_signed());
                let cut = narrow.then_some(sum as i32);
                let sum = i32::try_from(sum).ok().or(cut)?;
                Some(sum.to_le_bytes().to_vec())
            }
            FixupKind::Va64 => {
                let value = u64::from_le_bytes(word.try_into().ok()?);
                Some(value.wrapping_add(moved).to_le_bytes().to_vec())
            }
            FixupKind::Pc64 => {
                let value = u64::from_le_bytes(word.try_into().ok()?);
                let sum = value.wrapping_add(moved).wrapping_sub(own);
                Some(sum.to_le_bytes().to_vec())
            }
        }
    }
}
