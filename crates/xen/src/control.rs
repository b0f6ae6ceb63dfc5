//! The life of payloads.

use core::time::Duration;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::block::{
    Action, Block, INTERFACES, LARGEST_PAYLOAD, State, Status, XENVER_BUILD_ID,
    XENVER_EXTRAVERSION, XENVER_VERSION, terminated,
};
use crate::{Errno, Error, Hypercall, Name, Operation};

/// A build id is a hash, or a CodeView record; no more than that many bytes are believed.
const LONGEST_BUILD_ID: usize = 256;

/// Before an action. A processor that has not yet noticed that the rendezvous before is over would
/// spoil the next one.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
/// Between two looks at an action that goes on.
const LOOK: Duration = Duration::from_millis(1);
/// So often an action is tried that another one keeps from beginning, where none is seen.
const BLIND_ATTEMPTS: u32 = 3;

/// How long and how often things are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long an operation may take with everything, from its first call on.
    pub whole: Duration,
    /// How long all processors may take to meet, each time; nothing runs on them meanwhile.
    /// At most 4.29 s; Xen's own tool uses 30 ms.
    pub rendezvous: Duration,
    /// How often an action is tried that finds the hypervisor busy.
    pub attempts: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            whole: Duration::from_secs(30),
            rendezvous: Duration::from_millis(30),
            attempts: 8,
        }
    }
}

/// What an action did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// How often it was tried; 0 if there was nothing to do.
    pub attempts: u32,
    /// How long it took, from the first call to the result.
    pub took: Duration,
}

/// A hypervisor under control.
#[derive(Debug)]
pub struct Control<H> {
    hypercall: H,
    interface: u32,
}

impl<H: Hypercall> Control<H> {
    /// Finds out which interface the hypervisor speaks.
    ///
    /// # Errors
    ///
    /// [`Error::NotPrivileged`], [`Error::NoLivepatch`], [`Error::Interface`], or
    /// [`Error::Refused`] for an answer of another kind.
    pub fn open(mut hypercall: H) -> Result<Control<H>, Error> {
        for interface in INTERFACES {
            let mut block = Block::count(interface);
            let operation = Operation::List;
            match Errno::check(hypercall.sysctl(&mut block, &mut [])) {
                Ok(_) => {
                    return Ok(Control {
                        hypercall,
                        interface,
                    });
                }
                // So Xen says that it speaks another version.
                Err(Errno::EACCES) => {}
                Err(Errno::EPERM) => return Err(Error::NotPrivileged),
                Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => return Err(Error::NoLivepatch),
                Err(errno) => return Err(Error::Refused { operation, errno }),
            }
        }
        let (major, minor) = version(&mut hypercall);
        Err(Error::Interface { major, minor })
    }

    /// The interface version that it speaks, such as 0x15.
    #[must_use]
    pub fn interface(&self) -> u32 {
        self.interface
    }

    /// What issues the calls.
    pub fn hypercall(&mut self) -> &mut H {
        &mut self.hypercall
    }

    /// The hypervisor's version, such as (4, 17).
    pub fn version(&mut self) -> (u32, u32) {
        version(&mut self.hypercall)
    }

