//! Results go to standard output, everything else to standard error.

use std::io::{self, Write};

use serde::Serialize;

use crate::error::CommandError;

/// Whom a result is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A person.
    Text,
    /// A program: JSON.
    Json,
}

impl Format {
    /// What the flag `--json` says.
    pub(crate) fn of(json_flag: bool) -> Self {
        if json_flag { Self::Json } else { Self::Text }
    }
}

/// Writes a result: as JSON in one document, or as the text that `text` makes of it.
pub(crate) fn write_result<T: Serialize>(
    result: &T,
    format: Format,
    text: impl FnOnce(&T) -> String,
) -> Result<(), CommandError> {
    match format {
        Format::Text => write_text(&text(result)),
        Format::Json => {
            let json = serde_json::to_string_pretty(result)
                .map_err(|error| CommandError::Output(error.into()))?;
            write_text(&json)
        }
    }
}

/// Writes `text` and, if it has none, a line break.
pub(crate) fn write_text(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    write!(out, "{text}{end}").and_then(|()| out.flush()).map_err(CommandError::Output)
}

/// Tells a person something. Nobody is left to hear that standard error is gone.
pub(crate) fn tell(text: &str) {
    writeln!(io::stderr().lock(), "{text}").ok();
}
