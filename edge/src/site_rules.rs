//! The rules of a site (`[[site.rule]]`), compiled once: which match a request, and what they say of
//! it and of its response.
//!
//! Every rule that matches applies, in order; of two that set the same, the later counts. What
//! concerns the request alone (bypass, origin, key, request fields) is settled before anything is
//! looked up; what concerns the response is settled when it arrives, and is kept with it.
//!
//! # Invariants
//! - A site without rules pays one comparison per request; with rules nothing is allocated to find
//!   those that match.
//! - What a rule does depending on something that no key holds by itself (host, field, parameter)
//!   has the rule's name in the key: one client's fields never settle what others get.

mod when;

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use meridian_config::control_loss::ControlLoss;
use meridian_config::query::Query;
use meridian_config::site_rule::{SetCookie, SiteRule, field_line};
use meridian_config::units::NodeName;
use meridian_edge_rules::amend::Amendment;
use meridian_edge_rules::policy::{Policy, Ruled};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::control_lag::{Limit, Plan};

pub(crate) use self::when::Seen;
use self::when::When;

/// What may stand for itself in the part of a key that rules write.
const IN_KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/');

/// The rules that match a request, by their places; what some of them ask of the response is still
/// open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Matched(u64);

impl Matched {
    /// None.
    pub(crate) const NONE: Self = Self(0);
}

/// The rules of one site.
#[derive(Debug, Default)]
pub(crate) struct SiteRules {
    rules: Box<[Rule]>,
    /// A number that changes with any of them.
    set: u64,
    /// Whether one says what is done without the control plane.
    has_control: bool,
}

#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    when: When,
    bypass: Option<bool>,
    /// Its place among the site's origins.
    origin: Option<usize>,
    query: Option<Query>,
    key_headers: Box<[HeaderName]>,
    key_cookies: Box<[Box<str>]>,
    /// Its name is part of the key.
    in_key: bool,
    ruled: Ruled,
    browser_lifetime: Option<Duration>,
    control_loss: Option<ControlLoss>,
    max_control_lag: Option<Limit>,
    set_cookie: Option<SetCookie>,
    request: Changes,
    response: Changes,
}

/// Fields that take the place of those of their name; without a value, nothing does.
type Changes = Box<[(HeaderName, Option<HeaderValue>)]>;

fn changes(remove: &[String], set: &[String]) -> Changes {
    let line = |line: &String| {
        let (name, value) = field_line(line);
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, Some(HeaderValue::from_str(value).ok()?)))
    };
    let removed = names(remove).into_iter().map(|name| (name, None));
    removed.chain(set.iter().filter_map(line)).collect()
}

fn names(names: &[String]) -> Box<[HeaderName]> {
    names.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect()
}

/// What the rules say of one response.
#[derive(Debug, Clone)]
pub(crate) struct OfResponse {
    /// The site's, with what the rules put above it.
    pub(crate) policy: Policy,
    /// What clients get otherwise.
    pub(crate) amendment: Amendment,
    /// `Set-Cookie` is taken out.
    pub(crate) strips_cookie: bool,
}

impl OfResponse {
    /// Where no rule matches.
    fn none(policy: &Policy) -> Self {
        let (policy, amendment) = (policy.clone(), Amendment::default());
        Self { policy, amendment, strips_cookie: false }
    }

    /// `fields` without what nobody is to get.
    pub(crate) fn kept<'f>(&self, fields: &'f HeaderMap) -> Cow<'f, HeaderMap> {
        let mut kept = Cow::Borrowed(fields);
        if self.strips_cookie && fields.contains_key(SET_COOKIE) {
            self.strip(kept.to_mut());
        }
        kept
    }

    /// Takes out of `fields` what nobody is to get.
    pub(crate) fn strip(&self, fields: &mut HeaderMap) {
        if self.strips_cookie {
            fields.remove(SET_COOKIE);
        }
    }
}

