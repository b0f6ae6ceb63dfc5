//! Does the probe of a case tell its two builds apart, and is its load clean?

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{Answer, prepare};
use crate::claims::Claims;
use crate::load::Clients;
use crate::paint;
use crate::workspace::Workspace;

/// Checks the probe and the load without `invivo`: the base must answer OLD,
/// the fixed program NEW, and no answer may be wrong.
pub(crate) fn selftest(workspace: &Workspace, name: &str) -> Result<bool> {
    let case = prepare(workspace, name)?;
    let mut claims = Claims::default();
    for (variant, expected) in [("base", Answer::Old), ("fixed", Answer::New)] {
        let run = workspace.fresh_folder(&format!("live/{}-{variant}", case.name()))?;
        let server = case.start(&workspace.corpus.join(case.name()).join(variant), &run)?;
        let mut clients = Clients::default();
        case.load(server.port, &mut clients)?;
        thread::sleep(Duration::from_secs(2));
        let probed = case.probe(server.port);
        let meter = Arc::clone(&clients.meter);
        let records = clients.finish();
        let (answer, seen) = probed?;
        let answers = meter.answers();
        let wrong: u64 = records.iter().map(|record| record.wrong).sum();
        meter
            .errors()
            .iter()
            .for_each(|error| println!("  {}", paint::bad(error)));
        claims.add(
            format!("{} {variant}: answers {expected:?} ({seen})", case.name()),
            answer == expected,
        );
        claims.add(
            format!(
                "{} {variant}: {} answers, 0 wrong, 0 errors",
                case.name(),
                paint::count(answers)
            ),
            answers > 0 && wrong == 0 && meter.errors().is_empty(),
        );
    }
    claims.print();
    Ok(claims.hold())
}
