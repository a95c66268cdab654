//! Faults on request: which request meets one, and which. Carrying it out is [`crate::serve`]'s.
//!
//! # Invariants
//! - The first fault of the list that fires is met, and no other.
//! - `first` counts requests that match, also those that `share` lets go.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use http::{Method, StatusCode};
use meridian_config::pattern::PathPattern;
use meridian_config::units::{HumanDuration, Ratio};
use rand::{Rng, RngExt};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The body of `PUT /v1/faults`, and of its answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultList {
    pub(crate) faults: Vec<Fault>,
}

/// One fault: whom it meets, and what it does. What is absent does not restrict, or is not done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Fault {
    /// Paths, decoded, without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathPattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<MethodName>,
    /// Only this share of the requests that match.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<Ratio>,
    /// Only this many requests that match, from the first on.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,

    /// Before anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay: Option<HumanDuration>,
    /// Never answers.
    #[serde(skip_serializing_if = "is_off")]
    pub(crate) hang: bool,
    /// Ends the connection with RST.
    #[serde(skip_serializing_if = "is_off")]
    pub(crate) reset: bool,
    /// Does the work, then ends the connection without a byte.
    #[serde(skip_serializing_if = "is_off")]
    pub(crate) lose_reply: bool,
    /// Answers with this instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<FinalStatus>,
    /// Ends the connection after so many bytes of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cut_after: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_off(switch: &bool) -> bool {
    !switch
}

/// A method, in upper case as methods are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MethodName(Method);

impl FromStr for MethodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let method = Method::from_bytes(text.as_bytes());
        let method = method.map_err(|error| format!("{text:?} is not a method: {error}"))?;
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let upper = text.to_ascii_uppercase();
            return Err(format!("{text:?} is not a method such as {upper:?}: case counts"));
        }
        Ok(Self(method))
    }
}

/// A status that can end an exchange: 200 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FinalStatus(pub(crate) StatusCode);

impl FinalStatus {
    fn new(code: u16) -> Result<Self, String> {
        let rule = || format!("{code} is not a status between 200 and 599");
        let status = StatusCode::from_u16(code).ok().filter(|_| (200..=599).contains(&code));
        status.map(Self).ok_or_else(rule)
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for MethodName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MethodName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for FinalStatus {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(self.0.as_u16())
    }
}

impl<'de> Deserialize<'de> for FinalStatus {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(u16::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// Why a list of faults is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FaultError {
    #[error("{at}: {why}")]
    Malformed { at: String, why: String },
    #[error("there are {count} faults; limits.max_faults is {most}")]
    TooMany { count: usize, most: usize },
}

impl FaultList {
    /// Reads the body of a PUT.
    pub(crate) fn read(body: &[u8], most: usize) -> Result<Self, FaultError> {
        let json = &mut serde_json::Deserializer::from_slice(body);
        let list: Self = serde_path_to_error::deserialize(&mut *json).map_err(|error| {
            FaultError::Malformed { at: error.path().to_string(), why: error.inner().to_string() }
        })?;
        json.end().map_err(|error| FaultError::Malformed {
            at: "behind the list".to_owned(),
            why: error.to_string(),
        })?;
        let count = list.faults.len();
        if count > most { Err(FaultError::TooMany { count, most }) } else { Ok(list) }
    }
}

/// A fault in force.
#[derive(Debug)]
struct Active {
    fault: Arc<Fault>,
    matched: AtomicU64,
}

/// The faults in force.
pub(crate) struct Faults {
    list: RwLock<Vec<Active>>,
    rng: Mutex<Box<dyn Rng + Send>>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("list", &self.list).finish_non_exhaustive()
    }
}

impl Faults {
    /// None; `rng` decides about shares.
    pub(crate) fn none(rng: Box<dyn Rng + Send>) -> Self {
        Self { list: RwLock::default(), rng: Mutex::new(rng) }
    }

    /// Replaces all; what was counted for `first` starts anew.
    pub(crate) fn replace(&self, list: &FaultList) {
        let active =
            |fault: &Fault| Active { fault: Arc::new(fault.clone()), matched: AtomicU64::new(0) };
        *self.list.write().unwrap_or_else(PoisonError::into_inner) =
            list.faults.iter().map(active).collect();
    }

    pub(crate) fn list(&self) -> FaultList {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        FaultList { faults: list.iter().map(|active| Fault::clone(&active.fault)).collect() }
    }

