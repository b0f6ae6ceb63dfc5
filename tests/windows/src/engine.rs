//! What the kernel of Windows does with a hot patch, as far as it is described,
//! for images in this process: a second reading of the format's description,
//! which shares no code with what writes the metadata.
//!
//! It is for tests alone: one thread, and no preflight, since images are held
//! against every rule before.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use invivo_format::hpat::{Chunk, ChunkKind, Record, read};
use invivo_image::Rva;

use crate::native::Mapped;

/// A function whose entry was changed.
#[derive(Clone, Copy, Debug)]
struct Undo {
    /// Its entry in the address table.
    index: u64,
    /// The seven bytes from five before it on.
    original: [u8; 7],
}

/// A base and all that was done to it.
#[derive(Debug)]
pub struct Engine {
    /// The base.
    pub base: Mapped,
    /// Patches stay mapped: a thread may be inside.
    patches: Vec<Mapped>,
    used: u64,
    undo: BTreeMap<u32, Undo>,
    sequence: u32,
}

impl Engine {
    /// Nothing is patched.
    #[must_use]
    pub fn new(base: Mapped) -> Engine {
        Engine {
            base,
            patches: Vec::new(),
            used: 0,
            undo: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// The patch that was applied last.
    #[must_use]
    pub fn patch(&self) -> Option<&Mapped> {
        self.patches.last()
    }

    /// Makes a patch live in the place of the one before it.
    ///
    /// # Errors
    /// When it is for another build, comes too late, or something is not as it expects.
    pub fn apply(&mut self, patch: Mapped) -> Result<()> {
        let metadata = read(&patch.image)?.patch;
        let [of] = &metadata.bases[..] else {
            bail!("{} bases", metadata.bases.len());
        };
        let identity = (self.base.image.time_stamp, self.base.image.checksum);
        if (of.time_stamp, of.checksum) != identity {
            bail!("revision mismatch");
        }
        if metadata.sequence <= self.sequence {
            bail!("out of sequence");
        }
        let mut used = 0;
        for (chunk, record) in records(&of.chunks).filter(|(chunk, _)| chunk.inverse) {
            self.inverse(&patch, chunk.kind, record, &mut used)?;
        }
        let mut seen = Vec::new();
        for (_, record) in records(&of.chunks).filter(|(chunk, _)| !chunk.inverse) {
            self.forward(&patch, record)?;
            seen.push(record.source);
        }
        let gone = self.undo.keys().filter(|at| !seen.contains(at));
        for at in gone.copied().collect::<Vec<_>>() {
            self.restore(at)?;
        }
        self.sequence = metadata.sequence;
        self.patches.push(patch);
        Ok(())
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// When a place is not in the image.
    pub fn revert(&mut self) -> Result<()> {
        for at in self.undo.keys().copied().collect::<Vec<_>>() {
            self.restore(at)?;
        }
        Ok(())
    }

    fn inverse(
        &self,
        patch: &Mapped,
        kind: ChunkKind,
        record: &Record,
        used: &mut u64,
    ) -> Result<()> {
        let (source, target) = (rva(record.source), rva(record.target));
        match kind {
            ChunkKind::Function => {
                redirect(patch, record, *used, self.base.address(target))?;
                *used += 1;
            }
            ChunkKind::Absolute => {
                patch.write(source, &self.base.address(target).to_le_bytes())?;
            }
            ChunkKind::Indirect => patch.write(source, &self.base.read::<8>(target)?)?,
            other => bail!("{other:?} is not carried out here"),
        }
        Ok(())
    }

    fn forward(&mut self, patch: &Mapped, record: &Record) -> Result<()> {
        let address = patch.address(rva(record.target));
        if let Some(known) = self.undo.get(&record.source) {
            // The jump is there already; where it leads is one pointer.
            return self
                .base
                .write(pointer(&self.base, known.index), &address.to_le_bytes());
        }
        let before = record.source.checked_sub(5).context("no room")?;
        let original = self.base.read(rva(before))?;
        redirect(&self.base, record, self.used, address)?;
        let index = self.used;
        self.undo.insert(record.source, Undo { index, original });
        self.used += 1;
        Ok(())
    }

    fn restore(&mut self, at: u32) -> Result<()> {
        let undo = self.undo.remove(&at).context("it was changed")?;
        // The entry first: with it nothing leads to the rest.
        self.base.write(rva(at), &undo.original[5..])?;
        self.base.write(rva(at - 5), &undo.original[..5])
    }
}

fn records(chunks: &[Chunk]) -> impl Iterator<Item = (&Chunk, &Record)> {
    chunks
        .iter()
        .flat_map(|chunk| chunk.records.iter().map(move |record| (chunk, record)))
}

fn rva(place: u32) -> Rva {
    Rva(place.into())
}

fn slot(image: &Mapped, index: u64) -> Rva {
    Rva(image.table().0 + (index >> 9) * 0x2000 + 8 * (index & 0x1ff))
}

fn pointer(image: &Mapped, index: u64) -> Rva {
    Rva(slot(image, index).0 + 0x1000)
}

/// Pointer, slot, the jump in the padding, and last the two bytes that make it live.
fn redirect(image: &Mapped, record: &Record, index: u64, to: u64) -> Result<()> {
    const JUMP: [u8; 8] = [0xff, 0x25, 0xfa, 0x0f, 0, 0, 0xcc, 0xcc];
    let source = rva(record.source);
    let found: [u8; 2] = image.read(source)?;
    let expected = record
        .extra
        .first()
        .context("expected bytes")?
        .to_le_bytes();
    if found != expected[..2] {
        bail!("the function at {source} begins with {found:02x?}");
    }
    image.write(pointer(image, index), &to.to_le_bytes())?;
    image.write(slot(image, index), &JUMP)?;
    let distance = i64::try_from(slot(image, index).0)? - i64::from(record.source);
    let mut jump = vec![0xe9];
    jump.extend_from_slice(&i32::try_from(distance)?.to_le_bytes());
    image.write(Rva(source.0 - 5), &jump)?;
    image.write(source, &[0xeb, 0xf9])
}
