//! The story of one live case: its steps, told as they happen, and at the end a
//! table of what the clients saw in each phase.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::verdict::Seen;
use super::{Answer, Apart, Case, ended};
use crate::claims::Claims;
use crate::invivo::{Invivo, Outcome};
use crate::load::{Clients, Histogram};
use crate::paint;
use crate::process::Server;

/// A slow machine gets this long to answer as many requests as are asked for.
const ENOUGH_LIMIT: Duration = Duration::from_secs(180);

/// A run in progress.
pub(crate) struct Story<'a> {
    case: &'a dyn Case,
    server: Server,
    /// The image that is patched; every process of the program that runs it is.
    image: &'a Path,
    clients: Clients,
    begun: Instant,
    /// The name of each phase; several phases may share one.
    phases: Vec<&'static str>,
    claims: &'a mut Claims,
    /// The longest apply so far, in microseconds.
    apply_us: u64,
}

impl<'a> Story<'a> {
    /// Starts the clients and lets them come up.
    pub(crate) fn begin(
        case: &'a dyn Case,
        server: Server,
        image: &'a Path,
        claims: &'a mut Claims,
    ) -> Result<Self> {
        let mut clients = Clients::default();
        case.load(server.port, &mut clients)?;
        let phases = vec!["warming up"];
        let story = Self {
            case,
            server,
            image,
            clients,
            begun: Instant::now(),
            phases,
            claims,
            apply_us: 0,
        };
        thread::sleep(Duration::from_secs(1));
        story.tell(format!(
            "{} runs as process {} with {} threads, under load",
            story.case.image(),
            story.server.pid(),
            story.server.threads()
        ));
        Ok(story)
    }

