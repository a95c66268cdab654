//! What an origin serves, and what is found under a path of it.
//!
//! Finds; how much of it is sent, and under which conditions, is [`crate::answer`]'s.

use crate::folder::Folder;
use crate::listing::Listing;
use crate::problem::Problem;
use crate::representation::Found;
use crate::sample::Sample;
use crate::target::Target;
use crate::trace::Trace;

/// One of the three things that an origin can serve.
#[derive(Debug)]
pub(crate) enum Content {
    Folder(Folder),
    Trace(Trace),
    Sample(Sample),
}

impl Content {
    /// Finds what `target` names. Does its disk work on other threads.
    pub(crate) async fn find(&self, target: &Target) -> Found {
        match self {
            Self::Folder(folder) => folder.find(target).await,
            Self::Trace(trace) => trace.find(target),
            Self::Sample(sample) => sample.find(target),
        }
    }

    /// A page of what is served, from behind the path `after`. Does its disk work on other
    /// threads.
    pub(crate) async fn list(&self, after: Option<String>) -> Result<Listing, Problem> {
        match self {
            Self::Folder(folder) => folder.list(after).await,
            Self::Trace(trace) => Ok(trace.list(after.as_deref())),
            Self::Sample(sample) => Ok(sample.list(after.as_deref())),
        }
    }

    /// Why it cannot be served now, if so.
    pub(crate) async fn trouble(&self) -> Option<String> {
        match self {
            Self::Folder(folder) => folder.trouble().await,
            Self::Trace(_) | Self::Sample(_) => None,
        }
    }
}
