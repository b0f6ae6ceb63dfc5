//! Processes that start while a command is at work on all: it goes on until a look finds nobody new.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::failure::{Failure, NOT_NOW};
use crate::looked::{Looked, Unseen};

/// How one goes through all processes.
pub(crate) struct Meanwhile<'m> {
    /// How long it may take after the first look, which takes as long as it takes.
    pub(crate) patience: Duration,
    /// When a process started; `None` where it runs no more. By its number alone another one may be
    /// known by now.
    pub(crate) started: &'m dyn Fn(u32) -> Option<u64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// How many processes there were.
    pub(crate) count: usize,
    /// Whom the last look could not look at.
    pub(crate) unseen: Vec<Unseen>,
    /// What was not done.
    pub(crate) failures: Vec<Failure>,
}

impl Meanwhile<'_> {
    /// Does `work` in every process that `find` finds, and in those that start meanwhile. One that ends
    /// meanwhile is no failure: nothing of it is left.
    pub(crate) fn everywhere(
        &self,
        find: &dyn Fn() -> Result<Looked<u32>, Failure>,
        work: &mut dyn FnMut(u32) -> Result<(), Failure>,
    ) -> Result<Met, Failure> {
        let (mut met, mut known, mut deadline) = (Met::default(), BTreeSet::new(), None);
        loop {
            let looked = match find() {
                Ok(looked) => looked,
                Err(failure) if known.is_empty() => return Err(failure),
                Err(failure) => {
                    // What was done is told, whatever comes of it.
                    met.failures.push(failure);
                    break;
                }
            };
            met.unseen = looked.unseen;
            let found = looked.found.into_iter();
            let new = found.filter_map(|pid| Some((pid, (self.started)(pid)?)));
            let new: Vec<(u32, u64)> = new.filter(|one| known.insert(*one)).collect();
            if new.is_empty() {
                break;
            }
            for (pid, started) in new {
                if let Err(failure) = work(pid)
                    && (self.started)(pid) == Some(started)
                {
                    met.failures.push(failure);
                }
            }
            if Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + self.patience) {
                let text = "new processes of the program start faster than they are reached";
                let failure = Failure::new(NOT_NOW, text);
                met.failures
                    .push(failure.hint("wait longer with --timeout SECONDS"));
                break;
            }
        }
        met.count = known.len();
        Ok(met)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::failure::{GONE, REFUSED};

    const LONG: Duration = Duration::from_secs(600);

    /// Numbers of processes that have what is looked for, and when they started.
    type Running = RefCell<Vec<(u32, u64)>>;

    fn started(running: &Running, pid: u32) -> Option<u64> {
        let running = running.borrow();
        let found = running.iter().find(|(known, _)| *known == pid);
        found.map(|(_, started)| *started)
    }

    fn found(running: &Running) -> Looked<u32> {
        Looked {
            found: running.borrow().iter().map(|(pid, _)| *pid).collect(),
            unseen: Vec::new(),
        }
    }

    /// Each process starts another one when it is reached, up to the fourth; one starts with the number of
    /// one that has ended. All are reached once.
    #[test]
    fn those_that_start_meanwhile_are_reached() {
        let running: Running = RefCell::new(vec![(8, 1), (12, 2)]);
        let mut worked = Vec::new();
        let meanwhile = Meanwhile {
            patience: LONG,
            started: &|pid| started(&running, pid),
        };
        let met = meanwhile.everywhere(&|| Ok(found(&running)), &mut |pid| {
            let mut running = running.borrow_mut();
            worked.push((pid, running.len()));
            match running.len() {
                2 => running.push((16, 3)),
                3 if pid == 16 => running[0].1 = 4,
                _ => {}
            }
            Ok(())
        });
        let met = met.expect("it is found");
        let pids: Vec<u32> = worked.iter().map(|(pid, _)| *pid).collect();
        assert_eq!(pids, [8, 12, 16, 8]);
        assert_eq!(met.count, 4);
        assert!(met.failures.is_empty(), "{met:?}");
    }

    /// A process that ends while it is worked at is no failure; one that runs on is.
    #[test]
    fn who_ended_is_no_failure() {
        let running: Running = RefCell::new(vec![(8, 1), (12, 2)]);
        let meanwhile = Meanwhile {
            patience: LONG,
            started: &|pid| started(&running, pid),
        };
        let met = meanwhile.everywhere(&|| Ok(found(&running)), &mut |pid| {
            if pid == 8 {
                running.borrow_mut().remove(0);
                return Err(Failure::new(GONE, "process 8 does not exist"));
            }
            Err(Failure::new(REFUSED, "it is another build"))
        });
        let met = met.expect("it is found");
        let codes: Vec<u8> = met.failures.iter().map(|one| one.code).collect();
        assert_eq!(codes, [REFUSED]);
        assert_eq!(met.count, 2);
    }

    /// Where new ones start without an end, that is told; so is a look that fails after something was done.
    #[test]
    fn it_ends_with_a_word() {
        let next = Cell::new(8);
        let meanwhile = Meanwhile {
            patience: Duration::ZERO,
            started: &|_| Some(1),
        };
        let find = || -> Result<Looked<u32>, Failure> {
            next.set(next.get() + 4);
            Ok(Looked {
                found: vec![next.get()],
                unseen: Vec::new(),
            })
        };
        let mut work = |_: u32| -> Result<(), Failure> {
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        };
        let met = meanwhile.everywhere(&find, &mut work);
        let met = met.expect("it is found");
        assert!(met.count >= 1);
        assert_eq!(met.failures.len(), 1);
        assert_eq!(met.failures[0].code, NOT_NOW);
        let find = || match next.replace(0) {
            0 => Err(Failure::new(REFUSED, "no list")),
            pid => Ok(Looked {
                found: vec![pid],
                unseen: Vec::new(),
            }),
        };
        let meanwhile = Meanwhile {
            patience: LONG,
            ..meanwhile
        };
        let met = meanwhile.everywhere(&find, &mut work);
        let met = met.expect("something was done");
        assert_eq!((met.count, met.failures.len()), (1, 1));
        let none = meanwhile.everywhere(&find, &mut work);
        assert!(none.is_err(), "nothing was done");
    }
}
