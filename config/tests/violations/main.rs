//! What is refused, in which words: every rule at its limit and one past it.

mod rows;

mod edge;
mod origin;

mod control;
mod front;

mod reading;
