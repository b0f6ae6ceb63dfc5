//! The language's own table beside unwind data (LSDA, `.gcc_except_table`): where control
//! lands when an exception passes, and which types may.

use std::ops::Range;

use gimli::{EndianSlice, LittleEndian, Reader};

use super::encoding;
use crate::{Image, LinkAddr};

/// A language-specific data area: `.gcc_except_table` of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lsda {
    /// Where it is.
    pub range: Range<LinkAddr>,
    /// Header, call sites, actions and lists of types that may pass: everything as it stands,
    /// but zeros in place of `types` and `elsewhere`, and without the padding that may follow.
    pub tables: Vec<u8>,
    /// Where control may land, relative to the start of the function.
    pub landing_pads: Vec<u64>,
    /// Where control may land, if the table says it in another way, which needs not be in the
    /// function: BOLT may put what seldom runs anywhere.
    pub elsewhere: Vec<LinkAddr>,
    /// Entries of the type table: place, `DW_EH_PE` encoding, and what the pointer says
    /// (the slot itself for an indirect one); null entries (`catch (...)`) are left out.
    pub types: Vec<(LinkAddr, u8, LinkAddr)>,
}

impl Lsda {
    /// Reads the LSDA at `at`.
    ///
    /// # Errors
    /// A text that says what is broken or not understood.
    pub fn parse(image: &Image, at: LinkAddr) -> Result<Lsda, String> {
        let section = image
            .section_at(at)
            .ok_or("the LSDA lies outside the image")?;
        let lsdas = &image.unwind.lsdas;
        let next = lsdas.partition_point(|other| *other <= at);
        let next = lsdas.get(next).copied();
        let end = next.unwrap_or(section.range.end).min(section.range.end);
        let bytes = image
            .bytes(at, end.0 - at.0)
            .ok_or("the LSDA has no bytes")?;
        Self::parse_bytes(at, end, bytes).map_err(|error| format!("broken LSDA at {at}: {error}"))
    }

