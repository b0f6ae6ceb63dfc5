//! Programs in all build layouts: a comparison finds exactly what the fix changes.

use input_tests::layout::Compiler;
use input_tests::matrix::{hold, layouts};
use input_tests::program::{CLASSES, PLAIN};

#[test]
fn c_with_gcc() {
    hold(&PLAIN, &layouts(Compiler::Gcc), &[]);
}

#[test]
fn c_with_clang() {
    hold(&PLAIN, &layouts(Compiler::Clang), &[]);
}

#[test]
fn cpp_with_gcc() {
    hold(&CLASSES, &layouts(Compiler::Gcc), &[]);
}

#[test]
fn cpp_with_clang() {
    hold(&CLASSES, &layouts(Compiler::Clang), &[]);
}
