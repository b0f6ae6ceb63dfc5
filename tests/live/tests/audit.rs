//! What `audit` says of a function is what an apply then does to it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{apply, invivo};
use live_tests::memory::mappings;
use live_tests::pair::Pair;
use live_tests::target::Side;
use live_tests::workdir::in_workdir;
use serde_json::Value;

fn number(text: &Value) -> Result<u64> {
    let text = text.as_str().context("an address is a text")?;
    let digits = text
        .strip_prefix("0x")
        .context("an address begins with 0x")?;
    Ok(u64::from_str_radix(digits, 16)?)
}

/// Applies the fix of `source` and holds each hook against what `audit` said of the base;
/// returns the forms that were seen.
fn forms(source: &str, flags: &[&str]) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    in_workdir(source, |dir| {
        let flags = [&["-fno-pie", "-no-pie"][..], flags].concat();
        let (compiler, flags) = (None, flags.as_slice());
        let pair = Pair::build(dir, source, Build { compiler, flags })?;
        let (base, _) = pair.images();
        let patch = pair.patch()?;
        let audited = invivo(&["audit", &base.display().to_string(), "--json"])?;
        let audited = audited.expect_code(0)?.json("invivo.audit/1")?;
        let audited = audited["functions"].as_array().context("no functions")?;
        let mut target = pair.start()?;
        let pid = target.pid().to_string();
        let plan = invivo(&["plan", &patch.display().to_string(), "-p", &pid, "--json"])?;
        let plan = plan.expect_code(0)?.json("invivo.plan/1")?;
        let process = &plan["processes"][0];
        let hooks = process["hooks"].as_array().context("no hooks")?;
        ensure!(!hooks.is_empty(), "nothing is hooked: {plan}");

        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let first = mappings(target.pid())?;
        ensure!(
            first[0].start == 0x40_0000,
            "not a program at a fixed address"
        );
        let read = |at: u64, size: usize| -> Result<Vec<u8>> {
            let mut bytes = vec![0; size];
            memory.read_exact_at(&mut bytes, at)?;
            Ok(bytes)
        };
        let mut needs_stop = false;
        let mut places = Vec::new();
        for hook in hooks {
            let at = number(&hook["at"])?;
            let function = audited
                .iter()
                .find(|function| function["at"] == hook["at"])
                .with_context(|| format!("audit does not know {hook}"))?;
            let told = &function["hook"];
            ensure!(
                told["form"] == hook["form"],
                "audit: {function}, plan: {hook}"
            );
            needs_stop |= told["needs_stop"] == true;
            let offset = told["offset"].as_u64().context("no offset")?;
            let length = usize::try_from(told["length"].as_u64().context("no length")?)?;
            let size = usize::try_from(function["size"].as_u64().context("no size")?)?;
            let opcode = if told["pad"].is_null() { 0xe9 } else { 0xeb };
            places.push((
                at,
                usize::try_from(offset)?,
                length,
                opcode,
                read(at, size)?,
            ));
            seen.push(hook["form"].as_str().unwrap_or_default().to_owned());
        }
        ensure!(process["needs_stop"] == needs_stop, "{plan}");
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        for (at, offset, length, opcode, before) in places {
            let after = read(at, before.len())?;
            ensure!(
                after[offset] == opcode,
                "{at:#x} holds {:#x}",
                after[offset]
            );
            let changed = offset..offset + length;
            let elsewhere = (0..before.len()).filter(|index| !changed.contains(index));
            for index in elsewhere {
                ensure!(before[index] == after[index], "{at:#x}+{index} was changed");
            }
        }
        target.expect_all(&pair.fixture.asks, Side::New)
    })?;
    Ok(seen)
}

/// Between them, the fixtures and flags have entries of every form.
#[test]
fn the_audited_form_is_the_one_that_is_used() -> Result<()> {
    let mut seen = Vec::new();
    let prepared = "-fpatchable-function-entry=5,5";
    let builds: [(&str, &[&str]); 6] = [
        ("greeting.c", &[]),
        ("greeting.c", &[prepared]),
        ("endbr.c", &[]),
        ("tiny.c", &[]),
        ("args20.c", &["-falign-functions=1"]),
        ("errno.c", &["-O0", "-falign-functions=1"]),
    ];
    for (source, flags) in builds {
        seen.extend(forms(source, flags).with_context(|| format!("{source} {flags:?}"))?);
    }
    for form in [
        "jump over one instruction",
        "short jump to padding",
        "jump behind the prologue's start",
        "jump over several instructions",
    ] {
        ensure!(seen.iter().any(|one| one == form), "no {form} in {seen:?}");
    }
    Ok(())
}
