//! One site from JSON: the value of a configuration register `site/<name>`.
//!
//! Answers whether it is a site, and everything that is wrong with it. Whether an edge has the
//! origins that it names, and whether its hosts are free there, only that edge knows.

use serde_json::{Map, Value};

use crate::decode::decode;
use crate::document::Document;
use crate::edge::Site;
use crate::units::SiteName;
use crate::violation::{Place, Violation, Violations};

/// Violations that are reported of one value; nobody reads more at once.
const MOST_VIOLATIONS: usize = 100;

/// Reads `value` as the site `name`; `name` may be left out of it.
///
/// # Errors
/// Everything that is wrong. The file of each violation is the register's key, the lines are none.
pub fn site_from_json(name: &str, value: &Value) -> Result<Site, Violations> {
    let key = format!("site/{name}");
    let at = Place::root(&key);
    let name: SiteName = name.parse().map_err(|rule: String| {
        Violations::from(at.lacks(format!("the name behind site/ {rule}")))
    })?;
    let Value::Object(fields) = value else {
        return Err(at.lacks("must be an object: a site as in the file of an edge").into());
    };
    let (mut found, mut misnamed) = (Vec::new(), None);
    let mut fields = fields.clone();
    without_nulls(&mut fields);
    let said = fields.entry("name").or_insert_with(|| Value::from(name.as_str())).clone();
    if said.as_str() != Some(name.as_str()) {
        misnamed = Some(at.key("name").breaks(&said, format!("must be {name}, or be left out")));
        fields.insert("name".to_owned(), Value::from(name.as_str()));
    }
    let text = toml::to_string(&fields).map_err(|error| {
        Violations::from(at.lacks(format!("cannot be written as TOML: {error}")))
    })?;
    let document = Document::parse(&key, &text, MOST_VIOLATIONS)
        .map_err(|found| Violations::none_of(found).err().unwrap_or_else(|| unreadable(&at)))?;
    let site = judged(&key, &document, &mut found);
    for violation in &mut found {
        document.locate(violation);
        violation.line = None; // of a text that nobody wrote
    }
    found.extend(misnamed);
    found.sort_by(|a, b| a.at.cmp(&b.at));
    found.truncate(MOST_VIOLATIONS);
    Violations::none_of(found)?;
    site.ok_or_else(|| unreadable(&at))
}

/// TOML has no null; here it says what leaving the key out says.
fn without_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|_, field| !field.is_null());
    fields.values_mut().for_each(inside_without_nulls);
}

fn inside_without_nulls(value: &mut Value) {
    match value {
        Value::Object(inner) => without_nulls(inner),
        Value::Array(elements) => elements.iter_mut().for_each(inside_without_nulls),
        _ => {}
    }
}

fn judged(key: &str, document: &Document<'_>, found: &mut Vec<Violation>) -> Option<Site> {
    let decoded = decode::<Site>(key, document, MOST_VIOLATIONS);
    found.extend(decoded.found);
    let site = decoded.value?;
    let mut broken = Vec::new();
    site.check_alone(&Place::root(key), &mut broken);
    broken.retain(|violation| {
        let keys = violation.with.iter().chain([&violation.at]);
        !keys.clone().any(|key| decoded.aside.iter().any(|aside| key.touches(aside)))
    });
    found.append(&mut broken);
    Some(site)
}

fn unreadable(at: &Place<'_>) -> Violations {
    at.lacks("is no site").into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::site_from_json;
    use crate::edge::Profile;

    fn rules(name: &str, value: &Value) -> Vec<String> {
        let found = site_from_json(name, value).unwrap_err();
        found.iter().map(|one| format!("{}: {}", one.key, one.rule)).collect()
    }

    #[test]
    fn a_site_is_read_from_json() {
        let value = json!({
            "hosts": ["Shop.example"], "origins": ["origin-1"], "profile": "rfc",
            "default_lifetime": "1m", "stale_max": null, "query": {"drop": ["utm_*"]},
            "rule": [
                {"name": "img", "when": {"path": ["/img/*"]}, "edge_lifetime": "1d"},
                {"name": "beta", "bypass": true, "origin": null,
                    "when": {"header": [{"name": "X-Beta", "equals": null}]}},
            ],
        });
        let site = site_from_json("shop", &value).unwrap();
        assert_eq!((site.name.as_str(), site.profile), ("shop", Profile::Rfc));
        assert_eq!(site.hosts[0].as_str(), "shop.example");
        assert_eq!(site.query.drop, ["utm_*"]);
        assert_eq!(site.rule[1].when.header[0].name, "X-Beta");
        let again = serde_json::to_value(&site).unwrap();
        assert_eq!(site_from_json("shop", &again).unwrap(), site);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let value = json!({
            "name": "other", "origins": [], "hosst": ["a"], "default_lifetime": "500d",
            "profile": "fast", "default": 1,
        });
        let found = rules("shop", &value).join("\n");
        for want in [
            "name: must be shop, or be left out",
            "origins: must name at least one origin",
            "hosst: is not a key here; did you mean `hosts`?",
            "default_lifetime: must be at most 365d",
            "profile: must be one of",
            "default: ",
        ] {
            assert!(found.contains(want), "{want} in\n{found}");
        }
        assert!(rules("shop", &json!([])).join("").contains("must be an object"));
        assert!(rules("Shop!", &json!({})).join("").contains("must be 1-63 of a-z"));
        let none = rules("shop", &json!({}));
        assert!(none.iter().any(|rule| rule.starts_with("origins: is required")), "{none:?}");
    }
}
