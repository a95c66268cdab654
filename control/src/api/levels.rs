//! How consistent an answer is: `Consistency` in requests, `Meridian-Consistency` in answers.
//!
//! # Invariants
//! - A level that is not offered is refused, never replaced by a weaker one.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use meridian_config::units::HumanDuration;
use meridian_control_wire::cursor::Position;
use meridian_control_wire::problem::ErrorCode;

use crate::answer::Refusal;
use crate::control_store::{Barrier, ControlStore, Denied, ReadLevel};
use crate::order::Refused;

/// Where the answer tells it.
pub(super) const FIELD: HeaderName = HeaderName::from_static("meridian-consistency");

/// The answer of a replica that does not lead and has done nothing.
pub(super) const NOT_LEADER: HeaderName = HeaderName::from_static("meridian-not-leader");

/// How consistent an answer is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Read(ReadLevel),
    Committed,
}

impl Level {
    /// What a request that reads asks for.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        match word(headers)? {
            None | Some("linearizable") => Ok(Self::Read(ReadLevel::Linearizable)),
            Some("lease") => Ok(Self::Read(ReadLevel::Lease)),
            Some("local") => Ok(Self::Read(ReadLevel::Local)),
            Some(word @ ("one" | "quorum")) => Err(not_offered(word)),
            Some(word) => match word.strip_prefix("bounded=").map(str::parse::<HumanDuration>) {
                Some(Ok(bound)) => Ok(Self::Read(ReadLevel::Bounded(bound.get()))),
                Some(Err(_)) | None => {
                    Err(unknown(word, "linearizable, lease, bounded=250ms, local, one, quorum"))
                }
            },
        }
    }

    /// What a request that writes asks for.
    pub(super) fn write(headers: &HeaderMap) -> Result<Self, Refusal> {
        match word(headers)? {
            None | Some("committed") => Ok(Self::Committed),
            Some(word @ ("one" | "quorum" | "all")) => Err(not_offered(word)),
            Some(word) => Err(unknown(word, "committed, one, quorum, all")),
        }
    }

    fn word(self) -> String {
        match self {
            Self::Read(ReadLevel::Linearizable) => "linearizable".to_owned(),
            Self::Read(ReadLevel::Lease) => "lease".to_owned(),
            Self::Read(ReadLevel::Bounded(bound)) => {
                format!("bounded={}", HumanDuration::from(bound))
            }
            Self::Read(ReadLevel::Local) => "local".to_owned(),
            Self::Committed => "committed".to_owned(),
        }
    }

    /// What the answer says: `waited` is for the disk, the body, edges, whatever it was.
    pub(super) fn field(self, found: &Barrier, waited: Duration) -> HeaderValue {
        let Barrier { seq, basis, term, staleness } = found;
        let (level, position) = (self.word(), Position::of(*seq));
        let term = term.map_or_else(String::new, |term| format!(" term={term};"));
        let wait = waited.as_secs_f64() * 1_000.0;
        let staleness = match staleness {
            Some(Duration::ZERO) => "0s".to_owned(),
            Some(bound) => format!("{:.1}ms", bound.as_secs_f64() * 1_000.0),
            None => "unknown".to_owned(),
        };
        let text = format!(
            "level={level}; basis={basis};{term} position={position}; wait={wait:.1}ms; \
             staleness={staleness}"
        );
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("level=unknown"))
    }
}

/// What an answer is based on that brings what this replica happens to have.
pub(super) fn unconfirmed(store: &dyn ControlStore) -> Barrier {
    let seq = store.state().last;
    Barrier { seq, basis: "this-replica", term: None, staleness: None }
}

/// What an answer is based on that brings nothing of the log.
pub(super) fn baseless(store: &dyn ControlStore) -> Barrier {
    Barrier { basis: "none", ..unconfirmed(store) }
}

/// What an answer is based on that tells of a change.
pub(super) fn changed(store: &dyn ControlStore) -> Barrier {
    let (seq, basis) = (store.state().last, store.basis());
    let term = store.leads().filter(|term| *term > 0);
    Barrier { seq, basis, term, staleness: Some(Duration::ZERO) }
}

fn word(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get("consistency") else { return Ok(None) };
    let text = value.to_str().map_err(|error| {
        Refusal::new(ErrorCode::BadRequest, format!("the field Consistency: {error}"))
    })?;
    Ok(Some(text.trim()))
}

fn not_offered(word: &str) -> Refusal {
    let detail = format!("Consistency: {word} is not offered where replicas agree on one order");
    Refusal::new(ErrorCode::NotOffered, detail)
}

