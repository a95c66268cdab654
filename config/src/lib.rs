//! What may be configured, in which units, and what is wrong with a file.
//!
//! - [`edge`], [`origin`], [`control`] (with the front door): one role each
//! - [`shared`]: tables that every role has; [`units`], [`pattern`]: values
//! - [`places`]: points of presence and round-trip times between them
//! - [`load`]: from a file to a checked role; [`violation`]: everything that is wrong with one

pub mod control;
pub mod edge;
pub mod origin;
pub mod pattern;
pub mod shared;
pub mod units;
