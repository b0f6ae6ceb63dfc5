//! A process of 32 bits as a target: x86 images run in it, and this process fills and changes
//! their pages through views of its own. It needs no 32-bit system: the program
//! (`programs/narrow/helper.c`) brings all that it needs.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use invivo_apply::{Loaded, Stack, TargetError, Thread};
use invivo_image::pe::PeImage;
use invivo_image::{LiveAddr, Rva};

use crate::native::{Access, PAGE, TABLE, View, fill, relocate};

pub mod running;
mod target;

/// Words of the mailbox; see `programs/narrow/helper.c`.
mod word {
    pub(super) const COMMAND: u64 = 0;
    pub(super) const ANSWER: u64 = 4;
    pub(super) const FUNCTION: u64 = 8;
    pub(super) const ARGUMENT: u64 = 12;
    pub(super) const RESULT: u64 = 16;
    pub(super) const KNOWN: u64 = 20;
    pub(super) const END: u64 = 36;
    pub(super) const WRONG: u64 = 40;
    pub(super) const CALLS: u64 = 44;
    pub(super) const RUNNING: u64 = 48;
    pub(super) const VIEWS: u64 = 52;
    pub(super) const VIEW: u64 = 56;
    /// Bytes of what is told of a view.
    pub(super) const VIEW_SIZE: u64 = 12 + 64;
}

const MAP: u32 = 1;
const CALL: u32 = 2;
const START: u32 = 3;
const EXIT: u32 = 4;

/// Answers that threads know.
const KNOWN: usize = 4;

/// Threads that call a function.
pub const THREADS: u32 = 4;

/// Where the mailbox is in the process.
const MAILBOX: u64 = 0x1000_0000;

/// The process.
#[derive(Debug)]
pub struct Narrow {
    child: Child,
    mailbox: View,
    views: Vec<View>,
}

impl Narrow {
    /// Starts `program` with these images, each at its place.
    ///
    /// # Errors
    /// When it cannot be started, or an image cannot be mapped.
    pub fn start(program: &Path, images: &[(PeImage, u64)]) -> Result<(Narrow, Vec<Loaded>)> {
        let mailbox = View::unmapped(&[Access::Data], MAILBOX)?;
        let (mut views, mut loaded) = (Vec::new(), Vec::new());
        for (image, at) in images {
            let size = u64::from(image.size).next_multiple_of(PAGE);
            let access = |page: u64| match image.section_at(Rva(page)) {
                // Behind it the address table: jumps, and what they read.
                _ if page == size => Access::Code,
                _ if page > size => Access::Data,
                Some(section) if section.is_executable() => Access::Code,
                Some(section) if section.is_writable() => Access::Data,
                _ => Access::Constant,
            };
            let pages = (0..size + TABLE).step_by(PAGE as usize).map(access);
            let pages: Vec<Access> = pages.collect();
            let view = View::unmapped(&pages, *at)?;
            fill(&view, image)?;
            relocate(&view, image)?;
            views.push(view);
            loaded.push(Loaded {
                at: LiveAddr(*at),
                reserve: TABLE,
                table: None,
                image: Arc::new(image.clone()),
            });
        }
        let child = Command::new(program)
            .arg(mailbox.file().to_string())
            .spawn()
            .context("the process of 32 bits does not start")?;
        let narrow = Narrow {
            child,
            mailbox,
            views,
        };
        narrow.set(word::VIEWS, u32::try_from(narrow.views.len())?);
        for (number, view) in (0_u64..).zip(&narrow.views) {
            let at = word::VIEW + number * word::VIEW_SIZE;
            narrow.set(at, u32::try_from(view.file())?);
            narrow.set(at + 4, u32::try_from(view.at().0)?);
            narrow.set(at + 8, u32::try_from(view.pages().len())?);
            for (page, access) in (0_u64..).zip(view.pages()) {
                let bits = u8::try_from(access.bits())?;
                let place = LiveAddr(MAILBOX + at + 12 + page);
                if !narrow.mailbox.write(place, &[bits]) {
                    bail!("the image has too many pages");
                }
            }
        }
        narrow.command(MAP)?;
        if narrow.get(word::ANSWER) != 0 {
            bail!("an image cannot be mapped where it should be");
        }
        Ok((narrow, loaded))
    }

