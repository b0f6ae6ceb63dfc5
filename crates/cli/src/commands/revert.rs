//! `invivo revert`

use invivo_apply::{Applied, Consistency, Outcome, OutcomeState, State, revert_to, unload};
use invivo_linux::{Access, Process};

use crate::arguments::Revert;
use crate::commands::list::with_patches;
use crate::commands::xen::verbs;
use crate::everywhere::everywhere;
use crate::failure::{Failure, REFUSED};
use crate::live::Run;
use crate::output::Output;
use crate::unread;

pub(crate) fn run(revert: &Revert, output: &Output) -> Result<u8, Failure> {
    if revert.xen {
        return verbs::revert(revert, output);
    }
    let run = Run::new(output);
    let options = run.options(Consistency::Entry, &revert.effort);
    let name = revert.name.as_deref();
    let work = |pid| {
        let mut process = Process::open(pid, Access::Write(&options))?;
        if let Some(name) = &revert.to {
            return Ok(vec![revert_to(&mut process, name, &options)?]);
        }
        let mut outcomes = invivo_apply::revert(&mut process, name, &options)?;
        if revert.unload {
            for unloaded in unload(&mut process, name, &options)? {
                let known = outcomes.iter_mut().find(|one| one.patch == unloaded.patch);
                match known {
                    Some(one) => one.unloaded = Some(unloaded),
                    None => outcomes.push(Outcome {
                        unloaded: Some(unloaded.clone()),
                        ..Outcome::new(OutcomeState::NothingToDo, &unloaded.patch)
                    }),
                }
            }
        }
        if outcomes.is_empty() {
            let name = name.unwrap_or("no live patch");
            return Ok(vec![Outcome::new(OutcomeState::NothingToDo, name)]);
        }
        Ok(outcomes)
    };
    let targets = &revert.targets;
    if targets.are_named() {
        let _busy = output.busy("reverting");
        return run.each(&targets.selectors.pid, &[], output, &work);
    }
    let to = revert.to.as_deref();
    let wanted = |patch: &Applied| match to {
        Some(to) => patch.name == to && patch.state != State::Applied,
        None => {
            let concerns = revert.unload || patch.state != State::Reverted;
            concerns && name.is_none_or(|name| patch.name == name)
        }
    };
    // A name that is a mistake reaches nobody; that must not look like success.
    let mut is_first = true;
    let mut concerned = || {
        let held = with_patches(wanted)?;
        if let Some(name) = to.or(name)
            && std::mem::take(&mut is_first)
            && !held.names.contains(name)
        {
            let text = format!(
                "no process holds a patch called {name}; {}",
                invivo_apply::held(held.names.iter().map(String::as_str))
            );
            let hint = match held.unread {
                0 => "see what is live with: invivo list".to_owned(),
                unread => unread::note(unread),
            };
            return Err(Failure::new(REFUSED, text).hint(hint));
        }
        Ok((held.processes, held.unread))
    };
    targets.confirm("revert", &mut concerned, output)?;
    let _busy = output.busy("reverting");
    let find = || targets.keep(concerned()?);
    everywhere(&run, revert.effort.timeout, &[], output, find, work)
}
