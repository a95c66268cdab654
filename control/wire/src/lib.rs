//! What crosses the network between the control plane, the edges and the front door; nothing else.
//!
//! - this file: an edge registers and beats; what the control plane tells about edges and regions
//! - [`selector`], [`operation`], [`purge`]: what a purge is, as it is ordered, logged and delivered
//! - [`frame`]: the stream to an edge. [`cursor`]: where in it an edge is
//! - [`base_url`], [`secret`]: the values that need a rule of their own
//! - [`problem`]: how an error is told, with its token
//!
//! It answers which bytes are well-formed. What they are worth (who may register, whether an edge
//! is alive) is the control plane's to say. Names travel, not addresses: `url` and `admin` tell
//! clients and operators where an edge is; a node dials another by name through its own table.
//!
//! # Invariants
//! - Whatever deserializes is within its bounds; nothing here panics on bytes from the network.
//! - Unknown fields are ignored, so that nodes of two versions understand each other; a missing
//!   field is an error unless it says otherwise.

pub mod base_url;
pub mod cursor;
pub mod frame;
pub mod operation;
pub mod problem;
pub mod purge;
pub mod secret;
pub mod selector;

#[cfg(test)]
mod bytes_laws;

use std::time::Duration;

use meridian_config::shared::Location;
use meridian_config::units::{NodeName, Region};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::base_url::BaseUrl;
use crate::cursor::Cursor;
use crate::secret::Secret;

/// The longest name of a city, in bytes of UTF-8.
pub const MAX_CITY: usize = 128;

/// The longest interval between two beats that a replica may ask for: one hour.
pub const MAX_BEAT: Duration = Duration::from_secs(3_600);

/// `POST /v1/edges`: an edge introduces itself, with a token of scope `edge`.
///
/// Under a name that is known it replaces the addresses and the secret: the edge restarted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// Its name, by which every node looks its address up.
    pub name: NodeName,
    /// The region it stands in.
    pub region: Region,
    /// The city, for people; at most [`MAX_CITY`] bytes, no control characters, may be empty.
    #[serde(deserialize_with = "city")]
    pub city: String,
    /// Latitude (-90 to 90) and longitude (-180 to 180) in degrees.
    #[serde(deserialize_with = "location")]
    pub location: Location,
    /// Where clients reach it.
    pub url: BaseUrl,
    /// Where its admin listener is, for nodes that have no address for its name.
    pub admin: BaseUrl,
}

/// The answer to a [`Registration`]: 201, or 200 if the name was known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// By which the paths of the API name it: its name.
    pub id: NodeName,
    /// What it shows with every beat, as `Authorization: Bearer`. The one before is void.
    pub secret: Secret,
    /// The replica asks for a beat at least this often, in milliseconds; 1 to [`MAX_BEAT`].
    #[serde(deserialize_with = "beat_ms")]
    pub beat_ms: u64,
}

impl Registered {
    /// The longest interval between two beats that keeps the edge healthy with some to spare.
    pub const fn beat(&self) -> Duration {
        Duration::from_millis(self.beat_ms)
    }
}

/// `POST /v1/edge/{id}/ping`: the edge lives, and what it carries. Answered by a `Pong`.
///
/// 401 `unknown_edge` asks it to register again; 403 means that the secret is not its latest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ping {
    /// Requests of clients that it is answering now.
    pub active_requests: u64,
    /// Requests of clients since it started.
    pub requests_total: u64,
    /// Bytes of stored responses.
    pub store_bytes: u64,
    /// Stored responses.
    pub store_entries: u64,
    /// Grows with each beat under one secret. One that does not is a late copy and counts for
    /// nothing: it must not make a dead edge look alive.
    pub sequence: u64,
    /// Everything up to it is applied, as an acknowledgement says it: whoever leads the control
    /// plane from now on need not wait for the next change to know. None: nothing is known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// How many of its routes serve nothing stored once their lease has run out.
    #[serde(default)]
    pub fail_closed: FailClosed,
    /// Who granted the lease that it has: what a ping says of leases counts only for the leader
    /// whose grant it names, so that a late copy of it says nothing to the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_by: Option<u64>,
}

/// Which routes of an edge are `fail_closed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailClosed {
    /// None: it asks for no lease.
    #[default]
    None,
    /// Some.
    Some,
    /// All: after the end of its lease it serves nothing that a purge could concern.
    All,
}

/// `GET /v1/edges`: the register, by name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Edges {
    /// Every registered edge, healthy or not.
    pub edges: Vec<EdgeView>,
}

