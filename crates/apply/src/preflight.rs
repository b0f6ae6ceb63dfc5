//! Everything that can be computed and checked before the first write.

use std::ops::Range;

use invivo_image::LiveAddr;
use invivo_patch::{Hex, Patch, Redirect, SectionKind};

use crate::clean::{CleanCode, check_bytes};
use crate::found::find_all;
use crate::room::{is_intact, lay_out};
use crate::spare::Spare;
use crate::x86_64::{Choice, Form, choose};
use crate::{ApplyError, HookRecord, Layout, Module, Record, State, Target, refused};

/// A hook that will be written.
#[derive(Clone, Debug)]
pub struct Hook {
    /// The function, mangled.
    pub function: String,
    /// Its entry.
    pub entry: LiveAddr,
    /// How it is hooked.
    pub form: Form,
    /// Where it leads: the new function, or the stub before it.
    pub destination: LiveAddr,
    /// What changes.
    pub writes: Vec<HookRecord>,
}

/// What an apply would do, proved.
#[derive(Debug)]
pub struct Preflight {
    /// The image that is patched.
    pub module: Module,
    /// Hooks, in the patch's order.
    pub hooks: Vec<Hook>,
    /// Where the patch will be and what it will hold.
    pub layout: Layout,
    /// The patch of this image that is live and will be replaced.
    pub previous: Option<Record>,
    /// The same patch, applied and taken back before, still in memory.
    pub kept: Option<Record>,
    /// This very patch, if it is live.
    pub applied: Option<Record>,
    /// True if unwinding through the new code needs the language's runtime.
    pub needs_unwinding: bool,
    /// True if the switch waits until no thread is inside what is replaced, whatever was
    /// asked for.
    pub quiescent: bool,
    /// The base's code that is replaced.
    pub replaced: Vec<(String, Range<LiveAddr>)>,
    /// SHA-256 of it, as it is without any patch; none for a patch that is live already.
    pub code: Option<Hex>,
    /// Where other images have what it needs of them, in the patch's order.
    pub imported: Vec<LiveAddr>,
    /// Where clean copies of the image's code are kept, or may be.
    pub(crate) spare: Spare,
}