    fn parse_bytes(at: LinkAddr, end: LinkAddr, bytes: &[u8]) -> Result<Lsda, String> {
        let broken = |error: gimli::Error| error.to_string();
        let mut rest = EndianSlice::new(bytes, LittleEndian);
        let pads_from = match rest.read_u8().map_err(broken)? {
            encoding::OMIT => None,
            0x03 => Some(u64::from(rest.read_u32().map_err(broken)?)),
            other => return Err(format!("a start of landing pads in encoding {other:#x}")),
        };
        let type_encoding = rest.read_u8().map_err(broken)?;
        let mut type_base = None;
        if type_encoding != encoding::OMIT {
            let offset = rest.read_uleb128().map_err(broken)?;
            let offset = usize::try_from(offset).map_err(|_| "type table is too far away")?;
            type_base = Some(
                (bytes.len() - rest.len())
                    .checked_add(offset)
                    .ok_or("type table wraps")?,
            );
        }
        let site_encoding = rest.read_u8().map_err(broken)?;
        let sites = rest.read_uleb128().map_err(broken)?;
        let sites = usize::try_from(sites).map_err(|_| "call-site table is too long")?;
        let mut sites = rest.split(sites).map_err(broken)?;
        let sites_end = bytes.len() - rest.len();
        let mut landing_pads = Vec::new();
        let mut elsewhere = Vec::new();
        let mut zeros = Vec::new();
        let mut actions = Vec::new();
        while !sites.is_empty() {
            let mut field = || match site_encoding & 0x0f {
                0x01 => sites.read_uleb128().map_err(broken),
                0x03 => sites.read_u32().map(u64::from).map_err(broken),
                // BOLT writes them with a sign, though none is before the function.
                0x0b => u64::try_from(sites.read_i32().map_err(broken)?)
                    .map_err(|_| "a call site before its function".to_owned()),
                other => Err(format!("call sites in encoding {other:#x}")),
            };
            let (_, _, pad) = (field()?, field()?, field()?);
            match pads_from {
                None => landing_pads.extend((pad != 0).then_some(pad)),
                Some(_) if site_encoding & 0x0f == 0x01 => {
                    return Err("landing pads elsewhere that have no fixed size".to_owned());
                }
                Some(from) => {
                    let at = from.checked_add(pad).ok_or("a landing pad lies nowhere")?;
                    elsewhere.extend((pad != 0).then_some(LinkAddr(at)));
                    zeros.push(sites_end - sites.len() - 4);
                }
            }
            let action = sites.read_uleb128().map_err(broken)?;
            actions.extend((action != 0).then_some(action));
        }
        let (mut largest, mut read) = largest_filter(bytes, sites_end, type_base, &actions)?;
        let mut types = Vec::new();
        let width = match type_encoding & 0x0f {
            0x03 | 0x0b => 4,
            0x00 => 8,
            _ if type_base.is_none() => 0,
            other => return Err(format!("type table in encoding {other:#x}")),
        };
        if let Some(base) = type_base {
            largest = largest_listed(bytes, sites_end, base, width, largest);
        }
        if let Some(base) = type_base.filter(|_| largest > 0) {
            read = read.max(base);
            for index in 1..=largest {
                let entry = index
                    .checked_mul(width)
                    .and_then(|back| base.checked_sub(back))
                    .and_then(|start| Some((start, bytes.get(start..start.checked_add(width)?)?)));
                let (start, raw) = entry.ok_or("the type table is shorter than its use")?;
                let place = LinkAddr(at.0 + start as u64);
                let value = match raw {
                    [a, b, c, d] => i64::from(i32::from_le_bytes([*a, *b, *c, *d])),
                    _ => raw
                        .try_into()
                        .map(i64::from_le_bytes)
                        .map_err(|_| "broken type entry")?,
                };
                if value == 0 {
                    continue;
                }
                let target = match type_encoding & 0x70 {
                    0x00 => LinkAddr(value.cast_unsigned()),
                    0x10 => place.checked_offset(value).ok_or("a type lies nowhere")?,
                    other => return Err(format!("types relative to {other:#x}")),
                };
                types.push((place, type_encoding, target));
            }
        }
        let mut tables = bytes.get(..read).ok_or("an action lies outside")?.to_vec();
        for start in zeros {
            tables[start..start + 4].fill(0);
        }
        for (place, ..) in &types {
            let start = usize::try_from(place.0 - at.0).map_err(|_| "a type lies outside")?;
            tables[start..start + width].fill(0);
        }
        Ok(Lsda {
            range: at..end,
            tables,
            landing_pads,
            elsewhere,
            types,
        })
    }
}

/// The largest index into the type table that any action uses, and where the actions and
/// their lists of types end.
fn largest_filter(
    bytes: &[u8],
    table: usize,
    type_base: Option<usize>,
    actions: &[u64],
) -> Result<(usize, usize), String> {
    let mut largest = 0;
    let mut end = table;
    for action in actions {
        let mut at = usize::try_from(*action - 1)
            .ok()
            .and_then(|a| a.checked_add(table));
        // A chain of actions cannot be longer than the table has bytes.
        for _ in 0..=bytes.len() {
            let Some(here) = at else { break };
            let mut rest = EndianSlice::new(
                bytes.get(here..).ok_or("an action lies outside")?,
                LittleEndian,
            );
            let filter = rest.read_sleb128().map_err(|e| e.to_string())?;
            let link = bytes.len() - rest.len();
            let next = rest.read_sleb128().map_err(|e| e.to_string())?;
            end = end.max(bytes.len() - rest.len());
            let (index, list_end) = match usize::try_from(filter) {
                Ok(filter) => (filter, end),
                Err(_) => largest_specified(bytes, type_base, filter)?,
            };
            (largest, end) = (largest.max(index), end.max(list_end));
            at = if next == 0 {
                None
            } else {
                isize::try_from(next)
                    .ok()
                    .and_then(|next| link.checked_add_signed(next))
            };
        }
    }
    Ok((largest, end))
}

/// The same by all records of actions: gcc gives a function and its cold part one table of
/// them, so a record may be there, and its type, that no call site of this part names.
fn largest_listed(
    bytes: &[u8],
    table: usize,
    base: usize,
    width: usize,
    mut largest: usize,
) -> usize {
    let types = |count: usize| base.checked_sub(count.checked_mul(width)?);
    let mut at = table;
    while let Some(end) = types(largest).filter(|end| at < *end)
        && let Some(records) = bytes.get(at..end)
    {
        let mut rest = EndianSlice::new(records, LittleEndian);
        let (Ok(filter), Ok(_)) = (rest.read_sleb128(), rest.read_sleb128()) else {
            break;
        };
        at = end - rest.len();
        let filter = usize::try_from(filter).unwrap_or(0);
        if types(filter).is_some_and(|start| at <= start) {
            largest = largest.max(filter);
        }
    }
    largest
}

