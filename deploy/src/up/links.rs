//! Which links there are between the nodes, and the address that each dialling node is told.
//!
//! # Invariants
//! - Unless links are direct, no node is told where another one listens, only where the link to it
//!   does.

use std::collections::BTreeMap;

use meridian_config::places::{Place, round_trip};
use meridian_config::shared::Token;
use meridian_config::units::{Address, NodeName};
use meridian_tests_chaos::names::Node;
use meridian_tests_chaos::net::{LinkSpec, Spec};
use meridian_tests_chaos::shape::{Shape, Ways};

use crate::up::error::UpError;
use crate::up::options::Links;
use crate::up::ports::{Ports, listen_anywhere};

/// The same jitter in every run.
const SEED: u64 = 1;

/// A node that dials or is dialled.
#[derive(Debug, Clone)]
pub(crate) struct Party {
    /// Its name.
    pub(crate) name: NodeName,
    /// Its role.
    pub(crate) role: &'static str,
    /// Where it stands; a front door stands nowhere.
    pub(crate) place: Option<&'static Place>,
    /// Where it is dialled by other nodes; a front door is not.
    pub(crate) address: Option<Address>,
}

/// Who reaches whom at which address.
#[derive(Debug)]
pub(crate) struct Wiring {
    parties: BTreeMap<NodeName, Party>,
    via: BTreeMap<(NodeName, NodeName), Address>,
    laid: Vec<LinkSpec>,
    links: Links,
}

impl Wiring {
    /// No links yet between `parties`.
    pub(crate) fn new(links: Links, parties: impl IntoIterator<Item = Party>) -> Self {
        let parties = parties.into_iter().map(|party| (party.name.clone(), party)).collect();
        Self { parties, via: BTreeMap::new(), laid: Vec::new(), links }
    }

    /// Lays a link on which `from` dials `to`. Nothing if links are direct.
    pub(crate) fn lay(&mut self, from: &NodeName, to: &NodeName) -> Result<(), UpError> {
        if self.links == Links::Direct {
            return Ok(());
        }
        let Some(Party { address: Some(dial), .. }) = self.parties.get(to) else {
            return Ok(()); // nobody dials who cannot be dialled
        };
        self.lay_at(from, to, &dial.clone())
    }

    /// The same, where `from` dials `to` at another address of it than others do.
    pub(crate) fn lay_at(
        &mut self,
        from: &NodeName,
        to: &NodeName,
        dial: &Address,
    ) -> Result<(), UpError> {
        if self.links == Links::Direct {
            self.via.insert((from.clone(), to.clone()), dial.clone());
            return Ok(());
        }
        let ends = (self.parties.get(from), self.parties.get(to));
        let (Some(dialler), Some(Party { place, .. })) = ends else { return Ok(()) };
        let listener = listen_anywhere()?;
        let listen = listener
            .local_addr()
            .map_err(|source| UpError::Port { port: 0, source })?
            .to_string()
            .parse()
            .map_err(UpError::Option)?;
        let half = match self.links {
            Links::Real => half_round_trip(dialler.place, *place),
            Links::Direct | Links::Near => Shape::default(),
        };
        self.laid.push(LinkSpec {
            from: from.clone(),
            to: to.clone(),
            listener,
            dial: dial.clone(),
            base: Ways { there: half, back: half },
        });
        self.via.insert((from.clone(), to.clone()), listen);
        Ok(())
    }

    /// Where `from` dials `to`: the link, or, if there is none, the node itself.
    pub(crate) fn address(&self, from: &NodeName, to: &NodeName) -> Option<Address> {
        let link = self.via.get(&(from.clone(), to.clone()));
        link.or_else(|| self.parties.get(to)?.address.as_ref()).cloned()
    }

    /// The links to be made; none if they are direct. Takes the next port to show them at.
    pub(crate) fn into_spec(
        self,
        ports: &mut Ports,
        tokens: Vec<Token>,
    ) -> Result<Option<Spec>, UpError> {
        if self.links == Links::Direct {
            return Ok(None);
        }
        let node = |party: Party| Node {
            name: party.name,
            role: party.role,
            region: party.place.and_then(|place| place.code.parse().ok()),
        };
        let nodes = self.parties.into_values().map(node).collect();
        Ok(Some(Spec { nodes, links: self.laid, api: ports.listen()?, tokens, seed: SEED }))
    }
}

/// Each way between two regions takes half of the round trip; within one nothing is added.
fn half_round_trip(from: Option<&Place>, to: Option<&Place>) -> Shape {
    let (Some(from), Some(to)) = (from, to) else { return Shape::default() };
    if from.code == to.code {
        return Shape::default();
    }
    round_trip(from.code, to.code).map(|time| Shape::delayed(time / 2)).unwrap_or_default()
}