impl Preflight {
    /// Proves that `patch`, whose digest is `id`, can be applied to `target`.
    ///
    /// Stops nothing and writes nothing.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn new(target: &dyn Target, patch: &Patch, id: &Hex) -> Result<Preflight, ApplyError> {
        Preflight::with(target, patch, id, false)
    }

    /// The same, where it may take the place of a later patch too.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn replacing(
        target: &dyn Target,
        patch: &Patch,
        id: &Hex,
    ) -> Result<Preflight, ApplyError> {
        Preflight::with(target, patch, id, true)
    }

    fn with(
        target: &dyn Target,
        patch: &Patch,
        id: &Hex,
        any_order: bool,
    ) -> Result<Preflight, ApplyError> {
        let module = find_module(target, patch)?;
        is_alone(target, &patch.order.unshared, &module)?;
        // What is left of another image that was there before is not of this one.
        let records: Vec<(Record, State)> = find_all(target)?
            .into_iter()
            .filter(|found| found.record.module == module.start && !found.gone)
            .map(|found| (found.record, found.state))
            .collect();
        let live = records
            .iter()
            .find(|(_, state)| *state == State::Applied)
            .map(|(r, _)| r.clone());
        let (applied, previous) = match live {
            Some(record) if record.id == *id => (Some(record), None),
            other => (None, other),
        };
        let is_applied = applied.is_some();
        if let Some(live) = applied.as_ref().or(previous.as_ref()) {
            is_whole(target, live)?;
        }
        if let Some(live) = &previous {
            may_replace(live, patch, any_order)?;
        }
        let others = records.iter().map(|(record, _)| record);
        let code = CleanCode {
            target,
            records: others.filter(|_| !is_applied).cloned().collect(),
        };
        if !is_applied {
            check_bytes(&code, patch, &module)?;
        }
        let mut kept = records
            .iter()
            .find(|(record, state)| {
                *state == State::Reverted
                    && record.id == *id
                    && record.registering == record.registered
            })
            .map(|(record, _)| record.clone());
        let mut entered = Vec::new();
        let mut pads = Vec::new();
        for redirect in patch.redirects.iter().filter(|redirect| redirect.hooked) {
            let entry = live_place(&module, redirect.at.0)?;
            let choice = if is_applied {
                None
            } else {
                Some(choose_for(redirect, entry, &mut pads)?)
            };
            entered.push((redirect, entry, choice));
        }
        let choices: Vec<Choice> = entered
            .iter()
            .filter_map(|(_, _, choice)| choice.clone())
            .collect();
        let imported = look_up(target, patch, &module)?;
        let around = (&module, &imported[..]);
        let mut layout = lay_out(target, patch, around, &entered, &choices, kept.as_ref())?;
        if kept.is_some() && !is_intact(target, &layout) {
            kept = None;
            layout = lay_out(target, patch, around, &entered, &choices, None)?;
        }
        let mut hooks = Vec::new();
        let chosen = entered
            .iter()
            .filter_map(|(r, entry, choice)| Some((*r, *entry, choice.as_ref()?)));
        for ((redirect, entry, choice), destination) in chosen.zip(&layout.destinations) {
            let writes = choice.writes(entry, *destination).ok_or_else(|| {
                ApplyError::Refused(format!(
                    "{}: the patch is too far for a jump",
                    redirect.function
                ))
            })?;
            let writes = writes
                .into_iter()
                .map(|(at, new)| {
                    let old = Hex(code.read(at, new.len() as u64)?);
                    let pad = choice
                        .pad
                        .is_some_and(|pad| entry.checked_offset(pad) == Some(at));
                    Ok(HookRecord {
                        at,
                        old,
                        new: Hex(new),
                        pad,
                        several: choice.form == Form::Overwrite,
                    })
                })
                .collect::<Result<_, ApplyError>>()?;
            let (function, form) = (redirect.function.clone(), choice.form);
            hooks.push(Hook {
                function,
                entry,
                form,
                destination: *destination,
                writes,
            });
        }
        forbid_overlaps(&hooks)?;
        let personality = patch.contents.sections.iter().any(|section| {
            section.kind == SectionKind::ReadOnly && section.name.starts_with(".gcc_except_table")
        });
        let replaced = replaced(patch, &module)?;
        let ranges = replaced.iter().map(|(_, range)| range.clone());
        let digest = if is_applied {
            None
        } else {
            Some(code.digest(ranges)?)
        };
        Ok(Preflight {
            spare: Spare::of(
                &module,
                previous
                    .iter()
                    .chain(records.iter().map(|(record, _)| record)),
            ),
            code: digest,
            imported,
            replaced,
            needs_unwinding: personality || has_foreign_personality(patch),
            module,
            hooks,
            layout,
            quiescent: patch.order.quiescent
                || previous.as_ref().is_some_and(|record| record.quiescent),
            previous,
            kept,
            applied,
        })
    }

    /// Code in which no thread may be while it is exchanged, by name.
    pub(crate) fn busy(&self) -> Vec<(String, Range<LiveAddr>)> {
        match &self.applied {
            Some(record) => vec![record.code()],
            None => {
                let previous = self.previous.iter().map(Record::code);
                self.replaced.iter().cloned().chain(previous).collect()
            }
        }
    }

    /// True if some hook replaces several instructions, so that threads must be
    /// known to be elsewhere.
    #[must_use]
    pub fn needs_proof(&self) -> bool {
        self.hooks.iter().any(|hook| hook.form.needs_stop())
    }

    /// All places that change.
    pub fn writes(&self) -> impl Iterator<Item = &HookRecord> {
        self.hooks.iter().flat_map(|hook| &hook.writes)
    }
}

/// True if frames of the patch name a personality routine: C++, Rust and their like.
fn has_foreign_personality(patch: &Patch) -> bool {
    // A CIE without a personality binds nothing: all relocations of the section are
    // then FDEs' pointers to code of the patch.
    let unwind = patch
        .contents
        .sections
        .iter()
        .filter(|s| s.kind == SectionKind::Unwind);
    unwind
        .flat_map(|section| &section.relocations)
        .any(|relocation| {
            let symbol = &patch.contents.symbols[relocation.symbol as usize];
            matches!(symbol.place, invivo_patch::SymbolPlace::Base(_))
        })
}

/// `Ok` if all that a live patch changes is as it left it.
pub(crate) fn is_whole(target: &dyn Target, live: &Record) -> Result<(), ApplyError> {
    match live.told_missing(&live.missing(target)) {
        Some(told) => refused(told),
        None => Ok(()),
    }
}

fn choose_for(
    redirect: &Redirect,
    entry: LiveAddr,
    pads: &mut Vec<LiveAddr>,
) -> Result<Choice, ApplyError> {
    choose(&redirect.entry, entry, redirect.size, pads).map_err(|why| {
        let name = invivo_image::demangle(&redirect.function);
        ApplyError::Refused(format!("{name} cannot be hooked: {why}"))
    })
}

