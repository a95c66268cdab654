//! How traffic is shared among regions, as people write it.

use std::fmt;
use std::str::FromStr;

use meridian_config::units::Region;

/// Shares of the traffic by region, written `fra=2,iad=1`: any scale; a region not named gets
/// nothing. Empty: all regions get the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shares(Vec<(Region, f64)>);

impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut shares: Vec<(Region, f64)> = Vec::new();
        for part in text.split(',') {
            let (region, share) =
                part.split_once('=').ok_or_else(|| format!("{part:?} must be region=share"))?;
            let region: Region = region.parse().map_err(|rule| format!("{region:?} {rule}"))?;
            let share = share
                .parse::<f64>()
                .ok()
                .filter(|share| share.is_finite() && *share >= 0.0)
                .ok_or_else(|| format!("{part:?}: a share is a number not below 0"))?;
            if shares.iter().any(|(known, _)| *known == region) {
                return Err(format!("region {region} is given twice"));
            }
            shares.push((region, share));
        }
        if shares.iter().map(|(_, share)| share).sum::<f64>() <= 0.0 {
            return Err(format!("{text:?}: one share at least must be above 0"));
        }
        Ok(Self(shares))
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (region, share)) in self.0.iter().enumerate() {
            write!(f, "{}{region}={share}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Shares {
    /// The regions that are named, with their shares.
    pub fn iter(&self) -> impl Iterator<Item = (&Region, f64)> {
        self.0.iter().map(|(region, share)| (region, *share))
    }

    /// Nothing is named: all get the same.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Shares;

    #[test]
    fn shares_read_back_as_written_and_what_is_none_is_refused() {
        for text in ["fra=2,iad=1", "nrt=0.5"] {
            assert_eq!(text.parse::<Shares>().unwrap().to_string(), text);
        }
        for text in ["fra", "fra=x", "fra=-1", "fra=1,fra=2", "fra=0", "FRA=1", "fra=inf"] {
            assert!(text.parse::<Shares>().is_err(), "{text}");
        }
    }
}
