//! The `fpesa` executable.

fn main() {}
