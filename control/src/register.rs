//! Which edges there are, what they told, and what operators want of regions. Pure state.
//!
//! Answers what is known now. Who may change it, and what is on disk, are others' questions.
//!
//! # Invariants
//! - Reads no clock, no randomness.
//! - Never more than `most` edges; intents as they were given.
//! - A beat counts only with the latest secret, and only if its sequence grew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use meridian_config::places::place;
use meridian_config::shared::Location;
use meridian_config::units::{NodeName, Region};
use meridian_control_wire::{
    EdgeCount, EdgeState, EdgeView, Intent, Ping, RegionView, Registration,
};

use crate::auth::Fingerprint;
use crate::health::{Pulse, Rules, region_state};

/// The register of one replica.
#[derive(Debug)]
pub(crate) struct Register {
    members: BTreeMap<NodeName, Member>,
    intents: BTreeMap<Region, Intent>,
    rules: Rules,
    expiry: Duration,
    most: usize,
}

/// One edge.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) registration: Registration,
    pub(crate) secret: Fingerprint,
    /// The state that is on disk; the one in memory may be newer.
    pub(crate) recorded: EdgeState,
    pulse: Pulse,
    ping: Ping,
    sequence: Option<u64>,
    silence: Silence,
}

/// For how long an edge has not been heard, across a restart of this replica.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// Its last beat, or when this replica started.
    since: Instant,
    /// What had passed before `since`, at least.
    before: Duration,
}

impl Member {
    /// An edge that registers now: its listeners are open, it is healthy at once.
    pub(crate) fn new(registration: Registration, secret: Fingerprint, now: Instant) -> Self {
        Self {
            registration,
            secret,
            recorded: EdgeState::Healthy,
            pulse: Pulse::Steady { last: now },
            ping: Ping::default(),
            sequence: None,
            silence: Silence { since: now, before: Duration::ZERO },
        }
    }

    /// An edge that this replica knew before it restarted.
    pub(crate) fn restored(
        registration: Registration,
        secret: Fingerprint,
        recorded: EdgeState,
        unheard: Duration,
        now: Instant,
    ) -> Self {
        let (pulse, before) = match recorded {
            // rows are not written at every beat: it was heard later than the row says
            EdgeState::Healthy => (Pulse::Unproven { since: now }, Duration::ZERO),
            EdgeState::Unhealthy => (Pulse::Lost, unheard),
        };
        let silence = Silence { since: now, before };
        Self { recorded, pulse, silence, ..Self::new(registration, secret, now) }
    }

    fn hear(&mut self, rules: Rules, now: Instant) {
        self.pulse = self.pulse.beaten(rules, now);
        self.silence = Silence { since: now, before: Duration::ZERO };
    }

    /// For how long it has not been heard.
    pub(crate) fn unheard(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.silence.since).saturating_add(self.silence.before)
    }
}

/// Why a beat does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadBeat {
    /// No edge of this name is registered.
    UnknownEdge,
    /// The secret is not its latest.
    WrongSecret,
}

/// An edge changed its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) edge: NodeName,
    pub(crate) region: Region,
    pub(crate) state: EdgeState,
    pub(crate) unheard: Duration,
}

impl Register {
    pub(crate) fn new(rules: Rules, expiry: Duration, most: usize) -> Self {
        Self { members: BTreeMap::new(), intents: BTreeMap::new(), rules, expiry, most }
    }

    /// Whether `name` may be registered without going beyond the limit.
    pub(crate) fn has_room_for(&self, name: &NodeName) -> bool {
        self.members.contains_key(name) || self.members.len() < self.most
    }