/// One registered edge, as a replica sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeView {
    /// By which the paths of the API name it: its name.
    pub id: NodeName,
    /// Its name.
    pub name: NodeName,
    /// The region it stands in.
    pub region: Region,
    /// The city, for people; may be empty.
    #[serde(deserialize_with = "city")]
    pub city: String,
    /// Latitude and longitude in degrees.
    #[serde(deserialize_with = "location")]
    pub location: Location,
    /// Where clients reach it.
    pub url: BaseUrl,
    /// Where its admin listener is.
    pub admin: BaseUrl,
    /// Whether it may be sent clients, as far as its beats tell.
    pub state: EdgeState,
    /// Milliseconds since its last beat. `null`: this replica started so recently that it cannot
    /// know yet; whoever knew something of the edge before goes on with that.
    pub heard_ms_ago: Option<u64>,
    /// What the operator wants of its region.
    pub intent: Intent,
    /// Requests of clients that it was answering at its last beat.
    pub active_requests: u64,
    /// Requests of clients since it started, at its last beat.
    pub requests_total: u64,
    /// Bytes of stored responses at its last beat.
    pub store_bytes: u64,
    /// Stored responses at its last beat.
    pub store_entries: u64,
}

impl EdgeView {
    /// Whether clients may be sent to it: it beats, and nobody drained its region.
    pub fn is_usable(&self) -> bool {
        self.state == EdgeState::Healthy && self.intent == Intent::Active
    }
}

/// What the beats of an edge tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeState {
    /// It beats, and has for long enough.
    Healthy,
    /// It has been silent for too long, or not been heard for long enough since.
    Unhealthy,
}

impl EdgeState {
    /// The word in JSON, logs and metrics.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What an operator wants of a region. Stronger than health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Takes clients.
    #[default]
    Active,
    /// Takes no new clients.
    Drained,
}

impl Intent {
    /// The word in JSON, logs and metrics.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Drained => "drained",
        }
    }
}

/// `GET /v1/regions`: every region that has, or had, an edge or an intent, by label.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Regions {
    /// The regions.
    pub regions: Vec<RegionView>,
}

/// One region, as a replica sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionView {
    /// Its label.
    pub region: Region,
    /// The city, for people; may be empty.
    #[serde(deserialize_with = "city")]
    pub city: String,
    /// Latitude and longitude in degrees; `null` if it has no edge and no place bears its label.
    #[serde(deserialize_with = "maybe_location")]
    pub location: Option<Location>,
    /// What follows from its edges and the intent; the intent wins.
    pub state: RegionState,
    /// What the operator wants.
    pub intent: Intent,
    /// Its edges.
    pub edges: EdgeCount,
}

/// What a region can do for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionState {
    /// Every edge is healthy.
    Active,
    /// Some edges are healthy, some are not.
    Degraded,
    /// No edge is healthy.
    Down,
    /// The operator wants it empty, whatever its edges say.
    Drained,
}

impl RegionState {
    /// The word in JSON, logs and metrics.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Drained => "drained",
        }
    }
}

/// Edges of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EdgeCount {
    /// Registered.
    pub total: u32,
    /// Healthy among them.
    pub healthy: u32,
}

/// `PUT /v1/regions/{region}/intent`: with a token of scope `operate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)] // an operator's misspelt field must not be half obeyed
pub struct IntentOrder {
    /// What the operator wants.
    pub state: Intent,
}

fn city<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.len() <= MAX_CITY && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        let rule = format!("city must be at most {MAX_CITY} bytes without control characters");
        Err(de::Error::custom(rule))
    }
}

fn location<'de, D: Deserializer<'de>>(from: D) -> Result<Location, D::Error> {
    let place = Location::deserialize(from)?;
    on_earth(place)
}

fn maybe_location<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Location>, D::Error> {
    Option::<Location>::deserialize(from)?.map(on_earth).transpose()
}

fn on_earth<E: de::Error>(place: Location) -> Result<Location, E> {
    if place.is_on_earth() {
        Ok(place)
    } else {
        Err(E::custom("location must be [latitude, longitude], within 90 and 180 degrees of zero"))
    }
}

