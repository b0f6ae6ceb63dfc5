//! Numbers and names at any place, aligned or not.

pub(in super::super) fn slice(bytes: &[u8], at: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(at).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
}

/// Bytes of a name that are looked at: no name that Xen knows has more than 127, and a file
/// could have a hundred thousand of two million.
const MOST: usize = 4096;

/// The text that begins at `at` and ends before a zero.
pub(in super::super) fn name(strings: &[u8], at: u32) -> Option<&[u8]> {
    let rest = strings.get(at as usize..).filter(|rest| !rest.is_empty())?;
    rest[..rest.len().min(MOST)].split(|byte| *byte == 0).next()
}

/// A name for a person.
pub(in super::super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().unwrap_or([0; N])
}

pub(in super::super) fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(in super::super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(in super::super) fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}
