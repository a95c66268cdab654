//! How consistent an answer is: `Consistency` in requests, `Meridian-Consistency` in answers.
//!
//! # Invariants
//! - A level that is not offered is refused, never replaced by a weaker one.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use meridian_control_wire::cursor::Position;
use meridian_control_wire::problem::ErrorCode;

use crate::answer::Refusal;
use crate::control_store::Denied;
use crate::order::Refused;

/// Where the answer tells it.
pub(super) const FIELD: HeaderName = HeaderName::from_static("meridian-consistency");

/// The levels that a replica alone has. Its own memory is all there is to agree with, so that the
/// stronger level of reading costs nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Linearizable,
    Local,
    Committed,
}

impl Level {
    /// What a request that reads asks for.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        match word(headers)? {
            None | Some("linearizable") => Ok(Self::Linearizable),
            Some("local") => Ok(Self::Local),
            Some(word @ ("lease" | "one" | "quorum")) => Err(not_offered(word)),
            Some(word) if word.starts_with("bounded=") => Err(not_offered(word)),
            Some(word) => {
                Err(unknown(word, "linearizable, lease, bounded=250ms, local, one, quorum"))
            }
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

    /// What the answer says: `waited` is for the disk, the body, edges, whatever it was.
    pub(super) fn field(self, last: u64, waited: Duration) -> HeaderValue {
        let (level, basis) = match self {
            Self::Linearizable => ("linearizable", "single-replica"),
            Self::Local => ("local", "single-replica"),
            Self::Committed => ("committed", "fsync"),
        };
        let (position, wait) = (Position::of(last), waited.as_secs_f64() * 1_000.0);
        let text = format!(
            "level={level}; basis={basis}; position={position}; wait={wait:.1}ms; staleness=0s"
        );
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("level=unknown"))
    }
}

fn word(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get("consistency") else { return Ok(None) };
    let text = value.to_str().map_err(|error| {
        Refusal::new(ErrorCode::BadRequest, format!("the field Consistency: {error}"))
    })?;
    Ok(Some(text.trim()))
}

fn not_offered(word: &str) -> Refusal {
    let detail = format!("Consistency: {word} is not offered by a replica that is alone");
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
        Denied::Unreadable => ErrorCode::Internal,
    };
    let detail = match denied {
        Denied::Compacted { low_water } => {
            let oldest = Position::of(low_water);
            format!("the history does not go back that far: ask for after={oldest} or later")
        }
        other => other.to_string(),
    };
    Refusal::new(code, detail)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use meridian_control_wire::problem::ErrorCode;

    use super::Level;

    #[test]
    fn a_level_is_offered_or_refused_by_name() {
        let asked = |word: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("consistency", HeaderValue::from_str(word).unwrap());
            let code = |level: Result<Level, _>| level.map_err(|r: super::Refusal| r.code());
            (code(Level::read(&headers)), code(Level::write(&headers)))
        };
        let (none, bad) = (Err(ErrorCode::NotOffered), Err(ErrorCode::BadRequest));
        let rows = [
            ("linearizable", Ok(Level::Linearizable), bad),
            ("local", Ok(Level::Local), bad),
            ("committed", bad, Ok(Level::Committed)),
            ("lease", none, bad),
            ("bounded=250ms", none, bad),
            ("one", none, none),
            ("quorum", none, none),
            ("all", bad, none),
            ("strong", bad, bad),
        ];
        for (word, read, write) in rows {
            assert_eq!(asked(word), (read, write), "{word}");
        }
        assert!(matches!(Level::read(&HeaderMap::new()), Ok(Level::Linearizable)));
        assert!(matches!(Level::write(&HeaderMap::new()), Ok(Level::Committed)));
    }
}