/// The largest index in a list of types that may pass (an exception specification;
/// an empty one stands where Rust forbids unwinding), and where that list ends. The lists
/// lie behind the types.
fn largest_specified(
    bytes: &[u8],
    type_base: Option<usize>,
    filter: i64,
) -> Result<(usize, usize), String> {
    let offset = usize::try_from(-1 - filter).map_err(|_| "a filter is too large")?;
    let at = type_base.and_then(|base| base.checked_add(offset));
    let list = at
        .and_then(|at| bytes.get(at..))
        .ok_or("a list of types lies outside")?;
    let mut rest = EndianSlice::new(list, LittleEndian);
    let mut largest = 0;
    loop {
        match rest.read_uleb128().map_err(|e| e.to_string())? {
            0 => return Ok((largest, bytes.len() - rest.len())),
            index => {
                largest = largest.max(usize::try_from(index).map_err(|_| "a type is too far")?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_sites_may_have_a_sign() {
        let site = [0, 0, 0, 0, 9, 0, 0, 0, 0x21, 0, 0, 0, 0];
        let table = |encoding| [&[0xff, 0xff, encoding, 13][..], &site].concat();
        let (at, end) = (LinkAddr(0x60_0884), LinkAddr(0x60_0884 + 17));
        let read = |bytes: &[u8]| Lsda::parse_bytes(at, end, bytes);
        let lsda = read(&table(0x0b)).expect("BOLT writes such tables");
        assert_eq!(lsda.landing_pads, [0x21]);
        let mut before = table(0x0b);
        before[15] = 0x80;
        assert!(read(&before).is_err(), "a landing pad before the function");
    }

    #[test]
    fn landing_pads_may_be_anywhere() {
        let table = |pad: u32| {
            let mut bytes = vec![0x03, 0, 0, 0, 0, 0xff, 0x0b, 13];
            for number in [0x14, 0x2c, pad] {
                bytes.extend(u32::to_le_bytes(number));
            }
            bytes.push(0);
            let (at, end) = (LinkAddr(0xa0_0714), LinkAddr(0xa0_0714 + 21));
            Lsda::parse_bytes(at, end, &bytes)
        };
        let (one, other) = (table(0x80_026e), table(0x80_0297));
        let (one, other) = (one.expect("it is whole"), other.expect("it is whole"));
        assert!(one.landing_pads.is_empty());
        assert_eq!(one.elsewhere, [LinkAddr(0x80_026e)]);
        assert_eq!(other.elsewhere, [LinkAddr(0x80_0297)]);
        assert_eq!(one.tables, other.tables, "places are no bytes");
        assert_eq!(one.tables[8], 0x14);
    }

    /// The cold part of `RemoteLogger::reconnect` of PowerDNS Recursor: no call site in it names
    /// the record for the second type, which is another distance away in each build.
    #[test]
    fn a_type_that_only_the_other_part_uses_is_a_type() {
        let mut bytes = vec![0xff, 0x9b, 0x0f, 0x01, 0x04, 0x18, 0x05, 0x65, 0x03];
        bytes.extend([0x01, 0x00, 0x00, 0x7d]);
        bytes.extend([0x02, 0x7d]);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(0x1716c_i32.to_le_bytes());
        bytes.extend(0x17158_i32.to_le_bytes());
        bytes[2] = u8::try_from(bytes.len() - 3).expect("short");
        let (at, size) = (LinkAddr(0x63_be58), bytes.len() as u64);
        let lsda = Lsda::parse_bytes(at, LinkAddr(at.0 + size), &bytes).expect("it is whole");
        let types: Vec<u64> = lsda
            .types
            .iter()
            .map(|(place, _, _)| place.0 - at.0)
            .collect();
        assert_eq!(types, [size - 4, size - 8]);
        assert!(lsda.tables.ends_with(&[0; 8]), "distances are no bytes");
    }
}
