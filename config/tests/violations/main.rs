//! What is refused, in which words: every rule at its limit and one past it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's verdict")]

mod rows;

mod edge;
mod origin;
mod shield;
mod site_rules;

mod control;
mod front;

mod reading;
