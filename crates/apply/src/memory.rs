//! An image in memory as a target: for dry runs, and for tests that have to fail at
//! a chosen step.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use invivo_image::LiveAddr;
use invivo_patch::ImportVersion;

use crate::{Module, Protection, Region, Stack, Stopped, Target, TargetError, Visit};

/// What is at a place that somebody else has taken.
const TAKEN: u8 = 0x77;

/// Memory of a [`MemoryTarget`].
#[derive(Clone, Debug)]
struct Memory {
    region: Region,
    bytes: Vec<u8>,
    /// What the file holds, for memory that shows one.
    original: Option<Vec<u8>>,
}

impl Memory {
    /// Makes one of this and `next` where that goes on where this ends, in the file too.
    fn takes_up(&mut self, next: &mut Memory) -> bool {
        let (own, other) = (&self.region, &next.region);
        let goes_on = own.file.is_some()
            && own.file == other.file
            && own.range.end == other.range.start
            && own.offset + self.bytes.len() as u64 == other.offset;
        let (Some(original), Some(more), true) = (&mut self.original, &next.original, goes_on)
        else {
            return false;
        };
        original.extend(more);
        self.bytes.append(&mut next.bytes);
        self.region.range.end = next.region.range.end;
        true
    }
}

/// A target that is only memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryTarget {
    memory: Vec<Memory>,
    modules: Vec<Module>,
    stacks: Vec<Stack>,
    exports: BTreeMap<String, LiveAddr>,
    /// Steps that change the target and may still be made; none: any number.
    steps: Option<usize>,
    /// How many moves back over memory still take it away and fail.
    losses: usize,
    /// Whether the place to which text is moved next is taken just before.
    taken: bool,
    /// What callouts answer, in turn, as far as it is said; 0 after that.
    answers: Vec<u32>,
    /// What they took away.
    lost: Option<Memory>,
    /// Whether neighbouring parts of one file stay apart.
    apart: bool,
}

impl MemoryTarget {
    /// Adds private memory, zeroed.
    pub fn add(&mut self, range: Range<LiveAddr>, protection: Protection) {
        let size = usize::try_from(range.end.0 - range.start.0).unwrap_or(0);
        let executable = protection == Protection::ReadExecute;
        let region = Region {
            range,
            executable,
            writable: !executable,
            file: None,
            offset: 0,
        };
        self.insert(Memory {
            region,
            bytes: vec![0; size],
            original: None,
        });
    }

    /// Adds an image whose code is `bytes`, loaded at `start`.
    pub fn load(&mut self, build_id: &[u8], start: LiveAddr, bytes: &[u8]) {
        let end = LiveAddr(start.0 + bytes.len() as u64);
        let path = "/image".to_owned();
        let region = Region {
            range: start..end,
            executable: true,
            writable: false,
            file: Some(path.clone()),
            offset: 0,
        };
        self.insert(Memory {
            region,
            bytes: bytes.to_vec(),
            original: Some(bytes.to_vec()),
        });
        self.modules.push(Module {
            build_id: build_id.to_vec(),
            start,
            end,
            path,
        });
    }

    /// Closes the image at `start`, as `dlclose` does.
    pub fn close(&mut self, start: LiveAddr) {
        self.modules.retain(|module| module.start != start);
        self.memory
            .retain(|memory| memory.region.range.start != start);
    }

    /// Says what another image has.
    pub fn export(&mut self, name: &str, at: LiveAddr) {
        self.exports.insert(name.to_owned(), at);
    }

    /// Says where the target's threads are.
    pub fn set_stacks(&mut self, stacks: Vec<Stack>) {
        self.stacks = stacks;
    }

    /// Lets every step fail that changes the target, after `steps` of them: what is
    /// left is what a tool that died there leaves.
    pub fn fail_after(&mut self, steps: Option<usize>) {
        self.steps = steps;
    }

    /// Says what the next callouts answer.
    pub fn set_answers(&mut self, answers: &[u32]) {
        self.answers = answers.to_vec();
    }

    /// How many of these answers nobody has asked for yet.
    #[must_use]
    pub fn answers_left(&self) -> usize {
        self.answers.len()
    }

    /// Lets the next `losses` moves back take away what is in their place and then fail, as
    /// they do in a kernel that is out of memory.
    pub fn lose_text(&mut self, losses: usize) {
        self.losses = losses;
    }

    /// Keeps neighbouring parts of one file apart from now on, as the kernel does in a child process.
    pub fn keep_apart(&mut self) {
        self.apart = true;
    }

    /// Lets somebody else map a file at the place to which text is moved next, just before it is.
    pub fn take_place(&mut self) {
        self.taken = true;
    }

    fn insert(&mut self, memory: Memory) {
        self.memory.push(memory);
        self.memory.sort_by_key(|memory| memory.region.range.start);
        // As the kernel does with what shows neighbouring parts of one file, unless a child process has it.
        if !self.apart {
            self.memory.dedup_by(|next, before| before.takes_up(next));
        }
    }