    fn tell(&self, text: impl std::fmt::Display) {
        println!("  {:6.2} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    fn enter(&mut self, phase: &'static str) {
        self.clients.meter.next_phase();
        self.phases.push(phase);
    }

    /// Asks which program answers.
    pub(crate) fn probe(&mut self, when: &str, expected: Answer) -> Result<()> {
        // A probe may be work for the server, so it is a phase of its own.
        self.enter("probing");
        let (answer, seen) = self.case.probe(self.server.port)?;
        self.tell(format!("probe: {answer:?}, {seen}"));
        self.claims.add(
            format!("{when}, the program answers {expected:?}"),
            answer == expected,
        );
        ended(&mut self.server, when)
    }

    /// Lets the load run.
    pub(crate) fn watch(&mut self, phase: &'static str, time: Duration) -> Result<()> {
        self.enter(phase);
        thread::sleep(time);
        ended(&mut self.server, phase)
    }

    /// Makes the patch live in every process.
    pub(crate) fn apply(&mut self, invivo: &Invivo, patch: &Path) -> Result<()> {
        self.enter("applying");
        for pid in self.server.processes(self.image)? {
            let apart = self.case.apart();
            let outcome = if apart == Apart::Person {
                invivo.apply_quiescent(patch, pid)
            } else {
                invivo.apply(patch, pid)
            };
            let outcome = self.known(outcome)?;
            if apart != Apart::No {
                self.claims.add(
                    format!("in process {pid} no thread was inside what is replaced"),
                    outcome.switch == "stopped" && outcome.stopped_us > 0,
                );
            }
            self.apply_us = self.apply_us.max(outcome.wall_us);
            self.event("applied", pid, &outcome);
        }
        let name = self.case.name();
        let listed = self.listed(invivo)?;
        self.claims.add(
            "each process lists the patch once it is applied",
            listed.iter().all(|patches| patches == &[name]),
        );
        ended(&mut self.server, "applying")
    }

    /// Takes it back.
    pub(crate) fn revert(&mut self, invivo: &Invivo) -> Result<()> {
        self.enter("reverting");
        for pid in self.server.processes(self.image)? {
            let outcome = invivo.revert(self.case.name(), pid);
            let outcome = self.known(outcome)?;
            self.event("reverted", pid, &outcome);
        }
        let listed = self.listed(invivo)?;
        self.claims.add(
            "no process lists a patch once it is reverted",
            listed.iter().all(Vec::is_empty),
        );
        ended(&mut self.server, "reverting")
    }

    /// The patches that each process lists.
    fn listed(&self, invivo: &Invivo) -> Result<Vec<Vec<String>>> {
        let processes = self.server.processes(self.image)?;
        processes.iter().map(|pid| invivo.applied(*pid)).collect()
    }

    /// Adds to an error of the tool what became of the program.
    fn known(&mut self, outcome: Result<Outcome>) -> Result<Outcome> {
        outcome.with_context(|| {
            let mut words = vec![self.server.fate()];
            words.extend(self.clients.meter.errors());
            words.join("; ")
        })
    }

    fn event(&mut self, expected: &str, pid: u32, outcome: &Outcome) {
        let Outcome {
            state,
            hooks,
            switch,
            wall_us,
            visited_us,
            stopped_us,
            program_us,
        } = outcome;
        self.tell(paint::event(format!(
            "process {pid} {state} in {} ({}, {switch}; one thread visited for {}, all stopped for {}; program {})",
            paint::micros(*wall_us),
            paint::of(*hooks, "function"),
            paint::micros(*visited_us),
            paint::micros(*stopped_us),
            paint::micros(*program_us),
        )));
        self.claims
            .add(format!("process {pid} is {expected}"), state == expected);
    }

    /// Waits for enough requests, ends the clients, prints what they saw.
    pub(crate) fn finish(mut self) -> Result<Seen> {
        let wanted = self.case.requests();
        let meter = std::sync::Arc::clone(&self.clients.meter);
        let end = Instant::now() + ENOUGH_LIMIT;
        while meter.answers() < wanted && meter.errors().is_empty() && Instant::now() < end {
            self.watch("patched", Duration::from_millis(200))?;
        }
        let alive = self.server.alive();
        let mut rows: Vec<(&str, u64, u64, Histogram)> = Vec::new();
        let records = self.clients.finish();
        for (name, record) in self.phases.iter().zip(&records) {
            match rows.iter_mut().find(|row| row.0 == *name) {
                Some(row) => {
                    row.1 += record.answers;
                    row.2 += record.wrong;
                    row.3.add(&record.latency);
                }
                None => rows.push((name, record.answers, record.wrong, record.latency.clone())),
            }
        }
        println!(
            "\n  {}",
            paint::dim("phase            answers   wrong       p50     p99.9   longest")
        );
        for (name, answers, wrong, latency) in &rows {
            println!(
                "  {name:12} {:>11} {wrong:>7} {:>9} {:>9} {:>9}",
                paint::count(*answers),
                paint::micros(latency.quantile_us(0.5)),
                paint::micros(latency.quantile_us(0.999)),
                paint::micros(latency.longest_us()),
            );
        }
        println!();
        let errors = meter.errors();
        errors
            .iter()
            .for_each(|error| println!("  {}", paint::bad(error)));
        let wrong: u64 = rows.iter().map(|row| row.2).sum();
        let total = meter.answers();
        let claims = self.claims;
        claims.add(
            format!(
                "{} requests were answered, {} asked for",
                paint::count(total),
                paint::count(wanted)
            ),
            total >= wanted,
        );
        claims.add(
            format!(
                "{wrong} answers were wrong, {} connections failed",
                errors.len()
            ),
            wrong == 0 && errors.is_empty(),
        );
        claims.add("the program still runs, and was never restarted", alive);
        let stall = rows.iter().find(|row| row.0 == "applying");
        Ok(Seen {
            apply_us: self.apply_us,
            stall_us: stall.map_or(0, |row| row.3.longest_us()),
            requests: total,
            errors: wrong + errors.len() as u64,
        })
    }
}
