//! The primitives that [`crate::epochs`] is made of.
//!
//! They have this one door so that a model checker can put its own in their place: the test
//! `interleavings` compiles the very same source with them.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock};
