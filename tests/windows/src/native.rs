//! A Windows image mapped into this process, and its code run: x86-64 code
//! that calls no system needs no Windows.
//!
//! Behind the image is the room that Windows keeps for its address table: a
//! page of code and a page of pointers.

use std::ffi::c_void;

use anyhow::{Context, Result, bail};
use invivo_image::Rva;
use invivo_image::pe::{BaseRelocationKind, PeImage};

const PAGE: usize = 0x1000;

/// Bytes of the address table: a page of jumps, a page of pointers.
pub const TABLE: usize = 2 * PAGE;

/// An image in memory.
#[derive(Debug)]
pub struct Mapped {
    start: *mut u8,
    length: usize,
    /// The image that it was made from.
    pub image: PeImage,
}

impl Mapped {
    /// Maps the image where there is room, with the protection that its sections ask for.
    ///
    /// # Errors
    /// When it imports something, or has relocations of an unknown kind.
    pub fn new(image: PeImage) -> Result<Mapped> {
        if !image.imports.is_empty() {
            bail!("it imports {}", image.imports[0].name);
        }
        let size = usize::try_from(image.size)?.next_multiple_of(PAGE);
        let length = size + TABLE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing else.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            bail!("no memory for the image");
        }
        let mapped = Mapped {
            start: start.cast(),
            length,
            image,
        };
        mapped.fill()?;
        mapped.relocate()?;
        mapped.protect(size)?;
        Ok(mapped)
    }

    fn fill(&self) -> Result<()> {
        for section in &self.image.sections {
            let size = section
                .file_size()
                .min(section.range.end.0 - section.range.start.0);
            let bytes = self.image.bytes(section.range.start, size);
            self.write_raw(section.range.start, bytes.context("a section")?)?;
        }
        Ok(())
    }

    fn relocate(&self) -> Result<()> {
        for relocation in &self.image.relocations {
            if relocation.kind != BaseRelocationKind::Address64 {
                bail!("relocation {relocation:?}");
            }
            let value = u64::from_le_bytes(self.read(relocation.at)?);
            let moved = value
                .wrapping_sub(self.image.image_base)
                .wrapping_add(self.start as u64);
            self.write_raw(relocation.at, &moved.to_le_bytes())?;
        }
        Ok(())
    }

    fn protect(&self, size: usize) -> Result<()> {
        for section in &self.image.sections {
            let mut access = libc::PROT_READ;
            if section.is_writable() {
                access |= libc::PROT_WRITE;
            }
            if section.is_executable() {
                access |= libc::PROT_EXEC;
            }
            let start = usize::try_from(section.range.start.0)?;
            let end = usize::try_from(section.range.end.0)?.next_multiple_of(PAGE);
            self.access(start, end - start, access)?;
        }
        self.access(size, PAGE, libc::PROT_READ | libc::PROT_EXEC)
    }

    fn access(&self, at: usize, size: usize, access: i32) -> Result<()> {
        if at.checked_add(size).is_none_or(|end| end > self.length) {
            bail!("{at:#x} is not in the mapping");
        }
        // SAFETY: the range lies in this mapping, as was just checked, and nobody holds a
        // reference into it.
        let done = unsafe { libc::mprotect(self.start.add(at).cast::<c_void>(), size, access) };
        if done != 0 {
            bail!("the protection of {at:#x} cannot be changed");
        }
        Ok(())
    }

    fn place(&self, at: Rva, size: usize) -> Result<*mut u8> {
        let offset = usize::try_from(at.0)?;
        if offset.checked_add(size).is_none_or(|end| end > self.length) {
            bail!("{at} is not in the mapping");
        }
        // SAFETY: the offset lies in this mapping, as was just checked.
        Ok(unsafe { self.start.add(offset) })
    }

    fn write_raw(&self, at: Rva, bytes: &[u8]) -> Result<()> {
        let place = self.place(at, bytes.len())?;
        // SAFETY: the place has room for all bytes, and they cannot overlap it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }

    /// Bytes of the running image.
    ///
    /// # Errors
    /// When they are not in it.
    pub fn read<const N: usize>(&self, at: Rva) -> Result<[u8; N]> {
        let place = self.place(at, N)?;
        // SAFETY: the place holds as many bytes, and any bytes are an array of bytes.
        Ok(unsafe { place.cast::<[u8; N]>().read_unaligned() })
    }

    /// Writes bytes, whatever protects them; what they were protected with is put back, and
    /// they are never writable and executable.
    ///
    /// # Errors
    /// When they are not in it.
    pub fn write(&self, at: Rva, bytes: &[u8]) -> Result<()> {
        let start = usize::try_from(at.0)? & !(PAGE - 1);
        let end = (usize::try_from(at.0)? + bytes.len()).next_multiple_of(PAGE);
        self.access(start, end - start, libc::PROT_READ | libc::PROT_WRITE)?;
        self.write_raw(at, bytes)?;
        let table = usize::try_from(self.image.size)?.next_multiple_of(PAGE);
        let section = self.image.section_at(at);
        let executable = section.map_or(start == table, |section| section.is_executable());
        let writable = section.map_or(start != table, |section| section.is_writable());
        let mut access = libc::PROT_READ;
        if executable {
            access |= libc::PROT_EXEC;
        } else if writable {
            access |= libc::PROT_WRITE;
        }
        self.access(start, end - start, access)
    }

    /// The address of a place.
    #[must_use]
    pub fn address(&self, at: Rva) -> u64 {
        (self.start as u64).wrapping_add(at.0)
    }

    /// Where the address table begins.
    #[must_use]
    pub fn table(&self) -> Rva {
        Rva(u64::from(self.image.size).next_multiple_of(PAGE as u64))
    }

    /// All bytes of its code.
    ///
    /// # Errors
    /// When the image has no code.
    pub fn code(&self) -> Result<Vec<u8>> {
        let section = self
            .image
            .sections
            .iter()
            .find(|section| section.is_executable());
        let section = section.context("no code")?;
        let size = section.range.end.0 - section.range.start.0;
        let places = (0..size).map(|offset| Rva(section.range.start.0 + offset));
        places
            .map(|at| self.read::<1>(at).map(|byte| byte[0]))
            .collect()
    }

    /// Calls an exported `int f(int)`.
    ///
    /// # Errors
    /// When it exports no such function.
    pub fn call(&self, name: &str, argument: i32) -> Result<i32> {
        let mut exports = self.image.exports.iter();
        let export = exports.find(|export| export.names.iter().any(|known| known == name));
        let at = export
            .and_then(|export| export.at)
            .context("no such export")?;
        let code = self
            .image
            .section_at(at)
            .is_some_and(|section| section.is_executable());
        if !code {
            bail!("{name} is no function");
        }
        let place = self.place(at, 1)?;
        // SAFETY: the place is the start of a function of this mapped image, which was compiled
        // for the calling convention of Windows; the fixtures' functions take one `int` at most
        // and use no Windows.
        let function: extern "win64" fn(i32) -> i32 = unsafe { std::mem::transmute(place) };
        Ok(function(argument))
    }
}