    /// What follows the version's two numbers, such as `.7`.
    ///
    /// # Errors
    ///
    /// The hypervisor's answer, if it does not tell.
    pub fn extra_version(&mut self) -> Result<String, Errno> {
        let mut answer = [0; 16];
        Errno::check(
            self.hypercall
                .version(XENVER_EXTRAVERSION, Some(&mut answer)),
        )?;
        let text = answer.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// The build id of the hypervisor that runs.
    ///
    /// # Errors
    ///
    /// `ENODATA` if it has none, or the hypervisor's answer.
    pub fn build_id(&mut self) -> Result<Vec<u8>, Errno> {
        let mut answer = vec![0; 4 + LONGEST_BUILD_ID];
        let room = u32::try_from(LONGEST_BUILD_ID).unwrap_or(u32::MAX);
        answer[..4].copy_from_slice(&room.to_le_bytes());
        let length = Errno::check(self.hypercall.version(XENVER_BUILD_ID, Some(&mut answer)))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > LONGEST_BUILD_ID {
            return Err(Errno::ENODATA);
        }
        Ok(answer[4..4 + length].to_vec())
    }

    /// Loads a payload.
    ///
    /// # Errors
    ///
    /// [`Error::Size`], or [`Error::Refused`] with the hypervisor's answer.
    pub fn upload(&mut self, name: &Name, payload: &[u8]) -> Result<(), Error> {
        if payload.is_empty() || payload.len() > LARGEST_PAYLOAD {
            return Err(Error::Size(payload.len()));
        }
        let name = terminated(name);
        let (mut block, mut buffers) = Block::upload(self.interface, &name, payload);
        let returned = self.hypercall.sysctl(&mut block, &mut buffers);
        Errno::check(returned).map_err(|errno| Error::Refused {
            operation: Operation::Upload,
            errno,
        })?;
        Ok(())
    }

    /// A payload's state, and the result of its last action.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `ENOENT` if there is none of that name.
    pub fn get(&mut self, name: &Name) -> Result<Status, Error> {
        let name = terminated(name);
        let (mut block, mut buffers) = Block::get(self.interface, &name);
        let returned = self.hypercall.sysctl(&mut block, &mut buffers);
        Errno::check(returned).map_err(|errno| Error::Refused {
            operation: Operation::Get,
            errno,
        })?;
        Ok(block.status())
    }

    /// Makes a payload live; that it is already is no error. With `nodeps` Xen does not look
    /// whether it depends on what was applied last.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::Failed`], [`Error::Busy`] or [`Error::Pending`].
    pub fn apply(&mut self, name: &Name, nodeps: bool, patience: Patience) -> Result<Done, Error> {
        self.act(Operation::Apply, Action::Apply, name, nodeps, patience)
    }

    /// Takes a payload back; that it is not live is no error.
    ///
    /// # Errors
    ///
    /// As for [`Control::apply`].
    pub fn revert(&mut self, name: &Name, patience: Patience) -> Result<Done, Error> {
        self.act(Operation::Revert, Action::Revert, name, false, patience)
    }

    /// Takes everything back that is live and makes a payload live, at one moment.
    ///
    /// # Errors
    ///
    /// As for [`Control::apply`]; [`Error::ReplaceApplied`] where Xen would do nothing, and
    /// [`Error::Unpatched`] where it took everything back and the payload does not fit.
    pub fn replace(&mut self, name: &Name, patience: Patience) -> Result<Done, Error> {
        let own = self.get(name)?.state;
        let before = self.live()?;
        if own == State::Applied && before.len() > 1 {
            return Err(Error::ReplaceApplied);
        }
        let error = match self.act(Operation::Replace, Action::Replace, name, false, patience) {
            Err(error @ Error::Failed { .. }) => error,
            other => return other,
        };
        // Xen tells of its own payload alone.
        match (error.errno(), self.live()) {
            (Some(errno), Ok(live)) if live.is_empty() && !before.is_empty() => {
                Err(Error::Unpatched {
                    errno,
                    reverted: before,
                })
            }
            _ => Err(error),
        }
    }

    /// The names of those that are live.
    fn live(&mut self) -> Result<Vec<String>, Error> {
        let payloads = self.list()?.payloads.into_iter();
        let live = payloads.filter(|one| one.status.state == State::Applied);
        Ok(live.map(|one| one.name).collect())
    }

    /// Forgets a payload that is not live.
    ///
    /// # Errors
    ///
    /// As for [`Control::apply`].
    pub fn unload(&mut self, name: &Name, patience: Patience) -> Result<Done, Error> {
        self.act(Operation::Unload, Action::Unload, name, false, patience)
    }

    fn act(
        &mut self,
        operation: Operation,
        action: Action,
        name: &Name,
        nodeps: bool,
        patience: Patience,
    ) -> Result<Done, Error> {
        let start = self.hypercall.now();
        let wanted = match action {
            Action::Apply | Action::Replace => Some(State::Applied),
            Action::Revert => Some(State::Checked),
            Action::Unload => None,
        };
        let before = self.get(name).map_err(|error| of(operation, error))?;
        // Xen would say 0 and leave the last result as it is, which may be an old failure.
        if wanted == Some(before.state) && !goes_on(before) {
            return Ok(self.done(0, start));
        }
        let mut pause = PAUSE;
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.hypercall.pause(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            let begun = match self.action(action, name, nodeps, patience) {
                Ok(()) => {
                    let Some(wanted) = wanted else {
                        // What is unloaded is gone when the call returns.
                        return Ok(self.done(attempt, start));
                    };
                    let status = self.wait(operation, name, start, patience)?;
                    match Errno::check(i64::from(status.result)) {
                        Ok(_) if status.state == wanted => return Ok(self.done(attempt, start)),
                        Ok(_) => {
                            let what = "the result is 0 and the state another one";
                            return Err(Error::Answer { operation, what });
                        }
                        Err(Errno::EBUSY) => true,
                        Err(errno) => {
                            let state = status.state;
                            return Err(Error::Failed {
                                operation,
                                errno,
                                state,
                            });
                        }
                    }
                }
                Err(Errno::EBUSY) => {
                    // The same number says that it is not the last one applied.
                    if attempt >= BLIND_ATTEMPTS && !self.anything_goes_on()? {
                        let errno = Errno::EBUSY;
                        return Err(Error::Refused { operation, errno });
                    }
                    false
                }
                Err(errno) => return Err(Error::Refused { operation, errno }),
            };
            if attempt >= patience.attempts || self.since(start) >= patience.whole {
                let attempts = attempt;
                return Err(Error::Busy {
                    operation,
                    attempts,
                    begun,
                });
            }
        }
    }

    /// Asks for an action. That it is taken does not say that it is done.
    fn action(
        &mut self,
        action: Action,
        name: &Name,
        nodeps: bool,
        patience: Patience,
    ) -> Result<(), Errno> {
        let timeout = u32::try_from(patience.rendezvous.as_nanos()).unwrap_or(u32::MAX);
        let name = terminated(name);
        let (mut block, mut buffers) =
            Block::action(self.interface, &name, action, timeout, nodeps);
        Errno::check(self.hypercall.sysctl(&mut block, &mut buffers)).map(|_| ())
    }

    /// Waits until the last action of a payload has ended.
    fn wait(
        &mut self,
        operation: Operation,
        name: &Name,
        start: Duration,
        patience: Patience,
    ) -> Result<Status, Error> {
        loop {
            let status = self.get(name).map_err(|error| of(operation, error))?;
            if !goes_on(status) {
                return Ok(status);
            }
            let waited = self.since(start);
            if waited >= patience.whole {
                return Err(Error::Pending { operation, waited });
            }
            self.hypercall.pause(LOOK);
        }
    }

    /// Whether an action of any payload has not ended.
    fn anything_goes_on(&mut self) -> Result<bool, Error> {
        let listing = self.list()?;
        Ok(listing.payloads.iter().any(|one| goes_on(one.status)))
    }

    fn since(&mut self, start: Duration) -> Duration {
        self.hypercall.now().saturating_sub(start)
    }

    fn done(&mut self, attempts: u32, start: Duration) -> Done {
        let took = self.since(start);
        Done { attempts, took }
    }
}

fn goes_on(status: Status) -> bool {
    status.result == -Errno::EAGAIN.0
}

/// The same error, told of what was asked for.
fn of(operation: Operation, error: Error) -> Error {
    match error {
        Error::Refused { errno, .. } => Error::Refused { operation, errno },
        other => other,
    }
}

fn version<H: Hypercall>(hypercall: &mut H) -> (u32, u32) {
    let number = Errno::check(hypercall.version(XENVER_VERSION, None)).unwrap_or_default();
    let number = u32::try_from(number).unwrap_or_default();
    (number >> 16, number & 0xffff)
}
