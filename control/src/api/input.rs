//! What a request brings: its body as JSON, its parameters.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use meridian_control_wire::problem::ErrorCode;
use serde::de::DeserializeOwned;

use crate::answer::Refusal;
use crate::context::Context;

/// The body of `request`, read as JSON within the limits of size and time.
pub(super) async fn body_of<T: DeserializeOwned>(
    context: &Context,
    request: Request<Incoming>,
) -> Result<T, Refusal> {
    let bytes = whole_body(context, request.into_body()).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(ErrorCode::BadRequest, format!("the body: {error}")))
}

/// The body of a request that is passed on, within the same limits.
pub(super) async fn whole_body(context: &Context, body: Incoming) -> Result<Bytes, Refusal> {
    let limits = &context.config.limits;
    // Less than the whole call may take, so that it is this that is told.
    let patience = limits.call_timeout.get().mul_f64(0.9);
    let body = whole(body, limits.body_size.to_usize());
    tokio::time::timeout(patience, body).await.map_err(|_elapsed| {
        Refusal::new(ErrorCode::RequestTimeout, format!("no whole body within {patience:?}"))
    })?
}

async fn whole(body: Incoming, limit: usize) -> Result<Bytes, Refusal> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("the body is larger than limits.body_size = {limit} bytes");
            Err(Refusal::new(ErrorCode::TooLarge, detail))
        }
        Err(error) => Err(Refusal::new(ErrorCode::BadRequest, format!("the body broke: {error}"))),
    }
}

/// The value of the parameter `name` in `query`, without its escapes; the first if it is repeated.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<Result<String, Refusal>> {
    let value = query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))?;
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
    Some(decoded.map(std::borrow::Cow::into_owned).map_err(|error| {
        Refusal::new(ErrorCode::BadRequest, format!("the parameter {name} is no UTF-8: {error}"))
    }))
}

#[cfg(test)]
mod tests {
    use super::parameter;

    #[test]
    fn a_parameter_is_the_first_of_its_name_without_escapes() {
        let rows = [
            (Some("from=fra"), Some("fra")),
            (Some("a=b&from=50.03%2C8.57&from=x"), Some("50.03,8.57")),
            (Some("from="), Some("")),
            (Some("from"), None),
            (Some("xfrom=a"), None),
            (Some("url=http%3A%2F%2Fa%2Fb%3Fc%3Dd&from=%E2%82%AC"), Some("€")),
            (None, None),
        ];
        for (query, want) in rows {
            let got = parameter(query, "from").map(|value| value.unwrap());
            assert_eq!(got.as_deref(), want, "{query:?}");
        }
        assert!(parameter(Some("from=%ff"), "from").unwrap().is_err());
    }
}