    /// Takes a part of a memory away.
    fn cut(&mut self, index: usize, part: Range<usize>) {
        let whole = self.memory.remove(index);
        for kept in [0..part.start, part.end..whole.bytes.len()] {
            if kept.is_empty() {
                continue;
            }
            let start = LiveAddr(whole.region.range.start.0 + kept.start as u64);
            let region = Region {
                range: start..LiveAddr(start.0 + kept.len() as u64),
                offset: whole.region.offset + kept.start as u64,
                ..whole.region.clone()
            };
            let original = whole.original.as_ref();
            self.insert(Memory {
                region,
                bytes: whole.bytes[kept.clone()].to_vec(),
                original: original.map(|bytes| bytes[kept].to_vec()),
            });
        }
    }

    /// Takes `range` away, as a move over it does before it fails.
    fn lose(&mut self, range: &Range<LiveAddr>) {
        let size = usize::try_from(range.end.0 - range.start.0).unwrap_or(usize::MAX);
        let Some((index, part)) = self.find(range.start, size) else {
            return;
        };
        let whole = &self.memory[index];
        let original = whole.original.as_ref();
        self.lost = Some(Memory {
            region: Region {
                range: range.clone(),
                offset: whole.region.offset + part.start as u64,
                ..whole.region.clone()
            },
            bytes: whole.bytes[part.clone()].to_vec(),
            original: original.map(|bytes| bytes[part.clone()].to_vec()),
        });
        self.cut(index, part);
    }

