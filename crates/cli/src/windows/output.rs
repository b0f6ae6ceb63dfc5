//! What the user sees after a command ran.

use serde::Serialize;

use crate::arguments::{Arguments, Color};
use crate::failure::Failure;

/// How to print.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
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
        Output {
            json: arguments.json,
            quiet: arguments.quiet,
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
}

/// Words for a duration: `1.24 ms`.
pub(crate) fn milliseconds(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}
