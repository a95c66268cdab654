//! `[[site.rule]]`: what one site does otherwise for some of its requests or responses.
//!
//! Every rule whose `when` matches applies, in the order of the file; where two set the same
//! thing, the later one counts, and lists (fields, parts of the key) add up.

use serde::{Deserialize, Serialize};

use crate::control_loss::ControlLoss;
use crate::pattern::PathPattern;
use crate::query::Query;
use crate::units::{Host, HumanDuration, NodeName, SiteName};

pub(crate) mod check;

/// One rule of a site.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct SiteRule {
    /// Its name, in `explain`. Written like a site's.
    pub name: SiteName,
    /// What it is for. Default: everything.
    #[serde(default)]
    pub when: When,
    /// Neither answered from the store nor stored nor shared; with conditions on the response: not
    /// stored. `false` takes back what an earlier rule says.
    #[serde(default)]
    pub bypass: Option<bool>,
    /// Asks this one of the site's origins, and no other.
    #[serde(default)]
    pub origin: Option<NodeName>,
    /// The query string within the key, in the place of the site's.
    #[serde(default)]
    pub query: Option<Query>,
    /// Request fields whose values are part of the key.
    #[serde(default)]
    pub key_headers: Vec<String>,
    /// Cookies whose values are part of the key.
    #[serde(default)]
    pub key_cookies: Vec<String>,
    /// How long the edge reuses a response, from its arrival on, whatever the origin says of that.
    #[serde(default)]
    pub edge_lifetime: Option<HumanDuration>,
    /// Beside `edge_lifetime`: what says `no-store`, `no-cache` or `private` is stored, too.
    #[serde(default)]
    pub override_no_store: bool,
    /// How long clients reuse a response, from when they get it on.
    #[serde(default)]
    pub browser_lifetime: Option<HumanDuration>,
    /// Past its lifetime, how long a response is served while a new one is fetched.
    #[serde(default)]
    pub stale_while_revalidate: Option<HumanDuration>,
    /// Past its lifetime, how long a response is served in the place of an error.
    #[serde(default)]
    pub stale_if_error: Option<HumanDuration>,
    /// What is done with stored responses while the knowledge of purges may be too old, in the
    /// place of what the site says.
    #[serde(default)]
    pub control_loss: Option<ControlLoss>,
    /// The same of how old it may be.
    #[serde(default)]
    pub max_control_lag: Option<HumanDuration>,
    /// What becomes of responses with `Set-Cookie`.
    #[serde(default)]
    pub set_cookie: Option<SetCookie>,
    /// Fields that the origin is sent, `Name: value`, in the place of the client's own.
    #[serde(default)]
    pub request_set: Vec<String>,
    /// Fields of clients that the origin is not sent.
    #[serde(default)]
    pub request_remove: Vec<String>,
    /// Fields that clients are sent, `Name: value`, in the place of the origin's own.
    #[serde(default)]
    pub response_set: Vec<String>,
    /// Fields of the origin that clients are not sent.
    #[serde(default)]
    pub response_remove: Vec<String>,
}

/// `[site.rule.when]`: all that is written here must hold; of a list, one entry.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct When {
    /// Patterns of the path, in the one spelling that stands for all.
    pub path: Vec<PathPattern>,
    /// Hosts that the request is for.
    pub host: Vec<Host>,
    /// Methods.
    pub method: Vec<String>,
    /// Request fields; all of them must hold.
    pub header: Vec<FieldTest>,
    /// Parameters of the query; all of them must hold.
    pub query: Vec<FieldTest>,
    /// Statuses of the response: `404`, `5xx`.
    pub status: Vec<String>,
    /// Response fields; all of them must hold.
    pub response_header: Vec<FieldTest>,
}

impl When {
    /// Whether it speaks of the response, which is not there yet when a request comes.
    pub fn is_of_response(&self) -> bool {
        !self.status.is_empty() || !self.response_header.is_empty()
    }

    /// Whether nothing is asked of the request.
    pub fn is_any_request(&self) -> bool {
        self.path.is_empty()
            && self.host.is_empty()
            && self.method.is_empty()
            && self.header.is_empty()
            && self.query.is_empty()
    }
}

/// What one field or parameter must be like; with its name alone: it must be there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct FieldTest {
    /// Its name; fields fold case.
    pub name: String,
    /// `false`: it must not be there.
    #[serde(default)]
    pub present: Option<bool>,
    /// The whole value.
    #[serde(default)]
    pub equals: Option<String>,
    /// A pattern of the value: a `*` stands for any run of characters.
    #[serde(default)]
    pub matches: Option<String>,
}

/// What becomes of responses with `Set-Cookie`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SetCookie {
    /// They pass through unstored.
    Pass,
    /// They are stored with it: everybody gets the same cookie.
    Store,
    /// It is taken out, and they are stored without.
    Strip,
}

/// `Name: value` taken apart.
pub fn field_line(line: &str) -> (&str, &str) {
    match line.split_once(':') {
        Some((name, value)) => (name, value.trim()),
        None => ("", ""),
    }
}

/// The statuses that `404` or `5xx` stands for, both ends included.
pub fn status_range(text: &str) -> Option<(u16, u16)> {
    let range = match text.strip_suffix("xx") {
        Some(class) => class.parse().ok().and_then(|class: u16| {
            class.checked_mul(100).map(|first| (first, first.saturating_add(99)))
        }),
        None => text.parse().ok().map(|status| (status, status)),
    };
    // Only final responses are looked at.
    range.filter(|(first, last)| *first >= 200 && *last <= 599)
}
