//! A process of Windows in memory: a loader that counts, memory that is reserved and given back, files,
//! and a number of steps after which the tool that changes it is dead.
#![allow(dead_code, reason = "each program of tests uses a part of it")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use invivo_apply::hpat::{Host, HostImage};
use invivo_apply::{Module, Protection, Region, Stack, Stopped, Target, TargetError, Thread};
use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

const PAGE: u64 = 0x1000;

type Done<T = ()> = Result<T, TargetError>;

#[derive(Clone, Debug)]
struct Page {
    bytes: Rc<Vec<u8>>,
    executable: bool,
    writable: bool,
}

#[derive(Clone, Debug)]
struct Known {
    image: HostImage,
    count: u32,
}

/// The process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pages: BTreeMap<u64, Page>,
    loaded: Vec<Known>,
    reserved: BTreeMap<u64, u64>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// True if none of them may be read but patches.
    pub(crate) locked: bool,
    /// Steps that its tool still makes; none: any number.
    pub(crate) steps: Option<usize>,
    /// Where a thread is whenever it is looked at.
    pub(crate) inside: Option<LiveAddr>,
    /// Calls that gave something back which was not there.
    pub(crate) given_back_twice: RefCell<Vec<String>>,
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

impl Process {
    fn step(&mut self) -> Done {
        match &mut self.steps {
            Some(0) => Err(TargetError::NotNow("the tool is dead".to_owned())),
            Some(steps) => {
                *steps -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Lets the program load a file itself.
    pub(crate) fn load_image(&mut self, path: &str) -> LiveAddr {
        if let Some(known) = self.loaded.iter_mut().find(|one| one.image.path == path) {
            known.count += 1;
            return known.image.range.start;
        }
        let file = self.files.get(path).expect("the file").clone();
        let image = PeImage::parse(Arc::from(file)).expect("a Windows image");
        let mut at = image.image_base;
        let size = u64::from(image.size).next_multiple_of(PAGE);
        while (at..at + size)
            .step_by(PAGE as usize)
            .any(|page| self.pages.contains_key(&page))
        {
            at += 0x100_0000;
        }
        for page in (0..size).step_by(PAGE as usize) {
            let section = image.section_at(invivo_image::Rva(page));
            let mut bytes = vec![0; PAGE as usize];
            if page == 0 {
                let head = &image.file()[..image.headers_size as usize];
                bytes[..head.len()].copy_from_slice(head);
            } else if let Some(all) = image.array::<0x1000>(invivo_image::Rva(page)) {
                bytes.copy_from_slice(&all);
            }
            let made = Page {
                bytes: Rc::new(bytes),
                executable: section.is_some_and(|section| section.is_executable()),
                writable: section.is_some_and(|section| section.is_writable()),
            };
            self.pages.insert(at + page, made);
        }
        self.loaded.push(Known {
            image: HostImage {
                path: path.to_owned(),
                range: LiveAddr(at)..LiveAddr(at + size),
            },
            count: 1,
        });
        LiveAddr(at)
    }

    /// Lets the program give it back.
    pub(crate) fn free_image(&mut self, at: LiveAddr) -> bool {
        let found = self
            .loaded
            .iter()
            .position(|one| one.image.range.start == at);
        let Some(place) = found else {
            return false;
        };
        self.loaded[place].count -= 1;
        if self.loaded[place].count == 0 {
            let range = self.loaded.remove(place).image.range;
            self.pages
                .retain(|page, _| !range.contains(&LiveAddr(*page)));
        }
        true
    }

    /// Takes a page away that nobody can read any more.
    pub(crate) fn take_away(&mut self, at: LiveAddr) {
        assert!(self.pages.remove(&at.0).is_some(), "a page is at {at}");
    }

    /// Paths of what is loaded, with how often.
    pub(crate) fn loaded(&self) -> Vec<(String, u32)> {
        let all = self.loaded.iter();
        all.map(|one| (one.image.path.clone(), one.count)).collect()
    }

    /// How many pieces of memory are reserved.
    pub(crate) fn reservations(&self) -> usize {
        self.reserved.len()
    }

    /// Pages that can be written and executed.
    pub(crate) fn open_pages(&self) -> Vec<u64> {
        let open = self
            .pages
            .iter()
            .filter(|(_, page)| page.writable && page.executable);
        open.map(|(at, _)| *at).collect()
    }

    /// All bytes of an image.
    pub(crate) fn bytes_of(&self, at: LiveAddr) -> Vec<u8> {
        let image = self.loaded.iter().find(|one| one.image.range.start == at);
        let range = image.expect("it is loaded").image.range.clone();
        let mut bytes = vec![0; usize::try_from(range.end.0 - range.start.0).expect("small")];
        self.read(at, &mut bytes).expect("its memory");
        bytes
    }

    fn put(&mut self, at: LiveAddr, bytes: &[u8]) -> Done {
        let mut done = 0;
        while done < bytes.len() {
            let (page, offset, size) = part(at, done, bytes.len());
            let page = self.pages.get_mut(&page);
            let page = page.ok_or_else(|| missing("write", at, bytes.len()))?;
            let page = Rc::make_mut(&mut page.bytes);
            page[offset..offset + size].copy_from_slice(&bytes[done..done + size]);
            done += size;
        }
        Ok(())
    }
}

/// The page of what lies `done` bytes behind `at`, where in it that is, and how many of `all` bytes are
/// in it from there on.
fn part(at: LiveAddr, done: usize, all: usize) -> (u64, usize, usize) {
    let at = at.0 + done as u64;
    let offset = (at % PAGE) as usize;
    (
        at - at % PAGE,
        offset,
        (all - done).min(PAGE as usize - offset),
    )
}

impl Target for Process {
    fn describe(&self) -> String {
        "a process in memory".to_owned()
    }

    fn modules(&self) -> Done<Vec<Module>> {
        Ok(Vec::new())
    }

    fn importers(&self, _: &Module, _: &str) -> Done<Vec<String>> {
        Ok(Vec::new())
    }

    fn regions(&self) -> Done<Vec<Region>> {
        let region = |(at, page): (&u64, &Page)| Region {
            range: LiveAddr(*at)..LiveAddr(at + PAGE),
            executable: page.executable,
            writable: page.writable,
            file: None,
            offset: 0,
        };
        Ok(self.pages.iter().map(region).collect())
    }

    fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Done {
        let (mut done, all) = (0, bytes.len());
        while done < all {
            let (page, offset, size) = part(at, done, all);
            let page = self.pages.get(&page);
            let page = page.ok_or_else(|| missing("read", at, all))?;
            bytes[done..done + size].copy_from_slice(&page.bytes[offset..offset + size]);
            done += size;
        }
        Ok(())
    }

    /// A tool that dies while it writes has written half, and left open what it had opened.
    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Done {
        if self.steps == Some(1) {
            self.put(at, &bytes[..bytes.len() / 2])?;
            let first = at.0 & !(PAGE - 1);
            let range = first..at.0 + bytes.len() as u64;
            for (_, page) in self.pages.range_mut(range) {
                page.writable = true;
            }
            self.steps = Some(0);
        }
        self.step()?;
        self.put(at, bytes)
    }

    fn store(&mut self, at: LiveAddr, bytes: &[u8]) -> Done {
        self.step()?;
        self.put(at, bytes)
    }

    fn original(&self, _: Range<LiveAddr>) -> Done<Option<Vec<u8>>> {
        Ok(None)
    }

    fn stop(
        &mut self,
        _: &[i32],
        during: &mut dyn FnMut(&mut dyn Stopped) -> Done,
    ) -> Done<Duration> {
        // A look at a thread that is in the way is made again and again, and changes nothing.
        if self.inside.is_none() || self.steps == Some(0) {
            self.step()?;
        }
        during(self).map(|()| Duration::ZERO)
    }

    fn glimpse(&self) -> Done<Vec<Stack>> {
        Ok(Vec::new())
    }

    fn unwind_registrar(&self) -> Done<Option<LiveAddr>> {
        Ok(None)
    }
}

impl Stopped for Process {
    fn stacks(&mut self) -> Done<Vec<Stack>> {
        let stack = |at| Stack {
            thread: Thread {
                tid: 1,
                name: String::new(),
            },
            frames: vec![at],
            unknown: None,
            running: true,
            handlers: false,
        };
        Ok(self.inside.into_iter().map(stack).collect())
    }

    fn finds(&mut self, range: &Range<LiveAddr>) -> Done<Option<String>> {
        let inside = self.inside.filter(|at| range.contains(at));
        Ok(inside.map(|at| format!("a thread is at {at}")))
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Done {
        Target::write(self, at, bytes)
    }
}

impl Host for Process {
    fn images(&self) -> Done<Vec<HostImage>> {
        Ok(self.loaded.iter().map(|one| one.image.clone()).collect())
    }

    fn file(&self, path: &str) -> Done<Vec<u8>> {
        let locked = self.locked && !path.contains("patch");
        let file = self.files.get(path).filter(|_| !locked).cloned();
        let why = match locked {
            true => ErrorKind::PermissionDenied,
            false => ErrorKind::NotFound,
        };
        file.ok_or_else(|| TargetError::System {
            what: format!("read {path}"),
            source: why.into(),
        })
    }

    fn load(&mut self, path: &str) -> Done<LiveAddr> {
        self.step()?;
        self.file(path)?;
        Ok(self.load_image(path))
    }

    fn load_whole(&mut self, path: &str) -> Done<LiveAddr> {
        self.load(path)
    }

    fn unload(&mut self, at: LiveAddr) -> Done {
        self.step()?;
        if self.free_image(at) {
            return Ok(());
        }
        let twice = format!("unload {at}");
        self.given_back_twice.borrow_mut().push(twice.clone());
        Err(TargetError::System {
            what: twice,
            source: ErrorKind::NotFound.into(),
        })
    }

    fn reserve(&mut self, near: Option<&Range<LiveAddr>>, size: u64) -> Done<LiveAddr> {
        self.step()?;
        let mut at = near
            .map_or(0x10_0000_0000, |near| near.end.0)
            .next_multiple_of(0x1_0000);
        let size = size.next_multiple_of(PAGE);
        while (at..at + size)
            .step_by(PAGE as usize)
            .any(|page| self.pages.contains_key(&page))
        {
            at += 0x1_0000;
        }
        for page in (at..at + size).step_by(PAGE as usize) {
            let made = Page {
                bytes: Rc::new(vec![0; PAGE as usize]),
                executable: false,
                writable: true,
            };
            self.pages.insert(page, made);
        }
        self.reserved.insert(at, size);
        Ok(LiveAddr(at))
    }

    fn release(&mut self, at: LiveAddr) -> Done {
        self.step()?;
        let Some(size) = self.reserved.remove(&at.0) else {
            let twice = format!("release {at}");
            self.given_back_twice.borrow_mut().push(twice.clone());
            return Err(TargetError::System {
                what: twice,
                source: ErrorKind::NotFound.into(),
            });
        };
        self.pages
            .retain(|page, _| !(at.0..at.0 + size).contains(page));
        Ok(())
    }

    fn protect(&mut self, range: Range<LiveAddr>, protection: Protection) -> Done {
        self.step()?;
        let executable = protection == Protection::ReadExecute;
        for (_, page) in self.pages.range_mut(range.start.0..range.end.0) {
            page.executable = executable;
            page.writable = !executable;
        }
        Ok(())
    }

    fn reserved(&self) -> Done<Vec<LiveAddr>> {
        Ok(self.reserved.keys().copied().map(LiveAddr).collect())
    }
}
