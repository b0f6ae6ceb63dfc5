//! What the user sees while and after a command runs.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::arguments::{Arguments, Color};
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
}

impl Output {
    pub(crate) fn new(arguments: &Arguments) -> Output {
        // NO_COLOR and CLICOLOR_FORCE are honoured by `auto`.
        let choice = match arguments.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        let progress =
            !arguments.no_progress && !arguments.quiet && std::io::stderr().is_terminal();
        Output {
            json: arguments.json,
            quiet: arguments.quiet,
            verbose: arguments.verbose,
            yes: arguments.yes,
            progress,
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

    /// Shows that something long is going on, until the result is dropped.
    pub(crate) fn busy(&self, what: &str) -> Busy {
        if !self.progress {
            return Busy(None);
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Busy(Some(bar))
    }
}

/// A sign of life on the terminal.
pub(crate) struct Busy(Option<ProgressBar>);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Words for a duration: `1.24 ms`.
pub(crate) fn milliseconds(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}
