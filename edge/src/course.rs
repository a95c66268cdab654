//! How a request goes on that was offered less than the whole.

use http::Response;

use crate::body::Body;

/// See the module.
pub(crate) enum Course {
    /// It has its answer.
    Done(Response<Body>),
    /// Upstream as it stands, for this client alone.
    Pass,
    /// With the whole.
    Whole,
}
