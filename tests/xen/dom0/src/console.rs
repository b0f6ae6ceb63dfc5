//! Lines on the hypervisor's console, each in one call, so that none is torn.

use alloc::string::String;
use core::fmt::{Arguments, Write};

use crate::calls;

/// Writes a line.
pub fn line(arguments: Arguments<'_>) {
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = text.write_fmt(arguments);
    text.push('\n');
    calls::write(text.as_bytes());
}

/// Writes a line, as `println` does.
macro_rules! say {
    ($($argument:tt)*) => { $crate::console::line(core::format_args!($($argument)*)) };
}
pub(crate) use say;
