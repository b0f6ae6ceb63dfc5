//! The seam: what a place must offer so that a patch can be made true in it.
//!
//! A live process, an image in memory and a test's double implement it, so every
//! decision of this crate can be tested without a process.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use invivo_image::LiveAddr;
use invivo_patch::ImportVersion;

/// Why the target did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// There is no such process (any more), or it executed another program meanwhile.
    #[error("process {0} does not exist, or became another program")]
    Gone(i32),
    /// The system does not let us.
    #[error("not permitted to {what}")]
    NotPermitted {
        /// The step.
        what: String,
    },
    /// It takes a right that an ordinary user does not have, whoever owns the target.
    #[error("not permitted to {what}")]
    NotCapable {
        /// The step.
        what: String,
        /// The right, such as `CAP_SYS_ADMIN`.
        capability: &'static str,
    },
    /// Another program traces it.
    #[error("process {pid} is already traced by process {tracer}")]
    Traced {
        /// The target.
        pid: i32,
        /// The other program.
        tracer: i32,
    },
    /// It cannot be done at the moment.
    #[error("{0}")]
    NotNow(String),
    /// Not all of its threads came to stand in time. Those that did run again.
    #[error("{text}")]
    Late {
        /// Which did not.
        text: String,
        /// How long the others stood for that.
        stood: Duration,
    },
    /// A call that a thread of the target makes for us has not returned in time. It may
    /// still be made, so nothing that depends on it may be undone now.
    #[error("{0}")]
    Unfinished(String),
    /// It is of a kind that is not handled.
    #[error("{0}")]
    Unsupported(String),
    /// Memory of the target could not be read or written.
    #[error("cannot {action} {size} bytes at {at}: {source}")]
    Memory {
        /// `read` or `write`.
        action: &'static str,
        /// Where.
        at: LiveAddr,
        /// How many.
        size: usize,
        /// What the system says.
        source: std::io::Error,
    },
    /// A call to the system failed.
    #[error("{what}: {source}")]
    System {
        /// The call and what it was for.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// An image that is loaded in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// `NT_GNU_BUILD_ID`.
    pub build_id: Vec<u8>,
    /// Where its relative address 0 is.
    pub start: LiveAddr,
    /// First byte behind it.
    pub end: LiveAddr,
    /// The file's name when it was loaded.
    pub path: String,
}

/// What may be done with memory. There is no writable and executable memory here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// `r-x`.
    ReadExecute,
    /// `rw-`.
    ReadWrite,
}

/// A range of the target's address space that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where.
    pub range: Range<LiveAddr>,
    /// True if code may run there.
    pub executable: bool,
    /// True if it may be written.
    pub writable: bool,
    /// The file that it shows, if any.
    pub file: Option<String>,
    /// From which byte of the file on.
    pub offset: u64,
}

/// A thread of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub tid: i32,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "thread {}", self.tid),
            name => write!(f, "thread {} ({name})", self.tid),
        }
    }
}

/// A stopped thread's way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Whose.
    pub thread: Thread,
    /// Where it is, and where it will return to, innermost first.
    pub frames: Vec<LiveAddr>,
    /// `None` if every frame is proved; otherwise why the rest is not known.
    pub unknown: Option<String>,
    /// True if it runs, so that it is soon elsewhere; false if it waits in a system call.
    pub running: bool,
    /// True if a signal handler may have interrupted code further down. Without one,
    /// the innermost place is the only one that is not behind a call.
    pub handlers: bool,
}

/// A place in which a patch can be made true.
pub trait Target {
    /// What it is, for a person: `process 1234 (redis-server)`.
    fn describe(&self) -> String;

    /// Loaded images that have a build id.
    ///
    /// # Errors
    /// When the target is gone or may not be looked at.
    fn modules(&self) -> Result<Vec<Module>, TargetError>;

    /// True if the image with this build id is loaded, with its relative address 0 at `start`.
    ///
    /// # Errors
    /// When the target is gone or may not be looked at.
    fn has_loaded(&self, start: LiveAddr, build_id: &[u8]) -> Result<bool, TargetError> {
        let modules = self.modules()?;
        let mut at = modules.iter().filter(|module| module.start == start);
        Ok(at.any(|module| module.build_id == build_id))
    }

    /// Other images than `module` that import `symbol`, or that cannot be asked.
    ///
    /// # Errors
    /// When the target is gone or may not be looked at.
    fn importers(&self, module: &Module, symbol: &str) -> Result<Vec<String>, TargetError>;

    /// Where the loader would find each of `imports` for `module`; or, for a person, why
    /// that is not known: `which no library has`.
    ///
    /// # Errors
    /// When the target is gone or may not be looked at.
    fn look_up(
        &self,
        module: &Module,
        imports: &[(&str, Option<&ImportVersion>)],
    ) -> Result<Vec<Result<LiveAddr, String>>, TargetError> {
        let _ = (module, imports);
        makes_no_calls()
    }