    fn set(&self, at: u64, value: u32) {
        let done = self
            .mailbox
            .store(LiveAddr(MAILBOX + at), &value.to_le_bytes());
        assert!(done, "a word of the mailbox");
    }

    fn get(&self, at: u64) -> u32 {
        let mut word = [0; 4];
        assert!(self.mailbox.read(LiveAddr(MAILBOX + at), &mut word));
        u32::from_le_bytes(word)
    }

    fn command(&self, command: u32) -> Result<()> {
        self.set(word::COMMAND, command);
        let end = Instant::now() + Duration::from_secs(60);
        while self.get(word::COMMAND) != 0 {
            if Instant::now() > end {
                bail!("the process of 32 bits does not answer");
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Calls an `int f(int)` in it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn call(&self, function: LiveAddr, argument: u32) -> Result<u32> {
        self.set(word::FUNCTION, u32::try_from(function.0)?);
        self.set(word::ARGUMENT, argument);
        self.command(CALL)?;
        Ok(self.get(word::RESULT))
    }

    /// Lets threads call a function without a pause; answers that are not `known`, four of them at most,
    /// are wrong.
    ///
    /// # Errors
    /// When it does not answer, or there is no room for what is known.
    pub fn begin<const N: usize>(
        &self,
        function: LiveAddr,
        argument: u32,
        known: [u32; N],
    ) -> Result<()> {
        if !(1..=KNOWN).contains(&N) {
            bail!("{N} answers are not to be told");
        }
        self.set(word::FUNCTION, u32::try_from(function.0)?);
        self.set(word::ARGUMENT, argument);
        let places = (0_u64..).zip(known.iter().cycle().take(KNOWN));
        for (number, value) in places {
            self.set(word::KNOWN + 4 * number, *value);
        }
        for place in [word::END, word::WRONG, word::CALLS] {
            self.set(place, 0);
        }
        self.command(START)?;
        while self.get(word::RUNNING) < THREADS {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Ends them; gives the number of calls, and of wrong answers.
    #[must_use]
    pub fn end(&self) -> (u32, u32) {
        self.set(word::END, 1);
        while self.get(word::RUNNING) > 0 {
            std::thread::yield_now();
        }
        (self.get(word::CALLS), self.get(word::WRONG))
    }

    /// The bytes of an image that its own code cannot write.
    #[must_use]
    pub fn fixed_bytes(&self, image: usize) -> Vec<u8> {
        self.views[image].fixed_bytes()
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child of our own that was not waited for yet.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// All its threads, each with where it stands; none is left out.
    fn threads(&self) -> Result<Vec<Stack>, TargetError> {
        let failed = |what: &str, source| TargetError::System {
            what: what.to_owned(),
            source,
        };
        let folder = format!("/proc/{}/task", self.pid());
        let entries = std::fs::read_dir(&folder).map_err(|e| failed("its threads", e))?;
        let mut stacks = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| failed("its threads", e))?.file_name();
            let tid = name.to_string_lossy().parse().unwrap_or(0);
            let place = format!("{folder}/{tid}/syscall");
            // A thread that has not stopped yet says `running`.
            let at = loop {
                let text = std::fs::read_to_string(&place).map_err(|e| failed("a thread", e))?;
                let last = text
                    .trim()
                    .rsplit(' ')
                    .next()
                    .and_then(|at| at.strip_prefix("0x"));
                if let Some(at) = last.and_then(|at| u64::from_str_radix(at, 16).ok()) {
                    break at;
                }
                std::thread::yield_now();
            };
            stacks.push(Stack {
                thread: Thread {
                    tid,
                    name: "caller".to_owned(),
                },
                frames: vec![LiveAddr(at)],
                unknown: Some("only the innermost place is looked at".to_owned()),
                running: true,
                handlers: false,
            });
        }
        Ok(stacks)
    }

    fn any(&self, mut done: impl FnMut(&View) -> bool) -> bool {
        self.views.iter().any(&mut done)
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        self.set(word::COMMAND, EXIT);
        // It may stand, or run old code for ever; it is ours.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
