//! What may be configured, in which units, and what is wrong with a file.
//!
//! - [`load`]: from a file to a checked role; [`violation`]: everything that is wrong with one
//! - [`together`]: rules that span the files of several nodes
//! - [`role`]: what roles have in common; [`edge`], [`origin`], [`control`] (with the front door):
//!   one role each, its defaults and its rules
//! - [`site_rule`]: what a site does otherwise for some requests; [`control_loss`]: and without the
//!   control plane
//! - [`shared`]: tables that every role has; [`units`], [`network`], [`pattern`], [`media`], [`query`]:
//!   values
//! - [`places`]: points of presence and the round-trip times between them
//!
//! On the way from text to a role: `document` knows what stands where, `decode` reads past what is
//! wrong, `fault` puts serde's words into rules, `key` is where something stands,
//! `limits` has the rules that several tables share.
//!
//! Absent on purpose: sockets, tasks, and every file but the one that is loaded. Nothing here
//! looks whether a port is free, a folder exists or a token file holds a token: whoever uses them
//! does, before it binds anything.

pub mod load;
pub mod together;
pub mod violation;

pub mod control;
pub mod control_loss;
pub mod edge;
pub mod origin;
pub mod role;
pub mod site_rule;

pub mod media;
pub mod network;
pub mod pattern;
pub mod places;
pub mod query;
pub mod shared;
pub mod units;

mod decode;
mod document;
mod fault;
mod key;
mod limits;
