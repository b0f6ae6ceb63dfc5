//! The life of payloads on real hypervisors, with one processor and with two.

use std::time::Duration;

use anyhow::{Context, Result};
use invivo_format::livepatch::{Expectation, Hypervisor as Symbols, Options, Rule, predict, read};
use xen_tests::hypervisor::build_id;
use xen_tests::kept::write;
use xen_tests::payload::tagged;
use xen_tests::{Answer, End, Errno, Hypervisor, Machine, Patience, Script, State, Status};

fn text(answer: &Answer) -> &str {
    match answer {
        Answer::Text(text) => text,
        _ => "not a text",
    }
}

fn status(state: State, result: i32) -> Answer {
    Answer::Status(Status { state, result })
}

/// Both hypervisors, with one processor and with two.
fn everywhere(test: impl Fn(&Hypervisor, &Machine) -> Result<()>) -> Result<()> {
    for xen in Hypervisor::all()? {
        for processors in [1, 2] {
            test(&xen, &Machine::of(&xen).processors(processors))
                .with_context(|| format!("Xen {}, {processors} processors", xen.version))?;
        }
    }
    Ok(())
}

#[test]
fn a_hypervisor_tells_what_it_is() -> Result<()> {
    for xen in Hypervisor::all()? {
        let mut script = Script::new();
        let interface = script.interface();
        let version = script.version();
        let id = script.build_id();
        let empty = script.list();
        let run = Machine::of(&xen).run(&script)?;
        assert_eq!(run.end, End::Finished);
        assert_eq!(run[interface], Answer::Number(0x15));
        assert_eq!(text(&run[version]), xen.version);
        let own: String = xen
            .build_id()?
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(text(&run[id]), own);
        assert!(matches!(&run[empty], Answer::Listed(list) if list.payloads.is_empty()));
    }
    Ok(())
}

#[test]
fn a_payload_is_applied_seen_and_taken_back() -> Result<()> {
    everywhere(|xen, machine| {
        let payload = tagged(xen, "fixed", None, &[])?;
        let mut script = Script::new();
        let before = script.extra_version();
        let uploaded = script.upload("fix", &payload);
        let checked = script.get("fix");
        let (applied, live) = (script.apply("fix"), script.get("fix"));
        let fixed = script.extra_version();
        let again = script.apply("fix");
        let in_use = script.unload("fix");
        let (reverted, after) = (script.revert("fix"), script.extra_version());
        let twice = script.revert("fix");
        let reapplied = script.apply("fix");
        let (fixed_again, _) = (script.extra_version(), script.revert("fix"));
        let (unloaded, gone) = (script.unload("fix"), script.get("fix"));
        let run = machine.run(&script)?;
        assert_eq!(run.end, End::Finished, "{}", run.log);
        for step in [uploaded, applied, reverted, reapplied, unloaded] {
            assert!(run[step].is_done(), "{:?}", run[step]);
        }
        assert_eq!(run[checked], status(State::Checked, 0));
        assert_eq!(run[live], status(State::Applied, 0));
        assert_eq!([text(&run[fixed]), text(&run[fixed_again])], ["fixed"; 2]);
        assert_eq!(run[before], run[after]);
        // Nothing to do is no attempt.
        for step in [again, twice] {
            assert!(matches!(run[step], Answer::Done { attempts: 0, .. }));
        }
        assert_eq!(run[in_use], Answer::Refused(Errno::EINVAL));
        assert_eq!(run[gone], Answer::Refused(Errno::ENOENT));
        Ok(())
    })
}

/// A payload that expects other code than is there, which is known before, and what a replace makes of it.
fn misfit(xen: &Hypervisor) -> Result<Vec<u8>> {
    let mut payload = read(&tagged(xen, "misfit", None, &[])?)?.payload;
    payload.functions[0].expectation = Expectation::new(vec![0xcc; 4]);
    let file = write(&payload)?.file;
    let symbols = std::fs::read(xen.symbols())?;
    let symbols = Symbols::parse(&symbols).map_err(anyhow::Error::msg)?;
    let options = Options {
        version: xen.version.parse().map_err(anyhow::Error::msg)?,
        xen: Some(&symbols),
        running: None,
        loaded: &[],
    };
    let prediction = predict(&file, &options);
    assert_eq!(prediction.unpatched, Some(Rule::X47), "{prediction:?}");
    Ok(file)
}

