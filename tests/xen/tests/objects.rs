//! From the object files of two builds to payloads that real hypervisors take.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use invivo_compare::{Comparison, Finding, Rule};
use invivo_format::livepatch::{Bound, Hypervisor as Known, StructureVersion, Written, bind};
use invivo_image::{BuildId, Image, ObjectFile};
use invivo_patch::{Options, Refused, plan};
use xen_tests::kept::write;
use xen_tests::payload::compile_object;
use xen_tests::{Answer, End, Hypervisor, Machine, Script};

/// What stands in the way of a payload.
type Refusal = Vec<Finding>;

/// Builds a payload from two object files of one name.
fn build(
    base: &[u8],
    fixed: &[u8],
    xen: Option<&[u8]>,
    ids: (&[u8], &[u8]),
) -> Result<Result<Written, Refusal>> {
    let file = |bytes: &[u8]| ObjectFile {
        label: "common/file.o".to_owned(),
        bytes: Arc::from(bytes),
    };
    let (base, fixed) = Image::of_objects(&[file(base)], &[file(fixed)])?;
    let c = Comparison::new(&base, &fixed);
    let options = Options {
        name: "fix".to_owned(),
        ..Options::default()
    };
    let patch = match plan(&c, &options) {
        Ok(patch) => patch,
        Err(Refused::Findings(findings)) => return Ok(Err(findings)),
        Err(error) => bail!("{error}"),
    };
    let hypervisor = xen
        .map(Known::parse)
        .transpose()
        .map_err(anyhow::Error::msg)?;
    let bound = Bound {
        hypervisor: hypervisor.as_ref(),
        version: StructureVersion::V2,
        xen_depends: BuildId(ids.0.to_vec()),
        depends: BuildId(ids.1.to_vec()),
        spliced: false,
    };
    Ok(match bind(&c, &patch, &bound) {
        Ok(binding) => Ok(write(&binding.payload)?),
        Err(findings) => Err(findings),
    })
}

fn accepted(built: Result<Written, Refusal>) -> Result<Written> {
    built.map_err(|findings| anyhow::anyhow!("{findings:?}"))
}

/// The rule of the only refusal, and its text.
fn refused(built: Result<Written, Refusal>) -> Result<(Rule, String)> {
    match built.as_ref().map_err(|findings| &findings[..]) {
        Err([finding]) => Ok((finding.rule, finding.text.clone())),
        Err(findings) => bail!("{findings:?}"),
        Ok(_) => bail!("it was built"),
    }
}

fn text(answer: &Answer) -> Result<&str> {
    match answer {
        Answer::Text(text) => Ok(text),
        other => bail!("{other:?} is no text"),
    }
}

#[test]
fn a_changed_text_goes_live_on_both_hypervisors() -> Result<()> {
    for xen in Hypervisor::all()? {
        let (symbols, id) = (std::fs::read(xen.symbols())?, xen.build_id()?);
        let mut script = Script::new();
        let asked = script.extra_version();
        let run = Machine::of(&xen).run(&script)?;
        let own = text(&run[asked])?.to_owned();
        let object = |text: &str| compile_object("version.c", &[&format!("-DTEXT=\"{text}\"")]);
        let (base, fixed) = (object(&own)?, object("-invivo")?);
        let first = accepted(build(&base, &fixed, Some(&symbols), (&id, &id))?)?;
        assert_eq!(
            first.file,
            accepted(build(&base, &fixed, Some(&symbols), (&id, &id))?)?.file
        );
        let next = (&id[..], &first.id.0[..]);
        let second = accepted(build(&base, &object("-second")?, Some(&symbols), next)?)?;
        for processors in [1, 2] {
            let mut script = Script::new();
            let uploaded = [
                script.upload("first", &first.file),
                script.upload("second", &second.file),
            ];
            let applied = script.apply("first");
            let live = script.extra_version();
            let stacked = script.apply("second");
            let both = script.extra_version();
            let reverted = [script.revert("second"), script.revert("first")];
            let after = script.extra_version();
            let run = Machine::of(&xen).processors(processors).run(&script)?;
            assert_eq!(run.end, End::Finished, "{}", run.log);
            for step in uploaded
                .into_iter()
                .chain(reverted)
                .chain([applied, stacked])
            {
                assert!(run[step].is_done(), "{:?}", run[step]);
            }
            let texts = [text(&run[live])?, text(&run[both])?, text(&run[after])?];
            assert_eq!(
                texts,
                ["-invivo", "-second", own.as_str()],
                "{}",
                xen.version
            );
        }
        // Another text in the base: these are not the sources of this hypervisor.
        let other = build(&object("-other")?, &fixed, Some(&symbols), (&id, &id))?;
        let (rule, why) = refused(other)?;
        assert_eq!(rule, Rule::Build);
        assert!(why.contains("constant"), "{why}");
    }
    Ok(())
}

