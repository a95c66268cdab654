//! The body of a request, whole, within a size and a time.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use meridian_config::units::{ByteSize, HumanDuration};
use tokio::time::timeout;

use crate::problem::{Code, Problem};

/// Reads `body` to its end.
pub(crate) async fn whole(
    body: Incoming,
    size: ByteSize,
    within: HumanDuration,
) -> Result<Bytes, Problem> {
    let body = Limited::new(body, size.to_usize());
    let Ok(collected) = timeout(within.get(), body.collect()).await else {
        let detail = format!("the body did not arrive within {within}");
        return Err(Problem::new(Code::RequestTimeout, detail));
    };
    match collected {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is larger than limits.body_size = {size}");
            Err(Problem::new(Code::TooLarge, detail))
        }
        Err(error) => {
            let detail = format!("the body could not be read: {error}");
            Err(Problem::new(Code::BadRequest, detail))
        }
    }
}
