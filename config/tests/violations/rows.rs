//! One row: settings laid over a file that is right, and the rule that they break.

use std::fmt::Debug;
use std::path::Path;

use toml::{Table, Value};

use meridian_config::load::parse;
use meridian_config::role::Role;

/// Checks rows of settings (`key = value`, joined by `&`; a key that ends in `-` is taken out) and
/// the rule that the first of them breaks; an empty rule means that nothing is wrong, and one with
/// a `:` that the violation is told elsewhere and in full.
pub(crate) fn check<T: Role + Debug>(base: &str, rows: &[(&str, &str)]) {
    for (settings, rule) in rows {
        let text = laid_over(base, settings);
        let found = parse::<T>(&text, Path::new("f")).err().map(|found| found.to_string());
        let first = settings.split('&').next().unwrap_or_default().trim();
        let want = match *rule {
            "" => None,
            rule if rule.contains(" = ") || rule.contains(": ") => Some(format!("f: {rule}")),
            rule => Some(format!("f: {first}: {rule}")),
        };
        let found = found.map(|found| without_line(&found).replace('"', "'"));
        assert_eq!(found, want.map(|want| want.replace('"', "'")), "{settings}");
    }
}

/// What is wrong with `base` after `settings` were laid over it.
pub(crate) fn violations<T: Role + Debug>(base: &str, settings: &str) -> Vec<String> {
    let found = parse::<T>(&laid_over(base, settings), Path::new("f")).unwrap_err();
    found.iter().map(|violation| without_line(&violation.to_string()).replace('"', "'")).collect()
}

fn without_line(violation: &str) -> String {
    let before = violation.rsplit_once(" (line ").map(|(before, _)| before);
    before.unwrap_or(violation).to_owned()
}

/// `base` with `settings`.
pub(crate) fn laid_over(base: &str, settings: &str) -> String {
    let mut root = Value::Table(base.parse().unwrap());
    for setting in settings.split('&').map(str::trim).filter(|setting| !setting.is_empty()) {
        match setting.split_once(" = ") {
            Some((key, value)) => {
                let value: Table = format!("value = {value}").parse().unwrap();
                *slot(&mut root, key) = value["value"].clone();
            }
            None => take_out(&mut root, setting.strip_suffix('-').unwrap()),
        }
    }
    toml::to_string(&root).unwrap()
}

/// The value at a dotted key with indexes, made if it is not there.
fn slot<'v>(value: &'v mut Value, key: &str) -> &'v mut Value {
    let key = key.replace('[', ".[");
    key.split('.').fold(value, |value, step| match step.strip_prefix('[') {
        Some(index) => {
            let index: usize = index.strip_suffix(']').unwrap().parse().unwrap();
            if !value.is_array() {
                *value = Value::Array(Vec::new());
            }
            let array = value.as_array_mut().unwrap();
            while array.len() <= index {
                array.push(Value::Table(Table::new()));
            }
            &mut array[index]
        }
        None => {
            let table = value.as_table_mut().unwrap();
            table.entry(step).or_insert_with(|| Value::Table(Table::new()))
        }
    })
}

fn take_out(value: &mut Value, key: &str) {
    match key.rsplit_once('.') {
        Some((table, key)) => slot(value, table).as_table_mut().unwrap().remove(key).unwrap(),
        None => value.as_table_mut().unwrap().remove(key).unwrap(),
    };
}
