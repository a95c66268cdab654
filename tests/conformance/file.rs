//! A file at a scripted origin that answers ranges and conditions as RFC 9110 says, and that can be
//! replaced.

#![expect(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use meridian_tests::origin::{Script, ScriptedOrigin, Seen, ok, status};

/// The file.
#[derive(Clone)]
pub(crate) struct File(Arc<Mutex<State>>);

struct State {
    content: Bytes,
    etag: String,
    /// Of every answer.
    fields: Vec<(&'static str, String)>,
    /// Whether it honours `Range`.
    ranges: bool,
}

/// Bytes of which no two stretches are alike, different for each `seed`.
pub(crate) fn bytes(length: usize, seed: u32) -> Bytes {
    (0..length.div_ceil(8))
        .flat_map(|n| format!("{seed:02}{n:06}").into_bytes())
        .take(length)
        .collect()
}

impl File {
    /// Serves `content` under `path`, fresh for a minute.
    pub(crate) fn at(origin: &ScriptedOrigin, path: &str, content: Bytes, etag: &str) -> Self {
        let fields = vec![("cache-control", "max-age=60".to_owned())];
        let state = State { content, etag: etag.to_owned(), fields, ranges: true };
        let file = Self(Arc::new(Mutex::new(state)));
        let same = file.clone();
        origin.script_fn(path, move |seen| same.answer(seen));
        file
    }

    /// Replaces it.
    pub(crate) fn becomes(&self, content: Bytes, etag: &str) {
        let mut state = self.0.lock().unwrap();
        (state.content, state.etag) = (content, etag.to_owned());
    }

    /// Answers with this field from now on, in place of those of its name.
    pub(crate) fn says(&self, name: &'static str, value: &str) {
        let mut state = self.0.lock().unwrap();
        state.fields.retain(|(known, _)| *known != name);
        state.fields.push((name, value.to_owned()));
    }

    /// Answers with the whole, whatever is asked for, from now on.
    pub(crate) fn ignores_ranges(&self) {
        self.0.lock().unwrap().ranges = false;
    }

    /// What it answers.
    pub(crate) fn answer(&self, seen: &Seen) -> Script {
        let state = self.0.lock().unwrap();
        let dressed = |script: Script| {
            let script = script.header("etag", &state.etag);
            state.fields.iter().fold(script, |script, (name, value)| script.header(name, value))
        };
        if seen.header("if-none-match") == Some(&state.etag) {
            return dressed(status(304));
        }
        let same = seen.header("if-range").is_none_or(|tag| tag == state.etag);
        let range = seen.header("range").filter(|_| state.ranges && same);
        let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
            return dressed(ok(state.content.clone()));
        };
        let length = state.content.len();
        let (first, last) = range.split_once('-').unwrap();
        let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), last) => (first, last.unwrap_or(usize::MAX).min(length - 1)),
            (Err(_), suffix) => (length.saturating_sub(suffix.unwrap()), length - 1),
        };
        if first > last {
            return status(416).header("content-range", &format!("bytes */{length}"));
        }
        let content_range = format!("bytes {first}-{last}/{length}");
        let part = status(206).body(state.content.slice(first..=last));
        dressed(part.header("content-range", &content_range))
    }
}