impl SiteRules {
    /// `spelled` puts a text into the spelling of keys. What `check` has let through is whole.
    pub(crate) fn new(
        config: &[SiteRule],
        origins: &[NodeName],
        spelled: impl Fn(&str) -> String,
    ) -> Self {
        let rule = |config: &SiteRule| Rule::new(config, origins, &spelled);
        let mut hasher = DefaultHasher::new();
        format!("{config:?}").hash(&mut hasher);
        let has_control =
            config.iter().any(|rule| rule.control_loss.is_some() || rule.max_control_lag.is_some());
        Self { rules: config.iter().map(rule).collect(), set: hasher.finish(), has_control }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// A number that changes with any of the rules.
    pub(crate) fn set(&self) -> u64 {
        self.set
    }

    /// The rules that match a request, as far as the request says.
    pub(crate) fn matched(&self, seen: &Seen<'_>) -> Matched {
        let all = self.rules.iter().enumerate();
        let matching = all.filter(|(_, rule)| rule.when.takes_request(seen));
        Matched(matching.fold(0, |set, (place, _)| set | bit(place)))
    }

    fn of(&self, matched: Matched) -> impl DoubleEndedIterator<Item = &Rule> {
        let is_in = move |place: usize| matched.0 & bit(place) != 0;
        self.rules.iter().enumerate().filter(move |(place, _)| is_in(*place)).map(|(_, rule)| rule)
    }

    /// Those of `matched` that ask nothing of the response.
    fn of_request(&self, matched: Matched) -> impl DoubleEndedIterator<Item = &Rule> {
        self.of(matched).filter(|rule| !rule.when.is_of_response())
    }

    /// Whether the request passes the store by.
    pub(crate) fn bypasses(&self, matched: Matched) -> bool {
        matched != Matched::NONE
            && self.of_request(matched).rev().find_map(|rule| rule.bypass) == Some(true)
    }

    /// The query string within the key, if a rule says.
    pub(crate) fn query(&self, matched: Matched) -> Option<&Query> {
        self.of_request(matched).rev().find_map(|rule| rule.query.as_ref())
    }

    /// What is done without the control plane, where the site's is `plan`.
    pub(crate) fn control(&self, matched: Matched, plan: Plan) -> Plan {
        if !self.has_control || matched == Matched::NONE {
            return plan;
        }
        let loss = self.of_request(matched).rev().find_map(|rule| rule.control_loss);
        let limit = self.of_request(matched).rev().find_map(|rule| rule.max_control_lag);
        Plan { loss: loss.unwrap_or(plan.loss), limit: limit.unwrap_or(plan.limit) }
    }

    /// The place among the site's origins of the only one that is asked, if a rule says.
    pub(crate) fn origin(&self, matched: Matched) -> Option<usize> {
        self.of_request(matched).rev().find_map(|rule| rule.origin)
    }

    /// Writes what the rules add to the key: no space, so that it can stand in a part of one.
    pub(crate) fn write_key(&self, into: &mut String, matched: Matched, fields: &HeaderMap) {
        for rule in self.of(matched) {
            if rule.in_key {
                into.push_str(";rule=");
                into.push_str(&rule.name);
            }
            for name in &rule.key_headers {
                into.push_str(";field=");
                into.push_str(name.as_str());
                for line in fields.get_all(name) {
                    into.push('=');
                    into.extend(percent_encode(line.as_bytes(), IN_KEY));
                }
            }
            for name in &rule.key_cookies {
                into.push_str(";cookie=");
                into.extend(percent_encode(name.as_bytes(), IN_KEY));
                for value in cookies(fields, name.as_bytes()) {
                    into.push('=');
                    into.extend(percent_encode(value, IN_KEY));
                }
            }
        }
    }

    /// Changes the fields of a request that goes to an origin.
    pub(crate) fn amend_request(&self, matched: Matched, fields: &mut HeaderMap) {
        if matched == Matched::NONE {
            return;
        }
        for (name, value) in self.of_request(matched).flat_map(|rule| &rule.request) {
            match value {
                Some(value) => drop(fields.insert(name.clone(), value.clone())),
                None => drop(fields.remove(name)),
            }
        }
    }

    /// What the rules say of a response to a request that they match so far.
    pub(crate) fn of_response(
        &self,
        matched: Matched,
        policy: &Policy,
        status: StatusCode,
        fields: &HeaderMap,
    ) -> OfResponse {
        let mut said = OfResponse::none(policy);
        if matched == Matched::NONE {
            return said;
        }
        said.amendment.set = self.set;
        for rule in self.of(matched).filter(|rule| rule.when.takes_response(status, fields)) {
            rule.say(&mut said, status);
        }
        said
    }

    /// The names of the rules that match a request, and whether the response has a say, too.
    pub(crate) fn names(&self, matched: Matched) -> impl Iterator<Item = (&str, bool)> {
        self.of(matched).map(|rule| (&*rule.name, rule.when.is_of_response()))
    }

    /// What one rule does, in words.
    pub(crate) fn does(&self, name: &str) -> Vec<String> {
        self.rules.iter().find(|rule| &*rule.name == name).map(Rule::words).unwrap_or_default()
    }
}

/// The bit of a rule; none for those beyond what `check` lets through.
fn bit(place: usize) -> u64 {
    u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place)).unwrap_or(0)
}

/// The values of the cookie `name`.
fn cookies<'a>(fields: &'a HeaderMap, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let lines = fields.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = pair.split_at(at);
        (key.trim_ascii() == name).then(|| value.get(1..).unwrap_or_default().trim_ascii())
    })
}

