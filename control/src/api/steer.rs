//! `GET /v1/steer?from=LABEL|lat,lon|ip[&url=U]`: which edge a client there is sent to, and why.
//!
//! Front doors decide by the same code; only the recent loads of edges are theirs alone.

use http::StatusCode;
use meridian_config::shared::Location;
use meridian_config::units::{NodeName, Region};
use meridian_control_wire::base_url::BaseUrl;
use meridian_control_wire::problem::ErrorCode;
use serde::Serialize;

use crate::answer::{Answer, Refusal, json};
use crate::api::input::parameter;
use crate::asker::{Said, said};
use crate::context::Context;
use crate::steer::{Map, Ranked};
use crate::world;

#[derive(Debug, Serialize)]
struct Steering {
    from: String,
    /// Where that is.
    location: Location,
    edge: Option<Chosen>,
    ranking: Vec<Ranked>,
}

#[derive(Debug, Serialize)]
struct Chosen {
    name: NodeName,
    url: BaseUrl,
    region: Region,
}

impl Chosen {
    fn of(ranked: &Ranked) -> Self {
        let (name, url, region) = ranked.whereabouts();
        Self { name: name.clone(), url: url.clone(), region: region.clone() }
    }
}

/// Answers with the ranking; `edge` is `null` if no edge is usable.
pub(super) fn steer(context: &Context, query: Option<&str>) -> Result<Answer, Refusal> {
    let rule = "must be a label such as fra, lat,lon such as 50.03,8.57, or an IP address";
    let from = parameter(query, "from").ok_or_else(|| {
        Refusal::new(ErrorCode::BadRequest, format!("the parameter from is missing: it {rule}"))
    })??;
    let url = parameter(query, "url").transpose()?;
    let map = Map::of(&context.ledger.register().edges(world::now()));
    let asker = match said(&from, &context.prefixes, |region| map.locate(region)) {
        Said::Place(asker) => asker,
        Said::Uncharted(address) => {
            let detail = format!("no [[prefix]] of this replica covers {address}");
            return Err(Refusal::new(ErrorCode::NotFound, detail));
        }
        Said::Nonsense => {
            let detail = format!("from = {from:?}: {rule}");
            return Err(Refusal::new(ErrorCode::BadRequest, detail));
        }
    };
    let ranking = map.ranking(&asker, target(url.as_deref().unwrap_or("/")));
    let edge = ranking.iter().find(|ranked| ranked.usable).map(Chosen::of);
    let location = asker.location;
    Ok(json(StatusCode::OK, &Steering { from, location, edge, ranking }))
}

/// Path and query of a URL, or of a bare path: what front doors hash.
fn target(url: &str) -> &str {
    if url.starts_with('/') {
        return url;
    }
    let Some((_, rest)) = url.split_once("://") else { return url };
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn a_url_is_steered_by_its_path_and_query() {
        let rows = [
            ("http://127.0.0.1:8080/a?b", "/a?b"),
            ("https://shop.example", "/"),
            ("/a?b=http://c/d", "/a?b=http://c/d"),
            ("/a", "/a"),
        ];
        for (url, want) in rows {
            assert_eq!(target(url), want);
        }
    }
}
