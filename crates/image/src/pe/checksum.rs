//! The checksum of a PE file.

/// The checksum that the header of `file` should hold; `place` is where its
/// own checksum stands, which counts as zeros.
///
/// It is the sum of all 16-bit words with end-around carry, plus the length of
/// the file (`CheckSumMappedFile` of imagehlp).
#[must_use]
pub fn checksum(file: &[u8], place: usize) -> u32 {
    let mut sum: u64 = 0;
    for (index, pair) in file.chunks(2).enumerate() {
        let at = index * 2;
        let byte = |offset: usize| {
            let own = (place..place.saturating_add(4)).contains(&(at + offset));
            let value = pair.get(offset).copied().unwrap_or(0);
            if own { 0 } else { u64::from(value) }
        };
        sum += byte(0) | (byte(1) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let length = u32::try_from(file.len()).unwrap_or(u32::MAX);
    u32::try_from(sum).unwrap_or(0).wrapping_add(length)
}

#[cfg(test)]
mod tests {
    use super::checksum;

    /// Words 0x0001 and 0xffff make a carry that comes back at the low end; the length is 4.
    #[test]
    fn carries_come_back_at_the_low_end() {
        assert_eq!(checksum(&[1, 0, 0xff, 0xff], 100), 1 + 4);
        assert_eq!(checksum(&[7], 100), 7 + 1);
    }

    #[test]
    fn the_checksum_itself_does_not_count() {
        assert_eq!(
            checksum(&[1, 0, 9, 9, 9, 9, 2, 0], 2),
            checksum(&[1, 0, 0, 0, 0, 0, 2, 0], 2)
        );
    }
}
