//! How is a patch written down? One module per carrier, each with read, write
//! and validate. Nothing here applies anything.

pub mod elf;
pub mod hpat;
pub mod symbols;
