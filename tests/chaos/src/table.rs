//! All links, to look at and to change.

use std::sync::Arc;

use crate::link::Link;
use crate::names::{NameError, Node, sides};
use crate::order::Order;
use crate::problem::{Code, Problem};
use crate::view::Links;

/// The links, to look at and to change.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) nodes: Vec<Node>,
    /// Sorted by who dials, then by who is dialled.
    pub(crate) links: Vec<Arc<Link>>,
}

impl Table {
    pub(crate) fn view(&self) -> Links {
        Links { links: self.links.iter().map(|link| link.view()).collect() }
    }

    /// Does what `order` says; tells the links that it is about, as they are then.
    pub(crate) async fn obey(&self, order: &Order) -> Result<Links, Problem> {
        let change = order.check().map_err(|rule| Problem::new(Code::BadRequest, rule))?;
        let (a, b) = sides(&self.nodes, change.a, change.b).map_err(|error| {
            let code = match error {
                NameError::Unknown { .. } => Code::UnknownNode,
                NameError::TwiceRest => Code::BadRequest,
            };
            Problem::new(code, error.to_string())
        })?;
        let mut changed = Vec::new();
        for link in &self.links {
            let ways = link.ways(|name| a.contains(name), |name| b.contains(name), change.one_way);
            if !ways.is_empty() {
                link.change(&ways, change.effect);
                changed.push(link);
            }
        }
        if changed.is_empty() {
            let detail = format!(
                "no link leads between {} and {}: neither dials the other",
                change.a, change.b
            );
            return Err(Problem::new(Code::NoLink, detail));
        }
        for link in &changed {
            link.settled().await;
        }
        Ok(Links { links: changed.into_iter().map(|link| link.view()).collect() })
    }
}