pub(crate) fn live_place(module: &Module, rva: u64) -> Result<LiveAddr, ApplyError> {
    let at = module.start.checked_add(rva).filter(|at| *at < module.end);
    at.ok_or_else(|| ApplyError::Refused(format!("{rva:#x} lies outside {}", module.path)))
}

/// Functions that are called in another way now must have no callers in other images.
pub(crate) fn is_alone(
    target: &dyn Target,
    unshared: &[String],
    module: &Module,
) -> Result<(), ApplyError> {
    for symbol in unshared {
        if let Some(other) = target.importers(module, symbol)?.first() {
            return refused(format!(
                "{other} imports {symbol} from {}, or cannot be read; the patch changes how it is \
                 called",
                module.path
            ));
        }
    }
    Ok(())
}

/// Where other images have what new code needs of them.
fn look_up(
    target: &dyn Target,
    patch: &Patch,
    module: &Module,
) -> Result<Vec<LiveAddr>, ApplyError> {
    let imports: Vec<_> = patch.imports().collect();
    if imports.is_empty() {
        return Ok(Vec::new());
    }
    let found = target.look_up(module, &imports)?.into_iter().zip(&imports);
    found
        .map(|(found, (name, _))| {
            found.map_err(|why| {
                let name = invivo_image::demangle(name);
                ApplyError::Refused(format!("new code needs {name}, {why}"))
            })
        })
        .collect()
}

fn find_module(target: &dyn Target, patch: &Patch) -> Result<Module, ApplyError> {
    let modules = target.modules()?;
    let wanted = &patch.target.build_id;
    let mut found = modules.iter().filter(|module| module.build_id == wanted.0);
    let Some(module) = found.next() else {
        let name = &patch.target.file_name;
        let same_name = modules
            .iter()
            .find(|m| m.path.rsplit('/').next() == Some(name.as_str()));
        let other = match same_name {
            Some(other) => {
                format!("its {name} has build id {}", Hex(other.build_id.clone()))
            }
            None => format!("it has not loaded {name} at all"),
        };
        return refused(format!(
            "{} does not run the image that the patch is for: the patch is for {name} with \
             build id {wanted}; {other}",
            target.describe()
        ));
    };
    if found.next().is_some() {
        return refused(format!(
            "{} has loaded {} twice",
            target.describe(),
            module.path
        ));
    }
    Ok(module.clone())
}

fn may_replace(live: &Record, patch: &Patch, any_order: bool) -> Result<(), ApplyError> {
    if patch.order.sequence < live.sequence && !any_order {
        return refused(format!(
            "{} has sequence number {} and would replace {}, which has {}; to go back to it, use \
             invivo replace",
            patch.identity.name, patch.order.sequence, live.name, live.sequence
        ));
    }
    let shared = patch.contents.sections.iter().find(|section| {
        let name = section.name.strip_prefix(".data.");
        section.kind == SectionKind::Data
            && name.is_some_and(|n| live.variables.iter().any(|v| v == n))
    });
    match shared {
        Some(section) => refused(format!(
            "the variable {} lives in the patch {} and would be replaced by a new one; \
             revert {} first if its value may be lost",
            section.name.trim_start_matches(".data."),
            live.name,
            live.name
        )),
        None => Ok(()),
    }
}

fn replaced(patch: &Patch, module: &Module) -> Result<Vec<(String, Range<LiveAddr>)>, ApplyError> {
    let mut ranges = Vec::new();
    for redirect in &patch.redirects {
        let parts =
            std::iter::once((redirect.at, redirect.size)).chain(redirect.cold.iter().copied());
        for (at, size) in parts {
            let start = live_place(module, at.0)?;
            let end = start.checked_add(size).filter(|end| *end <= module.end);
            let end =
                end.ok_or_else(|| ApplyError::Refused("a function behind its image".to_owned()))?;
            ranges.push((redirect.function.clone(), start..end));
        }
    }
    Ok(ranges)
}

fn forbid_overlaps(hooks: &[Hook]) -> Result<(), ApplyError> {
    let mut places: Vec<(u64, u64, &str)> = hooks
        .iter()
        .flat_map(|hook| hook.writes.iter().map(move |w| (w, &hook.function)))
        .map(|(write, function)| {
            (
                write.at.0,
                write.at.0 + write.new.0.len() as u64,
                function.as_str(),
            )
        })
        .collect();
    places.sort_unstable();
    match places.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => refused(format!(
            "the hooks of {} and {} need the same bytes",
            pair[0].2, pair[1].2
        )),
        None => Ok(()),
    }
}
