//! A status, or a class of statuses, as a key: `404`, `5xx`.

use std::fmt;
use std::str::FromStr;

use crate::units::serde_as_text;

/// One status (`404`), or all of a class (`5xx`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Statuses {
    first: u16,
    last: u16,
}

impl Statuses {
    /// The least of them.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The greatest of them.
    pub const fn last(self) -> u16 {
        self.last
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let class = |class: u16| Self { first: class * 100, last: class * 100 + 99 };
        let found = match text.as_bytes() {
            [digit @ b'2'..=b'5', b'x', b'x'] => Some(class(u16::from(digit - b'0'))),
            [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
                text.parse().ok().map(|code| Self { first: code, last: code })
            }
            _ => None,
        };
        found.ok_or_else(|| "must be a final status such as 404, or a class such as 5xx".to_owned())
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last - self.first {
            0 => write!(f, "{}", self.first),
            _ => write!(f, "{}xx", self.first / 100),
        }
    }
}

serde_as_text! { Statuses: "a status such as \"404\", or a class such as \"5xx\"" }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_or_a_class_reads_back_as_written() {
        for (text, first, last) in [("404", 404, 404), ("5xx", 500, 599), ("200", 200, 200)] {
            let statuses: Statuses = text.parse().unwrap();
            assert_eq!((statuses.first(), statuses.last()), (first, last));
            assert_eq!(statuses.to_string(), text);
        }
        for text in ["", "1xx", "6xx", "404 ", "40x", "5XX", "99", "600", "100", "xx", "+04"] {
            assert!(text.parse::<Statuses>().is_err(), "{text}");
        }
    }
}
