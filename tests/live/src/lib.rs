//! Harness of the live scenarios.
