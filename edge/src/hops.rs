//! What this edge says of itself to who comes after it: `Via` (RFC 9110 §7.6.3) and `CDN-Loop`
//! (RFC 8586), both prepared once.

use http::header::{self, InvalidHeaderValue};
use http::{HeaderMap, HeaderValue, Version};
use meridian_edge_rules::cdn_loop::{CDN_LOOP, is_loop};

/// Its entry in `Via`, by the version in which the message that it sends on was received.
#[derive(Debug)]
pub(crate) struct Via {
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// # Errors
    /// When `name` fits into no field.
    pub(crate) fn new(name: &str) -> Result<Self, InvalidHeaderValue> {
        let entry = |version| HeaderValue::from_str(&format!("{version} {name}"));
        Ok(Self { http10: entry("1.0")?, http11: entry("1.1")?, http2: entry("2")? })
    }

    /// Adds the entry to those of the nodes before.
    pub(crate) fn add(&self, fields: &mut HeaderMap, received: Version) {
        let entry = match received {
            Version::HTTP_09 | Version::HTTP_10 => &self.http10,
            Version::HTTP_2 | Version::HTTP_3 => &self.http2,
            _ => &self.http11,
        };
        fields.append(header::VIA, entry.clone());
    }
}

/// Its member of `CDN-Loop`: its name and a number of this very process, since another CDN may
/// have a node of the same name.
#[derive(Debug)]
pub(crate) struct OwnLoop {
    name: String,
    id: String,
    member: Option<HeaderValue>,
}

impl OwnLoop {
    pub(crate) fn new(name: &str, instance: u64) -> Self {
        let id = format!("{instance:016x}");
        let member = HeaderValue::from_str(&format!("{name}; id={id}")).ok();
        Self { name: name.to_owned(), id, member }
    }

    /// Adds the member to those of the nodes before.
    pub(crate) fn add(&self, fields: &mut HeaderMap) {
        if let Some(member) = &self.member {
            fields.append(CDN_LOOP, member.clone());
        }
    }

    /// Whether these fields say that this very process has sent the request on before.
    pub(crate) fn closes(&self, fields: &HeaderMap) -> bool {
        fields.contains_key(CDN_LOOP) && is_loop(fields, &self.name, &self.id)
    }
}
