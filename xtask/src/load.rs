//! Load: clients that check every answer, and the record of what they saw.
//!
//! A run is divided into phases (before, applying, …). A client stamps each
//! request with the phase it was sent in, so that "every answer after the
//! apply" is a statement about requests and not about when somebody looked.

pub(crate) mod authority;
pub(crate) mod dns;
mod histogram;
pub(crate) mod http;
pub(crate) mod library;
pub(crate) mod memcached;
pub(crate) mod mqtt;
pub(crate) mod redis;
pub(crate) mod ssh;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub(crate) use histogram::Histogram;

/// No answer takes this long unless the server hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What one phase saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Record {
    /// Requests that were answered.
    pub(crate) answers: u64,
    /// Answers that were not the expected ones.
    pub(crate) wrong: u64,
    /// Round trips that touched the phase.
    pub(crate) latency: Histogram,
}

impl Record {
    fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.wrong += other.wrong;
        self.latency.add(&other.latency);
    }
}

/// What all clients of a run share.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    phase: AtomicUsize,
    ended: AtomicBool,
    answers: AtomicU64,
    errors: Mutex<Vec<String>>,
}

impl Meter {
    /// Begins the next phase and returns its number.
    pub(crate) fn next_phase(&self) -> usize {
        self.phase.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The phase that runs now.
    pub(crate) fn phase(&self) -> usize {
        self.phase.load(Ordering::SeqCst)
    }

    /// Tells all clients to finish.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Whether clients are to finish.
    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// How many answers came so far.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Notes something that must not happen: a lost connection, a time-out.
    pub(crate) fn fail(&self, error: String) {
        if let Ok(mut errors) = self.errors.lock() {
            errors.push(error);
        }
    }

    /// What went wrong so far.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors
            .lock()
            .map(|errors| errors.clone())
            .unwrap_or_default()
    }
}

/// One client's own record, kept without locks until it ends.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    meter: &'a Meter,
    records: Vec<Record>,
}

/// A request that is on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// The phase in which it was sent.
    pub(crate) phase: usize,
    at: Instant,
}

impl Sent {
    /// The time since then, in microseconds.
    pub(crate) fn elapsed_us(self) -> u64 {
        u64::try_from(self.at.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Client<'_> {
    /// Whether there is more to do.
    pub(crate) fn goes_on(&self) -> bool {
        !self.meter.ended()
    }

    /// Stamps a request that is about to be sent.
    pub(crate) fn send(&self) -> Sent {
        Sent {
            phase: self.meter.phase(),
            at: Instant::now(),
        }
    }

    /// Notes answers, which came in one piece, and how many of them were wrong.
    /// Returns the phase they came in.
    pub(crate) fn receive(&mut self, sent: Sent, answers: u64, wrong: u64) -> usize {
        let took = sent.at.elapsed();
        self.note(sent.phase, took, answers, wrong)
    }

    /// Notes right answers that nobody timed.
    pub(crate) fn count(&mut self, answers: u64) {
        let phase = self.meter.phase();
        self.records
            .resize(self.records.len().max(phase + 1), Record::default());
        if let Some(record) = self.records.get_mut(phase) {
            record.answers += answers;
        }
        self.meter.answers.fetch_add(answers, Ordering::Relaxed);
    }

    /// Notes answers whose time was measured elsewhere.
    pub(crate) fn note(
        &mut self,
        first_phase: usize,
        took: Duration,
        answers: u64,
        wrong: u64,
    ) -> usize {
        let phase = self.meter.phase();
        self.records
            .resize(self.records.len().max(phase + 1), Record::default());
        if let Some(touched) = self.records.get_mut(first_phase..=phase) {
            touched
                .iter_mut()
                .for_each(|record| record.latency.note(took));
        }
        if let Some(record) = self.records.get_mut(phase) {
            record.answers += answers;
            record.wrong += wrong;
        }
        self.meter.answers.fetch_add(answers, Ordering::Relaxed);
        phase
    }
}

/// The clients of one run.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// What they share.
    pub(crate) meter: Arc<Meter>,
    threads: Vec<JoinHandle<Vec<Record>>>,
}

impl Clients {
    /// Starts a client; an error of it is an error of the run.
    pub(crate) fn start(
        &mut self,
        name: String,
        work: impl FnOnce(&mut Client) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let meter = Arc::clone(&self.meter);
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let mut client = Client {
                    meter: &meter,
                    records: Vec::new(),
                };
                if let Err(error) = work(&mut client) {
                    meter.fail(format!("{name}: {error:#}"));
                }
                client.records
            })
            .context("cannot start a client")?;
        self.threads.push(thread);
        Ok(())
    }

    /// Starts `count` clients that do the same, each with its number.
    pub(crate) fn start_many(
        &mut self,
        count: usize,
        work: impl Fn(&mut Client, usize) -> Result<()> + Copy + Send + 'static,
    ) -> Result<()> {
        (0..count).try_for_each(|number| {
            self.start(format!("client {number}"), move |client| {
                work(client, number)
            })
        })
    }

    /// Ends all clients and adds up what each phase saw.
    pub(crate) fn finish(self) -> Vec<Record> {
        self.meter.end();
        let mut sum = vec![Record::default(); self.meter.phase() + 1];
        for thread in self.threads {
            match thread.join() {
                Ok(records) => sum
                    .iter_mut()
                    .zip(&records)
                    .for_each(|(sum, record)| sum.add(record)),
                Err(_) => self.meter.fail("a client panicked".to_owned()),
            }
        }
        sum
    }
}
