//! What may be asked of the links between two names, as it stands in `POST /v1/links`.
//!
//! ```json
//! {"action":"cut","a":"fra","b":"control","one_way":true}
//! {"action":"delay","a":"edge","b":"origin","delay":"30s","jitter":"5s"}
//! {"action":"rate","a":"fra-1","b":"origin-1","rate":"1MiB"}
//! {"action":"heal"}
//! ```
//!
//! # Invariants
//! - An order says all that its action needs and nothing that it does not.

use std::num::NonZeroU64;
use std::time::Duration;

use meridian_config::units::{ByteSize, HumanDuration};
use serde::{Deserialize, Serialize};

use crate::names::ALL;

/// A delay and a jitter are at most this: longer than any deadline of any node.
pub const LONGEST_DELAY: HumanDuration = HumanDuration::secs(3_600);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing gets through any more.
    Cut,
    /// Each byte takes longer.
    Delay,
    /// Fewer bytes per second.
    Rate,
    /// Small writes.
    Slice,
    /// Open connections are reset, now.
    Reset,
    /// Open connections get no more bytes from A: B sees their end.
    HalfClose,
    /// As it was at the start; connections that were cut are reset.
    Heal,
}

/// An order as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What is asked for.
    pub action: Action,
    /// A node, a region, a role, `all` or `rest`. To heal: all, unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a: Option<String>,
    /// Another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b: Option<String>,
    /// Only the bytes from A to B, whoever dialled.
    #[serde(default)]
    pub one_way: bool,
    /// For `delay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<HumanDuration>,
    /// For `delay`: up to this much more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<HumanDuration>,
    /// For `rate`: this much per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<ByteSize>,
    /// For `slice`: the largest write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<ByteSize>,
}

impl Order {
    /// `action` on all that is between `a` and `b`.
    pub fn between(action: Action, a: &str, b: &str) -> Self {
        let (a, b) = (Some(a.to_owned()), Some(b.to_owned()));
        Self { action, a, b, one_way: false, delay: None, jitter: None, rate: None, slice: None }
    }

    /// Everything as it was at the start.
    pub fn heal_all() -> Self {
        Self::between(Action::Heal, ALL, ALL)
    }

    /// What it means, or what is wrong with it.
    pub(crate) fn check(&self) -> Result<Change<'_>, String> {
        let action = self.action;
        let (a, b) = match (&self.a, &self.b) {
            (Some(a), Some(b)) => (a.as_str(), b.as_str()),
            (None, None) if action == Action::Heal => (ALL, ALL),
            _ => return Err("a and b: both are needed, each a node, a region or a role".to_owned()),
        };
        let given = [
            ("delay", self.delay.is_some(), action == Action::Delay),
            ("jitter", self.jitter.is_some(), action == Action::Delay),
            ("rate", self.rate.is_some(), action == Action::Rate),
            ("slice", self.slice.is_some(), action == Action::Slice),
            ("one_way", self.one_way, !matches!(action, Action::Reset | Action::Heal)),
        ];
        if let Some((name, ..)) = given.iter().find(|(_, is_given, fits)| *is_given && !fits) {
            return Err(format!("{name}: does not belong to this action"));
        }
        Ok(Change { a, b, one_way: self.one_way, effect: self.effect()? })
    }

    fn effect(&self) -> Result<Effect, String> {
        let within = |name: &str, time: HumanDuration| {
            if time > LONGEST_DELAY {
                return Err(format!("{name} = {time}: must be at most {LONGEST_DELAY}"));
            }
            Ok(time.get())
        };
        let at_least_one = |name: &str, size: Option<ByteSize>| {
            let size = size.ok_or_else(|| format!("{name}: is missing"))?;
            NonZeroU64::new(size.get()).ok_or_else(|| format!("{name} = {size}: must be above 0"))
        };
        Ok(match self.action {
            Action::Cut => Effect::Cut,
            Action::Delay => {
                let delay = self.delay.ok_or("delay: is missing")?;
                let jitter = self.jitter.unwrap_or(HumanDuration::secs(0));
                Effect::Delay(within("delay", delay)?, within("jitter", jitter)?)
            }
            Action::Rate => Effect::Rate(at_least_one("rate", self.rate)?),
            Action::Slice => Effect::Slice(at_least_one("slice", self.slice)?),
            Action::Reset => Effect::Reset,
            Action::HalfClose => Effect::HalfClose,
            Action::Heal => Effect::Heal,
        })
    }
}

/// An order that makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change<'o> {
    pub(crate) a: &'o str,
    pub(crate) b: &'o str,
    pub(crate) one_way: bool,
    pub(crate) effect: Effect,
}

/// What becomes of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Cut,
    Delay(Duration, Duration),
    Rate(NonZeroU64),
    Slice(NonZeroU64),
    Reset,
    HalfClose,
    Heal,
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::{Effect, Order};

    #[test]
    fn an_order_says_what_its_action_needs_and_no_more() {
        let ms = Duration::from_millis;
        let rows = [
            (r#"{"action":"cut","a":"x","b":"y"}"#, Ok(Effect::Cut)),
            (r#"{"action":"heal"}"#, Ok(Effect::Heal)),
            (
                r#"{"action":"delay","a":"x","b":"y","delay":"30s","jitter":"5ms","one_way":true}"#,
                Ok(Effect::Delay(ms(30_000), ms(5))),
            ),
            (
                r#"{"action":"rate","a":"x","b":"y","rate":"1KiB"}"#,
                Ok(Effect::Rate(NonZeroU64::new(1024).unwrap())),
            ),
            (r#"{"action":"cut","a":"x"}"#, Err("a and b: both are needed")),
            (r#"{"action":"heal","a":"x"}"#, Err("a and b: both are needed")),
            (r#"{"action":"cut","a":"x","b":"y","delay":"1s"}"#, Err("delay: does not belong")),
            (r#"{"action":"reset","a":"x","b":"y","one_way":true}"#, Err("one_way: does not")),
            (r#"{"action":"delay","a":"x","b":"y"}"#, Err("delay: is missing")),
            (r#"{"action":"delay","a":"x","b":"y","delay":"2h"}"#, Err("delay = 2h: must be at")),
            (r#"{"action":"rate","a":"x","b":"y","rate":"0B"}"#, Err("rate = 0B: must be above 0")),
            (r#"{"action":"slice","a":"x","b":"y"}"#, Err("slice: is missing")),
        ];
        for (text, want) in rows {
            let order: Order = serde_json::from_str(text).unwrap();
            match (order.check().map(|change| change.effect), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{text}"),
                (Err(told), Err(want)) => assert!(told.starts_with(want), "{text}: {told}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        assert!(serde_json::from_str::<Order>(r#"{"action":"heal","c":1}"#).is_err());
        assert!(serde_json::from_str::<Order>(r#"{"action":"melt"}"#).is_err());
    }
}