fn beat_ms<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let beat = u64::deserialize(from)?;
    if (1..=MAX_BEAT.as_secs() * 1_000).contains(&beat) {
        Ok(beat)
    } else {
        Err(de::Error::custom("beat_ms must be between 1 and 3600000"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Edges, FailClosed, IntentOrder, Ping, Registered, Registration};

    const REGISTRATION: &str = r#"{"name":"fra-1","region":"fra","city":"Frankfurt",
        "location":[50.03,8.57],"url":"http://127.0.0.1:8083","admin":"http://127.0.0.1:8084"}"#;

    #[test]
    fn a_registration_keeps_its_bytes() {
        let read: Registration = serde_json::from_str(REGISTRATION).unwrap();
        let golden: String = REGISTRATION.lines().map(str::trim).collect();
        assert_eq!(serde_json::to_string(&read).unwrap(), golden);
    }

    #[test]
    fn a_registration_outside_its_bounds_is_refused() {
        let rows = [
            (r#""fra-1""#, r#""Fra 1""#, "must be 1-63 of a-z"),
            (r#""fra-1""#, r#""../fra""#, "must be 1-63 of a-z"),
            (r#""fra""#, r#""""#, "must be 1-63 of a-z"),
            ("50.03", "90.1", "location"),
            ("8.57", "-180.5", "location"),
            ("[50.03,8.57]", "[50.03]", "length 1"),
            ("Frankfurt", "Frank\\nfurt", "city"),
            ("http://127.0.0.1:8083", "http://a/b", "scheme://host"),
            ("http://127.0.0.1:8084", "gopher://a", "scheme://host"),
            (r#""admin":"#, r#""adnim":"#, "missing field `admin`"),
        ];
        for (from, to, want) in rows {
            let text = REGISTRATION.replacen(from, to, 1);
            let error = serde_json::from_str::<Registration>(&text).unwrap_err().to_string();
            assert!(error.contains(want), "{to}: {error}");
        }
        let city = |n: usize| REGISTRATION.replacen("Frankfurt", &"x".repeat(n), 1);
        assert!(serde_json::from_str::<Registration>(&city(super::MAX_CITY)).is_ok());
        assert!(serde_json::from_str::<Registration>(&city(super::MAX_CITY + 1)).is_err());
    }

    #[test]
    fn a_field_of_a_later_version_is_ignored_except_in_an_order() {
        let text = REGISTRATION.replacen('{', r#"{"later":1,"#, 1);
        assert!(serde_json::from_str::<Registration>(&text).is_ok());
        assert!(serde_json::from_str::<IntentOrder>(r#"{"state":"drained"}"#).is_ok());
        assert!(serde_json::from_str::<IntentOrder>(r#"{"state":"drained","later":1}"#).is_err());
        assert!(serde_json::from_str::<IntentOrder>(r#"{"state":"asleep"}"#).is_err());
    }

    #[test]
    fn an_answer_with_an_impossible_beat_is_refused() {
        let answer = |beat: u64| {
            let text = format!(r#"{{"id":"a","secret":"0123456789abcdef","beat_ms":{beat}}}"#);
            serde_json::from_str::<Registered>(&text)
        };
        assert_eq!(answer(250).unwrap().beat().as_millis(), 250);
        assert!(answer(1).is_ok() && answer(3_600_000).is_ok());
        assert!(answer(0).is_err() && answer(3_600_001).is_err());
    }

    #[test]
    fn negative_and_fractional_counts_are_refused() {
        let ping = |n: &str| {
            let text = format!(
                r#"{{"active_requests":{n},"requests_total":0,"store_bytes":0,"store_entries":0,
                    "sequence":1}}"#
            );
            serde_json::from_str::<Ping>(&text)
        };
        let read = ping("7").unwrap();
        assert_eq!(read.active_requests, 7);
        // An edge of the version before says nothing of leases, and gets none.
        assert_eq!((read.cursor, read.fail_closed, read.lease_by), (None, FailClosed::None, None));
        assert!(ping("-1").is_err() && ping("1.5").is_err() && ping("1e400").is_err());
    }

    #[test]
    fn an_edge_that_was_never_heard_says_so() {
        let text = r#"{"edges":[{"id":"a","name":"a","region":"r","city":"","location":[0.0,0.0],
            "url":"http://a","admin":"http://a:1","state":"unhealthy","heard_ms_ago":null,
            "intent":"active","active_requests":0,"requests_total":0,"store_bytes":0,
            "store_entries":0}]}"#;
        let read: Edges = serde_json::from_str(text).unwrap();
        assert_eq!(read.edges[0].heard_ms_ago, None);
        assert!(!read.edges[0].is_usable());
        let golden: String = text.lines().map(str::trim).collect();
        assert_eq!(serde_json::to_string(&read).unwrap(), golden);
    }
}
