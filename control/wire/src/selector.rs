//! What a purge removes: everything, a host, a URL, a path prefix, or a tag.
//!
//! Answers what is well-formed. Strings stay as they were given: each edge routes and normalises
//! them for itself, because only it knows the sites.
//!
//! # Invariants
//! - One object is one selector: several kinds in it, or an unknown field, are errors by name.
//! - No text holds white space or control characters; each is bounded, and so are all of one
//!   operation together, so that an operation always fits into a frame.

use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Selectors of one operation.
pub const MAX_SELECTORS: usize = 1_000;

/// The longest tag, in bytes.
pub const MAX_TAG: usize = 1_024;

/// The longest URL or prefix, in bytes: as long as the longest target that an edge must take.
pub const MAX_TARGET: usize = 8 << 10;

/// The longest host, in bytes: a name of 253, brackets, a port.
pub const MAX_HOST: usize = 262;

/// The text of all selectors of one operation, in bytes: escaped, half of the largest frame.
pub const MAX_TEXT: usize = 512 << 10;

/// The fields that name a kind of selector.
pub(crate) const KINDS: [&str; 5] = ["all", "host", "url", "prefix", "tag"];

/// Which stored responses a purge is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// All of them.
    All,
    /// Those of the site that answers to this host.
    Host(String),
    /// Those of one URL with its exact normalised query: all variants, both schemes.
    Url(String),
    /// Those whose path begins with `path`.
    Prefix {
        /// On the site that answers to this host; none: on every site.
        host: Option<String>,
        /// Begins with a slash. Compared as a string: it need not end at one.
        path: String,
    },
    /// Those that bear this `Surrogate-Key` or `Cache-Tag` value.
    Tag(String),
}

impl Selector {
    /// The kind as JSON, logs and metrics call it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Host(_) => "host",
            Self::Url(_) => "url",
            Self::Prefix { .. } => "prefix",
            Self::Tag(_) => "tag",
        }
    }

    /// The bytes of its text.
    pub fn text_len(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Host(text) | Self::Url(text) | Self::Tag(text) => text.len(),
            Self::Prefix { host, path } => host.as_ref().map_or(0, String::len) + path.len(),
        }
    }

    /// A host.
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn host(text: String) -> Result<Self, String> {
        host_name(&text).map_err(|rule| format!("host {rule}"))?;
        Ok(Self::Host(text))
    }

    /// A URL: with a scheme and a host, with a host alone, or a path of the default site.
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn url(text: String) -> Result<Self, String> {
        visible("url", &text, MAX_TARGET)?;
        Ok(Self::Url(text))
    }

    /// A prefix: `/img/`, `host/img/` or `http://host/img/`.
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn prefix(text: &str) -> Result<Self, String> {
        visible("prefix", text, MAX_TARGET)?;
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let rest = match rest {
            Some(rest) if rest.starts_with('/') => {
                return Err(format!("prefix {text:?} has a scheme and no host"));
            }
            rest => rest.unwrap_or(text),
        };
        let Some(slash) = rest.find('/') else {
            let rule = "must hold a path: \"/img/\", \"host/img/\" or \"http://host/img/\"";
            return Err(format!("prefix {rule}; for a whole site there is \"host\""));
        };
        let (host, path) = rest.split_at(slash);
        if path.contains(['?', '#']) {
            return Err("prefix must hold no query and no fragment: it compares paths".to_owned());
        }
        if !host.is_empty() {
            host_name(host).map_err(|rule| format!("prefix: its host {rule}"))?;
        }
        let host = (!host.is_empty()).then(|| host.to_owned());
        Ok(Self::Prefix { host, path: path.to_owned() })
    }

    /// A tag.
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn tag(text: String) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_TAG || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let rule = format!("tag must be 1 to {MAX_TAG} visible ASCII characters");
            return Err(format!("{rule}, this one has {} bytes", text.len()));
        }
        Ok(Self::Tag(text))
    }
}

fn visible(what: &str, text: &str, most: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > most {
        return Err(format!("{what} must be 1 to {most} bytes, this one has {}", text.len()));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!("{what} must hold no white space and no control characters"));
    }
    Ok(())
}

fn host_name(text: &str) -> Result<(), String> {
    let fits = (1..=MAX_HOST).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    if fits {
        Ok(())
    } else {
        Err("must be a host name, perhaps with a port, without scheme and path".to_owned())
    }
}

/// Whether `selectors` may be one operation.
///
/// # Errors
/// The rule that they break.
pub fn check_batch(selectors: &[Selector]) -> Result<(), String> {
    if selectors.is_empty() {
        return Err(format!("a selector is required: one of {}", KINDS.join(", ")));
    }
    if selectors.len() > MAX_SELECTORS {
        let count = selectors.len();
        return Err(format!("selectors must be at most {MAX_SELECTORS}, these are {count}"));
    }
    let text: usize = selectors.iter().map(Selector::text_len).sum();
    if text > MAX_TEXT {
        return Err(format!("selectors must have at most {MAX_TEXT} bytes of text, not {text}"));
    }
    Ok(())
}

