//! A bearer secret (RFC 6750 §2.1) as it travels.
//!
//! # Invariants
//! - It fits into a header field as it stands.
//! - `Debug` does not tell it, and there is no `Display`: it cannot slip into a log.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A secret of 16 to 256 visible ASCII characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes `text` for a secret if it is one.
    ///
    /// # Errors
    /// The rule that it breaks, never the text.
    pub fn new(text: String) -> Result<Self, String> {
        if (16..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err("a secret must be 16 to 256 visible ASCII characters".to_owned())
        }
    }

    /// The text itself: for an `Authorization` field, and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(from)?).map_err(de::Error::custom)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_is_bounded_visible_and_not_told() {
        let secret = |text: &str| Secret::new(text.to_owned());
        assert!(secret(&"x".repeat(15)).is_err());
        assert!(secret(&"x".repeat(16)).is_ok());
        assert!(secret(&"x".repeat(256)).is_ok());
        assert!(secret(&"x".repeat(257)).is_err());
        assert!(secret("0123456789 abcdef").is_err());
        assert!(!format!("{:?}", secret("0123456789abcdef").unwrap()).contains("0123"));
    }
}
