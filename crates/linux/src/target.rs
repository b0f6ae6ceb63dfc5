//! The process as a [`Target`].

use std::cell::RefCell;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use invivo_apply::{Module, Region, Stack, Stopped, Target, TargetError, Thread, Visit};
use invivo_image::LiveAddr;
use invivo_patch::ImportVersion;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use object::elf;
use object::read::elf::{FileHeader, SectionHeader, Sym};
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use crate::Process;
use crate::carrier::Carrier;
use crate::deputy::by_deputy_while;
use crate::late;
use crate::modules::Loaded;
use crate::outside::is_outside_runtime;
use crate::priority::First;
use crate::proc_file::Status;
use crate::ptrace::Standing;
use crate::thread_state::size_of_extended_state;
use crate::unwind::Unwinder;

/// The function of libgcc with which unwind data are registered.
const REGISTRAR: &[u8] = b"__register_frame_info";
/// How many bytes a thread writes that is held for it.
const HELD_FOR: usize = 32 << 10;
/// The library that has it, in part of its name.
const RUNTIME: &str = "libgcc_s";

impl Target for Process {
    fn describe(&self) -> String {
        format!("process {} ({})", self.pid, self.name())
    }

    fn modules(&self) -> Result<Vec<Module>, TargetError> {
        self.modules_with_build_id()
    }

    fn has_loaded(&self, start: LiveAddr, build_id: &[u8]) -> Result<bool, TargetError> {
        self.has_image(start, build_id)
    }

    fn importers(&self, module: &Module, symbol: &str) -> Result<Vec<String>, TargetError> {
        self.find_importers(module, symbol)
    }

    fn look_up(
        &self,
        module: &Module,
        imports: &[(&str, Option<&ImportVersion>)],
    ) -> Result<Vec<Result<LiveAddr, String>>, TargetError> {
        self.find_exports(module, imports)
    }

    fn regions(&self) -> Result<Vec<Region>, TargetError> {
        let region = |map: &MemoryMap| Region {
            range: LiveAddr(map.address.0)..LiveAddr(map.address.1),
            executable: map.perms.contains(MMPermissions::EXECUTE),
            writable: map.perms.contains(MMPermissions::WRITE),
            file: match &map.pathname {
                MMapPath::Path(path) => Some(path.to_string_lossy().into_owned()),
                MMapPath::Anonymous => None,
                other => Some(format!("{other:?}")),
            },
            offset: map.offset,
        };
        Ok(self.maps()?.iter().map(region).collect())
    }

    fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        self.memory.read(at, bytes)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        match self.memory.write(at, bytes) {
            Err(TargetError::Memory { .. }) => {}
            other => return other,
        }
        // A thread does it, a little at a time, so that it is not held for long.
        for (number, piece) in (0u64..).zip(bytes.chunks(HELD_FOR)) {
            let at = LiveAddr(at.0.saturating_add(number * HELD_FOR as u64));
            self.visit_where(|_, _| Ok(()), &mut |visit| visit.write(at, piece))?;
        }
        Ok(())
    }

    fn original(&self, range: Range<LiveAddr>) -> Result<Option<Vec<u8>>, TargetError> {
        let maps = self.maps()?;
        let map = maps
            .iter()
            .find(|map| map.address.0 <= range.start.0 && range.end.0 <= map.address.1);
        let Some(map) = map else { return Ok(None) };
        let Some(file) = self.open_mapped(map) else {
            return Ok(None);
        };
        // A huge page is not moved in parts.
        if fstatfs(&file).is_ok_and(|kind| kind.filesystem_type() == HUGETLBFS_MAGIC) {
            return Ok(None);
        }
        let Ok(size) = usize::try_from(range.end.0 - range.start.0) else {
            return Ok(None);
        };
        let mut bytes = vec![0; size];
        let offset = map.offset + (range.start.0 - map.address.0);
        // The last page of a file shows zeros behind its end.
        let mut done = 0;
        while done < size {
            match file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(bytes))
    }

    fn locks_memory(&self) -> Result<bool, TargetError> {
        let status = Status::of(self.first)?;
        Ok(status.field("VmLck:") != Some("0 kB"))
    }

    fn visit(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        self.visit_where(|_, _| Ok(()), calls)
    }

    fn visit_outside_runtime(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        let unwinder = RefCell::new(Unwinder::new(self)?);
        self.visit_where(
            |process, thread| is_outside_runtime(process, thread, &unwinder),
            calls,
        )
    }

    fn visit_outside_runtime_now(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Option<Duration>, TargetError> {
        self.visit_one_that_waits(calls)
    }

    fn expect_coroutines(&mut self) -> Result<(), TargetError> {
        let found = self.find_coroutines()?;
        self.coroutines.replace(Some(found));
        Ok(())
    }

    fn stop(
        &mut self,
        first: &[i32],
        during: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        self.while_stopped(first, during)
    }

    fn rest(&self, time: Duration) {
        late::rest(time);
    }

    fn glimpse(&self) -> Result<Vec<Stack>, TargetError> {
        let mut unwinder = Unwinder::new(self)?;
        let mut stacks = Vec::new();
        let mut running = self.tids()?;
        // Who serves requests runs for a moment, and waits again.
        for pause in [0, 1, 2, 4, 8, 16] {
            if pause > 0 {
                std::thread::sleep(Duration::from_millis(pause));
            }
            running.retain(|tid| {
                let waits = self.waits_at(*tid);
                if waits.as_deref().is_some_and(Process::is_worker_at) {
                    return false;
                }
                match waits.and_then(|waits| self.stack_of_waiting(*tid, &waits, &mut unwinder)) {
                    Some(stack) => {
                        stacks.push(stack);
                        false
                    }
                    None => self.has_thread(*tid),
                }
            });
            if running.is_empty() {
                break;
            }
        }
        running.retain(|tid| !self.is_worker(*tid));
        stacks.extend(running.into_iter().map(|tid| Stack {
            thread: self.thread(tid),
            frames: Vec::new(),
            unknown: Some("it ran whenever it was looked at".to_owned()),
            running: true,
            handlers: true,
        }));
        Ok(stacks)
    }

    fn waits(&self, tid: i32) -> Option<String> {
        self.waits_at(tid)
    }

    fn thread_name(&self, tid: i32) -> String {
        self.name_of(tid)
    }

    fn places(&self, frames: &[LiveAddr]) -> Vec<Option<String>> {
        self.names_of(frames)
    }

    fn backtrace_registrar(&self) -> Result<Option<LiveAddr>, TargetError> {
        let maps = self.maps()?;
        let runtime = |map: &&MemoryMap| {
            let MMapPath::Path(path) = &map.pathname else {
                return false;
            };
            map.offset == 0 && path.to_string_lossy().contains(RUNTIME)
        };
        let Some(map) = maps.iter().find(runtime) else {
            return Ok(None);
        };
        let start = map.address.0;
        let Some(loaded) = self.loaded()?.into_iter().find(|l| l.start() == start) else {
            return Ok(None);
        };
        let bytes = self.file_of(&maps, &loaded);
        let found = bytes.and_then(|bytes| find_symbol(&bytes, REGISTRAR));
        Ok(found.map(|(at, _)| LiveAddr(at.wrapping_add(loaded.bias))))
    }

    fn unwind_registrar(&self) -> Result<Option<LiveAddr>, TargetError> {
        let maps = self.maps()?;
        for loaded in self.loaded()? {
            // The language's runtime, or a program that holds it.
            let is_runtime = loaded.path.contains(RUNTIME);
            let is_program = self
                .exe()
                .is_some_and(|exe| exe.to_string_lossy() == loaded.path);
            if !is_runtime && !is_program {
                continue;
            }
            let bytes = self.file_of(&maps, &loaded);
            if let Some((at, _)) = bytes.and_then(|bytes| find_symbol(&bytes, REGISTRAR)) {
                return Ok(Some(LiveAddr(at.wrapping_add(loaded.bias))));
            }
        }
        Ok(None)
    }
}

