//! What is found under a path: a representation (RFC 9110 §3.2), or why there is none.

use http::header::HeaderValue;
use meridian_edge_rules::validate::Validators;

use crate::body::Source;
use crate::problem::Problem;

/// What is found under a path.
#[derive(Debug)]
pub(crate) enum Found {
    Here(Representation),
    /// It is a folder and was asked for without the slash at its end.
    Elsewhere,
    /// There is nothing; perhaps with a page that says so.
    Missing(Option<Representation>),
    /// There is nothing, or it cannot be had, for the reason told.
    Nothing(Problem),
}

/// A representation (RFC 9110 §3.2), ready to be sent in whole or in part.
#[derive(Debug, Clone)]
pub(crate) struct Representation {
    /// Without `date`: that is the time of the answer.
    pub(crate) validators: Validators,
    pub(crate) content_type: HeaderValue,
    pub(crate) length: u64,
    pub(crate) source: Source,
}

/// `Content-Type` by the end of a file's name; text is taken for UTF-8.
pub(crate) fn content_type(name: &str) -> HeaderValue {
    let guessed = mime_guess::from_path(name).first();
    let Some(mime) = guessed else {
        return HeaderValue::from_static("application/octet-stream");
    };
    // JSON is UTF-8 anyway (RFC 8259 §8.1), and XML says its own encoding.
    let text = if mime.type_() == mime_guess::mime::TEXT && mime.get_param("charset").is_none() {
        format!("{mime}; charset=utf-8")
    } else {
        mime.to_string()
    };
    let value = HeaderValue::from_str(&text).ok();
    value.unwrap_or_else(|| HeaderValue::from_static("application/octet-stream"))
}

#[cfg(test)]
mod tests {
    use super::content_type;

    #[test]
    fn types_follow_names_and_text_says_its_charset() {
        let rows = [
            ("index.html", "text/html; charset=utf-8"),
            ("A.CSS", "text/css; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.png", "image/png"),
            ("a.woff2", "font/woff2"),
            ("a.wasm", "application/wasm"),
            ("LICENSE", "application/octet-stream"),
            ("a.tar.gz", "application/gzip"),
        ];
        for (name, want) in rows {
            assert_eq!(content_type(name), want, "{name}");
        }
    }
}
