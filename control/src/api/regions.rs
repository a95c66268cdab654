//! `/v1/regions`: how regions are, and what operators want of them.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use meridian_config::shared::Scope;
use meridian_config::units::Region;
use meridian_control_wire::problem::ErrorCode;
use meridian_control_wire::{IntentOrder, Regions};

use crate::answer::{Answer, Refusal, json};
use crate::api::input::body_of;
use crate::api::levels::denied;
use crate::context::Context;
use crate::control_store::Denied;
use crate::order::Refused;
use crate::world;

/// `GET /v1/regions`.
pub(super) fn list(context: &Context) -> Answer {
    let regions = context.ledger.register().regions(world::now());
    json(StatusCode::OK, &Regions { regions })
}

/// `PUT /v1/regions/{r}/intent`: answered with the region once it is durable.
pub(super) async fn intend(
    context: &Context,
    label: &str,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let token = context.tokens.authorize(request.headers(), Scope::Operate)?.to_owned();
    let unknown = || Refusal::new(ErrorCode::NotFound, format!("no region {label} is known"));
    let region: Region = label.parse().map_err(|_rule: String| unknown())?;
    let order: IntentOrder = body_of(context, request).await?;
    let intended = context.ledger.intend(&*context.store, region, order.state).await;
    let view = intended.map_err(|why| match why {
        Denied::Refused(Refused::UnknownRegion) => unknown(),
        other => denied(other),
    })?;
    tracing::info!(token, region = label, intent = order.state.token(), "region intent set");
    Ok(json(StatusCode::OK, &view))
}
