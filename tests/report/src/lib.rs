//! The report as people see it: written by the program `invivo` for real builds, and opened in a real browser.

pub mod browser;
pub mod pair;
