//! What holds of every text: reading never panics, and what was written reads back as it was.

#![expect(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use meridian_config::load::parse_any;
use meridian_config::pattern::PathPattern;
use meridian_config::shared::Location;
use meridian_config::units::{ByteSize, HumanDuration};

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
        }
    }
    Ok(())
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