fn unknown(word: &str, known: &str) -> Refusal {
    let detail = format!("Consistency: {word} is no level here; levels are {known}");
    Refusal::new(ErrorCode::BadRequest, detail)
}

/// What a client hears when the store denies something.
pub(super) fn denied(denied: Denied) -> Refusal {
    let code = match &denied {
        Denied::Refused(refused) => match refused {
            Refused::Mismatch => ErrorCode::IdempotencyMismatch,
            Refused::Conflict { .. } => ErrorCode::RevConflict,
            Refused::Absent | Refused::UnknownRegion => ErrorCode::NotFound,
            Refused::Full => ErrorCode::Overloaded,
            Refused::EdgesFull => ErrorCode::RegisterFull,
        },
        Denied::Ending => ErrorCode::Overloaded,
        Denied::Compacted { .. } => ErrorCode::CursorCompacted,
        Denied::Unknown => ErrorCode::OutcomeUnknown,
        Denied::NoQuorum | Denied::NotLeader => ErrorCode::NoQuorum,
        Denied::Busy => ErrorCode::Overloaded,
        Denied::NotOffered(_) => ErrorCode::NotOffered,
        Denied::Unreadable => ErrorCode::Internal,
    };
    let not_leader = denied == Denied::NotLeader;
    let detail = match denied {
        Denied::Compacted { low_water } => {
            let oldest = Position::of(low_water);
            format!("the history does not go back that far: ask for after={oldest} or later")
        }
        other => other.to_string(),
    };
    let refusal = Refusal::new(code, detail);
    if not_leader { refusal.with(NOT_LEADER, HeaderValue::from_static("?1")) } else { refusal }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue};
    use meridian_control_wire::problem::ErrorCode;

    use super::Level;
    use crate::control_store::{Barrier, ReadLevel};

    #[test]
    fn an_answer_tells_what_it_is_based_on() {
        let barrier = Barrier { seq: 9, basis: "read-index", term: Some(5), staleness: None };
        let wait = Duration::from_micros(3_140);
        let told = |level: Level, found: Barrier| {
            level.field(&found, wait).to_str().unwrap().replace("00000000000000000009", "9")
        };
        let rows = [
            (
                told(Level::Read(ReadLevel::Local), barrier),
                "level=local; basis=read-index; term=5; position=9; wait=3.1ms; staleness=unknown",
            ),
            (
                told(
                    Level::Read(ReadLevel::Bounded(Duration::from_millis(250))),
                    Barrier { staleness: Some(Duration::from_millis(250)), ..barrier },
                ),
                "level=bounded=250ms; basis=read-index; term=5; position=9; wait=3.1ms; \
                 staleness=250.0ms",
            ),
            (
                told(
                    Level::Committed,
                    Barrier { term: None, staleness: Some(Duration::ZERO), ..barrier },
                ),
                "level=committed; basis=read-index; position=9; wait=3.1ms; staleness=0s",
            ),
        ];
        for (told, want) in rows {
            assert_eq!(told, want);
        }
    }

    #[test]
    fn a_level_is_offered_or_refused_by_name() {
        let asked = |word: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("consistency", HeaderValue::from_str(word).unwrap());
            let code = |level: Result<Level, _>| level.map_err(|r: super::Refusal| r.code());
            (code(Level::read(&headers)), code(Level::write(&headers)))
        };
        let read = |level| Ok(Level::Read(level));
        let (none, bad) = (Err(ErrorCode::NotOffered), Err(ErrorCode::BadRequest));
        let rows = [
            ("linearizable", read(ReadLevel::Linearizable), bad),
            ("local", read(ReadLevel::Local), bad),
            ("committed", bad, Ok(Level::Committed)),
            ("lease", read(ReadLevel::Lease), bad),
            ("bounded=250ms", read(ReadLevel::Bounded(Duration::from_millis(250))), bad),
            ("bounded=soon", bad, bad),
            ("bounded=", bad, bad),
            ("one", none, none),
            ("quorum", none, none),
            ("all", bad, none),
            ("strong", bad, bad),
        ];
        for (word, read, write) in rows {
            assert_eq!(asked(word), (read, write), "{word}");
        }
        let plain = Level::read(&HeaderMap::new());
        assert!(matches!(plain, Ok(Level::Read(ReadLevel::Linearizable))));
        assert!(matches!(Level::write(&HeaderMap::new()), Ok(Level::Committed)));
    }
}