    /// The fault that a request meets, if any.
    pub(crate) fn meet(&self, method: &Method, path: &str) -> Option<Arc<Fault>> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        let fires = |active: &&Active| {
            let Fault { first, share, .. } = &*active.fault;
            active.fault.matches(method, path)
                && first.is_none_or(|n| active.matched.fetch_add(1, Ordering::Relaxed) < n)
                && share.is_none_or(|share| self.draw() < share.get())
        };
        list.iter().find(fires).map(|active| Arc::clone(&active.fault))
    }

    /// From 0 up to, not including, 1: a share of 0 never fires, a share of 1 always.
    fn draw(&self) -> f64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

impl Fault {
    fn matches(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|named| named.0 == *method)
            && self.path.as_ref().is_none_or(|pattern| pattern.matches(path))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::{FaultList, Faults};

    fn read(json: &str) -> Result<FaultList, String> {
        FaultList::read(json.as_bytes(), 2).map_err(|error| error.to_string())
    }

    fn faults(json: &str) -> Faults {
        let faults = Faults::none(Box::new(StdRng::seed_from_u64(7)));
        faults.replace(&read(json).unwrap());
        faults
    }

    #[test]
    fn every_field_is_read_and_told_again_as_it_was_given() {
        let whole = r#"{"faults":[{"path":"/img/*","method":"GET","share":0.5,"first":2,"delay":"30s","hang":true,"reset":true,"lose_reply":true,"status":503,"cut_after":1000},{}]}"#;
        assert_eq!(serde_json::to_string(&read(whole).unwrap()).unwrap(), whole);
        assert_eq!(serde_json::to_string(&faults(whole).list()).unwrap(), whole);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let rows = [
            (r#"{"faults":[{"dely":"1s"}]}"#, "faults[0].dely: unknown field `dely`"),
            (r#"{"faults":[{},{"share":1.5}]}"#, "faults[1].share: 1.5 is not a ratio between"),
            (r#"{"faults":[{"share":-0.1}]}"#, "faults[0].share: -0.1 is not a ratio"),
            (r#"{"faults":[{"status":99}]}"#, "faults[0].status: 99 is not a status between"),
            (r#"{"faults":[{"status":600}]}"#, "faults[0].status: 600 is not a status"),
            (r#"{"faults":[{"delay":"soon"}]}"#, "faults[0].delay: is not a duration"),
            (r#"{"faults":[{"delay":30}]}"#, "faults[0].delay: invalid type"),
            (r#"{"faults":[{"method":"get"}]}"#, "faults[0].method: \"get\" is not a method"),
            (r#"{"faults":[{"path":"img"}]}"#, "faults[0].path: must start with"),
            (r#"{"faults":[{"cut_after":-1}]}"#, "faults[0].cut_after: invalid value"),
            (r#"{"faults":[{},{},{}]}"#, "there are 3 faults; limits.max_faults is 2"),
            (r#"{"fault":[]}"#, "fault: unknown field `fault`"),
            (r#"{"faults":[]} x"#, "behind the list: trailing characters"),
            ("", ".: EOF while parsing"),
        ];
        for (json, want) in rows {
            let told = read(json).unwrap_err();
            assert!(told.starts_with(want), "{json}: {told}");
        }
    }

    #[test]
    fn the_first_that_matches_is_met() {
        let faults = faults(
            r#"{"faults":[{"path":"/a*","method":"GET","status":500},{"path":"/a*","status":501}]}"#,
        );
        let rows = [("GET", "/a", Some(500)), ("HEAD", "/ab", Some(501)), ("GET", "/b", None)];
        for (method, path, want) in rows {
            let met = faults.meet(&method.parse::<Method>().unwrap(), path);
            let status = met.map(|fault| fault.status.unwrap().0.as_u16());
            assert_eq!(status, want, "{method} {path}");
        }
    }

    #[test]
    fn only_the_first_requests_that_match_meet_it_until_the_list_is_replaced() {
        let json = r#"{"faults":[{"path":"/a","first":2}]}"#;
        let faults = faults(json);
        let meets = |path: &str| faults.meet(&Method::GET, path).is_some();
        assert!(!meets("/b"));
        assert_eq!([meets("/a"), meets("/a"), meets("/a")], [true, true, false]);
        faults.replace(&read(json).unwrap());
        assert!(meets("/a"));
    }

    #[test]
    fn a_share_is_a_share_of_the_requests() {
        let met = |share: &str| {
            let faults = faults(&format!(r#"{{"faults":[{{"share":{share}}}]}}"#));
            (0..10_000).filter(|_| faults.meet(&Method::GET, "/").is_some()).count()
        };
        assert_eq!(met("0"), 0);
        assert_eq!(met("1"), 10_000);
        let quarter = met("0.25"); // seed 7; six standard deviations are 260
        assert!((2_240..=2_760).contains(&quarter), "{quarter}");
    }
}
