//! What a node says: every line into its log file, some of it to the person at the terminal.
//!
//! # Invariants
//! - A log takes at most twice [`LARGEST_FILE`] on disk, a line at most [`LONGEST_LINE`].
//! - A storm of warnings shows as a few lines and a number; the file has them all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};

use crate::telemetry::Parsed;

/// A log file larger than this becomes `NAME.log.1`.
const LARGEST_FILE: u64 = 16 << 20;

/// A longer line is cut into pieces of this.
const LONGEST_LINE: usize = 16 << 10;

/// Lines of one node that are shown at once.
const BURST: f64 = 20.0;

/// After that, so many in a second.
const PER_SECOND: f64 = 2.0;

/// How much is shown of one line.
const SHOWN: usize = 300;

/// The log file of a node.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    largest: u64,
}

impl LogFile {
    /// Goes on with the file at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, LARGEST_FILE)
    }

    fn with_limit(path: &Path, largest: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, largest })
    }

    /// Adds one line.
    pub(crate) fn write(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64 + 1;
        if self.size > 0 && self.size + length > self.largest {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            *self = Self::with_limit(&self.path, self.largest)?;
        }
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.size += length;
        Ok(())
    }
}

/// The last `count` lines of the log at `path`, as far as they are there.
pub(crate) fn tail(path: &Path, count: usize) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines.iter().skip(from).map(|line| cut(line)).collect()
}

/// Reads what a node says, line by line, until it ends. What is no UTF-8 is shown as such.
pub(crate) async fn read_lines<R: AsyncRead + Unpin>(from: R, mut each: impl FnMut(&str)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(Piece::More) = read_piece(&mut from, &mut line).await {
        if line.last() == Some(&b'\n') || line.len() >= LONGEST_LINE {
            each(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }
    if !line.is_empty() {
        each(String::from_utf8_lossy(&line).trim_end());
    }
}

enum Piece {
    More,
    End,
}

/// Adds to `line` what is there, up to its end.
async fn read_piece<R: AsyncBufRead + Unpin>(
    from: &mut R,
    line: &mut Vec<u8>,
) -> io::Result<Piece> {
    let there = from.fill_buf().await?;
    if there.is_empty() {
        return Ok(Piece::End);
    }
    let to_end = there.iter().position(|byte| *byte == b'\n').map_or(there.len(), |at| at + 1);
    let take = to_end.min(LONGEST_LINE.saturating_sub(line.len()).max(1));
    line.extend(there.iter().take(take));
    from.consume(take);
    Ok(Piece::More)
}

/// What is shown of a line: nothing, if nobody needs to see it.
pub(crate) fn for_people(line: &str) -> Option<String> {
    match Parsed::parse(line) {
        Some(parsed) if !parsed.is_for_people() => None,
        Some(parsed) if parsed.level == "INFO" => Some(cut(parsed.text)),
        Some(parsed) => Some(cut(&format!("{}: {}", parsed.level.to_lowercase(), parsed.text))),
        None if line.is_empty() => None,
        None => Some(cut(line)), // what stopped it before its log began
    }
}

fn cut(line: &str) -> String {
    let mut shown: String =
        line.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// How many lines of a node a person is shown: a bucket of tokens.
#[derive(Debug)]
pub(crate) struct Attention {
    tokens: f64,
    at: Instant,
    kept_back: u64,
}

impl Attention {
    /// Nothing was shown before `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: BURST, at: now, kept_back: 0 }
    }

    /// Whether one more line may be shown, and how many were kept back before it.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        let passed: Duration = now.saturating_duration_since(self.at);
        self.tokens = (self.tokens + passed.as_secs_f64() * PER_SECOND).min(BURST);
        self.at = now;
        if self.tokens < 1.0 {
            self.kept_back += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::{Attention, BURST, LONGEST_LINE, LogFile, for_people, read_lines, tail};

    #[test]
    fn a_log_is_bounded_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = LogFile::with_limit(&path, 100).unwrap();
        for number in 0..100 {
            log.write(&format!("line number {number:03}")).unwrap(); // 16 bytes with its end
        }
        drop(log);
        assert_eq!(tail(&path, 1), ["line number 099"]);
        let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("a.log") <= 100 && size("a.log.1") <= 100);
        assert_eq!(size("a.log.1"), 96, "six lines fit into a hundred bytes");
        // A new run goes on where the last one ended, and counts what is there.
        let mut log = LogFile::with_limit(&path, 100).unwrap();
        for _ in 0..6 {
            log.write("line number 100").unwrap();
        }
        assert!(size("a.log") <= 100);
    }

    #[tokio::test]
    async fn lines_are_read_whole_and_endless_ones_in_pieces() {
        let endless = "x".repeat(LONGEST_LINE + 10);
        let text = format!("one\n\ntwo\r\n{endless}\nlast");
        let mut lines = Vec::new();
        read_lines(text.as_bytes(), |line| lines.push(line.to_owned())).await;
        let lengths: Vec<usize> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [3, 0, 3, LONGEST_LINE, 10, 4]);
        assert_eq!(lines.last().map(String::as_str), Some("last"));
    }

    #[test]
    fn people_see_warnings_events_and_what_is_no_log_line() {
        let line = |level: &str, target: &str| {
            for_people(&format!("2026-01-31T12:00:00.000000Z {level:<5} {target}: it happened"))
        };
        assert_eq!(line("INFO", "meridian_edge::fetch"), None);
        assert_eq!(line("DEBUG", "meridian_edge::fetch"), None);
        assert_eq!(line("INFO", "event").as_deref(), Some("it happened"));
        assert_eq!(line("WARN", "meridian_edge::fetch").as_deref(), Some("warn: it happened"));
        assert_eq!(for_people("fatal runtime error").as_deref(), Some("fatal runtime error"));
        assert_eq!(for_people(""), None);
        assert!(for_people(&"x".repeat(10_000)).unwrap().chars().count() <= 301);
    }

    #[test]
    fn a_storm_shows_as_a_few_lines_and_a_number() {
        let start = Instant::now();
        let mut attention = Attention::new(start);
        let shown = (0..1_000).filter(|_| attention.admit(start).is_some()).count();
        assert_eq!(shown as f64, BURST);
        assert_eq!(attention.admit(start + Duration::from_secs(1)), Some(980));
        assert_eq!(attention.admit(start + Duration::from_secs(2)), Some(0));
    }
}
