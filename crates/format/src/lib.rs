//! How is a patch written down? One module per carrier, each with read, write
//! and validate. Nothing here applies anything.

mod digest;
pub mod elf;
pub mod final_image;
pub mod hotp1;
pub mod hpat;
pub mod livepatch;
mod rules;
mod section;
pub mod symbols;