    /// Forgets every beat: an edge counts as it was recorded until it is heard or a lapse has
    /// passed. For a replica that begins to hear the edges, and
    /// for one that does not.
    pub(crate) fn unhear(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.sequence = None;
            match member.recorded {
                EdgeState::Healthy => {
                    member.pulse = Pulse::Granted { since: now };
                    member.silence = Silence { since: now, before: Duration::ZERO };
                }
                EdgeState::Unhealthy => member.pulse = Pulse::Lost,
            }
        }
    }

    /// Puts an edge in, as it is; also what a restart restores.
    pub(crate) fn insert(&mut self, member: Member) {
        self.members.insert(member.registration.name.clone(), member);
    }

    /// What the member called `name` becomes by registering (again) now, and whether it was known.
    ///
    /// A known edge keeps its pulse: dying and registering again is not a way around recovery.
    pub(crate) fn enrolled(
        &self,
        registration: Registration,
        secret: Fingerprint,
        now: Instant,
    ) -> (Member, bool) {
        let mut member = Member::new(registration, secret, now);
        let known = self.members.get(&member.registration.name);
        if let Some(known) = known {
            member.pulse = known.pulse.beaten(self.rules, now);
            member.recorded = known.recorded;
        }
        (member, known.is_some())
    }

    /// Forgets everything: what is restored takes its place.
    pub(crate) fn clear(&mut self) {
        self.members.clear();
        self.intents.clear();
    }

    /// Takes an edge out.
    pub(crate) fn remove(&mut self, name: &NodeName) -> Option<Member> {
        self.members.remove(name)
    }

    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        self.members.get(name)
    }

    /// Every edge with its region, by name.
    pub(crate) fn members(&self) -> Vec<(NodeName, Region)> {
        let member = |(name, member): (&NodeName, &Member)| {
            (name.clone(), member.registration.region.clone())
        };
        self.members.iter().map(member).collect()
    }

    /// Counts a beat. `false` if it is a late copy.
    pub(crate) fn beat(
        &mut self,
        name: &str,
        secret: &str,
        ping: Ping,
        now: Instant,
    ) -> Result<bool, DeadBeat> {
        let member = self.members.get_mut(name).ok_or(DeadBeat::UnknownEdge)?;
        if !member.secret.fits(secret) {
            return Err(DeadBeat::WrongSecret);
        }
        if member.sequence.is_some_and(|last| ping.sequence <= last) {
            return Ok(false);
        }
        member.sequence = Some(ping.sequence);
        member.ping = ping;
        member.hear(self.rules, now);
        Ok(true)
    }

    /// What the operator wants of `region`.
    pub(crate) fn intent(&self, region: &Region) -> Intent {
        self.intents.get(region).copied().unwrap_or_default()
    }

    /// Notes what the operator wants. `Active` is the default and takes no room.
    pub(crate) fn intend(&mut self, region: Region, intent: Intent) {
        match intent {
            Intent::Active => self.intents.remove(&region),
            Intent::Drained => self.intents.insert(region, intent),
        };
    }

    /// Lets time pass; tells which edges changed their state by it or by beats since the last time.
    pub(crate) fn settle(
        &mut self,
        told: &mut BTreeMap<NodeName, EdgeState>,
        now: Instant,
    ) -> Vec<Turn> {
        told.retain(|name, _| self.members.contains_key(name));
        let mut turns = Vec::new();
        for (name, member) in &mut self.members {
            member.pulse = member.pulse.settled(self.rules, now);
            let state = member.pulse.state(self.rules, now);
            if told.insert(name.clone(), state).is_some_and(|before| before != state) {
                let (edge, region) = (name.clone(), member.registration.region.clone());
                turns.push(Turn { edge, region, state, unheard: member.unheard(now) });
            }
        }
        turns
    }

    /// The edges whose state on disk is not the one in memory, with the latter.
    pub(crate) fn unrecorded(&self, now: Instant) -> Vec<(Member, EdgeState)> {
        let state = |member: &Member| member.pulse.state(self.rules, now);
        self.members
            .values()
            .filter(|member| !member.pulse.is_unproven(self.rules, now))
            .filter(|member| state(member) != member.recorded)
            .map(|member| (member.clone(), state(member)))
            .collect()
    }

    /// Notes that `state` of `name` is on disk.
    pub(crate) fn recorded(&mut self, name: &NodeName, state: EdgeState) {
        if let Some(member) = self.members.get_mut(name) {
            member.recorded = state;
        }
    }

    /// The edges that have been unheard for too long.
    pub(crate) fn expired(&self, now: Instant) -> Vec<NodeName> {
        self.members
            .iter()
            .filter(|(_, member)| member.unheard(now) > self.expiry)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Every edge, by name.
    pub(crate) fn edges(&self, now: Instant) -> Vec<EdgeView> {
        self.members.values().map(|member| self.view(member, now)).collect()
    }

    fn view(&self, member: &Member, now: Instant) -> EdgeView {
        let Registration { name, region, city, location, url, admin } = member.registration.clone();
        let unproven = member.pulse.is_unproven(self.rules, now);
        EdgeView {
            id: name.clone(),
            name,
            city,
            location,
            url,
            admin,
            state: member.pulse.state(self.rules, now),
            heard_ms_ago: (!unproven).then(|| millis(member.unheard(now))),
            intent: self.intent(&region),
            region,
            active_requests: member.ping.active_requests,
            requests_total: member.ping.requests_total,
            store_bytes: member.ping.store_bytes,
            store_entries: member.ping.store_entries,
        }
    }

    /// Every region that has an edge or an intent, by label.
    pub(crate) fn regions(&self, now: Instant) -> Vec<RegionView> {
        let labels: BTreeSet<&Region> = self
            .members
            .values()
            .map(|member| &member.registration.region)
            .chain(self.intents.keys())
            .collect();
        labels.into_iter().map(|region| self.region(region, now)).collect()
    }

    /// One region, whether anything is known of it or not.
    pub(crate) fn region(&self, region: &Region, now: Instant) -> RegionView {
        let mut edges = EdgeCount::default();
        let mut first: Option<&Registration> = None;
        for member in self.members.values().filter(|m| m.registration.region == *region) {
            edges.total = edges.total.saturating_add(1);
            if member.pulse.state(self.rules, now) == EdgeState::Healthy {
                edges.healthy = edges.healthy.saturating_add(1);
            }
            first = first.or(Some(&member.registration));
        }
        let (city, location) = whereabouts(region, first);
        let intent = self.intent(region);
        let state = region_state(edges, intent);
        RegionView { region: region.clone(), city, location, state, intent, edges }
    }
}

/// Where a region is: where its first edge says, else where the table of places has its label.
fn whereabouts(region: &Region, edge: Option<&Registration>) -> (String, Option<Location>) {
    match (edge, place(region.as_str())) {
        (Some(edge), _) => (edge.city.clone(), Some(edge.location)),
        (None, Some(place)) => (place.city.to_owned(), Some(place.location)),
        (None, None) => (String::new(), None),
    }
}

/// A span in milliseconds, as JSON carries it.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
