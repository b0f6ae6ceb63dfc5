//! Real sources, built in the ways in which programs are built, and what a comparison
//! of base and fixed build must say about each.

pub mod compare;
pub mod layout;
pub mod matrix;
pub mod program;
pub mod tool;
