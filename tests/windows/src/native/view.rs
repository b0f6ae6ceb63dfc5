//! Pages that are seen twice: where they run, and where they are written.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use anyhow::{Result, bail};
use invivo_apply::Region;
use invivo_image::LiveAddr;

use super::PAGE;

/// What a page is for where the image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `r-x`.
    Code,
    /// `rw-`.
    Data,
    /// `r--`.
    Constant,
}

impl Access {
    /// The bits of `mmap`.
    #[must_use]
    pub fn bits(self) -> i32 {
        match self {
            Access::Code => libc::PROT_READ | libc::PROT_EXEC,
            Access::Data => libc::PROT_READ | libc::PROT_WRITE,
            Access::Constant => libc::PROT_READ,
        }
    }
}

/// Memory of a target. It is kept until the process ends: a thread may be inside.
#[derive(Debug)]
pub struct View {
    file: OwnedFd,
    at: u64,
    /// Where it is written.
    alias: *mut u8,
    pages: Vec<Access>,
}

// SAFETY: the two mappings stay, and all accesses through `alias` are plain copies of bytes, or
// stores of whole words, into memory to which nobody holds a reference.
unsafe impl Send for View {}
// SAFETY: as above; that bytes change while others read them is what is tested.
unsafe impl Sync for View {}

impl View {
    /// Memory in this process, where there is room.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(pages: &[Access]) -> Result<View> {
        let mut view = View::unmapped(pages, 0)?;
        let size = view.size();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing else.
        let room = unsafe { libc::mmap(null_mut(), size, libc::PROT_NONE, flags, -1, 0) };
        if room == libc::MAP_FAILED {
            bail!("no memory for the image");
        }
        view.at = room as u64;
        for (number, access) in (0_u64..).zip(&view.pages) {
            let offset = number * PAGE;
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            // SAFETY: the page lies in the room that was made just now, and nobody uses it yet.
            let page = unsafe {
                libc::mmap(
                    (view.at + offset) as *mut libc::c_void,
                    PAGE as usize,
                    access.bits(),
                    flags,
                    view.file.as_raw_fd(),
                    i64::try_from(offset)?,
                )
            };
            if page == libc::MAP_FAILED {
                bail!("page {number} cannot be mapped");
            }
        }
        Ok(view)
    }

    /// Memory that another process maps at `at`.
    ///
    /// # Errors
    /// When there is no room.
    pub fn unmapped(pages: &[Access], at: u64) -> Result<View> {
        let size = pages.len() * PAGE as usize;
        // SAFETY: the name is a text with an end, and nothing else is read.
        let raw = unsafe { libc::memfd_create(c"image".as_ptr(), 0) };
        if raw < 0 {
            bail!("no memory file");
        }
        // SAFETY: the number was given to us just now, and nobody else has it.
        let file = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: only the length of our own file is changed.
        if unsafe { libc::ftruncate(file.as_raw_fd(), i64::try_from(size)?) } != 0 {
            bail!("no room in the memory file");
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing else.
        let alias = unsafe {
            libc::mmap(
                null_mut(),
                size,
                access,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if alias == libc::MAP_FAILED {
            bail!("no memory for the image");
        }
        Ok(View {
            file,
            at,
            alias: alias.cast(),
            pages: pages.to_vec(),
        })
    }

    /// Where it is in the target.
    #[must_use]
    pub fn at(&self) -> LiveAddr {
        LiveAddr(self.at)
    }

    /// What each page is for.
    #[must_use]
    pub fn pages(&self) -> &[Access] {
        &self.pages
    }

    /// Its pages as a target tells them.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        let pages = (0_u64..).zip(&self.pages);
        let region = |(number, access): (u64, &Access)| {
            let start = self.at + number * PAGE;
            Region {
                range: LiveAddr(start)..LiveAddr(start + PAGE),
                executable: *access == Access::Code,
                writable: *access == Access::Data,
                file: None,
                offset: 0,
            }
        };
        pages.map(region).collect()
    }

    /// The number of its file, which a child process maps.
    #[must_use]
    pub fn file(&self) -> i32 {
        self.file.as_raw_fd()
    }

    fn size(&self) -> usize {
        self.pages.len() * PAGE as usize
    }

    fn place(&self, at: LiveAddr, size: usize) -> Option<*mut u8> {
        let offset = usize::try_from(at.0.checked_sub(self.at)?).ok()?;
        let end = offset.checked_add(size)?;
        // SAFETY: the offset lies in the mapping, as is checked here.
        (end <= self.size()).then(|| unsafe { self.alias.add(offset) })
    }

    /// Fills `bytes`; false if they are not all here.
    #[must_use]
    pub fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> bool {
        let Some(place) = self.place(at, bytes.len()) else {
            return false;
        };
        // SAFETY: the place has as many bytes, and `bytes` is no part of it.
        unsafe { std::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    /// Writes; false if not all of it is here.
    #[must_use]
    pub fn write(&self, at: LiveAddr, bytes: &[u8]) -> bool {
        let Some(place) = self.place(at, bytes.len()) else {
            return false;
        };
        // SAFETY: the place has room for all bytes, and they are no part of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        true
    }

    /// Writes 2, 4 or 8 bytes in one store; false if they are not here, or not in one word.
    #[must_use]
    pub fn store(&self, at: LiveAddr, bytes: &[u8]) -> bool {
        let inside = usize::try_from(at.0 % 8).unwrap_or(8);
        let word = LiveAddr(at.0 - at.0 % 8);
        if inside + bytes.len() > 8 || !matches!(bytes.len(), 2 | 4 | 8) {
            return false;
        }
        let Some(place) = self.place(word, 8) else {
            return false;
        };
        // SAFETY: the word is aligned (mappings begin at pages) and stays; others use it only
        // as instructions, or by loads of the processor.
        unsafe {
            match bytes.len() {
                2 if inside % 2 == 0 => {
                    let value = u16::from_ne_bytes([bytes[0], bytes[1]]);
                    AtomicU16::from_ptr(place.add(inside).cast()).store(value, Ordering::SeqCst);
                }
                4 if inside % 4 == 0 => {
                    let mut value = [0; 4];
                    value.copy_from_slice(bytes);
                    let value = u32::from_ne_bytes(value);
                    AtomicU32::from_ptr(place.add(inside).cast()).store(value, Ordering::SeqCst);
                }
                _ => {
                    let word = AtomicU64::from_ptr(place.cast());
                    let mut value = word.load(Ordering::SeqCst).to_ne_bytes();
                    value[inside..inside + bytes.len()].copy_from_slice(bytes);
                    word.store(u64::from_ne_bytes(value), Ordering::SeqCst);
                }
            }
        }
        true
    }

    /// The bytes of all pages that the image's own code cannot write.
    #[must_use]
    pub fn fixed_bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for (number, _) in (0_u64..)
            .zip(&self.pages)
            .filter(|(_, a)| **a != Access::Data)
        {
            let mut page = [0; PAGE as usize];
            assert!(self.read(LiveAddr(self.at + number * PAGE), &mut page));
            all.extend_from_slice(&page);
        }
        all
    }
}
