//! How one way of a link behaves.

use std::num::NonZeroU64;
use std::time::Duration;

/// How one way of a link behaves. The default changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Nothing gets through, and nothing is told to either end.
    pub cut: bool,
    /// Each byte takes this much longer.
    pub delay: Duration,
    /// And up to this much more, at random; the order of bytes stays.
    pub jitter: Duration,
    /// Bytes per second, of all connections together.
    pub rate: Option<NonZeroU64>,
    /// Bytes of one write at most.
    pub slice: Option<NonZeroU64>,
}

impl Shape {
    /// Only a delay.
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// Whether bytes pass as they come.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// A way over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the node that dials.
    There,
    /// To the node that dials.
    Back,
}

/// One of something for each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ways<T> {
    /// For the way from the node that dials.
    pub there: T,
    /// For the way to it.
    pub back: T,
}

impl<T> Ways<T> {
    /// That of `way`.
    pub fn of(&self, way: Way) -> &T {
        match way {
            Way::There => &self.there,
            Way::Back => &self.back,
        }
    }

    /// That of `way`, to change it.
    pub fn of_mut(&mut self, way: Way) -> &mut T {
        match way {
            Way::There => &mut self.there,
            Way::Back => &mut self.back,
        }
    }
}
