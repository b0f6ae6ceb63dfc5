//! What was compiled for hot patching, on the command line: shown, held against what changed, and told
//! of where nothing tells it.

mod pair;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use live_tests::invivo::invivo;
use live_tests::run::Ran;
use live_tests::workdir::in_workdir;
use pair::{Pair, text};
use serde_json::Value;
use windows_tests::{Build, recorded};

/// An object file of the fixed build.
fn object(pair: &Pair, name: &str) -> PathBuf {
    pair.fixed.with_file_name(format!("{name}.obj"))
}

fn of(dir: &Path, program: &str, marked: &str) -> Result<Pair> {
    let how = [Build::base(), Build::fixed(marked)].map(|how| how.with("-DKEPT"));
    Pair::of(dir, program, [&how[0], &how[1]])
}

fn restored(pair: &Pair, object_file: &str) -> Result<()> {
    let pdb = pair.fixed.with_extension("pdb");
    let found = recorded::restore(&pdb, &[object(pair, object_file)])?;
    ensure!(found > 0, "nothing was restored");
    Ok(())
}

fn diff(pair: &Pair, more: &[&str]) -> Result<Ran> {
    let [base, fixed] = [&pair.base, &pair.fixed].map(text);
    invivo(&[&["diff", &base, &fixed][..], more].concat())
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let names = list.iter().map(|one| one["name"].as_str().or(one.as_str()));
    names.map(Option::unwrap_or_default).collect()
}

/// The records of the PDB file are shown, and agree with what changed.
#[test]
fn records_are_shown() -> Result<()> {
    in_workdir("marks-shown", |dir| {
        let pair = of(dir, "service", "answer,refuse")?;
        restored(&pair, "service")?;
        let shown = invivo(&["inspect", &text(&pair.fixed)])?;
        let line = "marks       compiled for hot patching: refuse, answer";
        ensure!(shown.stdout.contains(line), "{}", shown.told());
        let line = "5 pointers to variables (__ref_…)";
        ensure!(shown.stdout.contains(line), "{}", shown.told());
        let told = diff(&pair, &["--json"])?;
        let told = told.expect_code(0)?.json("invivo.diff/1")?;
        let marks = &told["marks"];
        ensure!(names(&marks["functions"]) == ["refuse", "answer"], "{told}");
        ensure!(marks["absent"].is_null(), "{told}");
        let ran = pair.build(&dir.join("service_hotpatch.dll"), &[])?;
        ran.expect_code(0)?;
        ensure!(!ran.stderr.contains("S_HOTPATCHFUNC"), "{}", ran.told());
        // An object file tells the same.
        let shown = invivo(&["inspect", &text(object(&pair, "service")), "--json"])?;
        let shown = shown.expect_code(0)?.json("invivo.object/1")?;
        ensure!(names(&shown["marks"]["functions"]) == ["refuse", "answer"]);
        ensure!(names(&shown["marks"]["pointers"]).contains(&"__ref_total"));
        Ok(())
    })
}

/// What the two tell of differently is an error, whoever tells: the PDB file or the object files.
#[test]
fn what_is_missing_or_too_much_is_refused() -> Result<()> {
    in_workdir("marks-held", |dir| {
        for (program, file, marked, told) in [
            (
                "privates",
                "outer",
                "thrice,answer",
                &["surplus: answer is the same in both builds"][..],
            ),
            (
                "service",
                "service",
                "refuse",
                &["missing: answer changed: "],
            ),
            (
                "inlined",
                "inlined",
                "checked",
                &[
                    "missing: first changed, since what is compiled for hot patching was inlined in \
                     it: first → clamped → checked",
                    "missing: second changed, since what is compiled for hot patching was inlined \
                     in it: second → checked",
                ],
            ),
        ] {
            let folder = dir.join(format!("{program}-{marked}"));
            let pair = of(&folder, program, marked)?;
            let out = folder.join("hotpatch.dll");
            let object = text(object(&pair, file));
            let by_object = pair.build(&out, &["--object", &object])?;
            by_object.expect_failure(1, told)?;
            // Without either nothing is held against it, which is said.
            let by_nobody = pair.build(&out, &[])?;
            ensure!(
                by_nobody.stderr.contains("--object FILE"),
                "{}",
                by_nobody.told()
            );
            for text in told {
                ensure!(!by_nobody.stderr.contains(text), "{}", by_nobody.told());
            }
            restored(&pair, file)?;
            let by_pdb = pair.build(&out, &[])?;
            by_pdb.expect_failure(1, told)?;
            let shown = diff(&pair, &[])?;
            shown.expect_code(1)?;
            for text in told {
                ensure!(shown.stdout.contains(text), "{}", shown.told());
            }
        }
        Ok(())
    })
}