    /// Address space in use, in order.
    ///
    /// # Errors
    /// When the target is gone or may not be looked at.
    fn regions(&self) -> Result<Vec<Region>, TargetError>;

    /// What is at one address, if anything is. Who can ask for it alone does.
    ///
    /// # Errors
    /// When the target is gone or may not be looked at.
    fn region_at(&self, at: LiveAddr) -> Result<Option<Region>, TargetError> {
        let mut regions = self.regions()?.into_iter();
        Ok(regions.find(|region| region.range.contains(&at)))
    }

    /// Fills `bytes` from the target.
    ///
    /// # Errors
    /// When not all of it can be read.
    fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError>;

    /// True if exactly `bytes` are at `at`.
    ///
    /// # Errors
    /// When not all of them can be read.
    fn holds(&self, at: LiveAddr, bytes: &[u8]) -> Result<bool, TargetError> {
        let mut now = vec![0; bytes.len()];
        self.read(at, &mut now)?;
        Ok(now == bytes)
    }

    /// Writes, also where the target itself may not.
    ///
    /// # Errors
    /// When not all of it can be written.
    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError>;

    /// Writes 2, 4 or 8 bytes that lie in one aligned word of 8 bytes in one store, which every
    /// thread sees as a whole, in code as well; all that was written before is seen before it.
    ///
    /// # Errors
    /// When they cannot be written, or the target has no such store.
    fn store(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        let _ = (at, bytes);
        let text = "code cannot be changed here while threads run through it";
        Err(TargetError::Unsupported(text.to_owned()))
    }

    /// What the file behind `range` holds there, if it can be read and is still the
    /// file that was loaded.
    ///
    /// # Errors
    /// When the target is gone.
    fn original(&self, range: Range<LiveAddr>) -> Result<Option<Vec<u8>>, TargetError>;

    /// True if the target may have locked memory of its own, so that it is never paged out
    /// (`mlock`).
    ///
    /// # Errors
    /// When the target is gone.
    fn locks_memory(&self) -> Result<bool, TargetError> {
        Ok(false)
    }

    /// Holds one thread for a moment so that it makes system calls for us; every
    /// other thread goes on. Returns how long it was held.
    ///
    /// The thread is itself again afterwards, also if this program dies meanwhile.
    ///
    /// # Errors
    /// When no thread can be used, or what `calls` returns.
    fn visit(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        let _ = calls;
        makes_no_calls()
    }

    /// The same with a thread that is known to hold no lock of the language's runtime,
    /// the loader or the allocator, so that functions of theirs can be called.
    ///
    /// # Errors
    /// When there is no such thread at the moment, or what `calls` returns.
    fn visit_outside_runtime(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        let _ = calls;
        makes_no_calls()
    }

