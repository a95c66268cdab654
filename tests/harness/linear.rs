//! Is a recorded history linearizable (Herlihy and Wing 1990)?
//!
//! Answers for one object at a time: linearizability is local, so that a history of many keys is
//! linearizable exactly if the history of each key is. The search is that of Wing and Gong (1993)
//! with the memory of Lowe (2017): never the same state with the same calls done twice.
//!
//! Left out on purpose: how calls are recorded, and any clock: times are only compared.

use std::collections::HashSet;
use std::hash::Hash;

/// What an object does when nothing is concurrent.
pub trait Object {
    /// What it remembers.
    type State: Clone + Eq + Hash;
    /// A call with the answer that its client got, or with none.
    type Call;

    /// The state before the first call.
    fn initial() -> Self::State;

    /// The state after `call`; `None`: in `state` it cannot have been answered as it was.
    fn apply(state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// A call as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<C> {
    /// What was asked and answered.
    pub call: C,
    /// When it was sent.
    pub sent: u64,
    /// When the answer came; `None`: never, and nobody knows whether it had an effect, or will.
    pub answered: Option<u64>,
}

/// Whether `history` is linearizable: every answered call seems to have happened at one moment
/// between its sending and its answer, and each of the others at one moment after its sending, or
/// not at all.
#[must_use]
pub fn is_linearizable<O: Object>(history: &[Recorded<O::Call>]) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![(Done::none(history.len()), O::initial())];
    while let Some((done, state)) = open.pop() {
        let Some(before) = first_answer(history, &done) else {
            return true; // what is not done was never answered
        };
        for (at, recorded) in history.iter().enumerate() {
            if done.has(at) || recorded.sent > before {
                continue;
            }
            if let Some(next) = O::apply(&state, &recorded.call) {
                let step = (done.with(at), next);
                if seen.insert(step.clone()) {
                    open.push(step);
                }
            }
        }
    }
    false
}

/// When the first of the calls that are not done was answered: the next call to be done was sent
/// before that.
fn first_answer<C>(history: &[Recorded<C>], done: &Done) -> Option<u64> {
    let left = history.iter().enumerate().filter(|(at, _)| !done.has(*at));
    left.filter_map(|(_, recorded)| recorded.answered).min()
}

/// Which calls are done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn none(calls: usize) -> Self {
        Self(vec![0; calls.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn with(&self, at: usize) -> Self {
        let mut done = self.clone();
        if let Some(word) = done.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
        done
    }
}

/// A configuration register: set, set if it has a revision, read.
#[derive(Debug)]
pub enum Register {}

/// A call to a [`Register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterCall {
    /// What was read: revision and value; `None`: it was not there.
    Read(Option<(u64, u64)>),
    /// `value` was set, if the register had the revision `expected` (some number: that one; 0: none
    /// at all; `None`: whatever it had).
    Write {
        /// The condition.
        expected: Option<u64>,
        /// The value.
        value: u64,
        /// What became of it.
        outcome: Written,
    },
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It got this revision, which is above all before it.
    Revision(u64),
    /// The condition did not hold.
    Conflict,
    /// Nobody knows.
    Unknown,
}

/// What a register holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Held {
    value: Option<u64>,
    /// `None`: somebody wrote who never learned his revision.
    revision: Option<u64>,
    /// No later revision is at or below it.
    above: u64,
}

impl Object for Register {
    type State = Held;
    type Call = RegisterCall;

    fn initial() -> Held {
        Held { value: None, revision: Some(0), above: 0 }
    }

    fn apply(held: &Held, call: &RegisterCall) -> Option<Held> {
        match *call {
            RegisterCall::Read(found) => held.read(found),
            RegisterCall::Write { expected, value, outcome } => {
                held.write(expected, value, outcome)
            }
        }
    }
}

impl Held {
    /// After it was read as `found`. A reader learns a revision that its writer did not.
    fn read(&self, found: Option<(u64, u64)>) -> Option<Self> {
        let Some((revision, value)) = found else {
            return self.value.is_none().then(|| self.clone());
        };
        let fits = match self.revision {
            Some(known) => known == revision,
            None => revision > self.above,
        };
        let read = Self { value: Some(value), revision: Some(revision), above: revision };
        (self.value == Some(value) && fits).then_some(read)
    }

    fn write(&self, expected: Option<u64>, value: u64, outcome: Written) -> Option<Self> {
        let could_hold = expected.is_none_or(|expected| self.may_have(expected));
        let must_hold = expected.is_none_or(|expected| self.revision == Some(expected));
        match outcome {
            Written::Conflict => (!must_hold).then(|| self.clone()),
            Written::Revision(revision) => {
                let grows = revision > self.above;
                let after = Self { value: Some(value), revision: Some(revision), above: revision };
                (could_hold && grows).then_some(after)
            }
            Written::Unknown if could_hold => {
                Some(Self { value: Some(value), revision: None, above: self.above })
            }
            Written::Unknown => Some(self.clone()),
        }
    }

    fn may_have(&self, revision: u64) -> bool {
        self.revision.map_or(revision > self.above, |known| known == revision)
    }
}

/// The log of purges: each gets a position above all before it; a reader sees the last one.
#[derive(Debug)]
pub enum Log {}

/// A call to a [`Log`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogCall {
    /// A purge was accepted at this position; `None`: nobody knows.
    Append(Option<u64>),
    /// The last position of all.
    Last(u64),
}

impl Object for Log {
    /// The last position that is known, and whether there are others whose position is not.
    type State = (u64, bool);
    type Call = LogCall;

    fn initial() -> (u64, bool) {
        (0, false)
    }

    fn apply(&(last, more): &(u64, bool), call: &LogCall) -> Option<(u64, bool)> {
        match *call {
            LogCall::Append(Some(position)) => (position > last).then_some((position, false)),
            LogCall::Append(None) => Some((last, true)),
            LogCall::Last(found) if more => (found > last).then_some((found, false)),
            LogCall::Last(found) => (found == last).then_some((last, false)),
        }
    }
}