impl Rule {
    fn new(config: &SiteRule, origins: &[NodeName], spelled: impl Fn(&str) -> String) -> Self {
        let when = When::new(&config.when, spelled);
        let origin = config.origin.as_ref();
        let mut rule = Self {
            name: config.name.as_str().into(),
            bypass: config.bypass,
            origin: origin.and_then(|name| origins.iter().position(|known| known == name)),
            query: config.query.clone(),
            key_headers: names(&config.key_headers),
            key_cookies: config.key_cookies.iter().map(|name| Box::from(name.as_str())).collect(),
            in_key: false,
            ruled: Ruled {
                bypass: config.bypass == Some(true) && when.is_of_response(),
                lifetime: config.edge_lifetime.map(|lifetime| lifetime.get()),
                unheard: config.override_no_store,
                stale_while_revalidate: config.stale_while_revalidate.map(|limit| limit.get()),
                stale_if_error: config.stale_if_error.map(|limit| limit.get()),
            },
            browser_lifetime: config.browser_lifetime.map(|lifetime| lifetime.get()),
            control_loss: config.control_loss,
            max_control_lag: config.max_control_lag.map(|lag| Limit::of(lag.get())),
            set_cookie: config.set_cookie,
            request: changes(&config.request_remove, &config.request_set),
            response: changes(&config.response_remove, &config.response_set),
            when,
        };
        rule.in_key = rule.when.is_beside_key() && rule.shapes_what_is_stored();
        rule
    }

    /// Whether it does anything but pass the store by.
    fn shapes_what_is_stored(&self) -> bool {
        self.origin.is_some()
            || self.ruled != Ruled::default()
            || self.browser_lifetime.is_some()
            || self.set_cookie.is_some()
            || !self.request.is_empty()
            || !self.response.is_empty()
    }

    fn say(&self, said: &mut OfResponse, status: StatusCode) {
        let ruled = &mut said.policy.ruled;
        said.amendment.rules.push(Arc::clone(&self.name));
        // A lifetime for pages is not one for errors.
        let is_meant = self.when.names_status() || status.as_u16() < 400;
        if is_meant && self.ruled.lifetime.is_some() {
            ruled.lifetime = self.ruled.lifetime;
            ruled.unheard = self.ruled.unheard;
            said.amendment.unheard = self.ruled.unheard;
        }
        if let Some(bypass) = self.bypass {
            ruled.bypass = bypass;
        }
        ruled.stale_while_revalidate =
            self.ruled.stale_while_revalidate.or(ruled.stale_while_revalidate);
        ruled.stale_if_error = self.ruled.stale_if_error.or(ruled.stale_if_error);
        if is_meant && self.browser_lifetime.is_some() {
            said.amendment.browser_lifetime = self.browser_lifetime;
        }
        if let Some(what) = self.set_cookie {
            said.strips_cookie = what == SetCookie::Strip;
            said.policy.store_set_cookie = what != SetCookie::Pass;
        }
        said.amendment.changes.extend(self.response.iter().cloned());
    }

    fn words(&self) -> Vec<String> {
        let seconds = |name: &str, length: Option<Duration>| {
            length.map(|length| format!("{name} {} s", length.as_secs_f64()))
        };
        let cookie = |what| match what {
            SetCookie::Pass => "passes responses with Set-Cookie unstored",
            SetCookie::Store => "stores Set-Cookie",
            SetCookie::Strip => "strips Set-Cookie",
        };
        let list = |verb: &str, names: Vec<String>| {
            (!names.is_empty()).then(|| format!("{verb} {}", names.join(", ")))
        };
        let fields = |names: &[HeaderName]| names.iter().map(ToString::to_string).collect();
        let changed = |changes: &Changes, sets: bool| {
            let those = changes.iter().filter(|(_, value)| value.is_some() == sets);
            those.map(|(name, _)| name.to_string()).collect::<Vec<_>>()
        };
        [
            self.bypass.map(|bypass| if bypass { "bypass" } else { "no bypass" }.to_owned()),
            self.origin.map(|_| "its own origin".to_owned()),
            self.query.as_ref().map(|_| "its own query in the key".to_owned()),
            list("key by", fields(&self.key_headers)),
            list("key by cookie", self.key_cookies.iter().map(ToString::to_string).collect()),
            seconds("edge_lifetime", self.ruled.lifetime),
            self.ruled.unheard.then(|| "override_no_store".to_owned()),
            seconds("browser_lifetime", self.browser_lifetime),
            seconds("stale_while_revalidate", self.ruled.stale_while_revalidate),
            seconds("stale_if_error", self.ruled.stale_if_error),
            self.control_loss.map(|loss| format!("control_loss {}", loss.token())),
            self.max_control_lag.map(|_| "its own max_control_lag".to_owned()),
            self.set_cookie.map(|what| cookie(what).to_owned()),
            list("request_set", changed(&self.request, true)),
            list("request_remove", changed(&self.request, false)),
            list("response_set", changed(&self.response, true)),
            list("response_remove", changed(&self.response, false)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests;
