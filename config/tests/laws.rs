//! What holds of every text: reading never panics, and what was written reads back as it was.

#![expect(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use meridian_config::load::parse_any;
use meridian_config::pattern::PathPattern;
use meridian_config::shared::Location;
use meridian_config::units::{ByteSize, HumanDuration, Ratio};

/// The examples in one piece each: text that is right, to be broken at random.
fn examples() -> impl Strategy<Value = String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(folder).unwrap();
    let texts: Vec<String> =
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    prop::sample::select(texts)
}

/// Reads `text`, and holds every violation to what it owes its reader.
fn read(text: &str) -> Result<(), TestCaseError> {
    if let Err(found) = parse_any(text, Path::new("any.toml")) {
        prop_assert!(found.iter().count() <= 100);
        for violation in &found {
            let shown = violation.to_string();
            prop_assert!(shown.starts_with("any.toml: "), "{}", shown);
            prop_assert!(!shown.contains('\n'), "{}", shown);
            prop_assert!(!violation.rule.is_empty());
            // Text that is no TOML has no keys: there it is the line.
            prop_assert!(!violation.key.is_empty() || violation.line.is_some(), "{}", shown);
            prop_assert!(violation.value.as_ref().is_none_or(|value| value.chars().count() <= 61));
        }
    }
    Ok(())
}

/// Whether `path` matches: a star stands for nothing, or for one more byte.
fn matches_by_definition(pattern: &[u8], path: &[u8]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        ([b'*', rest @ ..], _) if matches_by_definition(rest, path) => true,
        ([b'*', ..], [_, more @ ..]) => matches_by_definition(pattern, more),
        ([letter, rest @ ..], [byte, more @ ..]) => {
            letter == byte && matches_by_definition(rest, more)
        }
        ([], _) | (_, []) => false,
    }
}

#[test]
fn a_size_beyond_64_bits_is_refused() {
    let rows = [
        ("18446744073709551615B", Some(u64::MAX)),
        ("18446744073709551616B", None),
        ("18446744073709551616", None),
        ("16777215TiB", Some(16_777_215 << 40)),
        ("16777216TiB", None),
        ("99999999.5TiB", None),
        ("1.5 KiB", Some(1536)),
        (".5KiB", Some(512)),
    ];
    for (text, want) in rows {
        assert_eq!(text.parse().ok().map(ByteSize::get), want, "{text}");
    }
}

