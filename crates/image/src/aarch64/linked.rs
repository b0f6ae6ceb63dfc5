//! What linkers and compilers make of code for ARM64 that has no name, or one of its own.

use super::operands::Operand;
use super::sums::Jump;
use crate::{Image, LinkAddr};

/// The slot that a linker's jump at `at` goes through: `adrp x16, slot`, `ldr x16, [x16, slot]`,
/// `br x16`.
pub(crate) fn slot_of_thunk(image: &Image, at: LinkAddr) -> Option<LinkAddr> {
    const BR_X16: u32 = 0xd61f_0200;
    let (words, _) = image.bytes(at, 12)?.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let [page, load, BR_X16] = words[..] else {
        return None;
    };
    let (Operand::Page(first), 16) = (Operand::of(page, at.0).0, page & 31) else {
        return None;
    };
    // `ldr` of 64 bits to x16, through x16.
    if load & 0xffc0_03ff != 0xf940_0210 {
        return None;
    }
    let distance = u64::from(load >> 10 & 0xfff) * 8;
    Some(LinkAddr(first.checked_add(distance)?))
}

/// True for what compilers cut out of several functions because it was the same.
pub(super) fn is_cut_out(image: &Image, at: LinkAddr) -> bool {
    let entity = image.entity_at(at).map(|id| image.entity(id));
    entity.is_some_and(|entity| entity.addr == at && entity.name().starts_with("OUTLINED_FUNCTION"))
}

/// Where the entries of a table lead: as many as the code before the jump allows, or as many as lead
/// into it.
pub(super) fn entries(
    image: &Image,
    jump: &Jump,
    before: &[u32],
    number: &dyn Fn(u64) -> Option<usize>,
) -> Vec<usize> {
    const MOST: u64 = 1 << 12;
    const LOOK_BACK: usize = 16;
    // `cmp w8, #7` and `b.hi`.
    let near = before[before.len().saturating_sub(LOOK_BACK)..].windows(2);
    let guard = near.rev().find_map(|pair| {
        let compares = pair[0] & 0x7fc0_001f == 0x7100_001f;
        let jumps = pair[1] & 0xff00_001f == 0x5400_0008;
        (compares && jumps).then(|| u64::from(pair[0] >> 10 & 0xfff) + 1)
    });
    let width = u64::from(jump.width);
    let lead = |entry: u64| {
        let at = LinkAddr(jump.table).checked_add(entry * width)?;
        let entry = match image.bytes(at, width)? {
            [byte] if jump.signed => i64::from(byte.cast_signed()),
            [byte] => i64::from(*byte),
            [low, high] if jump.signed => i64::from(i16::from_le_bytes([*low, *high])),
            [low, high] => i64::from(u16::from_le_bytes([*low, *high])),
            bytes => i64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        };
        number(
            jump.from
                .wrapping_add_signed(entry.checked_shl(jump.shift)?),
        )
    };
    (0..guard.unwrap_or(MOST).min(MOST))
        .map_while(lead)
        .collect()
}
