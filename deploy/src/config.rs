//! `meridian config`: read and write configuration registers.
//!
//! What `get` writes, `put` takes: the value and nothing else goes to standard output.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::config::{ConfigArgs, ConfigCommand, ConfigGetArgs, ConfigPutArgs};
use crate::client::{Client, ClientError, query_value};
use crate::error::CommandError;
use crate::output::{Format, tell, write_result};
use crate::run::runtime;
use crate::target::Target;

/// Does what `args` ask for.
pub(crate) fn config(args: &ConfigArgs) -> Result<(), CommandError> {
    match &args.command {
        ConfigCommand::Get(args) => get(args),
        ConfigCommand::Put(args) => put(args),
        ConfigCommand::Conflicts(_) => Err(CommandError::NotOffered("config conflicts".to_owned())),
        ConfigCommand::Resolve(_) => Err(CommandError::NotOffered("config resolve".to_owned())),
    }
}

fn get(args: &ConfigGetArgs) -> Result<(), CommandError> {
    let target = Target::find(&args.target)?;
    let (register, etag) = runtime(1)?.block_on(target.control.get_tagged(&path(&args.key)))?;
    let format = Format::of(args.target.json);
    if let (Format::Text, Some(etag)) = (format, &etag) {
        tell(&format!("etag {etag}"));
    }
    write_result(&with_etag(register, etag), format, value)
}

fn put(args: &ConfigPutArgs) -> Result<(), CommandError> {
    let value = read(&args.value, io::stdin())?;
    let target = Target::find(&args.target)?;
    let written = runtime(1)?.block_on(write(
        &target.control,
        &args.key,
        &value,
        args.if_match.as_deref(),
    ))?;
    write_result(&written, Format::of(args.target.json), |written| {
        let etag = written.get("etag").and_then(Value::as_str);
        let etag = etag.map(|etag| format!(", etag {etag}")).unwrap_or_default();
        format!("{} is written{etag}", args.key)
    })
}

/// Writes the register.
async fn write(
    control: &Client,
    key: &str,
    value: &Value,
    if_match: Option<&str>,
) -> Result<Value, CommandError> {
    let body = json!({ "value": value });
    match control.put_if(&path(key), &body, if_match).await {
        Ok((register, etag)) => Ok(with_etag(register, etag)),
        Err(error) if is_conflict(&error) => {
            tell(&format!(
                "somebody else has written it: read it again, `meridian config get {key}`"
            ));
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

fn is_conflict(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: Some(code), .. } if code == "rev_conflict")
}

fn path(key: &str) -> String {
    format!("/v1/config/{}", query_value(key))
}

/// What the API says of a register, with its entity tag as a member.
fn with_etag(mut register: Value, etag: Option<String>) -> Value {
    if let (Value::Object(members), Some(etag)) = (&mut register, etag) {
        members.insert("etag".to_owned(), Value::String(etag));
    }
    register
}

/// The value alone; all of it if there are several.
fn value(register: &Value) -> String {
    format!("{:#}", register.get("value").unwrap_or(register))
}

/// The value that the command line gives: JSON, `@FILE`, or `-` for standard input.
fn read(value: &str, mut input: impl Read) -> Result<Value, CommandError> {
    let wrong = |what: &str, rule: String| CommandError::Usage(format!("{what}: {rule}"));
    if value == "-" {
        let mut text = String::new();
        input
            .read_to_string(&mut text)
            .map_err(|source| CommandError::System { what: "read standard input", source })?;
        let json = serde_json::from_str(&text);
        return json.map_err(|error| wrong("standard input", format!("is no JSON: {error}")));
    }
    let Some(file) = value.strip_prefix('@') else {
        return serde_json::from_str(value).map_err(|error| {
            let rule = "is no JSON (a text stands in double quotes, a file's name behind an @)";
            wrong(value, format!("{rule}: {error}"))
        });
    };
    let text = fs::read_to_string(file).map_err(|error| wrong(file, error.to_string()))?;
    if Path::new(file).extension().is_some_and(|extension| extension == "toml") {
        return toml::from_str(&text).map_err(|error| wrong(file, format!("is no TOML: {error}")));
    }
    serde_json::from_str(&text).map_err(|error| wrong(file, format!("is no JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::json;

    use super::{path, read, value, with_etag, write};
    use crate::client::Client;
    use crate::scripted::{Reaction, Scripted};

    #[test]
    fn a_value_is_json_a_file_or_standard_input() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = home.path().join(name);
            std::fs::write(&file, text).unwrap();
            format!("@{}", file.display())
        };
        let rows = [
            ("7".to_owned(), json!(7)),
            ("\"a\"".to_owned(), json!("a")),
            ("-".to_owned(), json!([1])),
            (file("a.json", "{\"b\":null}"), json!({"b": null})),
            (file("a.toml", "b = \"1s\"\n[[c]]\nd = 1"), json!({"b": "1s", "c": [{"d": 1}]})),
        ];
        for (text, want) in rows {
            assert_eq!(read(&text, "[1]".as_bytes()).unwrap(), want, "{text}");
        }
        let bad = [
            "a".to_owned(),
            "-".to_owned(),
            "@/no/such/file".to_owned(),
            file("b.json", "b = 1"),
            file("b.toml", "{"),
        ];
        for text in bad {
            let error = read(&text, io::empty()).unwrap_err();
            assert_eq!(error.exit_code(), 2.into(), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_is_what_can_be_put() {
        let register = json!({"key": "a", "value": {"b": 1}, "position": "01"});
        assert_eq!(value(&register), "{\n  \"b\": 1\n}");
        assert_eq!(with_etag(register, Some("\"1\"".to_owned()))["etag"], "\"1\"");
        let several = json!({"key": "a", "siblings": [1, 2]});
        assert!(value(&several).contains("siblings"));
        assert_eq!(path("site/a b?"), "/v1/config/site/a%20b%3F");
    }

    #[tokio::test]
    async fn a_value_is_put_with_its_condition_and_a_conflict_is_an_error() {
        let register = json!({"key": "a", "value": 1, "position": "02"});
        let conflict = json!({"code": "rev_conflict", "detail": "it has the ETag \"2\""});
        let reactions = [
            Reaction::Answer(200, "etag: \"2\"\r\n", register),
            Reaction::Answer(412, "", conflict),
        ];
        let control = Scripted::start(reactions).await;
        let client = Client::new(control.url(), None).unwrap();
        let written = write(&client, "a", &json!(1), Some("\"1\"")).await.unwrap();
        assert_eq!(written["etag"], "\"2\"");
        let asked = control.asked();
        assert!(asked[0].starts_with("PUT /v1/config/a HTTP/1.1\r\n"), "{asked:?}");
        assert!(asked[0].contains("if-match: \"1\"\r\n"), "{asked:?}");
        assert!(asked[0].ends_with("{\"value\":1}"), "{asked:?}");
        let error = write(&client, "a", &json!(1), Some("\"1\"")).await.unwrap_err();
        assert!(error.to_string().contains("rev_conflict"), "{error}");
        assert_eq!(error.exit_code(), 1.into());
    }
}
