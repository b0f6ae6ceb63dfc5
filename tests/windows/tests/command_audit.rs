//! What `audit` says of Windows images: how much of one can be hooked, and how.

mod pair;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use live_tests::invivo::invivo;
use live_tests::workdir::in_workdir;
use pair::text;
use serde_json::Value;
use windows_tests::{Build, build};

/// What `audit` says of an image.
fn audit(image: &Path, more: &[&str]) -> Result<Value> {
    let ran = invivo(&[&["audit", &text(image), "--json"][..], more].concat())?;
    ran.expect_code(0)?.json("invivo.audit/1")
}

/// The forms of Windows, and no other.
const FORMS: [&str; 3] = [
    "short jump to padding",
    "short jump to padding over several instructions",
    "jump over the first instructions",
];

/// How many functions take each form, and how many none; they are all functions, and the percentages are theirs.
fn counts(audited: &Value) -> Result<([u64; 3], u64)> {
    let number = |total: &Value| total["count"].as_u64().context("a number");
    let forms = audited["forms"].as_array().context("forms")?;
    let names: Vec<&Value> = forms.iter().map(|form| &form["form"]).collect();
    ensure!(names == FORMS, "{names:?}");
    let stops: Vec<&Value> = forms.iter().map(|form| &form["needs_stop"]).collect();
    ensure!(stops == [false, true, true], "{stops:?}");
    let counts = [number(&forms[0])?, number(&forms[1])?, number(&forms[2])?];
    let unfit = number(&audited["unfit"])?;
    let functions = audited["functions"].as_array().context("functions")?;
    let all = functions.len() as u64;
    ensure!(counts.iter().sum::<u64>() + unfit == all, "{audited}");
    for total in forms
        .iter()
        .chain([&audited["unfit"], &audited["without_stop"]])
    {
        let percent = number(total)? as f64 * 100.0 / all as f64;
        let told = total["percent"].as_f64().context("a number")?;
        ensure!((-1e-6..0.1 + 1e-6).contains(&(percent - told)), "{audited}");
    }
    ensure!(number(&audited["without_stop"])? == counts[0], "{audited}");
    ensure!(number(&audited["prepared"])? == counts[0], "{audited}");
    for function in functions {
        let hook = &function["hook"];
        let short = hook["form"].as_str().is_some_and(|form| form != FORMS[2]);
        let pad = if short { Value::from(-5) } else { Value::Null };
        ensure!(hook["pad"] == pad, "{function}");
        ensure!(hook.is_null() || hook["offset"] == 0, "{function}");
    }
    Ok((counts, unfit))
}

/// The one function that is called so.
fn function<'a>(audited: &'a Value, name: &str) -> Result<&'a Value> {
    let all = audited["functions"].as_array().context("functions")?;
    let found = all.iter().find(|function| function["name"] == name);
    found.with_context(|| format!("no {name}: {audited}"))
}

/// The rates of images for x86 and x86-64: made for hot patching, by chance, and not.
#[test]
fn how_much_of_an_image_can_be_hooked() -> Result<()> {
    in_workdir("audit-windows", |dir| {
        let image = |name: &str, program: &str, how: Build| -> Result<Value> {
            audit(&build(dir, name, program, &how)?.path, &[])
        };
        let narrow = |how: Build| how.narrow().with("-mno-sse");
        // What was made for it: both bytes are those of one instruction. One that begins with an address
        // is left.
        let prepared = image("prepared", "elder", narrow(Build::base()))?;
        let ([short, over, jump], unfit) = counts(&prepared)?;
        ensure!(short > 10 && over + jump == 0, "{prepared}");
        ensure!(unfit > 0 && unfit < 5, "{prepared}");
        let why = function(&prepared, "_get_calls")?["reason"].as_str();
        ensure!(
            why.is_some_and(|why| why.contains("the loader changes")),
            "{prepared}"
        );
        ensure!(
            function(&prepared, "_help")?["hook"]["length"] == 2,
            "{prepared}"
        );
        // Code for x86-64 holds none.
        let wide = image("wide", "steady", Build::base())?;
        let (count, _) = counts(&wide)?;
        ensure!(count[0] > 5, "{wide}");
        ensure!(wide["without_stop"]["percent"] == 100.0, "{wide}");

        // By chance: padding, and a usual begin whose second instruction the two bytes cut in two.
        let frames = "-fno-omit-frame-pointer";
        let semi = Build::default().with(frames).with("-falign-functions=64");
        let semi = image("semi", "elder", narrow(semi))?;
        let (count, _) = counts(&semi)?;
        let mut cut = 0;
        for name in ["_answer", "_choose", "_keep", "_leap"] {
            let hook = &function(&semi, name)?["hook"];
            cut += u64::from(hook["form"] == FORMS[1] && hook["length"] == 3);
        }
        ensure!(cut >= 3 && count[1] >= cut, "{count:?}, {cut} of four");

        // Neither: a jump alone, where nothing leads back to behind it and the loader changes nothing.
        let tight = Build::default().with("-Os -falign-functions=1");
        let tight = image("tight", "begins", narrow(tight))?;
        let (count, unfit) = counts(&tight)?;
        ensure!(
            count[0] + count[1] == 0 && count[2] > 0 && unfit > 0,
            "{tight}"
        );
        ensure!(
            function(&tight, "_both")?["hook"]["form"] == FORMS[2],
            "{tight}"
        );
        let scaled = function(&tight, "_scaled")?;
        let why = scaled["reason"].as_str().unwrap_or_default();
        ensure!(scaled["hook"].is_null(), "{scaled}");
        ensure!(why.contains("short needs 5 bytes"), "{scaled}");
        ensure!(why.contains("the loader changes"), "{scaled}");
        Ok(())
    })
}

/// The same for a person: the rates, and each function.
#[test]
fn the_rates_are_told() -> Result<()> {
    in_workdir("audit-told", |dir| {
        let image = text(build(dir, "base", "steady", &Build::base())?.path);
        let ran = invivo(&["audit", &image])?;
        let told = &ran.expect_code(0)?.stdout;
        for line in [
            "100.0 %",
            "can be hooked while all threads run",
            "short jump to padding over several instructions: all threads stop for a moment",
            "0.0 %        0  no hook fits",
        ] {
            ensure!(told.contains(line), "{line}: {}", ran.told());
        }
        let how = Build::base().narrow().with("-mno-sse");
        let image = text(build(dir, "narrow", "elder", &how)?.path);
        let ran = invivo(&["audit", &image, "--name", "answer"])?;
        let told = &ran.expect_code(0)?.stdout;
        let last = told.lines().last().unwrap_or_default();
        ensure!(
            last.ends_with(" _answer: short jump to padding"),
            "{}",
            ran.told()
        );
        Ok(())
    })
}
