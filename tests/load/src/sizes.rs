//! How large numbered objects are: a distribution, and the size of each object drawn from it.
//!
//! # Invariants
//! - The size of an object depends on its number and the distribution alone, never on the seed of
//!   a run: the origin's file and every later run agree without talking.

use std::fmt;
use std::str::FromStr;

use meridian_config::units::ByteSize;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal, Uniform};

/// A distribution of sizes. Written `13KiB`, `uniform:min=1KiB,max=1MiB` or
/// `lognormal:median=13KiB,p99=270KiB,max=64MiB` (`max` may be left out: 64MiB).
#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    law: Law,
}

#[derive(Debug, Clone, PartialEq)]
enum Law {
    Constant(ByteSize),
    Uniform { min: ByteSize, max: ByteSize, draw: Uniform<u64> },
    LogNormal { median: ByteSize, p99: ByteSize, max: ByteSize, draw: LogNormal<f64> },
}

/// Sizes of objects are cut here unless told: the largest body that an edge stores by default.
const DEFAULT_MAX: ByteSize = ByteSize::mib(64);

/// How many standard deviations above the median of a normal distribution 99 % of it end.
const P99_DEVIATIONS: f64 = 2.326_347_874_040_841;

impl Sizes {
    /// The size of object `number`, in bytes.
    pub fn of(&self, number: u64) -> u64 {
        match &self.law {
            Law::Constant(size) => size.get(),
            Law::Uniform { draw, .. } => draw.sample(&mut ChaCha8Rng::seed_from_u64(number)),
            Law::LogNormal { draw, max, .. } => {
                let drawn = draw.sample(&mut ChaCha8Rng::seed_from_u64(number)).round();
                whole_bytes(drawn).clamp(1, max.get())
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and the caller clamps it")]
fn whole_bytes(size: f64) -> u64 {
    size as u64
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let law = match text.split_once(':') {
            None => Law::Constant(text.parse().map_err(|rule| format!("{text:?} {rule}"))?),
            Some(("uniform", parameters)) => uniform(&mut Parameters::parse(parameters)?)?,
            Some(("lognormal", parameters)) => lognormal(&mut Parameters::parse(parameters)?)?,
            Some((other, _)) => {
                return Err(format!("{other:?} is not a distribution: uniform or lognormal"));
            }
        };
        Ok(Self { law })
    }
}

fn uniform(parameters: &mut Parameters<'_>) -> Result<Law, String> {
    let (min, max) = (parameters.required("min")?, parameters.required("max")?);
    parameters.all_known()?;
    let draw = Uniform::new_inclusive(min.get(), max.get())
        .map_err(|error| format!("min={min},max={max}: min must not be above max ({error})"))?;
    Ok(Law::Uniform { min, max, draw })
}

fn lognormal(parameters: &mut Parameters<'_>) -> Result<Law, String> {
    let (median, p99) = (parameters.required("median")?, parameters.required("p99")?);
    let max = parameters.take("max")?.unwrap_or(DEFAULT_MAX);
    parameters.all_known()?;
    if median.get() == 0 || p99 < median {
        return Err(format!("median={median},p99={p99}: must be above 0B, p99 not below median"));
    }
    if max < median {
        return Err(format!("median={median},max={max}: max must not be below median"));
    }
    let (log_median, log_p99) = ((median.get() as f64).ln(), (p99.get() as f64).ln());
    let draw = LogNormal::new(log_median, (log_p99 - log_median) / P99_DEVIATIONS)
        .map_err(|error| format!("median={median},p99={p99}: {error}"))?;
    Ok(Law::LogNormal { median, p99, max, draw })
}

/// `name=size,name=size`, each taken once.
struct Parameters<'a>(Vec<(&'a str, ByteSize)>);

impl<'a> Parameters<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let mut found = Vec::new();
        for part in text.split(',') {
            let Some((name, value)) = part.split_once('=') else {
                return Err(format!("{part:?} must be name=size"));
            };
            let value: ByteSize = value.parse().map_err(|rule| format!("{part:?} {rule}"))?;
            if found.iter().any(|(known, _)| *known == name) {
                return Err(format!("{name:?} is given twice"));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    fn take(&mut self, name: &str) -> Result<Option<ByteSize>, String> {
        let at = self.0.iter().position(|(known, _)| *known == name);
        Ok(at.map(|at| self.0.remove(at).1))
    }

    fn required(&mut self, name: &str) -> Result<ByteSize, String> {
        self.take(name)?.ok_or_else(|| format!("{name}=SIZE is missing"))
    }

    fn all_known(&self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("{name:?} is not a parameter of this distribution")),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.law {
            Law::Constant(size) => size.fmt(f),
            Law::Uniform { min, max, .. } => write!(f, "uniform:min={min},max={max}"),
            Law::LogNormal { median, p99, max, .. } => {
                write!(f, "lognormal:median={median},p99={p99},max={max}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sizes;

    #[test]
    fn a_distribution_reads_back_as_written() {
        for text in
            ["13KiB", "uniform:min=1KiB,max=1MiB", "lognormal:median=13KiB,p99=270KiB,max=64MiB"]
        {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
        let defaulted: Sizes = "lognormal:median=13KiB,p99=270KiB".parse().unwrap();
        assert_eq!(defaulted.to_string(), "lognormal:median=13KiB,p99=270KiB,max=64MiB");
    }

    #[test]
    fn what_is_no_distribution_is_refused_with_its_rule() {
        let rows = [
            ("13Kib?", "is not a size"),
            ("pareto:min=1KiB", "is not a distribution"),
            ("uniform:min=1KiB", "max=SIZE is missing"),
            ("uniform:min=2KiB,max=1KiB", "must not be above max"),
            ("uniform:min=1KiB,max=2KiB,p99=3KiB", "is not a parameter"),
            ("uniform:min=1KiB,min=2KiB", "given twice"),
            ("lognormal:median=1KiB", "p99=SIZE is missing"),
            ("lognormal:median=2KiB,p99=1KiB", "p99 not below median"),
            ("lognormal:median=0B,p99=1KiB", "must be above 0B"),
            ("lognormal:median=2KiB,p99=4KiB,max=1KiB", "max must not be below"),
            ("lognormal:", "must be name=size"),
        ];
        for (text, rule) in rows {
            let error = text.parse::<Sizes>().unwrap_err();
            assert!(error.contains(rule), "{text}: {error}");
        }
    }

    #[test]
    fn drawn_sizes_follow_the_law() {
        let sizes: Sizes = "lognormal:median=13KiB,p99=270KiB".parse().unwrap();
        let mut drawn: Vec<u64> = (1..=20_000).map(|number| sizes.of(number)).collect();
        drawn.sort_unstable();
        let (median, p99) = (drawn[10_000] as f64, drawn[19_800] as f64);
        assert!((median / 13_312.0 - 1.0).abs() < 0.05, "median {median}");
        assert!((p99 / 276_480.0 - 1.0).abs() < 0.15, "p99 {p99}");
        assert!(drawn.iter().all(|size| (1..=64 << 20).contains(size)));
    }

    #[test]
    fn an_object_always_has_the_same_size() {
        let sizes: Sizes = "uniform:min=10B,max=20B".parse().unwrap();
        let first: Vec<u64> = (0..100).map(|number| sizes.of(number)).collect();
        let again: Vec<u64> = (0..100).map(|number| sizes.of(number)).collect();
        assert_eq!(first, again);
        assert!(first.iter().all(|size| (10..=20).contains(size)));
        assert!((10..=20).all(|size| first.contains(&size)), "{first:?}");
    }
}
