//! A network of addresses, written `"10.0.0.0/8"`, `"2001:db8::/32"`, or as one address.
//!
//! # Invariants
//! - No bit stands behind the prefix: `"10.0.0.1/8"` is refused, since one of the two is a slip.
//! - IPv4 within IPv6 (RFC 4291 §2.5.5.2) counts as IPv4, on both sides.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    length: u8,
}

/// An address as a number, and its bits.
fn number(address: IpAddr) -> (u128, u8) {
    match address.to_canonical() {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// What stands behind the first `length` of `bits` bits.
const fn host_bits(bits: u8, length: u8) -> u128 {
    match 1_u128.checked_shl((bits - length) as u32) {
        Some(one) => one - 1,
        None => u128::MAX,
    }
}

impl Network {
    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((first, bits), (address, others)) = (number(self.first), number(address));
        bits == others && (first ^ address) & !host_bits(bits, self.length) == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = "must be a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", or an address";
        let (address, length) = text.split_once('/').map_or((text, None), |(a, n)| (a, Some(n)));
        let first: IpAddr = address.parse().map_err(|_not_one| rule.to_owned())?;
        let (number, bits) = number(first);
        let length = match length {
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().ok().filter(|length| *length <= bits).ok_or(rule)?
            }
            Some(_) => return Err(rule.to_owned()),
            None => bits,
        };
        if number & host_bits(bits, length) != 0 {
            return Err(format!("must have no bit behind the first {length}"));
        }
        Ok(Self { first: first.to_canonical(), length })
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_in_a_network_by_its_first_bits() {
        let rows = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("10.0.0.0/8", "::10.0.0.1", false),
            ("::ffff:10.0.0.0/8", "10.0.0.1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
            ("2001:db8::/32", "2001:db8:1::", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("2001:db8::1", "2001:db8::1", true),
        ];
        for (network, address, want) in rows {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), want, "{network} {address}");
            assert_eq!(network.to_string().parse(), Ok(network), "as it is shown it is read");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "10.0.0.0/+8", "h/8", "::/129"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
