//! Which cluster a command talks to: the one that runs in a folder, or the one of a control
//! replica.

use std::env;
use std::fs;

use meridian_control_wire::Edges;

use crate::cli::target::TargetArgs;
use crate::client::{Base, Client};
use crate::cluster::{Cluster, ClusterError};
use crate::error::CommandError;

/// The variable that holds the token for `--control`.
const TOKEN_VARIABLE: &str = "MERIDIAN_TOKEN";

/// A cluster to talk to.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its description, if it runs in a folder here.
    pub(crate) cluster: Option<Cluster>,
    /// A control replica of it.
    pub(crate) control: Client,
    /// The URL of that replica.
    pub(crate) control_url: String,
}

/// An edge, as a command needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EdgeAddress {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) url: String,
    pub(crate) admin: String,
}

impl Target {
    /// Finds the cluster that `args` name.
    pub(crate) fn find(args: &TargetArgs) -> Result<Self, CommandError> {
        if let Some(url) = &args.control {
            Base::parse(url).map_err(|rule| ClusterError::ControlUrl { url: url.clone(), rule })?;
            let control = Client::new(url, env::var(TOKEN_VARIABLE).ok())?;
            return Ok(Self { cluster: None, control, control_url: url.clone() });
        }
        let cluster = Cluster::read(&args.dir)?;
        let none = || ClusterError::NoControl { dir: args.dir.clone() };
        let url = cluster.controls.first().ok_or_else(none)?.url.clone();
        // Without the token whatever only looks still works, and the rest is refused by the
        // replica with the reason.
        let token = fs::read_to_string(&cluster.token_file).ok();
        let control = Client::new(&url, token.map(|token| token.trim().to_owned()))?;
        Ok(Self { cluster: Some(cluster), control, control_url: url })
    }

    /// The edges of the cluster: from its description, else from the register.
    pub(crate) async fn edges(&self) -> Result<Vec<EdgeAddress>, CommandError> {
        if let Some(cluster) = &self.cluster {
            let edges = cluster.edges.iter().map(|edge| EdgeAddress {
                name: edge.name.to_string(),
                region: edge.region.to_string(),
                url: edge.url.clone(),
                admin: edge.admin.clone(),
            });
            return Ok(edges.collect());
        }
        let registered: Edges = self.control.get("/v1/edges").await?;
        let edges = registered.edges.into_iter().map(|edge| EdgeAddress {
            name: edge.name.to_string(),
            region: edge.region.to_string(),
            url: edge.url.to_string(),
            admin: edge.admin.to_string(),
        });
        Ok(edges.collect())
    }

    /// The edges of `region`, or all; an error that names the regions if there is none.
    pub(crate) async fn edges_in(
        &self,
        region: Option<&str>,
    ) -> Result<Vec<EdgeAddress>, CommandError> {
        let all = self.edges().await?;
        let mut known: Vec<String> = all.iter().map(|edge| edge.region.clone()).collect();
        known.dedup();
        let wanted = |edge: &EdgeAddress| region.is_none_or(|region| edge.region == region);
        let found: Vec<EdgeAddress> = all.into_iter().filter(wanted).collect();
        match (found.is_empty(), region) {
            (false, _) => Ok(found),
            (true, None) => Err(CommandError::Failed("the cluster has no edge".to_owned())),
            (true, Some(region)) => {
                let known = known.join(", ");
                let text = format!("no edge stands in region {region}; there is {known}");
                Err(CommandError::Usage(text))
            }
        }
    }
}
