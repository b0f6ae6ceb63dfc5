//! Payloads that count, on real hypervisors.

use anyhow::{Context, Result};
use invivo_format::livepatch::{Hypervisor as Symbols, trace};
use xen_tests::kept::write;
use xen_tests::payload::tagged;
use xen_tests::{Answer, End, Hypervisor, Machine, Script};

/// What is counted: a first instruction that tells a distance, one that does not, and a static
/// function.
const NAMES: [&str; 3] = ["xen_extra_version", "do_xen_version", "xen_minor_version"];

#[test]
fn entries_are_counted_and_nothing_else_changes() -> Result<()> {
    for xen in Hypervisor::all()? {
        let file = std::fs::read(xen.symbols())?;
        let symbols = Symbols::parse(&file).map_err(anyhow::Error::msg)?;
        let payload = write(&trace(&symbols, &NAMES, None)?)?;
        for processors in [1, 2] {
            let mut script = Script::new();
            let before = script.extra_version();
            let uploaded = script.upload("count", &payload.file);
            let applied = script.apply("count");
            let during: Vec<_> = (0..7).map(|_| script.extra_version()).collect();
            let versions: Vec<_> = (0..3).map(|_| script.version()).collect();
            let reverted = script.revert("count");
            let after = script.extra_version();
            let unloaded = script.unload("count");
            let run = Machine::of(&xen).processors(processors).run(&script)?;
            assert_eq!(run.end, End::Finished, "{}", run.log);
            for step in [uploaded, applied, reverted, unloaded] {
                assert!(run[step].is_done(), "{:?}\n{}", run[step], run.log);
            }
            for step in during.into_iter().chain([after]) {
                assert_eq!(run[step], run[before]);
            }
            for step in versions {
                assert_eq!(run[step], Answer::Text(xen.version.clone()));
            }
            for (name, count) in NAMES.into_iter().zip([7, 10, 3]) {
                let line = format!("invivo: {name} was entered {count} times");
                assert!(run.log.contains(&line), "{line}\n{}", run.log);
            }
        }
    }
    Ok(())
}

/// It goes on top of a fix, and counts the fixed function's callers all the same.
#[test]
fn it_goes_on_top_of_a_fix() -> Result<()> {
    let xen = Hypervisor::get("4.20")?;
    let file = std::fs::read(xen.symbols())?;
    let symbols = Symbols::parse(&file).map_err(anyhow::Error::msg)?;
    let fix = tagged(&xen, "fixed", None, &[])?;
    let id = invivo_image::BuildId(xen_tests::hypervisor::build_id(&fix)?);
    let payload = write(&trace(&symbols, &["do_xen_version"], Some(&id))?)?;
    let mut script = Script::new();
    script.upload("fix", &fix);
    script.upload("count", &payload.file);
    let (fixed, counted) = (script.apply("fix"), script.apply("count"));
    let version = script.extra_version();
    let (first, second) = (script.revert("count"), script.revert("fix"));
    let run = Machine::of(&xen).run(&script)?;
    for step in [fixed, counted, first, second] {
        assert!(run[step].is_done(), "{:?}\n{}", run[step], run.log);
    }
    assert_eq!(run[version], Answer::Text("fixed".to_owned()));
    assert!(run.log.contains("do_xen_version was entered 1 times"));
    Ok(())
}

#[test]
fn what_is_not_proved_is_refused() -> Result<()> {
    for xen in Hypervisor::all()? {
        let file = std::fs::read(xen.symbols())?;
        let symbols = Symbols::parse(&file).map_err(anyhow::Error::msg)?;
        for (name, why) in [
            ("no_such_function", "no function of this name"),
            ("__start_xen", "gone once Xen has booted"),
            ("tainted", "no function"),
            ("do_dm_op", "a jump or a call"),
            ("arch/x86/hvm/hvm.c#hvm_get_param.part.0", "when it boots"),
            ("handle_exception", "entry from outside"),
        ] {
            let error = trace(&symbols, &[name], None).err();
            let error = error
                .with_context(|| format!("{name} is traced"))?
                .to_string();
            assert!(error.contains(why), "{error}");
        }
        if xen.version == "4.17" {
            // It halts in a loop that begins at its second instruction.
            let error = trace(&symbols, &["arch/x86/shutdown.c#__machine_halt"], None).err();
            let error = error.context("a loop's beginning is moved")?.to_string();
            assert!(error.contains("leads between"), "{error}");
        }
        // In `xen.efi` the same names are elsewhere: a distance that is moved tells nothing there.
        let mut by_distance = trace(&symbols, &NAMES[..1], None)?;
        let before = by_distance.clone();
        assert!(by_distance.by_names_alone(&symbols).is_err());
        assert_eq!(by_distance, before);
        let mut by_name = trace(&symbols, &NAMES[1..2], None)?;
        assert_eq!(by_name.by_names_alone(&symbols), Ok(()));
        assert_eq!(by_name.functions[0].expectation, None);
        assert!(trace(&symbols, &[], None).is_err());
        assert!(trace(&symbols, &[NAMES[0], NAMES[0]], None).is_err());
        // A list of names without code tells too little.
        let map = std::fs::read(xen.map())?;
        let map = Symbols::parse(&map).map_err(anyhow::Error::msg)?;
        assert!(trace(&map, &[NAMES[0]], None).is_err());
    }
    Ok(())
}