    fn step(&mut self) -> Result<(), TargetError> {
        match &mut self.steps {
            Some(0) => Err(TargetError::NotNow("no step is left".to_owned())),
            Some(steps) => {
                *steps -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn find(&self, at: LiveAddr, size: usize) -> Option<(usize, Range<usize>)> {
        let index = self
            .memory
            .iter()
            .position(|memory| memory.region.range.contains(&at))?;
        let memory = &self.memory[index];
        let start = usize::try_from(at.0 - memory.region.range.start.0).ok()?;
        let end = start
            .checked_add(size)
            .filter(|end| *end <= memory.bytes.len())?;
        Some((index, start..end))
    }

    fn put(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.step()?;
        let size = bytes.len();
        let (index, range) = self
            .find(at, size)
            .ok_or_else(|| missing("write", at, size))?;
        self.memory[index].bytes[range].copy_from_slice(bytes);
        Ok(())
    }
}

fn missing(action: &'static str, at: LiveAddr, size: usize) -> TargetError {
    let source = std::io::Error::other("no memory there");
    TargetError::Memory {
        action,
        at,
        size,
        source,
    }
}

impl Target for MemoryTarget {
    fn describe(&self) -> String {
        "an image in memory".to_owned()
    }

    fn modules(&self) -> Result<Vec<Module>, TargetError> {
        Ok(self.modules.clone())
    }

    fn importers(&self, module: &Module, symbol: &str) -> Result<Vec<String>, TargetError> {
        // Memory has no symbols.
        let _ = (module, symbol);
        Ok(Vec::new())
    }

    fn look_up(
        &self,
        module: &Module,
        imports: &[(&str, Option<&ImportVersion>)],
    ) -> Result<Vec<Result<LiveAddr, String>>, TargetError> {
        let _ = module;
        let found = |name: &str| self.exports.get(name).copied();
        let found = |(name, _): &(&str, _)| found(name).ok_or("which nobody has".to_owned());
        Ok(imports.iter().map(found).collect())
    }

    fn regions(&self) -> Result<Vec<Region>, TargetError> {
        Ok(self
            .memory
            .iter()
            .map(|memory| memory.region.clone())
            .collect())
    }

    fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        let (index, range) = self
            .find(at, bytes.len())
            .ok_or_else(|| missing("read", at, bytes.len()))?;
        bytes.copy_from_slice(&self.memory[index].bytes[range]);
        Ok(())
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.put(at, bytes)
    }

    fn store(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.put(at, bytes)
    }

    fn original(&self, range: Range<LiveAddr>) -> Result<Option<Vec<u8>>, TargetError> {
        let size = usize::try_from(range.end.0 - range.start.0).unwrap_or(usize::MAX);
        let found = self.find(range.start, size);
        Ok(found
            .and_then(|(index, bytes)| Some(self.memory[index].original.as_ref()?[bytes].to_vec())))
    }

    fn visit(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        calls(self).map(|()| Duration::ZERO)
    }

    fn visit_outside_runtime(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        self.visit(calls)
    }

    fn stop(
        &mut self,
        _first: &[i32],
        during: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        during(self).map(|()| Duration::ZERO)
    }

    fn glimpse(&self) -> Result<Vec<Stack>, TargetError> {
        Ok(self.stacks.clone())
    }

    fn unwind_registrar(&self) -> Result<Option<LiveAddr>, TargetError> {
        Ok(None)
    }
}

impl Visit for MemoryTarget {
    fn map(&mut self, range: Range<LiveAddr>, protection: Protection) -> Result<(), TargetError> {
        self.step()?;
        self.add(range, protection);
        Ok(())
    }

    fn unmap(&mut self, range: Range<LiveAddr>) -> Result<(), TargetError> {
        self.step()?;
        self.memory
            .retain(|memory| !range.contains(&memory.region.range.start));
        Ok(())
    }

    fn lift(&mut self, range: Range<LiveAddr>, to: LiveAddr) -> Result<(), TargetError> {
        self.step()?;
        let size = usize::try_from(range.end.0 - range.start.0).unwrap_or(usize::MAX);
        if std::mem::take(&mut self.taken) {
            self.load(&[], to, &vec![TAKEN; size]);
            return Err(TargetError::System {
                what: "mremap of text".to_owned(),
                source: std::io::ErrorKind::AddrInUse.into(),
            });
        }
        // The kernel moves what lies in one mapping.
        let Some((index, bytes)) = self.find(range.start, size) else {
            return Err(TargetError::System {
                what: "mremap of text".to_owned(),
                source: std::io::ErrorKind::InvalidInput.into(),
            });
        };
        let memory = &mut self.memory[index];
        let moved = memory.bytes[bytes.clone()].to_vec();
        let Some(original) = memory.original.clone() else {
            return Err(missing("read", range.start, size));
        };
        let original = original[bytes.clone()].to_vec();
        memory.bytes[bytes.clone()].copy_from_slice(&original);
        let mut region = memory.region.clone();
        region.offset += bytes.start as u64;
        region.range = to..LiveAddr(to.0 + moved.len() as u64);
        self.insert(Memory {
            region,
            bytes: moved,
            original: Some(original),
        });
        Ok(())
    }

    fn lower(&mut self, from: LiveAddr, range: Range<LiveAddr>) -> Result<(), TargetError> {
        self.step()?;
        if let Some(left) = self.losses.checked_sub(1) {
            self.losses = left;
            self.lose(&range);
            return Err(TargetError::System {
                what: "mremap of text".to_owned(),
                source: std::io::ErrorKind::OutOfMemory.into(),
            });
        }
        if let Some(lost) = self.lost.take() {
            self.insert(lost);
        }
        let size = usize::try_from(range.end.0 - range.start.0).unwrap_or(usize::MAX);
        let (index, bytes) = self
            .find(from, size)
            .ok_or_else(|| missing("read", from, size))?;
        let moved = self.memory[index].bytes[bytes.clone()].to_vec();
        self.cut(index, bytes);
        let (index, bytes) = self
            .find(range.start, moved.len())
            .ok_or_else(|| missing("write", range.start, moved.len()))?;
        self.memory[index].bytes[bytes].copy_from_slice(&moved);
        Ok(())
    }

    fn read(&mut self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        Target::read(self, at, bytes)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.put(at, bytes)
    }

    fn call(&mut self, function: LiveAddr, _arguments: [u64; 2]) -> Result<(), TargetError> {
        // Of all code only the stubs of callouts are known: each begins with a store to the
        // word in which it notes how far it has come.
        let mut code = [0; 10];
        Target::read(self, function, &mut code)?;
        if let [0xc7, 0x05, distance @ .., 1, 0, 0, 0] = code {
            let next = function.0 + code.len() as u64;
            let word = next.wrapping_add_signed(i32::from_le_bytes(distance).into());
            self.put(LiveAddr(word), &[1, 0, 0, 0])?;
            let answer = if self.answers.is_empty() {
                0
            } else {
                self.answers.remove(0)
            };
            // It goes on by itself, whoever lives.
            let steps = self.steps.take();
            self.put(LiveAddr(word + 4), &answer.to_le_bytes())?;
            self.put(LiveAddr(word), &[2, 0, 0, 0])?;
            self.steps = steps;
            return Ok(());
        }
        Err(TargetError::Unsupported(
            "an image in memory runs no code".to_owned(),
        ))
    }
}

impl Stopped for MemoryTarget {
    fn finds(&mut self, range: &Range<LiveAddr>) -> Result<Option<String>, TargetError> {
        let mut others = self
            .memory
            .iter()
            .filter(|memory| !range.contains(&memory.region.range.start));
        let found = others.find_map(|memory| {
            let at = crate::address_in(&memory.bytes, range)?;
            Some(format!(
                "an address of it is at {}",
                LiveAddr(memory.region.range.start.0 + at as u64)
            ))
        });
        Ok(found)
    }

    fn stacks(&mut self) -> Result<Vec<Stack>, TargetError> {
        Ok(self.stacks.clone())
    }

    fn read(&mut self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        Target::read(self, at, bytes)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.put(at, bytes)
    }
}
