//! What orders do to the registered edges and to what operators want of regions.
//!
//! # Invariants
//! - Never more edges than the bound; intents only for regions that had an edge when it was given.
//! - An order about an edge that has registered again since does nothing to what it is now.

use meridian_control_wire::{EdgeState, Intent};

use crate::machine::tables::{Fault, Writing};
use crate::order::{Bounds, EdgeChange, Outcome, Refused};
use crate::watcher::{EdgeEvent, EdgeRow};

/// Does what `change` says; what happened is none if there was nothing to do.
pub(crate) fn apply(
    disk: &mut Writing<'_>,
    bounds: Bounds,
    now_ms: u64,
    change: EdgeChange,
) -> Result<(Outcome, Vec<EdgeEvent>), Fault> {
    match change {
        EdgeChange::Enrol { registration, secret } => {
            let known = disk.edge(registration.name.as_str())?;
            if known.is_none() && disk.edge_count()? >= u64::from(bounds.edges) {
                return Ok((Outcome::Refused(Refused::EdgesFull), Vec::new()));
            }
            let state = known.as_ref().map_or(EdgeState::Healthy, |known| known.state);
            let row = EdgeRow {
                registration: (*registration).clone(),
                secret,
                state,
                heard_at_ms: now_ms,
            };
            disk.put_edge(&row)?;
            let known = known.is_some();
            let event = EdgeEvent::Enrolled { registration, secret };
            Ok((Outcome::Enrolled { known }, vec![event]))
        }
        EdgeChange::Remove(name) => match disk.edge(name.as_str())? {
            None => Ok((Outcome::Removed(None), Vec::new())),
            Some(row) => {
                disk.remove_edge(name.as_str())?;
                let removed = Some(Box::new(row.registration));
                Ok((Outcome::Removed(removed), vec![EdgeEvent::Removed(name)]))
            }
        },
        EdgeChange::Intend { region, intent } => {
            let before = disk.intent(&region)?;
            if before == Intent::Active && !disk.has_edge_of(&region)? {
                return Ok((Outcome::Refused(Refused::UnknownRegion), Vec::new()));
            }
            if before == intent {
                return Ok((Outcome::Intended, Vec::new()));
            }
            disk.intend(&region, intent)?;
            Ok((Outcome::Intended, vec![EdgeEvent::Intended { region, intent }]))
        }
        EdgeChange::Keep { states, expired } => {
            let mut events = Vec::new();
            for record in states {
                let Some(mut row) = disk.edge(record.name.as_str())? else { continue };
                (row.state, row.heard_at_ms) = (record.state, record.heard_at_ms);
                disk.put_edge(&row)?;
                events.push(EdgeEvent::Recorded { name: record.name, state: record.state });
            }
            let mut gone = Vec::new();
            for (name, secret) in expired {
                if disk.edge(name.as_str())?.is_some_and(|row| row.secret == secret) {
                    disk.remove_edge(name.as_str())?;
                    events.push(EdgeEvent::Removed(name.clone()));
                    gone.push(name);
                }
            }
            Ok((Outcome::Kept(gone), events))
        }
    }
}
