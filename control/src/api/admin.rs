//! `/v1/admin/...`: the replicas themselves; and `/raft/...`, what they say to each other.

use std::net::IpAddr;

use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use meridian_config::shared::Scope;
use meridian_config::units::NodeName;
use meridian_control_wire::problem::ErrorCode;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Refusal, json};
use crate::api::input::body_of;
use crate::context::Context;
use crate::raft::engine::Replication;
use crate::raft::members::{MemberChange, MemberView, Unchanged};
use crate::raft::rpc::Rpc;

/// `POST /v1/admin/members`: one of the three.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ChangeOrder {
    Add(NodeName),
    Remove(NodeName),
    Replace(NodeName),
}

/// `POST /v1/admin/transfer-leader`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferOrder {
    to: NodeName,
}

#[derive(Debug, Serialize)]
struct Members {
    members: Vec<MemberView>,
}

fn replication(context: &Context) -> Result<&Replication, Refusal> {
    context.raft.as_deref().ok_or_else(|| {
        let detail = if context.is_alone() {
            "this replica is alone: there is nobody to agree with"
        } else {
            "another engine than raft brings these replicas to one order: ask it"
        };
        Refusal::new(ErrorCode::NotOffered, detail)
    })
}

/// Everything under `/raft/`.
pub(super) async fn hear(
    context: &Context,
    rpc: Rpc,
    request: Request<Incoming>,
    from: IpAddr,
) -> Result<Answer, Refusal> {
    replication(context)?.listener().answer(rpc, request, from).await
}

/// `GET /v1/admin/members`.
pub(super) fn list(context: &Context, fields: &HeaderMap) -> Result<Answer, Refusal> {
    context.tokens.authorize(fields, Scope::Operate)?;
    Ok(json(StatusCode::OK, &Members { members: replication(context)?.members() }))
}

/// `POST /v1/admin/members`: 200 when it is done, 202 when it goes on.
pub(super) async fn change(
    context: &Context,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let token = context.tokens.authorize(request.headers(), Scope::Operate)?.to_owned();
    let replication = replication(context)?;
    let change = match body_of(context, request).await? {
        ChangeOrder::Add(name) => MemberChange::Add(name),
        ChangeOrder::Remove(name) => MemberChange::Remove(name),
        ChangeOrder::Replace(name) => MemberChange::Replace(name),
    };
    tracing::info!(token, ?change, "the members are to change");
    // Less than the whole call may take, so that it is this that is told.
    let patience = context.config.limits.call_timeout.get().mul_f64(0.8);
    let status = match replication.change(change, patience).await {
        Some(Ok(())) => StatusCode::OK,
        Some(Err(error)) => return Err(unchanged(&error)),
        None => StatusCode::ACCEPTED,
    };
    Ok(json(status, &Members { members: replication.members() }))
}

fn unchanged(error: &Unchanged) -> Refusal {
    let code = match error {
        Unchanged::Stranger(_) => ErrorCode::NotFound,
        Unchanged::Unnamed(_) | Unchanged::Member(_) | Unchanged::Whole(_) => ErrorCode::BadRequest,
        Unchanged::Taken(_) => ErrorCode::BadRequest,
        Unchanged::Silent(_) => ErrorCode::UpstreamUnreachable,
        Unchanged::InProgress => ErrorCode::Overloaded,
        Unchanged::NotLeader => ErrorCode::NoQuorum,
        Unchanged::Failed(_) => ErrorCode::OutcomeUnknown,
    };
    Refusal::new(code, error.to_string())
}

/// `POST /v1/admin/transfer-leader`: 202, since the other one has to win an election.
pub(super) async fn transfer(
    context: &Context,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let token = context.tokens.authorize(request.headers(), Scope::Operate)?.to_owned();
    let replication = replication(context)?;
    let TransferOrder { to } = body_of(context, request).await?;
    tracing::info!(token, %to, "another replica is to lead");
    replication.transfer(&to).await.map_err(|error| unchanged(&error))?;
    Ok(json(StatusCode::ACCEPTED, &Members { members: replication.members() }))
}

/// `POST /v1/admin/snapshot`: 202, it is made beside everything else.
pub(super) async fn snapshot(context: &Context, fields: &HeaderMap) -> Result<Answer, Refusal> {
    let token = context.tokens.authorize(fields, Scope::Operate)?;
    let replication = replication(context)?;
    tracing::info!(token, "a snapshot is asked for");
    replication.snapshot().await.map_err(|error| unchanged(&error))?;
    Ok(json(StatusCode::ACCEPTED, &Members { members: replication.members() }))
}