#[test]
fn tables_beside_the_code_and_static_names_work_in_a_real_hypervisor() -> Result<()> {
    let xen = Hypervisor::get("4.17")?;
    let (symbols, id) = (std::fs::read(xen.symbols())?, xen.build_id()?);
    let base = compile_object("keyhandler.c", &[])?;
    let fixed = compile_object("keyhandler.c", &["-DFIXED=\"key fixed\""])?;
    let payload = accepted(build(&base, &fixed, Some(&symbols), (&id, &id))?)?;
    let mut script = Script::new();
    script.key('A');
    let uploaded = script.upload("keys", &payload.file);
    let applied = script.apply("keys");
    script.key('A');
    script.key('A');
    let reverted = script.revert("keys");
    script.key('A');
    let run = Machine::of(&xen).run(&script)?;
    assert_eq!(run.end, End::Finished, "{}", run.log);
    for step in [uploaded, applied, reverted] {
        assert!(run[step].is_done(), "{:?}: {}", run[step], run.log);
    }
    let lines = |part: &str| -> Vec<&str> {
        let lines = run
            .log
            .lines()
            .filter_map(|line| line.find(part).map(|at| &line[at..]));
        lines.collect()
    };
    // The replacement was chosen and the fault was passed; the count is the payload's own.
    let counted = [1, 2].map(|n| format!("key fixed: count {n}, kind 2, value 14"));
    assert_eq!(lines("key fixed"), counted, "{}", run.log);
    // The variable is the hypervisor's: it goes on where it was.
    let modes: Vec<&str> = lines("pressed -> using")
        .iter()
        .map(|line| {
            if line.contains("alternative") {
                "alternative"
            } else {
                "normal"
            }
        })
        .collect();
    assert_eq!(
        modes,
        ["alternative", "normal", "alternative", "normal"],
        "{}",
        run.log
    );
    let warned = lines("Xen WARN at keyhandler.c:");
    assert_eq!(warned.len(), 2, "{}", run.log);
    let source = include_str!("../programs/keyhandler.c");
    let line = source
        .lines()
        .position(|line| line.trim() == "WARN();")
        .context("it is there")?
        + 1;
    assert!(
        warned[0].ends_with(&format!("keyhandler.c:{line}")),
        "{warned:?}, {line}"
    );
    Ok(())
}

#[test]
fn a_base_that_the_hypervisor_was_not_made_of_is_refused() -> Result<()> {
    let xen = Hypervisor::get("4.17")?;
    let (symbols, id) = (std::fs::read(xen.symbols())?, xen.build_id()?);
    let fix = "-DFIXED=\"key fixed\"";
    let (base, fixed) = (
        compile_object("keyhandler.c", &[])?,
        compile_object("keyhandler.c", &[fix])?,
    );
    // Other flags.
    let (one, other) = (
        compile_object("keyhandler.c", &["-O1"])?,
        compile_object("keyhandler.c", &["-O1", fix])?,
    );
    let (rule, why) = refused(build(&one, &other, Some(&symbols), (&id, &id))?)?;
    assert_eq!(rule, Rule::Build, "{why}");
    // Another hypervisor: the function is there and is not the same.
    let newer = Hypervisor::get("4.20")?;
    let built = build(
        &base,
        &fixed,
        Some(&std::fs::read(newer.symbols())?),
        (&id, &id),
    )?;
    assert_eq!(refused(built)?.0, Rule::Build);
    // Names alone: the whole path is known, so it can be bound, unseen.
    accepted(build(&base, &fixed, None, (&id, &id))?)?;
    Ok(())
}
