//! Models: every interleaving of a small world, not only those that a test happens to meet.
//!
//! A model says how Meridian is designed, not how it is written. It proves that the design leaves no
//! gap, and its broken variants prove that it would see one.

mod linear;
mod purge_race;
