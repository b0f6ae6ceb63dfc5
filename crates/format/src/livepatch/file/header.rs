//! The ELF header.

use super::super::{LivepatchError, Rule};
use super::bytes::{half, long, word};
use super::{HEADER, SECTION_HEADER};

/// X02 to X06.
pub(super) fn header(bytes: &[u8]) -> Result<(), LivepatchError> {
    let broken = |rule, text: String| Err(LivepatchError::new(rule, text));
    let length = bytes.len() as u64;
    if length < HEADER || !bytes.starts_with(b"\x7fELF") {
        return broken(Rule::X02, format!("{length} bytes without an ELF header"));
    }
    let fields = [
        ("e_version", word(bytes, 20), 1),
        ("EI_VERSION", bytes[6].into(), 1),
        ("EI_ABIVERSION", bytes[8].into(), 0),
        // FreeBSD's is taken for System V's, too.
        (
            "EI_OSABI",
            if bytes[7] == 9 { 0 } else { bytes[7].into() },
            0,
        ),
        ("e_type", half(bytes, 16).into(), 1),
        ("e_phnum", half(bytes, 56).into(), 0),
    ];
    if let Some((field, found, wanted)) = fields.iter().find(|(_, found, wanted)| found != wanted) {
        return broken(Rule::X03, format!("{field} is {found}, {wanted} is wanted"));
    }
    let (machine, class, data) = (half(bytes, 18), bytes[4], bytes[5]);
    if (machine, class, data) != (62, 2, 1) {
        return broken(
            Rule::X04,
            format!("machine {machine}, class {class}, data {data}"),
        );
    }
    let (table, size, count, strings) = (
        long(bytes, 40),
        half(bytes, 58),
        half(bytes, 60),
        half(bytes, 62),
    );
    if strings == 0 {
        return broken(Rule::X05, "no section has the names of sections".to_owned());
    }
    if count >= 1024 {
        return broken(Rule::X06, format!("{count} sections"));
    }
    let is_whole = |table: u64| (length - table) / u64::from(size) >= u64::from(count);
    if strings >= count || table >= length || u64::from(size) < SECTION_HEADER || !is_whole(table) {
        let text =
            format!("{count} headers of {size} bytes at {table:#x}, names in section {strings}");
        return broken(Rule::X05, text);
    }
    Ok(())
}
