//! What was done in processes, as a list.

use invivo_apply::TargetError;
use invivo_apply::hotp1::LegacyRecord;
use invivo_apply::hpat::{self, HotPatchRecord};
use invivo_windows::Process;
use serde::Serialize;

use super::legacy;
use super::processes::{look_at, tell_unseen};
use crate::arguments::List;
use crate::failure::Failure;
use crate::looked::Unseen;
use crate::output::Output;

#[derive(Debug, Serialize)]
struct Listing {
    schema: &'static str,
    processes: Vec<Listed>,
    /// Who could not be looked at.
    unseen: Vec<Unseen>,
}

#[derive(Debug, Serialize)]
struct Listed {
    pid: u32,
    exe: String,
    /// True while a tool changes something in it: what is in the middle is no dead one's.
    at_work: bool,
    /// Threads that stand since a tool died.
    standing: usize,
    images: Vec<HotPatchRecord>,
    /// Modules that patches of older Windows hang on.
    modules: Vec<LegacyRecord>,
}

pub(super) fn list(list: &List, output: &Output) -> Result<u8, Failure> {
    let all = list.pid.is_empty();
    let looked = look_at(&list.pid, &|pid, exe, process| {
        let Seen {
            at_work,
            standing,
            images,
            modules,
        } = seen(process)?;
        let any = standing > 0 || !images.is_empty() || !modules.is_empty();
        let listed = Listed {
            pid,
            exe: exe.to_owned(),
            at_work,
            standing,
            images,
            modules,
        };
        Ok((any || !all).then_some(listed).into_iter().collect())
    })?;
    for pid in &list.pid {
        if let Some(one) = looked.unseen.iter().find(|one| one.pid == *pid) {
            return Err(Failure::new(
                one.code,
                format!("process {pid}: {}", one.why),
            ));
        }
        if !looked.found.iter().any(|one| one.pid == *pid) {
            return Err(TargetError::Gone(pid.cast_signed()).into());
        }
    }
    let listing = Listing {
        schema: "invivo.windows-list/1",
        processes: looked.found,
        unseen: looked.unseen,
    };
    output.data(&listing, || {
        for process in &listing.processes {
            anstream::println!("{} {}", process.pid, process.exe);
            if process.at_work {
                anstream::println!("  a tool is at work");
            }
            if process.standing > 0 {
                anstream::println!(
                    "  {} threads stand, since a tool died; invivo recover lets them go",
                    process.standing
                );
            }
            for image in &process.images {
                anstream::println!("  {}: {}", image.path, state(image, process.at_work));
                for patch in &image.patches {
                    anstream::println!("    {} loaded at {:#x}", patch.path, patch.at);
                }
            }
            for module in &process.modules {
                legacy::tell_record(module, process.at_work);
            }
        }
        tell_unseen(&listing.unseen);
    })?;
    Ok(0)
}

/// What is seen in a process of what tools did there.
pub(super) struct Seen {
    /// True if a tool was at work while it was looked at.
    at_work: bool,
    /// How many threads stand since a tool died.
    pub(super) standing: usize,
    pub(super) images: Vec<HotPatchRecord>,
    pub(super) modules: Vec<LegacyRecord>,
}

pub(super) fn seen(process: &Process) -> Result<Seen, Failure> {
    let before = process.is_taken();
    let found = hpat::list(process)?;
    let images = found.into_iter().map(|patched| patched.now()).collect();
    let modules = invivo_apply::hotp1::list(process)?;
    Ok(Seen {
        at_work: before || process.is_taken(),
        standing: process.standing(),
        images,
        modules,
    })
}

/// What a record tells, in words.
fn state(record: &HotPatchRecord, at_work: bool) -> String {
    if !record.words.is_empty() && !at_work {
        return "a tool died at work; invivo recover settles it".to_owned();
    }
    let live = record.entries.iter().filter(|entry| entry.live).count();
    match record.sequence {
        0 => "no patch is live".to_owned(),
        sequence => format!("patch {sequence} is live, {live} functions redirected"),
    }
}
