//! How far a replica has followed the log, as its machine notes it.

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::machine::Machine;
use crate::machine::tables::Notes;

/// Under this name it stands among the notes.
const NOTE: &str = "etcd";

/// How far the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct At {
    pub(super) index: u64,
    /// The hash of that entry's bytes.
    pub(super) hash: [u8; 32],
}

impl At {
    /// What the machine noted last.
    pub(super) fn noted(machine: &Machine) -> Result<Self, StoreError> {
        Ok(machine.note(NOTE)?.and_then(|note| Self::read(&note)).unwrap_or_default())
    }

    /// What the machine is to note.
    pub(super) fn notes(self) -> Notes {
        vec![(NOTE.to_owned(), serde_json::to_vec(&self).unwrap_or_default())]
    }

    fn read(note: &[u8]) -> Option<Self> {
        serde_json::from_slice(note).ok()
    }

    /// What the notes of a snapshot say.
    pub(super) fn of(notes: &Notes) -> Option<Self> {
        notes.iter().find(|(name, _)| name == NOTE).and_then(|(_, note)| Self::read(note))
    }
}
