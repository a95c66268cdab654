//! What HTTP demands of a shared cache, as pure functions of header fields, policy and time.
//!
//! | module | answers |
//! | --- | --- |
//! | [`decide`] | what to do with one request: serve, forward, refuse |
//! | [`stored`] | what the rules keep of a stored response; its age; its freshening by a 304 |
//! | [`storable`] | may this response be stored (RFC 9111 §3), and if not, why |
//! | [`reusable`] | may this stored response be used now, fresh or stale (§4, RFC 5861) |
//! | [`freshness`], [`age`] | for how long (§4.2.1-2), how old (§4.2.3) |
//! | [`cache_control`], [`targeted`] | directives, and which field speaks here (RFC 9213) |
//! | [`vary`], [`language`] | which of several stored responses (§4.1) |
//! | [`coding`] | which content coding a request is to have (RFC 9110 §12.5.3) |
//! | [`derived`] | whether an edge may code a response itself, and what comes of it |
//! | [`validate`] | validators, preconditions, 304 (§4.3, RFC 9110 §13) |
//! | [`ranges`] | which bytes (RFC 9110 §14) |
//! | [`partial`] | parts of a representation, and which may be combined (§3.4) |
//! | [`invalidate`], [`groups`] | what an unsafe request invalidates (§4.4, RFC 9875) |
//! | [`amend`] | what rules of a site change about fields for clients |
//! | [`hop_by_hop`], [`trailers`] | which fields end at this node (RFC 9110 §7.6.1, §6.5.1) |
//! | [`authority`], [`target`] | what names a host; the one spelling of a target (RFC 3986 §6.2) |
//! | [`forwarded`], [`cdn_loop`] | who a request came from and through (RFC 7239, RFC 8586) |
//! | [`cache_status`], [`proxy_status`] | how the outcome is told (RFC 9211), how an error (RFC 9209) |
//! | [`policy`], [`time`], [`exchange`] | what is brought from outside |
//!
//! Absent on purpose: clocks, sockets, tasks, bodies, keys. "§" alone means RFC 9111.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod decide;

pub mod stored;

pub mod reusable;
pub mod storable;

pub mod age;
pub mod freshness;

pub mod cache_control;
pub mod targeted;

pub mod language;
pub mod vary;

pub mod coding;
pub mod derived;

pub mod validate;

pub mod partial;
pub mod ranges;

pub mod groups;
pub mod invalidate;

pub mod amend;

pub mod hop_by_hop;
pub mod trailers;

pub mod authority;
pub mod target;

pub mod cdn_loop;
pub mod forwarded;

pub mod cache_status;
pub mod proxy_status;

pub mod exchange;
pub mod policy;
pub mod time;

mod date;
mod list;
mod structured;

#[cfg(test)]
mod bytes_laws;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod partial_laws;
#[cfg(test)]
mod sharing_laws;
