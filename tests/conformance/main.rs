//! What HTTP demands of an edge, told over the wire: a real edge process before a scripted origin.
//!
//! - [`storing`] RFC 9111 §3, §4.2: what is stored and how long it is fresh
//! - [`validating`] RFC 9111 §4.3, RFC 5861: asking again, and standing in for an error
//! - [`updating`] RFC 9111 §3.2, §4.3.4-5: what a 304 and a HEAD say of what is stored
//! - [`invalidating`] RFC 9111 §4.4, RFC 9875: what an unsafe method forgets, and a POST leaves
//! - [`switches`] what a site may choose: languages, lifetimes of failures, whose fields it obeys
//! - [`selecting`] RFC 9111 §4.1, RFC 9110 §13, §14: variants, conditions, ranges
//! - [`coding`] RFC 9110 §8.4, §12.5.3: content codings made at the edge
//! - [`collapsing`] RFC 9111 §4: one forward request for many
//! - [`forwarding`] RFC 9110 §7, RFC 8586: what an origin and a client are told
//! - [`purging`] what purges take and leave, told by a scripted control [`replica`]
//! - [`rotating`] which control replica an edge follows, [`control_lag`] what it does without any
//! - [`shield`] one edge that asks another, [`shield_race`] random purges through both
//! - [`message`] RFC 9110 §7, §10.1.1, RFC 9112 §3, RFC 9113 §8: the message itself
//! - [`interim`] RFC 9110 §15.2: what comes before an answer
//! - [`tunnel`] RFC 9110 §7.8: other protocols
//! - [`ranging`], [`slicing`] RFC 9110 §14, RFC 9111 §3.4: parts and slices of what is not stored,
//!   of a [`file`](mod@file) at the origin
//! - [`site_rules`] what a site does otherwise for some requests
//! - [`explaining`] what `explain` says of the next request
//! - [`limits`], [`least_rate`], [`uploading`] what one client may cost
//! - [`resilience`], [`patience`], [`covered`] an origin that is slow, failing, flapping or gone ·
//!   [`dripping`] its bodies · [`adaptive`] how many it is asked for at once
//!
//! Tables of [`rows`], in both profiles where these agree:
//! - [`ageing`] RFC 9111 §4.2.3, §5.1 · [`expiring`] §5.3 · [`heuristic`] §4.2.2, §5.2.2.3
//! - [`variants`] §4.1 · [`freshening`] §3.2, §4.3.4, §4.4
//! - [`lagging`] RFC 5861 · [`targeted`] RFC 9213
//!
//! The public suite of cache tests is run by `tests/conformance-suite`.

mod adaptive;
mod coding;
mod collapsing;
mod control_lag;
mod covered;
mod dripping;
mod explaining;
mod file;
mod forwarding;
mod interim;
mod invalidating;
mod least_rate;
mod limits;
mod message;
mod patience;
mod purging;
mod ranging;
mod replica;
mod resilience;
mod rotating;
mod selecting;
mod shield;
mod shield_race;
mod site_rules;
mod slicing;
mod storing;
mod switches;
mod tunnel;
mod updating;
mod uploading;
mod validating;

mod ageing;
mod expiring;
mod freshening;
mod heuristic;
mod lagging;
mod rows;
mod targeted;
mod variants;
