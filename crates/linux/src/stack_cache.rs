//! A thread's stack, as far as it is needed to find its way back.

use std::collections::BTreeMap;

use invivo_image::LiveAddr;

use crate::memory::Memory;

/// A stack, read in pages: one system call for most threads that wait.
pub(crate) struct StackCache<'m> {
    memory: &'m Memory,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl<'m> StackCache<'m> {
    const PIECE: u64 = 0x1000;

    pub(crate) fn new(memory: &'m Memory, rsp: u64) -> Self {
        let mut cache = StackCache {
            memory,
            pieces: BTreeMap::new(),
        };
        cache.fill(rsp & !(Self::PIECE - 1));
        cache
    }

    fn fill(&mut self, start: u64) -> &Vec<u8> {
        let memory = self.memory;
        self.pieces.entry(start).or_insert_with(|| {
            let size = usize::try_from(Self::PIECE).expect("a small number");
            let bytes = memory.read_some(LiveAddr(start), size);
            if bytes.len() == size {
                bytes
            } else {
                Vec::new()
            }
        })
    }

    pub(crate) fn word(&mut self, at: u64) -> Result<u64, String> {
        let start = at & !(Self::PIECE - 1);
        let offset = usize::try_from(at - start).expect("less than a piece");
        let piece = self.fill(start);
        if let Some(bytes) = piece.get(offset..offset + 8) {
            return Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
        }
        let mut bytes = [0; 8];
        self.memory
            .read(LiveAddr(at), &mut bytes)
            .map_err(|_| format!("the stack at {at:#x} cannot be read"))?;
        Ok(u64::from_le_bytes(bytes))
    }
}
