//! Which processes were looked at, and which could not be: nobody is passed over without a word.

use std::thread::sleep;
use std::time::Duration;

use invivo_apply::TargetError;

use crate::failure::{Failure, GONE, NOT_NOW};
pub(crate) use crate::unseen::Unseen;

/// How often a process is asked again, and how long after.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);

/// What was found in processes.
#[derive(Debug)]
pub(crate) struct Looked<T> {
    pub(crate) found: Vec<T>,
    pub(crate) unseen: Vec<Unseen>,
}

impl<T> Looked<T> {
    /// The same of something else.
    pub(crate) fn map<U>(self, into: impl FnMut(T) -> Option<U>) -> Looked<U> {
        Looked {
            found: self.found.into_iter().filter_map(into).collect(),
            unseen: self.unseen,
        }
    }
}

/// What is asked of a process: its number, the name of its program, and itself.
type Ask<'a, P, T> = dyn Fn(u32, &str, &P) -> Result<Vec<T>, Failure> + 'a;

/// How processes are looked at.
pub(crate) struct Look<'l, P> {
    /// Numbers and names of those that run.
    pub(crate) running: Vec<(u32, String)>,
    /// Opens one.
    pub(crate) open: &'l dyn Fn(u32) -> Result<P, TargetError>,
    /// True for one that nobody may open.
    pub(crate) protected: &'l dyn Fn(u32) -> bool,
    /// True for one that was waited for in vain already: it is asked once.
    pub(crate) not_ready: &'l dyn Fn(u32) -> bool,
}

impl<P> Look<'_, P> {
    /// Asks each process. Those that end meanwhile are not told of.
    pub(crate) fn at_each<T>(self, ask: &Ask<'_, P, T>) -> Looked<T> {
        let (mut found, mut unseen) = (Vec::new(), Vec::new());
        for (pid, exe) in self.running.clone() {
            // What Windows lists in the place of its own idle time and of its kernel.
            if matches!(pid, 0 | 4) {
                continue;
            }
            match self.at(pid, &exe, ask) {
                Ok(one) => found.extend(one),
                Err(failure) if failure.code == GONE => {}
                Err(_) if matches!((self.open)(pid), Err(TargetError::Gone(_))) => {}
                Err(failure) => unseen.push(Unseen {
                    protected: (self.protected)(pid),
                    pid,
                    exe,
                    why: failure.text,
                    code: failure.code,
                }),
            }
        }
        Looked { found, unseen }
    }

    /// Asks one process, again where it has only just started or is about to end.
    fn at<T>(&self, pid: u32, exe: &str, ask: &Ask<'_, P, T>) -> Result<Vec<T>, Failure> {
        let mut tries = TRIES;
        loop {
            let opened = (self.open)(pid).map_err(Failure::from);
            match opened.and_then(|process| ask(pid, exe, &process)) {
                Err(failure) if failure.code == NOT_NOW && tries > 0 && !(self.not_ready)(pid) => {
                    tries -= 1;
                    sleep(PAUSE);
                }
                result => return result,
            }
        }
    }
}

/// The exit code of a command that wanted all processes: what nobody can do is no failure of it.
pub(crate) fn code(unseen: &[Unseen]) -> u8 {
    let failed = unseen.iter().filter(|one| !one.protected);
    failed.map(|one| one.code).max().unwrap_or(0)
}

/// Who was not looked at, in words: one line for each reason, however many there are.
pub(crate) fn told(unseen: &[Unseen]) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for one in unseen {
        let why = match one.protected {
            true => "Windows protects it from every other program",
            false => &one.why,
        };
        let process = format!("{} ({})", one.pid, one.exe);
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, all)) => all.push(process),
            None => reasons.push((why, vec![process])),
        }
    }
    let line = |(why, all): (&str, Vec<String>)| match &all[..] {
        [one] => format!("process {one} was not looked at: {why}"),
        all => format!(
            "{} processes were not looked at: {why}: {}",
            all.len(),
            all.join(", ")
        ),
    };
    reasons.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::failure::PERMISSION;

    fn looked(open: &dyn Fn(u32) -> Result<u32, TargetError>) -> Looked<u32> {
        let name = |pid: u32| (pid, format!("{pid}.exe"));
        let look = Look {
            running: [0, 4, 8, 12, 16, 20].map(name).to_vec(),
            open,
            protected: &|pid| pid == 16,
            not_ready: &|_| false,
        };
        look.at_each(&|pid, _, process| {
            assert_eq!(pid, *process);
            match pid {
                20 => Err(Failure::new(NOT_NOW, "its memory cannot be read")),
                _ => Ok(vec![pid]),
            }
        })
    }

    /// A process that stands before its first instruction was waited for where its images are listed. That
    /// wait is not made twenty times over; one that is only busy is asked again.
    #[test]
    fn who_was_waited_for_is_asked_once() {
        let asked = RefCell::new(Vec::new());
        let look = Look {
            running: [8, 12].map(|pid| (pid, String::new())).to_vec(),
            open: &Ok,
            protected: &|_| false,
            not_ready: &|pid| pid == 8,
        };
        let all: Looked<u32> = look.at_each(&|pid, _, _| {
            asked.borrow_mut().push(pid);
            Err(Failure::new(NOT_NOW, "it has no list of its images yet"))
        });
        let count = |pid: u32| asked.borrow().iter().filter(|one| **one == pid).count();
        assert_eq!((count(8), count(12)), (1, TRIES as usize + 1));
        assert_eq!(all.unseen.len(), 2, "both are told of: {all:?}");
    }

    /// A process that may not be opened is told of, and the command does not end as if all was done.
    #[test]
    fn nobody_is_passed_over_without_a_word() {
        let denied = || TargetError::NotPermitted {
            what: "open the process".to_owned(),
        };
        let all = looked(&|pid| match pid {
            0 | 4 => panic!("Windows' own"),
            8 => Err(TargetError::Gone(8)),
            16 => Err(denied()),
            pid => Ok(pid),
        });
        assert_eq!(all.found, [12]);
        let unseen: Vec<_> = all.unseen.iter().map(|one| one.pid).collect();
        assert_eq!(unseen, [16, 20]);
        let told = told(&all.unseen);
        let protected =
            "process 16 (16.exe) was not looked at: Windows protects it from every other program";
        assert_eq!(told[0], protected);
        let read = "process 20 (20.exe) was not looked at: its memory cannot be read";
        assert_eq!(told[1], read);
        assert_eq!(
            code(&all.unseen),
            NOT_NOW,
            "nobody can open a protected one"
        );
        let all = looked(&|_| Err(denied()));
        assert!(all.found.is_empty());
        let all = all.map(Some);
        assert_eq!(all.unseen.len(), 4, "whoever was not looked at stays told");
        let told = super::told(&all.unseen);
        let line = "3 processes were not looked at: not permitted to open the process: 8 (8.exe), 12 (12.exe), 20 (20.exe)";
        assert_eq!(told, [line, protected]);
        assert_eq!(code(&all.unseen), PERMISSION);
        assert!(all.unseen[0].why.contains("not permitted"), "{all:?}");
        // One that ends while it is looked at was there for nobody.
        let calls = std::cell::Cell::new(0);
        let all = looked(&|pid| {
            calls.set(calls.get() + 1);
            match pid {
                20 if calls.get() > 4 => Err(TargetError::Gone(20)),
                pid => Ok(pid),
            }
        });
        assert_eq!(all.found, [8, 12, 16]);
        assert!(all.unseen.is_empty(), "{all:?}");
    }
}
