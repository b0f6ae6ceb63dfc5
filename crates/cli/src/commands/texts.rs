//! `invivo completions`, `invivo man`

use std::io::Write;

use clap::CommandFactory;

use crate::arguments::Arguments;
use crate::failure::{Failure, USAGE};

pub(crate) fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "invivo", &mut text);
    print(&text)
}

pub(crate) fn man() -> Result<u8, Failure> {
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(Arguments::command());
    page.render(&mut text)
        .map_err(|error| Failure::new(70, error.to_string()))?;
    print(&text)
}

fn print(text: &[u8]) -> Result<u8, Failure> {
    std::io::stdout()
        .write_all(text)
        .map_err(|error| Failure::new(USAGE, format!("cannot write: {error}")))?;
    Ok(0)
}