impl Process {
    /// Makes `calls` on the first thread that can be used and that `fits`.
    pub(crate) fn visit_where(
        &self,
        fits: impl Fn(&Process, &Standing) -> Result<(), TargetError>,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        // Looked for before the clock starts: no thread is held for it.
        self.gadgets()?;
        size_of_extended_state();
        let mut carried = |mut carrier: Carrier<'_>| {
            let result = calls(&mut carrier);
            let left = carrier.leave();
            result.and(left)
        };
        // The deputy begins where this program is, so that it need not go there.
        let likely = self.likely();
        let beside = likely.map(|tid| (First::beside(self.pid, tid), tid));
        let awake = beside
            .as_ref()
            .and_then(|(first, tid)| first.keep_awake(*tid));
        self.beside.set(likely);
        // Whoever was seen in a call that the kernel resumes may go on to another one before it
        // stands, so no thread is held by what somebody may kill.
        let visited = by_deputy_while(awake, || match self.hold_patient(&fits)? {
            Some(carrier) => carried(carrier),
            None => carried(self.hold(&fits)?),
        });
        self.beside.set(None);
        self.forget_maps();
        visited
    }

    fn thread(&self, tid: i32) -> Thread {
        let name = self.name_of(tid);
        Thread { tid, name }
    }

    /// The way back of a thread that `waits`, as far as it can be seen without stopping it; `None` if it
    /// has gone on.
    fn stack_of_waiting(&self, tid: i32, waits: &str, unwinder: &mut Unwinder) -> Option<Stack> {
        let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
        let mut last = waits.trim().rsplit(' ').map(hex);
        let (rip, rsp) = (last.next()??, last.next()??);
        let (frames, unknown) = unwinder.guess(&self.memory, rsp, rip);
        // It may have gone on while its stack was read.
        (self.waits_at(tid).as_deref() == Some(waits)).then(|| Stack {
            thread: self.thread(tid),
            frames,
            unknown,
            running: false,
            handlers: true,
        })
    }

    /// Link address and size of a section of a loaded image, from its file.
    pub(crate) fn section_of(&self, loaded: &Loaded, name: &str) -> Option<(u64, u64)> {
        let bytes = self.file_of(&self.maps().ok()?, loaded)?;
        let endian = object::LittleEndian;
        let header = elf::FileHeader64::<object::LittleEndian>::parse(&bytes[..]).ok()?;
        let table = header.sections(endian, &bytes[..]).ok()?;
        let (_, section) = table.section_by_name(endian, name.as_bytes())?;
        Some((section.sh_addr(endian), section.sh_size(endian)))
    }
}

/// The link address and the size of a symbol that is defined in an ELF file.
pub(crate) fn find_symbol(bytes: &[u8], wanted: &[u8]) -> Option<(u64, u64)> {
    let endian = object::LittleEndian;
    let header = elf::FileHeader64::<object::LittleEndian>::parse(bytes).ok()?;
    let table = header.sections(endian, bytes).ok()?;
    [elf::SHT_DYNSYM, elf::SHT_SYMTAB]
        .into_iter()
        .find_map(|kind| {
            let symbols = table.symbols(endian, bytes, kind).ok()?;
            symbols
                .iter()
                .find(|symbol| {
                    !symbol.is_undefined(endian)
                        && symbols.symbol_name(endian, symbol) == Ok(wanted)
                })
                .map(|symbol| (symbol.st_value(endian), symbol.st_size(endian)))
        })
}