    /// The same for what may as well be left: at once, or not at all (`None`).
    ///
    /// # Errors
    /// What `calls` returns.
    fn visit_outside_runtime_now(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Option<Duration>, TargetError> {
        let _ = calls;
        Ok(None)
    }

    /// Looks up what [`Stopped::suspended`] has to know, which takes longer than threads should
    /// stand; before each stop in which that is asked.
    ///
    /// # Errors
    /// When the target is gone or may not be looked at.
    fn expect_coroutines(&mut self) -> Result<(), TargetError> {
        Ok(())
    }

    /// Stops all threads for as long as `during` runs. Returns how long they stood.
    ///
    /// The threads `first` may run on for a moment, up to their next system call, before
    /// the others stop: who is always inside one function leaves it there, or nowhere.
    ///
    /// # Errors
    /// When not all could be stopped, or what `during` returns; all run again.
    fn stop(
        &mut self,
        first: &[i32],
        during: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError>;

    /// Lets the target run for so long. Whoever did not stop in time for an earlier stop, and does
    /// now, is let go at once.
    fn rest(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Ways back of all threads, as far as they can be seen without stopping them. Where one is
    /// not proved, its frames are all places that may be return addresses; a thread that ran
    /// whenever it was looked at has none.
    ///
    /// # Errors
    /// When the target is gone or may not be looked at.
    fn glimpse(&self) -> Result<Vec<Stack>, TargetError>;

    /// Where a thread waits, in words that are others once it has gone on; `None` if it runs, or
    /// that cannot be seen.
    fn waits(&self, tid: i32) -> Option<String> {
        let _ = tid;
        None
    }

    /// What a thread is called, if it is still there.
    fn thread_name(&self, tid: i32) -> String {
        let _ = tid;
        String::new()
    }

    /// What lies at each of these places, for a person: `read+0x1a in libc.so.6`.
    /// All but the first are return addresses.
    fn places(&self, frames: &[LiveAddr]) -> Vec<Option<String>> {
        vec![None; frames.len()]
    }

    /// The function of the target with which unwind data are registered
    /// (`__register_frame_info` of the language's runtime), if it has one.
    ///
    /// # Errors
    /// When the target is gone.
    fn unwind_registrar(&self) -> Result<Option<LiveAddr>, TargetError>;

    /// The same where the runtime is a library of its own, which `backtrace(3)` uses.
    ///
    /// # Errors
    /// When the target is gone.
    fn backtrace_registrar(&self) -> Result<Option<LiveAddr>, TargetError> {
        Ok(None)
    }
}

/// What one held thread can do for us.
pub trait Visit {
    /// Makes private memory at exactly this place.
    ///
    /// # Errors
    /// When something is there already, or the system refuses.
    fn map(&mut self, range: Range<LiveAddr>, protection: Protection) -> Result<(), TargetError>;

    /// Gives memory back.
    ///
    /// # Errors
    /// When the system refuses.
    fn unmap(&mut self, range: Range<LiveAddr>) -> Result<(), TargetError>;

    /// Moves the pages of `range` to `to`, in one instant; the file's own pages show
    /// at the old place.
    ///
    /// # Errors
    /// When the system refuses; nothing has changed then.
    fn lift(&mut self, range: Range<LiveAddr>, to: LiveAddr) -> Result<(), TargetError>;

    /// Moves pages from `from` over `range`, in one instant.
    ///
    /// # Errors
    /// When the system refuses; nothing has changed then.
    fn lower(&mut self, from: LiveAddr, range: Range<LiveAddr>) -> Result<(), TargetError>;

    /// The same, again at once where the system refuses: the kernel takes away what is in the place
    /// before it moves, and may lack memory then. A call that may still be made is not made twice.
    ///
    /// # Errors
    /// When the system goes on refusing.
    fn lower_again(&mut self, from: LiveAddr, range: Range<LiveAddr>) -> Result<(), TargetError> {
        /// How often it is done again.
        const AGAIN: u32 = 3;
        let mut lowered = self.lower(from, range.clone());
        for _ in 0..AGAIN {
            if !matches!(lowered, Err(TargetError::System { .. })) {
                break;
            }
            lowered = self.lower(from, range.clone());
        }
        lowered
    }

    /// Fills `bytes`, as [`Target::read`] does.
    ///
    /// # Errors
    /// When not all of it can be read.
    fn read(&mut self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError>;

    /// Writes, as [`Target::write`] does.
    ///
    /// # Errors
    /// When not all of it can be written.
    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError>;

    /// Calls a function of the target with two arguments.
    ///
    /// # Errors
    /// When the thread may hold a lock that the function takes, or the call does not return.
    fn call(&mut self, function: LiveAddr, arguments: [u64; 2]) -> Result<(), TargetError>;
}

/// What can be done while all threads stand.
pub trait Stopped {
    /// Every thread's way back.
    ///
    /// # Errors
    /// When a thread cannot be looked at.
    fn stacks(&mut self) -> Result<Vec<Stack>, TargetError>;

    /// A stack on which no thread runs, a coroutine's, that may be inside one of `ranges`: which,
    /// if that is known, and why it is thought so. `None` where there is none.
    ///
    /// # Errors
    /// When memory cannot be looked at.
    fn suspended(
        &mut self,
        ranges: &[(String, Range<LiveAddr>)],
    ) -> Result<Option<(Option<String>, String)>, TargetError> {
        let _ = ranges;
        Ok(None)
    }

    /// True if all threads stand as a tool that died had left them, and none has run since it had
    /// looked where they are.
    fn as_left(&self) -> bool {
        false
    }

    /// A place in memory or registers, for a person, that holds an address in `range`; or why that
    /// is not known. `None` is a proof that there is none.
    ///
    /// # Errors
    /// When a thread or memory cannot be looked at.
    fn finds(&mut self, range: &Range<LiveAddr>) -> Result<Option<String>, TargetError> {
        let _ = range;
        Ok(Some("its memory cannot be searched".to_owned()))
    }

    /// Fills `bytes`, as [`Target::read`] does.
    ///
    /// # Errors
    /// When not all of it can be read, or it cannot be looked at.
    fn read(&mut self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        let _ = bytes;
        let text = format!("what is at {at} cannot be looked at while threads stand");
        Err(TargetError::Unsupported(text))
    }

    /// Writes, as [`Target::write`] does.
    ///
    /// # Errors
    /// When not all of it can be written.
    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError>;
}

/// What a target answers whose threads make no calls for us, as images of Windows are patched.
fn makes_no_calls<T>() -> Result<T, TargetError> {
    let text = "nothing here makes calls of Linux for a patch";
    Err(TargetError::Unsupported(text.to_owned()))
}
