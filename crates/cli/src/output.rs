//! What the user sees while and after a command runs.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Color, General, Progress};
use crate::failure::Failure;

/// How to print.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
    /// True if no question is to be asked.
    pub(crate) yes: bool,
    progress: bool,
    /// True if progress is told to programs.
    events: bool,
}

/// A line of `--progress json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Event {
    schema: &'static str,
    /// `begin`, `process` or `end`.
    event: &'static str,
    /// What is going on, such as `applying`.
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<String>,
    /// Milliseconds since it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
    /// The process that is done with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// How many are done, of how many that were found until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<usize>,
}

impl Event {
    fn new(event: &'static str) -> Event {
        Event {
            schema: "invivo.progress/1",
            event,
            what: None,
            took_ms: None,
            pid: None,
            state: None,
            done: None,
            found: None,
        }
    }

    fn print(&self) {
        // One line, also where several threads have something to tell.
        if let Ok(json) = serde_json::to_string(self) {
            anstream::eprintln!("{json}");
        }
    }
}

impl Output {
    pub(crate) fn new(arguments: &General) -> Output {
        // NO_COLOR and CLICOLOR_FORCE are honoured by `auto`.
        let choice = match arguments.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        let events = arguments.progress == Progress::Json;
        let shown = !arguments.no_progress && !arguments.quiet && !events;
        let progress = shown && std::io::stderr().is_terminal();
        Output {
            json: arguments.json,
            quiet: arguments.quiet,
            verbose: arguments.verbose,
            yes: arguments.yes,
            progress,
            events,
        }
    }

    /// Tells programs that a process is done with, one of `done` of `found`.
    pub(crate) fn process_done(&self, pid: i32, state: &str, done: usize, found: usize) {
        if self.events {
            Event {
                pid: Some(pid),
                state: Some(state.to_owned()),
                done: Some(done),
                found: Some(found),
                ..Event::new("process")
            }
            .print();
        }
    }

    /// Prints `value` as JSON, or calls `text`.
    pub(crate) fn data<T: Serialize>(&self, value: &T, text: impl FnOnce()) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(value)
                .map_err(|error| Failure::new(70, format!("cannot write JSON: {error}")))?;
            anstream::println!("{json}");
        } else if !self.quiet {
            text();
        }
        Ok(())
    }

    /// Tells on standard error what a person should know besides; not where only data and errors are wanted.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            anstream::eprintln!("invivo: {text}");
        }
    }

    /// Shows that something long is going on, until the result is dropped.
    pub(crate) fn busy(&self, what: &str) -> Busy {
        if self.events {
            Event {
                what: Some(what.to_owned()),
                ..Event::new("begin")
            }
            .print();
            return Busy::Told(what.to_owned(), Instant::now());
        }
        if !self.progress {
            return Busy::Silent;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Busy::Shown(bar)
    }
}

/// A sign of life.
pub(crate) enum Busy {
    Silent,
    /// On the terminal.
    Shown(ProgressBar),
    /// As events: what is going on, and since when.
    Told(String, Instant),
}

impl Drop for Busy {
    fn drop(&mut self) {
        match self {
            Busy::Silent => {}
            Busy::Shown(bar) => bar.finish_and_clear(),
            Busy::Told(what, begun) => Event {
                what: Some(std::mem::take(what)),
                took_ms: Some(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)),
                ..Event::new("end")
            }
            .print(),
        }
    }
}

/// A number of things in words: `1 function`, `2 functions`.
#[cfg(not(windows))]
pub(crate) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Words for a duration: `1.24 ms`.
pub(crate) fn milliseconds(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}
