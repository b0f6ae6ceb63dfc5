//! Harness of the live scenarios.
//!
//! A scenario is a small real program, built once as it runs (base) and once repaired (fixed). The base is started,
//! patched with the program `invivo`, asked questions, reverted, and asked again. What a fixture must answer before and
//! after stands in the fixture itself, see [`fixture`].

pub mod binary;
pub mod clients;
pub mod compile;
mod compiled;
pub mod exchanged;
pub mod fixture;
pub mod group;
pub mod invivo;
pub mod killed;
pub mod marked;
pub mod memory;
pub mod pair;
pub mod round_trip;
pub mod run;
pub mod target;
pub mod torture;
pub mod unharmed;
pub mod workdir;