#[test]
fn payloads_stack_and_a_successor_replaces_them() -> Result<()> {
    everywhere(|xen, machine| {
        let first = tagged(xen, "first", None, &[])?;
        let second = tagged(xen, "second", Some(&build_id(&first)?), &[])?;
        let whole = tagged(xen, "whole", None, &[])?;
        let misfit = misfit(xen)?;
        let mut script = Script::new();
        for (name, payload) in [("first", &first), ("second", &second), ("whole", &whole)] {
            script.upload(name, payload);
        }
        let too_early = script.apply("second");
        let (one, two) = (script.apply("first"), script.apply("second"));
        let stacked = script.extra_version();
        let wrong_order = script.revert("first");
        let not_whole = script.apply("whole");
        let (replaced, successor) = (script.replace("whole"), script.extra_version());
        let list = script.list();
        let (back, before) = (script.revert("whole"), script.extra_version());
        let nodeps = script.apply_nodeps("second");
        let alone = script.extra_version();
        // What the next one expects is not what is there: all of it is taken back before Xen looks.
        script.upload("misfit", &misfit);
        let (failed, unpatched) = (script.replace("misfit"), script.extra_version());
        let (mended, at_last) = (script.apply("first"), script.extra_version());
        let run = machine.run(&script)?;
        assert_eq!(run.end, End::Finished, "{}", run.log);
        for step in [one, two, replaced, back, nodeps, mended] {
            assert!(run[step].is_done(), "{:?}", run[step]);
        }
        assert_eq!(run[too_early], Answer::Refused(Errno::EINVAL));
        assert_eq!(run[wrong_order], Answer::Refused(Errno::EBUSY));
        assert_eq!(run[not_whole], Answer::Refused(Errno::EINVAL));
        assert_eq!(text(&run[stacked]), "second");
        assert_eq!(text(&run[successor]), "whole");
        assert_eq!(text(&run[alone]), "second");
        assert!(text(&run[before]).starts_with('.'), "{:?}", run[before]);
        let Answer::Error(why) = &run[failed] else {
            unreachable!("{:?}", run[failed])
        };
        for word in ["EINVAL", "(second)", "without any payload"] {
            assert!(why.contains(word), "{why}");
        }
        assert!(run.log.contains("SYSTEM MIGHT BE INSECURE"), "{}", run.log);
        assert_eq!(run[unpatched], run[before]);
        assert_eq!(text(&run[at_last]), "first");
        let Answer::Listed(list) = &run[list] else {
            unreachable!("{:?}", run[list])
        };
        let states: Vec<(&str, State)> = list
            .payloads
            .iter()
            .map(|one| (&*one.name, one.status.state))
            .collect();
        assert_eq!(
            states,
            [
                ("first", State::Checked),
                ("second", State::Checked),
                ("whole", State::Applied)
            ]
        );
        Ok(())
    })
}

/// A payload with variables is not as it was when it is taken back; Xen's call says 0 all the same.
#[test]
fn what_the_call_does_not_tell_is_told() -> Result<()> {
    everywhere(|xen, machine| {
        let payload = tagged(xen, "counting", None, &["-DVARIABLE"])?;
        let mut script = Script::new();
        script.upload("counting", &payload);
        let (applied, reverted) = (script.apply("counting"), script.revert("counting"));
        let again = script.apply("counting");
        let run = machine.run(&script)?;
        assert!(run[applied].is_done() && run[reverted].is_done());
        assert_eq!(run[again], Answer::Failed(Errno::EINVAL, State::Checked));
        Ok(())
    })
}

/// More payloads than one call of LIST gives, with names of all lengths.
#[test]
fn long_lists_are_read_in_parts() -> Result<()> {
    let xen = Hypervisor::get("4.20")?;
    let mut script = Script::new();
    let mut names = Vec::new();
    for number in 0..70 {
        let name = format!("{number:0>width$}", width = 2 + number * 125 / 69);
        let tag = format!("t{number}");
        script.upload(&name, &tagged(&xen, &tag, None, &[])?);
        names.push(name);
    }
    let list = script.list();
    let run = Machine::of(&xen).run(&script)?;
    assert_eq!(run.end, End::Finished, "{}", run.log);
    let Answer::Listed(list) = &run[list] else {
        unreachable!("{:?}", run[list])
    };
    assert_eq!(list.version, 71);
    let listed: Vec<&str> = list.payloads.iter().map(|one| &*one.name).collect();
    assert_eq!(listed, names);
    Ok(())
}

/// Two processors cannot meet within a microsecond: it is tried as often as said, and told.
#[test]
fn a_meeting_that_fails_is_told() -> Result<()> {
    for xen in Hypervisor::all()? {
        let payload = tagged(&xen, "late", None, &[])?;
        let hasty = Patience {
            whole: Duration::from_secs(5),
            rendezvous: Duration::from_micros(1),
            attempts: 3,
        };
        let mut script = Script::new();
        script.upload("late", &payload);
        let before = script.extra_version();
        let failed = script.act("apply", "late", hasty);
        let after = script.extra_version();
        let applied = script.apply("late");
        let run = Machine::of(&xen).processors(2).run(&script)?;
        let busy = Answer::Busy {
            attempts: 3,
            begun: true,
        };
        assert_eq!(run[failed], busy, "{}", run.log);
        assert_eq!(run[before], run[after]);
        assert!(run[applied].is_done());
        assert!(run.log.contains("quiesce phase"));
    }
    Ok(())
}
