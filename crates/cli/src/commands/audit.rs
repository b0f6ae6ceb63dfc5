//! `invivo audit`

mod windows;

use invivo_apply::x86_64::{Form, choose, is_prepared};
use invivo_compare::{Parts, Usage};
use invivo_image::{Image, LiveAddr, Machine, demangle};
use invivo_patch::{Entry, arm64_entry};
use owo_colors::OwoColorize;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Audit;
use crate::debug_files::Search;
use crate::failure::{Failure, REFUSED};
use crate::images::load;
use crate::output::{Output, counted};

/// `audit --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Audited {
    schema: &'static str,
    image: String,
    /// Functions that were compiled to be patched while they run, or happen to look so.
    prepared: Share,
    /// Functions that can be hooked while all threads run.
    without_stop: Share,
    /// How many functions take which form of hook, in the order in which forms are tried.
    forms: Vec<FormShare>,
    /// Functions that take no hook.
    unfit: Share,
    /// Each function, as it would be hooked if it alone were replaced.
    functions: Vec<Function>,
}

/// A part of all functions.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
struct Share {
    count: usize,
    /// Of 100, rounded down to one digit behind the point.
    percent: f64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FormShare {
    form: &'static str,
    #[serde(flatten)]
    share: Share,
    /// True if all threads stop for a moment.
    needs_stop: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Function {
    name: String,
    /// Its link address.
    at: String,
    /// Bytes.
    size: u64,
    prepared: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<Hook>,
    /// Why no hook fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Hook {
    form: &'static str,
    needs_stop: bool,
    /// Offset of the replaced bytes from the entry.
    offset: u64,
    /// How many are replaced there.
    length: u64,
    /// Where the long jump stands, as an offset from the entry, if not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pad: Option<i64>,
}

pub(crate) fn run(audit: &Audit, output: &Output) -> Result<u8, Failure> {
    let busy = output.busy("reading");
    let image = load(&Search {
        program: &audit.image,
        given: audit.debug.as_deref(),
        option: "--debug",
        folders: &audit.debug_directory,
    })?;
    let usage = Usage::of(&image);
    let pe = windows::of(&image)?;
    let wanted = |parts: &Parts| {
        let name = image.entity(parts.main).name();
        let wanted = audit.name.as_deref();
        wanted.is_none_or(|text| name.contains(text) || demangle(name).contains(text))
    };
    let functions: Vec<Function> = Parts::all(&image)
        .into_par_iter()
        .filter(wanted)
        .map(|parts| match &pe {
            Some(pe) => windows::look(&image, pe, &usage, &parts),
            None => look(&image, &usage, &parts),
        })
        .collect();
    drop(busy);
    if functions.is_empty() {
        let text = format!("{}: no such function", audit.image.display());
        return Err(Failure::new(REFUSED, text)
            .hint("see all of them with: invivo audit IMAGE --functions"));
    }
    let forms = match &pe {
        Some(_) => windows::FORMS.to_vec(),
        None if image.machine == Machine::Aarch64 => vec![(BRANCH, false)],
        None => Form::ALL
            .map(|form| (form.name(), form.needs_stop()))
            .to_vec(),
    };
    let audited = add_up(audit.image.display().to_string(), &forms, functions);
    let list = audit.functions || audit.name.is_some();
    output.data(&audited, || print(&audited, list))?;
    Ok(0)
}

/// What modern Windows writes over the entry of a function for ARM64.
const BRANCH: &str = "branch over one instruction";

/// The hook of one function of an image for ARM64.
fn look_arm64(image: &Image, parts: &Parts) -> Function {
    let entity = image.entity(parts.main);
    let entry = arm64_entry(image, parts.main);
    let hook = Hook {
        form: BRANCH,
        needs_stop: false,
        offset: 0,
        length: 4,
        pad: None,
    };
    Function {
        name: demangle(entity.name()),
        at: entity.addr.to_string(),
        size: entity.size,
        prepared: entry.is_ok(),
        hook: entry.is_ok().then_some(hook),
        reason: entry.err(),
    }
}

/// The hook of one function, chosen as for an apply in which nothing else is hooked.
fn look(image: &Image, usage: &Usage, parts: &Parts) -> Function {
    if image.machine == Machine::Aarch64 {
        return look_arm64(image, parts);
    }
    let entity = image.entity(parts.main);
    let entry = Entry::of(image, usage, parts);
    let choice = match &entry {
        Some(entry) => choose(entry, LiveAddr(entity.addr.0), entity.size, &mut Vec::new()),
        None => Err("its code is not all instructions".to_owned()),
    };
    let (hook, reason) = match choice {
        Ok(choice) => {
            let hook = Hook {
                form: choice.form.name(),
                needs_stop: choice.form.needs_stop(),
                offset: choice.offset,
                length: choice.length,
                pad: choice.pad,
            };
            (Some(hook), None)
        }
        Err(reason) => (None, Some(reason)),
    };
    Function {
        name: demangle(entity.name()),
        at: entity.addr.to_string(),
        size: entity.size,
        prepared: entry.is_some_and(|entry| is_prepared(&entry)),
        hook,
        reason,
    }
}

fn add_up(image: String, forms: &[(&'static str, bool)], functions: Vec<Function>) -> Audited {
    let share = |belongs: &dyn Fn(&Function) -> bool| {
        let count = functions.iter().filter(|f| belongs(f)).count();
        // Rounded down: 100 % are all of them.
        let thousandth = (count * 1000).checked_div(functions.len()).unwrap_or(0);
        Share {
            count,
            percent: thousandth as f64 / 10.0,
        }
    };
    let hook_is =
        |f: &Function, wanted: &dyn Fn(&Hook) -> bool| f.hook.as_ref().is_some_and(wanted);
    Audited {
        schema: "invivo.audit/1",
        image,
        prepared: share(&|f| f.prepared),
        without_stop: share(&|f| hook_is(f, &|hook| !hook.needs_stop)),
        forms: forms
            .iter()
            .map(|&(form, needs_stop)| FormShare {
                form,
                share: share(&|f| hook_is(f, &|hook| hook.form == form)),
                needs_stop,
            })
            .collect(),
        unfit: share(&|f| f.hook.is_none()),
        functions,
    }
}

fn print(audited: &Audited, list: bool) {
    let line = |share: Share, text: &str| {
        anstream::println!("{:>9.1} %  {:>7}  {text}", share.percent, share.count);
    };
    let functions = counted(audited.functions.len(), "function");
    anstream::println!("{}: {functions}\n", audited.image.bold());
    line(audited.without_stop, "can be hooked while all threads run");
    line(audited.prepared, "were compiled for it, or look so");
    anstream::println!();
    for form in &audited.forms {
        let stop = if form.needs_stop {
            ": all threads stop for a moment"
        } else {
            ""
        };
        line(form.share, &format!("{}{stop}", form.form));
    }
    line(audited.unfit, "no hook fits");
    if !list {
        return;
    }
    anstream::println!();
    for function in &audited.functions {
        let how = match (&function.hook, &function.reason) {
            (Some(hook), _) => hook.form,
            (None, reason) => reason.as_deref().unwrap_or_default(),
        };
        anstream::println!("  {} {}: {how}", function.at, function.name);
    }
}
