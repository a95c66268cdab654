//! How much of a representation is sent, and under which conditions (RFC 9110 §13, §14).
//!
//! # Invariants
//! - `Content-Length` is what is sent, or what would be sent to GET.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    LAST_MODIFIED,
};
use http::{Method, Response, StatusCode};
use meridian_edge_rules::ranges::{self, ByteRange, Multipart, Ranges, ranges};
use meridian_edge_rules::validate::{Precondition, Validators, not_modified_fields, precondition};

use crate::body::{Body, Piece, Source};
use crate::hex::hex;
use crate::representation::Representation;

/// What is asked of a representation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    /// Ranges beyond which the whole is sent.
    pub(crate) max_ranges: usize,
    /// The time of the answer.
    pub(crate) now: SystemTime,
}

/// Answers with `found`. `fields` are the header fields that go with its path.
pub(crate) fn answer(
    asked: &Asked<'_>,
    found: Representation,
    mut fields: HeaderMap,
) -> Response<Body> {
    let validators = Validators {
        // RFC 9110 §8.8.2.1: not later than the answer itself.
        last_modified: found.validators.last_modified.filter(|time| *time <= asked.now),
        date: Some(asked.now),
        etag: found.validators.etag.clone(),
    };
    describe(&validators, &mut fields);
    match precondition(asked.method, asked.headers, &validators) {
        Precondition::Proceed => {}
        Precondition::NotModified => {
            return bare(StatusCode::NOT_MODIFIED, not_modified_fields(&fields));
        }
        Precondition::Failed => {
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            return bare(StatusCode::PRECONDITION_FAILED, fields);
        }
    }
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    match ranges(asked.method, asked.headers, &validators, found.length, asked.max_ranges) {
        Ranges::Whole => send(asked, StatusCode::OK, found, fields),
        Ranges::One(range) => one(found, range, fields),
        Ranges::Several(several) => {
            // New for each answer: nobody can write a file that holds it.
            let boundary = hex(&rand::random::<[u8; 16]>());
            let content_type = Some(&found.content_type);
            let parts = Multipart::new(&boundary, content_type, several, found.length);
            multipart(found, &parts, fields)
        }
        Ranges::Unsatisfiable => {
            fields.insert(CONTENT_RANGE, ranges::unsatisfied_range(found.length));
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            bare(StatusCode::RANGE_NOT_SATISFIABLE, fields)
        }
    }
}

/// Answers with the whole of `page` under another status: there are no conditions on it.
pub(crate) fn page(
    asked: &Asked<'_>,
    status: StatusCode,
    page: Representation,
    fields: HeaderMap,
) -> Response<Body> {
    send(asked, status, page, fields)
}

fn describe(validators: &Validators, fields: &mut HeaderMap) {
    if let Some(etag) = &validators.etag {
        fields.insert(ETAG, etag.to_value());
    }
    if let Some(time) = validators.last_modified
        && let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(time))
    {
        fields.insert(LAST_MODIFIED, value);
    }
}

fn bare(status: StatusCode, fields: HeaderMap) -> Response<Body> {
    with_body(status, fields, Body::empty())
}

fn send(
    asked: &Asked<'_>,
    status: StatusCode,
    found: Representation,
    mut fields: HeaderMap,
) -> Response<Body> {
    let Representation { content_type, length, source, .. } = found;
    fields.insert(CONTENT_TYPE, content_type);
    fields.insert(CONTENT_LENGTH, length.into());
    if *asked.method == Method::HEAD {
        return bare(status, fields);
    }
    with_body(status, fields, Body::pieces(source, [Piece::Stretch { at: 0, length }]))
}

fn one(found: Representation, range: ByteRange, mut fields: HeaderMap) -> Response<Body> {
    let Representation { content_type, length, source, .. } = found;
    fields.insert(CONTENT_TYPE, content_type);
    fields.insert(CONTENT_RANGE, range.content_range(length));
    fields.insert(CONTENT_LENGTH, range.length().into());
    with_body(StatusCode::PARTIAL_CONTENT, fields, Body::pieces(source, [stretch(range)]))
}

fn multipart(found: Representation, parts: &Multipart, mut fields: HeaderMap) -> Response<Body> {
    fields.insert(CONTENT_TYPE, parts.content_type());
    fields.insert(CONTENT_LENGTH, parts.content_length().into());
    let pieces = parts.pieces().map(|piece| match piece {
        ranges::Piece::Head(text) | ranges::Piece::Tail(text) => Piece::Text(Bytes::from(text)),
        ranges::Piece::Body(range) => stretch(range),
    });
    let source: Source = found.source;
    with_body(StatusCode::PARTIAL_CONTENT, fields, Body::pieces(source, pieces))
}

fn stretch(range: ByteRange) -> Piece {
    Piece::Stretch { at: range.first, length: range.length() }
}

fn with_body(status: StatusCode, fields: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}