/// Reads the value of the field `name` if that is a kind of selector.
pub(crate) fn field<'de, A: MapAccess<'de>>(
    name: &str,
    map: &mut A,
) -> Result<Option<Selector>, A::Error> {
    let checked = match name {
        "all" if map.next_value::<bool>()? => Ok(Selector::All),
        "all" => Err("all must be true, or absent".to_owned()),
        "host" => Selector::host(map.next_value()?),
        "url" => Selector::url(map.next_value()?),
        "prefix" => Selector::prefix(&map.next_value::<String>()?),
        "tag" => Selector::tag(map.next_value()?),
        _ => return Ok(None),
    };
    checked.map(Some).map_err(de::Error::custom)
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(One)
    }
}

struct One;

impl<'de> Visitor<'de> for One {
    type Value = Selector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a selector: an object with one of {}", KINDS.join(", "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Selector, A::Error> {
        let mut found: Option<Selector> = None;
        while let Some(name) = map.next_key::<String>()? {
            let selector =
                field(&name, &mut map)?.ok_or_else(|| de::Error::unknown_field(&name, &KINDS))?;
            if let Some(first) = &found {
                let kinds = format!("{} and {}", first.kind(), selector.kind());
                return Err(de::Error::custom(format!("a selector has one kind, not {kinds}")));
            }
            found = Some(selector);
        }
        let none = || format!("a selector is required: one of {}", KINDS.join(", "));
        found.ok_or_else(|| de::Error::custom(none()))
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(1))?;
        match self {
            Self::All => map.serialize_entry("all", &true)?,
            Self::Host(text) | Self::Url(text) | Self::Tag(text) => {
                map.serialize_entry(self.kind(), text)?;
            }
            Self::Prefix { host: None, path } => map.serialize_entry("prefix", path)?,
            Self::Prefix { host: Some(host), path } => {
                map.serialize_entry("prefix", &format!("{host}{path}"))?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SELECTORS, MAX_TAG, MAX_TARGET, Selector, check_batch};

    #[test]
    fn one_object_is_one_selector_and_keeps_its_bytes() {
        let prefix = |host: Option<&str>, path: &str| Selector::Prefix {
            host: host.map(str::to_owned),
            path: path.to_owned(),
        };
        let rows = [
            (r#"{"all":true}"#, Selector::All),
            (r#"{"host":"shop.example"}"#, Selector::Host("shop.example".into())),
            (r#"{"url":"http://a/b?c=1"}"#, Selector::Url("http://a/b?c=1".into())),
            (r#"{"url":"/b"}"#, Selector::Url("/b".into())),
            (r#"{"prefix":"/img/"}"#, prefix(None, "/img/")),
            (r#"{"prefix":"a.example:8080/img"}"#, prefix(Some("a.example:8080"), "/img")),
            (r#"{"prefix":"[::1]:80/"}"#, prefix(Some("[::1]:80"), "/")),
            (r#"{"tag":"sale-\"2026\""}"#, Selector::Tag("sale-\"2026\"".into())),
        ];
        for (text, want) in rows {
            assert_eq!(serde_json::from_str::<Selector>(text).unwrap(), want, "{text}");
            assert_eq!(serde_json::to_string(&want).unwrap(), text);
        }
        let read: Selector =
            serde_json::from_str(r#"{"prefix":"https://a.example/img/"}"#).unwrap();
        assert_eq!(read, prefix(Some("a.example"), "/img/"));
    }

    #[test]
    fn what_is_no_selector_is_told_why() {
        let rows = [
            ("{}", "a selector is required"),
            ("[]", "an object with one of"),
            (r#"{"tga":"a"}"#, "unknown field `tga`"),
            (r#"{"tag":"a","url":"/b"}"#, "one kind, not tag and url"),
            (r#"{"tag":"a","tag":"b"}"#, "one kind, not tag and tag"),
            (r#"{"all":false}"#, "all must be true"),
            (r#"{"tag":""}"#, "1 to 1024 visible"),
            (r#"{"tag":"a b"}"#, "1 to 1024 visible"),
            (r#"{"tag":7}"#, "expected a string"),
            (r#"{"host":"http://a"}"#, "without scheme"),
            (r#"{"url":"/a b"}"#, "no white space"),
            (r#"{"url":""}"#, "1 to 8192"),
            (r#"{"prefix":"shop.example"}"#, "must hold a path"),
            (r#"{"prefix":"http:///img"}"#, "no host"),
            (r#"{"prefix":"/img?a"}"#, "no query"),
            (r#"{"prefix":"user@a/img"}"#, "its host must be"),
        ];
        for (text, want) in rows {
            let error = serde_json::from_str::<Selector>(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
        assert!(Selector::tag("x".repeat(MAX_TAG)).is_ok());
        assert!(Selector::tag("x".repeat(MAX_TAG + 1)).is_err());
        assert!(Selector::url("x".repeat(MAX_TARGET)).is_ok());
        assert!(Selector::url("x".repeat(MAX_TARGET + 1)).is_err());
    }

    #[test]
    fn a_batch_is_bounded() {
        let tags = |n: usize| vec![Selector::Tag("a".into()); n];
        assert!(check_batch(&tags(MAX_SELECTORS)).is_ok());
        assert!(check_batch(&tags(MAX_SELECTORS + 1)).unwrap_err().contains("at most 1000"));
        assert!(check_batch(&[]).unwrap_err().contains("required"));
        let urls = vec![Selector::Url("x".repeat(MAX_TARGET)); 65];
        assert!(check_batch(&urls[..64]).is_ok());
        assert!(check_batch(&urls).unwrap_err().contains("bytes of text"));
    }
}