/// LLVM's linker leaves the records out: that, and what to do, is told by each command.
#[test]
fn records_that_a_linker_left_out_are_missed() -> Result<()> {
    in_workdir("marks-absent", |dir| {
        let pair = of(dir, "service", "answer,refuse")?;
        let why = "no record tells which functions were compiled for hot patching \
                   (S_HOTPATCHFUNC), though 5 pointers to variables tell (__ref_…) that some were; \
                   LLVM's linker, which made this image, leaves them out of PDB files";
        let remedy = "--object FILE";
        let ran = pair.build(&dir.join("service_hotpatch.dll"), &[])?;
        ran.expect_code(0)?;
        let told = [
            ran.stderr.clone(),
            diff(&pair, &[])?.stdout,
            invivo(&["inspect", &text(&pair.fixed)])?.stdout,
        ];
        for told in told {
            ensure!(told.contains(why) && told.contains(remedy), "{told}");
        }
        // Whoever wants only errors is not advised, nor whoever has the list written that it advises to.
        for more in [
            &["--quiet"][..],
            &["--emit-functions-file", &text(dir.join("list"))],
        ] {
            let ran = pair.build(&dir.join("service_hotpatch.dll"), more)?;
            ran.expect_code(0)?;
            ensure!(!ran.stderr.contains("S_HOTPATCHFUNC"), "{}", ran.told());
        }
        // Nothing of it is there where nothing was compiled for it.
        let plain = of(&dir.join("plain"), "inlined", "")?;
        let told = diff(&plain, &["--json"])?.json("invivo.diff/1")?;
        let absent = &told["marks"]["absent"];
        let why = absent["why"].as_str().context("why")?;
        ensure!(why.contains("there is no pointer to a variable"), "{why}");
        let remedy = absent["remedy"].as_str().context("a remedy")?;
        ensure!(
            remedy.contains("-fms-secure-hotpatch-functions-file=FILE")
                && remedy.contains("--ms-secure-hotpatch-functions-list"),
            "{remedy}"
        );
        // A single image may be the base, of which nothing is wanted.
        let shown = invivo(&["inspect", &text(&plain.base)])?;
        ensure!(
            shown.stdout.contains("a base needs none of it"),
            "{}",
            shown.told()
        );
        // A list takes the place of the records.
        let listed = pair.build(
            &dir.join("service_hotpatch.dll"),
            &["--functions-list", "answer,refuse"],
        )?;
        listed.expect_code(0)?;
        ensure!(
            !listed.stderr.contains("S_HOTPATCHFUNC"),
            "{}",
            listed.told()
        );
        // Nor does an image without its PDB file tell anything.
        std::fs::remove_file(pair.fixed.with_extension("pdb"))?;
        let shown = invivo(&["inspect", &text(&pair.fixed)])?;
        shown.expect_code(0)?;
        // The file that was looked for is named with its folder.
        let line = "what was compiled for hot patching is not known: ";
        let path = text(pair.fixed.with_extension("pdb"));
        let told = shown.stdout.lines().find(|told| told.contains(line));
        ensure!(
            told.is_some_and(|told| told.contains(&path)),
            "{}",
            shown.told()
        );
        // To compare it, or to make a patch of it, its functions have to be known.
        let patch = text(dir.join("none.dll"));
        let images = [text(&pair.base), text(&pair.fixed)];
        for words in [
            vec!["diff", &images[0], &images[1]],
            vec!["build", &images[0], &images[1], "-o", &patch],
        ] {
            let refused = invivo(&words)?;
            refused.expect_code(2)?;
            for said in [path.as_str(), "--fixed-debug"] {
                ensure!(refused.stderr.contains(said), "{}", refused.told());
            }
        }
        ensure!(!dir.join("none.dll").exists(), "nothing was made");
        Ok(())
    })
}

/// For x86 new code is led to the base place by place: nobody is advised to compile for what nothing needs.
#[test]
fn for_x86_it_is_said_what_needs_it() -> Result<()> {
    in_workdir("marks-x86", |dir| {
        let how = [Build::base(), Build::base().with("-DFIXED")].map(Build::narrow);
        let pair = Pair::of(dir, "inlined", [&how[0], &how[1]])?;
        let told = "patch modules (--format hotp1) and cold patches for x86 need none of it";
        let shown = invivo(&["inspect", &text(&pair.fixed)])?;
        ensure!(shown.stdout.contains(told), "{}", shown.told());
        let shown = diff(&pair, &[])?;
        ensure!(shown.stdout.contains(told), "{}", shown.told());
        Ok(())
    })
}

/// The page for a browser tells the same as the text, and what forbids a patch there forbids it here.
#[test]
fn the_page_tells_of_it() -> Result<()> {
    in_workdir("marks-page", |dir| {
        let page = dir.join("page.html");
        let read = |marked: &str| -> Result<String> {
            let pair = of(&dir.join(marked), "service", marked)?;
            restored(&pair, "service")?;
            diff(&pair, &["--html", &text(&page)])?;
            Ok(std::fs::read_to_string(&page)?)
        };
        let good = read("answer,refuse")?;
        ensure!(good.contains("compiled for hot patching: refuse, answer"));
        ensure!(good.contains("May be patched live"));
        let wrong = read("refuse")?;
        ensure!(wrong.contains("missing: answer changed: "));
        ensure!(wrong.contains("Not to be patched live") && !wrong.contains("May be patched live"));
        Ok(())
    })
}
