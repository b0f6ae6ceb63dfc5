//! Windows images mapped into this process, and their code run: x86-64 code that calls no
//! system needs no Windows.
//!
//! Behind each image is the room that Windows keeps for its address table: a page of code and a
//! page of pointers. Each page exists once and is seen twice: where the image is, as its
//! sections ask for, and in a view that is written through, as the kernel of Windows does it. So
//! no page is ever writable where it can run, and what is read-only there stays so.

mod process;
pub mod running;
mod stop;
mod view;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use invivo_apply::Loaded;
use invivo_image::pe::{BaseRelocationKind, PeImage};
use invivo_image::{LiveAddr, Rva};

pub use process::Here;
pub use stop::Enlisted;
pub use view::{Access, View};

/// Bytes of a page.
pub const PAGE: u64 = 0x1000;

/// Bytes of the address table: a page of jumps, a page of pointers.
pub const TABLE: u64 = 2 * PAGE;

/// An exported `int f(int)`.
pub type Function = extern "win64" fn(i32) -> i32;

/// An image in memory.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// What the engines are told of it.
    pub loaded: Loaded,
    view: Arc<View>,
}

impl Mapped {
    /// Maps the image where there is room in the target, with the protection that its sections
    /// ask for.
    ///
    /// # Errors
    /// When it imports something, or has relocations of an unknown kind.
    pub fn new(here: &Here, image: PeImage) -> Result<Mapped> {
        if !image.imports.is_empty() {
            bail!("it imports {}", image.imports[0].name);
        }
        let size = u64::from(image.size).next_multiple_of(PAGE);
        let access = |page: u64| match image.section_at(Rva(page)) {
            _ if page == size => Access::Code,
            Some(section) if section.is_executable() => Access::Code,
            Some(section) if section.is_writable() => Access::Data,
            _ => Access::Constant,
        };
        let pages = (0..size + TABLE).step_by(PAGE as usize).map(access);
        let view = View::new(&pages.collect::<Vec<_>>())?;
        fill(&view, &image)?;
        relocate(&view, &image)?;
        let view = Arc::new(view);
        here.add(Arc::clone(&view));
        let loaded = Loaded {
            at: view.at(),
            reserve: TABLE,
            table: None,
            image: Arc::new(image),
        };
        Ok(Mapped { loaded, view })
    }

    /// Bytes of the running image.
    ///
    /// # Errors
    /// When they are not in it.
    pub fn read<const N: usize>(&self, at: Rva) -> Result<[u8; N]> {
        let mut found = [0; N];
        let at = LiveAddr(self.loaded.at.0 + at.0);
        if !self.view.read(at, &mut found) {
            bail!("{at} is not in the mapping");
        }
        Ok(found)
    }

    /// All its bytes that cannot be written by its own code: headers, code, constants, the
    /// address table.
    #[must_use]
    pub fn fixed_bytes(&self) -> Vec<u8> {
        self.view.fixed_bytes()
    }

    /// An exported `int f(int)`.
    ///
    /// # Errors
    /// When it exports no such function.
    pub fn function(&self, name: &str) -> Result<Function> {
        let image = &self.loaded.image;
        let mut exports = image.exports.iter();
        let export = exports.find(|export| export.names.iter().any(|known| known == name));
        let at = export
            .and_then(|export| export.at)
            .context("no such export")?;
        let code = image
            .section_at(at)
            .is_some_and(|section| section.is_executable());
        if !code {
            bail!("{name} is no function");
        }
        let address = self.loaded.at.0 + at.0;
        // SAFETY: the address is the start of a function of this mapped image, which was compiled
        // for the calling convention of Windows; the fixtures' functions take one `int` at most
        // and use no Windows. The mapping is never taken away.
        Ok(unsafe { std::mem::transmute::<*const (), Function>(address as *const ()) })
    }

    /// Calls an exported `int f(int)`.
    ///
    /// # Errors
    /// When it exports no such function.
    pub fn call(&self, name: &str, argument: i32) -> Result<i32> {
        Ok(self.function(name)?(argument))
    }
}

/// Writes headers and sections as the loader maps them.
pub(crate) fn fill(view: &View, image: &PeImage) -> Result<()> {
    let put = |at: Rva, bytes: &[u8]| {
        let at = LiveAddr(view.at().0 + at.0);
        if view.write(at, bytes) {
            Ok(())
        } else {
            bail!("{at} is not in the mapping")
        }
    };
    put(Rva(0), &image.file()[..image.headers_size as usize])?;
    for section in &image.sections {
        let size = section
            .file_size()
            .min(section.range.end.0 - section.range.start.0);
        let bytes = image.bytes(section.range.start, size);
        put(section.range.start, bytes.context("a section")?)?;
    }
    Ok(())
}

/// Adds to each address how far the image is from where it was linked.
pub(crate) fn relocate(view: &View, image: &PeImage) -> Result<()> {
    let moved = view.at().0.wrapping_sub(image.image_base);
    for relocation in &image.relocations {
        let at = LiveAddr(view.at().0 + relocation.at.0);
        let width = match relocation.kind {
            BaseRelocationKind::Address64 => 8,
            BaseRelocationKind::Address32 => 4,
            _ => bail!("relocation {relocation:?}"),
        };
        let mut word = [0; 8];
        let known = view.read(at, &mut word[..width]);
        let value = u64::from_le_bytes(word).wrapping_add(moved);
        if !known || !view.write(at, &value.to_le_bytes()[..width]) {
            bail!("{at} is not in the mapping");
        }
    }
    Ok(())
}
