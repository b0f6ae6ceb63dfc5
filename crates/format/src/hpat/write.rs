//! Model → metadata. One model is always written as the same bytes: INFO, the
//! list, the BASE entries, digests, and the patch tables, each in the model's order.

use super::model::{
    BASE_SIZE, Base, Chunk, ChunkKind, HASHES_SIZE, HotPatch, Integrity, LARGEST_CHUNK, bits,
    info_size,
};
use super::{HpatError, Rule};

/// Writes the metadata; all offsets in it count from its own start, and all
/// its parts are four bytes aligned.
///
/// # Errors
/// When the model holds what its version has no field for, what no kernel
/// accepts (A03, A05, A12, A13, A14), or what a writer cannot carry because
/// nobody knows what it means (A31).
pub fn write(patch: &HotPatch) -> Result<Vec<u8>, HpatError> {
    let least = info_size(patch.version).ok_or_else(|| {
        let text = format!("version {}; 1 to 4 are known", patch.version);
        HpatError::kernel(Rule::A03, text)
    })?;
    check_header(patch)?;
    let count = length(patch.bases.len())?;
    let list = least;
    let first = add(list, mul(count, 4)?)?;
    let hashes = add(first, mul(count, BASE_SIZE)?)?;
    let with_hashes = |base: &&Base| matches!(base.integrity, Integrity::Hashes { .. });
    let tables = add(
        hashes,
        mul(
            length(patch.bases.iter().filter(with_hashes).count())?,
            HASHES_SIZE,
        )?,
    )?;

    let mut streams = Vec::new();
    for base in &patch.bases {
        streams.push(stream(patch, base)?);
    }
    let mut size = tables;
    for stream in &streams {
        size = add(size, length(stream.len())?)?;
    }

    let mut out = Vec::new();
    let info = [
        patch.version,
        size,
        patch.sequence,
        list,
        count,
        patch.buffer_offset,
        patch.extra_words,
        patch.min_sequence,
        patch.flags,
    ];
    put(&mut out, &info[..least as usize / 4]);
    for number in 0..count {
        put(&mut out, &[first + number * BASE_SIZE]);
    }
    let (mut next_hashes, mut next_table) = (hashes, tables);
    for (base, stream) in patch.bases.iter().zip(&streams) {
        let (offset, bytes) = match base.integrity {
            Integrity::Hashes { .. } => (next_hashes, HASHES_SIZE),
            _ => (0, 0),
        };
        next_hashes += bytes;
        put(
            &mut out,
            &[
                base.sequence,
                base.flags,
                base.time_stamp,
                base.checksum,
                offset,
                bytes,
                next_table,
                base.buffer_offset,
            ],
        );
        next_table += length(stream.len())?;
    }
    for base in &patch.bases {
        if let Integrity::Hashes { sha256, sha1 } = &base.integrity {
            out.extend_from_slice(sha256);
            out.extend_from_slice(sha1);
        }
    }
    streams
        .iter()
        .for_each(|stream| out.extend_from_slice(stream));
    Ok(out)
}

fn check_header(patch: &HotPatch) -> Result<(), HpatError> {
    if patch.sequence == 0 {
        return Err(HpatError::kernel(Rule::A05, "the sequence number is 0"));
    }
    let later = [
        (3, patch.extra_words, "further words in records"),
        (4, patch.min_sequence, "a least sequence number"),
        (4, patch.flags, "flags"),
    ];
    for (since, value, what) in later {
        if value != 0 && patch.version < since {
            let text = format!("version {} has no field for {what}", patch.version);
            return Err(HpatError::strict(Rule::A03, text));
        }
    }
    let buffers = patch.bases.iter().map(|base| base.buffer_offset);
    if patch.buffer_offset != 0 || buffers.into_iter().any(|offset| offset != 0) {
        let text = "a buffer offset leads to something of which nobody knows what it is";
        return Err(HpatError::strict(Rule::A31, text));
    }
    for base in &patch.bases {
        if let Integrity::Unknown { offset, size } = base.integrity {
            let text = format!("digests of {size} bytes at {offset:#x}; 52 bytes are known");
            return Err(HpatError::strict(Rule::A31, text));
        }
    }
    Ok(())
}

fn stream(patch: &HotPatch, base: &Base) -> Result<Vec<u8>, HpatError> {
    let mut out = Vec::new();
    for (number, chunk) in base.chunks.iter().enumerate() {
        put(&mut out, &[header(chunk, number)?]);
        for record in &chunk.records {
            if length(record.extra.len())? != patch.extra_words {
                let text = format!(
                    "a record of chunk {number} has {} further words, the patch {}",
                    record.extra.len(),
                    patch.extra_words
                );
                return Err(HpatError::strict(Rule::A29, text));
            }
            put(&mut out, &[record.source, record.target]);
            put(&mut out, &record.extra);
        }
    }
    put(&mut out, &[0]);
    Ok(out)
}

fn header(chunk: &Chunk, number: usize) -> Result<u32, HpatError> {
    if chunk.reserved != 0 {
        let text = format!("chunk {number} has reserved bits {:#x}", chunk.reserved);
        return Err(HpatError::kernel(Rule::A12, text));
    }
    if chunk.obligatory {
        return Err(HpatError::kernel(
            Rule::A13,
            format!("chunk {number} is obligatory"),
        ));
    }
    if let ChunkKind::Unknown(code) = chunk.kind {
        let text = format!("chunk {number} has kind {code:#x}");
        return Err(HpatError::strict(Rule::A14, text));
    }
    if chunk.records.len() > LARGEST_CHUNK {
        let text = format!(
            "chunk {number} has {} records; {LARGEST_CHUNK} are the most",
            chunk.records.len()
        );
        return Err(HpatError::strict(Rule::A11, text));
    }
    let direction = if chunk.inverse { bits::INVERSE } else { 0 };
    let header = direction | chunk.kind.code() | length(chunk.records.len())?;
    if header == 0 {
        let text = format!("chunk {number} is an empty NONE: that would end the stream");
        return Err(HpatError::strict(Rule::A11, text));
    }
    Ok(header)
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    words
        .iter()
        .for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
}

fn too_large() -> HpatError {
    HpatError::kernel(Rule::A04, "the metadata has more than 4 GiB")
}

fn length(count: usize) -> Result<u32, HpatError> {
    u32::try_from(count).map_err(|_| too_large())
}

fn add(a: u32, b: u32) -> Result<u32, HpatError> {
    a.checked_add(b).ok_or_else(too_large)
}

fn mul(a: u32, b: u32) -> Result<u32, HpatError> {
    a.checked_mul(b).ok_or_else(too_large)
}
