//! Units and names as they stand in a configuration file: `"250ms"`, `"64MiB"`, `"127.0.0.1:80"`.
//!
//! Each type refuses what it can on its own; ranges and what spans two keys is `check`'s.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

/// A span of time, written `"30s"`, `"1d"`, `"1m 30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(Duration);

impl HumanDuration {
    /// `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    /// `n` seconds.
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// The span itself.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for HumanDuration {
    fn from(time: Duration) -> Self {
        Self(time)
    }
}

/// In days and less, so that a limit reads as it was meant: `365d`, not eleven months and some.
impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), u64::from(self.0.subsec_nanos()));
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (nanos / 1_000_000, "ms"),
            (nanos / 1_000 % 1_000, "us"),
            (nanos % 1_000, "ns"),
        ];
        let mut space = "";
        for (count, unit) in parts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{space}{count}{unit}")?;
            space = " ";
        }
        if space.is_empty() { f.write_str("0s") } else { Ok(()) }
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|error| format!("is not a duration such as \"250ms\" or \"30s\": {error}"))
    }
}

/// A number of bytes, written `"64MiB"`, `"1KiB"` or `"1500B"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// `n` bytes.
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }

    /// `n` times 1,024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` times 1,048,576 bytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` times 1,024^3 bytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// `n` times 1,024^4 bytes.
    pub const fn tib(n: u64) -> Self {
        Self(n << 40)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; saturates where `usize` is smaller.
    pub fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1 << 30 && n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n >= 1 << 20 && n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n if n >= 1 << 10 && n % (1 << 10) == 0 => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}B"),
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;

    /// What exceeds 64 bits is refused: bytesize would take it for the most that there is.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |why: String| format!("is not a size such as \"64MiB\" or \"1KiB\": {why}");
        let read = |text: &str| match text.parse::<bytesize::ByteSize>() {
            Ok(size) => Ok(size.as_u64()),
            Err(error) => Err(refused(error)),
        };
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let size = if number.is_empty() || unit.starts_with('.') {
            Some(read(text)?).filter(|size| *size < u64::MAX)
        } else {
            let unit = read(&format!("1{unit}"))?;
            number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit))
        };
        size.map(Self).ok_or_else(|| refused("it exceeds 64 bits".to_owned()))
    }
}

/// A share between 0 and 1, written as a bare number.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
pub struct Ratio(f64);

impl Ratio {
    /// `value`, held between 0 and 1.
    pub const fn new(value: f64) -> Self {
        Self(value.clamp(0.0, 1.0))
    }

    /// The share.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(from)?;
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(de::Error::custom(format!("{value} is not a ratio between 0 and 1")))
        }
    }
}

/// Declares a checked string: a name with a rule of its own.
macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $check(text).map(Self)
            }
        }
    };
}

checked_string! {
    /// The name of a node (`fra-1`, `origin-1`): 1-63 of `a-z 0-9 -`, no dash at an end.
    NodeName, label
}
checked_string! {
    /// The label of a region (`fra`): written like a node's name.
    Region, label
}
checked_string! {
    /// The name of a site (`shop`): written like a node's name.
    SiteName, label
}
checked_string! {
    /// Where a node listens, as another node dials it: `host:port`, `127.0.0.1:80`, `[::1]:80`.
    Address, address
}
checked_string! {
    /// A host that a site answers to, in lower case, without port and trailing dot.
    Host, host
}
checked_string! {
    /// A language as it stands in `Content-Language`: `en`, `de-CH`, `zh-Hant`.
    Language, language
}

checked_string! {
    /// A protocol that a connection may change to (RFC 9110 §7.8), in lower case: `websocket`.
    Protocol, protocol
}

fn protocol(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
    if text.is_empty() || text.len() > 63 || !text.bytes().all(is_token) {
        Err("must be the name of a protocol such as \"websocket\"".to_owned())
    } else if ["h2c", "h2", "tls"].contains(&text.as_str()) || text.starts_with("http/") {
        // A tunnel of HTTP would pass requests by everything that an edge is for.
        Err("must not be HTTP or TLS again: requests in such a tunnel would pass the edge unseen"
            .to_owned())
    } else {
        Ok(text)
    }
}

fn label(text: &str) -> Result<String, String> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must be 1-63 of a-z, 0-9 and '-', with no '-' at an end".to_owned())
    }
}

fn address(text: &str) -> Result<String, String> {
    let rule = "must be host:port, such as 127.0.0.1:8080 or origin:80";
    let (host, port) = text.rsplit_once(':').ok_or(rule)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let fits = !host.is_empty()
        && (bracketed || !host.contains(':'))
        && host.bytes().all(|b| b.is_ascii_graphic() && !b"/@?#".contains(&b))
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    if fits { Ok(text.to_owned()) } else { Err(rule.to_owned()) }
}

fn host(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let fits = !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    if fits {
        Ok(text)
    } else {
        Err("must be a host name without scheme, port and path".to_owned())
    }
}

fn language(text: &str) -> Result<String, String> {
    let fits = |subtag: &str| {
        (1..=8).contains(&subtag.len()) && subtag.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let starts = text
        .split('-')
        .next()
        .is_some_and(|first| first.len() >= 2 && first.bytes().all(|b| b.is_ascii_alphabetic()));
    if starts && text.split('-').all(fits) {
        Ok(text.to_owned())
    } else {
        Err("must be a language tag such as en or de-CH".to_owned())
    }
}

/// Serde by way of `FromStr` and `Display`; the text is what something of another type is told.
macro_rules! serde_as_text {
    ($($name:ident: $expecting:literal),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str($crate::units::Text { expecting: $expecting, kind: std::marker::PhantomData })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )*};
}
pub(crate) use serde_as_text;

serde_as_text! {
    HumanDuration: "a duration such as \"250ms\" or \"30s\"",
    ByteSize: "a size such as \"64MiB\" or \"1KiB\"",
    NodeName: "a name such as \"fra-1\"",
    Region: "a region's label such as \"fra\"",
    SiteName: "a site's name such as \"shop\"",
    Address: "an address such as \"127.0.0.1:8080\" or \"origin:80\"",
    Host: "a host name such as \"shop.example\"",
    Language: "a language such as \"en\"",
    Protocol: "a protocol such as \"websocket\"",
}

/// Reads a string by its `FromStr`.
pub(crate) struct Text<T> {
    pub(crate) expecting: &'static str,
    pub(crate) kind: PhantomData<T>,
}

impl<T: FromStr<Err: fmt::Display>> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// The address and port of a listener; port 0 is any free one.
pub(crate) fn listen_address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let expecting = "an address and a port to listen on, such as \"127.0.0.1:8080\" or \"[::1]:0\"";
    let text: String = from.deserialize_str(Text { expecting, kind: PhantomData })?;
    text.parse().map_err(|error| de::Error::custom(format!("must be {expecting}: {error}")))
}