/// Whoever tries the stars one against the other needs longer than the world has been there for.
#[test]
fn a_pattern_of_many_stars_is_matched_in_time() {
    let path = format!("/{}", "a".repeat(8 << 10));
    for (piece, times) in [("*a", 2_000), ("*aa", 2_000), ("a*", 4_000), ("*", 8_000)] {
        let stars = piece.repeat(times);
        let matching: PathPattern = format!("/{stars}").parse().unwrap();
        assert!(matching.matches(&path));
        let failing: PathPattern = format!("/{stars}b").parse().unwrap();
        assert!(!failing.matches(&path));
        let failing: PathPattern = format!("/{stars}b*").parse().unwrap();
        assert!(!failing.matches(&path));
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_judged_without_a_panic(text in ".*") {
        read(&text)?;
    }

    #[test]
    fn a_broken_example_is_judged_without_a_panic(
        text in examples(),
        at in any::<prop::sample::Index>(),
        cut in 0..20_usize,
        put in r#"[\[\]{}"=.,#a-z0-9\n -]{0,8}"#,
    ) {
        let mut letters: Vec<char> = text.chars().collect();
        let at = at.index(letters.len());
        let end = (at + cut).min(letters.len());
        letters.splice(at..end, put.chars());
        read(&letters.into_iter().collect::<String>())?;
    }

    #[test]
    fn any_value_may_stand_at_any_key(
        text in examples(),
        line in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![
            "true", "-1", "0", "1.5", "nan", "9223372036854775807", "\"\"", "\"x\"", "[]", "[1]",
            "[\"a\", []]", "{}", "{ a = 1 }", "1979-05-27", "\"1s\"", "\"\\u0000\"",
            "\"a value that is longer than anybody wants to read on one line of a terminal\"",
        ]),
    ) {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let keys: Vec<usize> = (0..lines.len())
            .filter(|n| lines[*n].contains(" = ") && !lines[*n].starts_with("# "))
            .collect();
        let line = keys[line.index(keys.len())];
        let key = lines[line].trim_start_matches('#').split(" = ").next().unwrap().to_owned();
        lines[line] = format!("{key} = {value}");
        read(&lines.join("\n"))?;
    }

    #[test]
    fn an_example_with_its_lines_shuffled_and_repeated_is_judged_without_a_panic(
        text in examples(),
        moves in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..8),
    ) {
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for (from, to) in moves {
            let line = lines[from.index(lines.len())];
            lines.insert(to.index(lines.len() + 1), line);
        }
        read(&lines.join("\n"))?;
    }

    #[test]
    fn a_duration_that_is_read_is_written_as_the_same(
        text in "[0-9]{0,20} ?(ns|us|ms|s|sec|m|min|h|d|w|M|y|years)?( ?[0-9]{1,4}(ms|s|m|h))?",
        any in ".{0,12}",
    ) {
        for text in [text, any] {
            if let Ok(duration) = text.parse::<HumanDuration>() {
                prop_assert_eq!(duration.to_string().parse(), Ok(duration), "{}", text);
            }
        }
    }

    #[test]
    fn a_size_is_what_it_says_or_refused(
        number in prop_oneof![0..5000_u64, any::<u64>()],
        (unit, bytes) in prop::sample::select(vec![
            ("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30),
            ("TiB", 1_u64 << 40), ("PiB", 1 << 50), ("KB", 1000), ("MB", 1_000_000),
        ]),
        any in "[0-9.eEinfNa+-]{0,8} ?[kKMGTPiB]{0,3}",
    ) {
        let read = format!("{number}{unit}").parse::<ByteSize>().ok().map(ByteSize::get);
        prop_assert_eq!(read, number.checked_mul(bytes), "{}{}", number, unit);
        if let Ok(size) = any.parse::<ByteSize>() {
            prop_assert!(any.starts_with(|first: char| first.is_ascii_digit() || ".+".contains(first)));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }

    #[test]
    fn a_pattern_matches_as_its_definition_says(
        pattern in "[/*][a*/]{0,8}", path in "/[a/]{0,10}",
        (wild, any) in ("[/*][a-c*/]{0,10}", "/[a-c/]{0,12}"),
    ) {
        for (pattern, path) in [(pattern, path), (wild, any)] {
            let read: PathPattern = pattern.parse().unwrap();
            prop_assert_eq!(read.to_string(), pattern.clone());
            let want = matches_by_definition(pattern.as_bytes(), path.as_bytes());
            prop_assert_eq!(read.matches(&path), want, "{} on {}", pattern, path);
        }
    }

    #[test]
    fn a_ratio_is_between_zero_and_one_or_refused(value in any::<f64>(), near in -0.5..1.5) {
        for value in [value, near, -value, 0.0, 1.0] {
            let read = serde_json::from_value::<Ratio>(serde_json::json!(value)).ok();
            let fits = (0.0..=1.0).contains(&value);
            prop_assert_eq!(read.map(Ratio::get), fits.then_some(value));
        }
    }

    #[test]
    fn a_duration_reads_back_as_it_was_written(millis in any::<u64>()) {
        let duration = HumanDuration::millis(millis);
        prop_assert_eq!(duration.to_string().parse(), Ok(duration));
    }

    #[test]
    fn a_size_reads_back_as_it_was_written(bytes in any::<u64>(), shift in 0..64_u32) {
        let size = ByteSize::bytes(bytes >> shift << (shift / 2));
        prop_assert_eq!(size.to_string().parse(), Ok(size));
    }

    #[test]
    fn a_location_reads_back_as_it_was_written(lat in -90.0..=90.0, lon in -180.0..=180.0) {
        prop_assert_eq!(format!("{lat},{lon}").parse(), Ok(Location(lat, lon)));
    }

    #[test]
    fn a_pattern_matches_what_its_stars_are_replaced_by(
        pieces in prop::collection::vec("[a-c/]{0,3}", 1..5),
        runs in prop::collection::vec("[a-c/]{0,3}", 5),
    ) {
        let pattern: PathPattern = format!("/{}", pieces.join("*")).parse().unwrap();
        let filled: String = pieces.iter().zip(&runs).map(|(piece, run)| format!("{piece}{run}")).collect();
        let last = runs[pieces.len() - 1].len();
        let path = format!("/{}", &filled[..filled.len() - last]);
        prop_assert!(pattern.matches(&path), "{} on {}", pattern, path);
    }
}
