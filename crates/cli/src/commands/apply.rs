//! `invivo apply`

use invivo_apply::Consistency;
use invivo_linux::{Access, Process};

use crate::arguments::{self, Apply};
use crate::failure::Failure;
use crate::live::Run;
use crate::output::Output;
use crate::patch_file::load;

pub(crate) fn run(apply: &Apply, output: &Output) -> Result<u8, Failure> {
    let file = load(&apply.patch)?;
    if apply.dry_run {
        return super::plan::show(&file, &apply.processes.pid, output);
    }
    let consistency = match apply.consistency {
        arguments::Consistency::Entry => Consistency::Entry,
        arguments::Consistency::Quiescent => Consistency::Quiescent,
    };
    let run = Run::new(output);
    let options = run.options(consistency, apply.timeout);
    let _busy = output.busy("applying");
    let judgements = &file.patch.judgements;
    run.each(&apply.processes.pid, judgements, output, |pid| {
        let mut process = Process::open(pid, Access::Write(&options))?;
        Ok(vec![invivo_apply::apply(
            &mut process,
            &file.patch,
            &file.id,
            &options,
        )?])
    })
}
