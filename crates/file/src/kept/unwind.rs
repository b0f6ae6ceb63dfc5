//! The table that an unwinder searches (`.eh_frame_hdr`), with more records.

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};

use super::{KeptError, unfit};

/// Version 1; where `.eh_frame` is, relative to the field, in 4 bytes; how many records, in 4
/// bytes; each with function and record relative to the table's start, in 4 bytes.
const FORM: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
/// Bytes before the first entry, and of an entry.
const HEAD: u64 = 12;
const ENTRY: u64 = 8;

/// What the old table says.
#[derive(Debug)]
pub(super) struct OldTable {
    /// Where it is.
    pub(super) at: u64,
    /// Where the old records begin.
    pub(super) eh_frame: u64,
    /// Function and record, by address.
    pub(super) records: Vec<(u64, u64)>,
}

/// Bytes of a table.
pub(super) fn size(records: usize) -> u64 {
    HEAD + ENTRY * records as u64
}

fn word(bytes: &[u8], at: usize) -> Option<i64> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(i32::from_le_bytes(*bytes).into())
}

/// Reads a table that lies at `at`; `None` if it is of another form.
pub(super) fn read_table(bytes: &[u8], at: u64) -> Option<OldTable> {
    if bytes.first_chunk::<4>() != Some(&FORM) {
        return None;
    }
    let eh_frame = at.checked_add(4)?.checked_add_signed(word(bytes, 4)?)?;
    let count = usize::try_from(word(bytes, 8)?).ok()?;
    let entries = bytes.get(HEAD as usize..)?;
    let entries = entries.chunks_exact(ENTRY as usize);
    if entries.len() < count {
        return None;
    }
    let address = |bytes: &[u8], field: usize| at.checked_add_signed(word(bytes, field)?);
    let records = entries.take(count);
    let records = records.map(|entry| Some((address(entry, 0)?, address(entry, 4)?)));
    Some(OldTable {
        at,
        eh_frame,
        records: records.collect::<Option<_>>()?,
    })
}

/// Walks the records of functions in a section that lies at `at`: function and record.
fn records(bytes: &[u8], at: u64) -> Result<Vec<(u64, u64)>, KeptError> {
    let broken = |_| KeptError::Unfit("the unwind data of the new functions are broken".to_owned());
    let section = EhFrame::new(bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(at);
    let mut entries = section.entries(&bases);
    let mut found = Vec::new();
    while let Some(entry) = entries.next().map_err(broken)? {
        if let CieOrFde::Fde(partial) = entry {
            let fde =
                partial.parse(|section, bases, offset| section.cie_from_offset(bases, offset));
            let fde = fde.map_err(broken)?;
            found.push((fde.initial_address(), at.wrapping_add(fde.offset() as u64)));
        }
    }
    Ok(found)
}

/// How many functions the records of a section that is not laid out yet describe.
pub(super) fn count(bytes: &[u8]) -> Result<usize, KeptError> {
    records(bytes, 0).map(|found| found.len())
}

/// The table for the place `at` over the old records, which are at `frames` now, and the new
/// ones in `new`, which is at `new_at`.
pub(super) fn table(
    old: &OldTable,
    frames: u64,
    (new_at, new): (u64, &[u8]),
    at: u64,
) -> Result<Vec<u8>, KeptError> {
    let distance = frames.wrapping_sub(old.eh_frame);
    let moved = |(function, record): &(u64, u64)| (*function, record.wrapping_add(distance));
    let mut all: Vec<(u64, u64)> = old.records.iter().map(moved).collect();
    all.extend(records(new, new_at)?);
    all.sort_unstable();
    let far = || KeptError::Unfit("its unwind data are too far from the new ones".to_owned());
    let from = |origin: u64, to: u64| -> Result<[u8; 4], KeptError> {
        let distance = to.wrapping_sub(origin).cast_signed();
        Ok(i32::try_from(distance).map_err(|_| far())?.to_le_bytes())
    };
    let mut bytes = FORM.to_vec();
    bytes.extend(from(at.wrapping_add(4), frames)?);
    let Ok(count) = u32::try_from(all.len()) else {
        return unfit("it has too many functions");
    };
    bytes.extend(count.to_le_bytes());
    for (function, record) in all {
        for address in [function, record] {
            bytes.extend(from(at, address)?);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn old() -> OldTable {
        OldTable {
            at: 0x3000,
            eh_frame: 0x2000,
            records: vec![(0x1000, 0x2010), (0x1100, 0x2040)],
        }
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let bytes = table(&old(), 0x8000, (0, &[]), 0x9000).expect("all of it is near");
        assert_eq!(bytes.len() as u64, size(2));
        let again = read_table(&bytes, 0x9000).expect("of the form that is written");
        assert_eq!(again.eh_frame, 0x8000);
        assert_eq!(again.records, [(0x1000, 0x8010), (0x1100, 0x8040)]);
    }

    #[test]
    fn what_is_too_far_is_refused() {
        assert!(table(&old(), 0x2000, (0, &[]), 1 << 40).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at: u64) {
            let _ = read_table(&bytes, at);
            let formed = [&FORM[..], &bytes].concat();
            let _ = read_table(&formed, at);
            let _ = count(&bytes);
        }
    }
}
