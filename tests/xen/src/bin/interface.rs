//! Leads a payload through its life on a hypervisor that was built by hand, and tells the version of the
//! interface that was found. `CONTRIBUTING.md` says how such a hypervisor is built.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use xen_tests::payload::tagged;
use xen_tests::{Answer, End, Hypervisor, Machine, Script, State, Status};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.context("usage: interface FOLDER, with xen and xen-syms in it")?;
    let xen = Hypervisor::in_folder("built by hand", &folder);
    let first = tagged(&xen, "first", None, &[])?;
    let second = tagged(&xen, "second", None, &[])?;
    for processors in [1, 2] {
        let mut script = Script::new();
        let (interface, version) = (script.interface(), script.version());
        let empty = script.list();
        let mut done = vec![
            script.upload("first", &first),
            script.upload("second", &second),
        ];
        done.push(script.apply("first"));
        let live = script.extra_version();
        let status = script.get("first");
        done.push(script.replace("second"));
        let replaced = script.extra_version();
        let list = script.list();
        done.push(script.revert("second"));
        done.push(script.unload("first"));
        done.push(script.unload("second"));
        let nobody = script.list();
        let run = Machine::of(&xen).processors(processors).run(&script)?;
        ensure!(run.end == End::Finished, "{:?}\n{}", run.end, run.log);
        for step in done {
            ensure!(run[step].is_done(), "{:?}\n{}", run[step], run.log);
        }
        let applied = Status {
            state: State::Applied,
            result: 0,
        };
        ensure!(run[live] == Answer::Text("first".to_owned()));
        ensure!(run[status] == Answer::Status(applied));
        ensure!(run[replaced] == Answer::Text("second".to_owned()));
        let names = |answer: &Answer| match answer {
            Answer::Listed(list) => list.payloads.iter().map(|one| one.name.clone()).collect(),
            other => vec![format!("{other:?}")],
        };
        ensure!(names(&run[empty]).is_empty() && names(&run[nobody]).is_empty());
        ensure!(names(&run[list]) == ["first", "second"], "{:?}", run[list]);
        let Answer::Number(number) = run[interface] else {
            anyhow::bail!("{:?}", run[interface]);
        };
        println!(
            "Xen {:?}, interface {number:#x}, {processors} processors: done",
            run[version]
        );
    }
    Ok(())
}
