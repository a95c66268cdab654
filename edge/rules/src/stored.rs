//! What the rules keep of a stored response, settled once when it arrives. No body.
//!
//! # Invariants
//! - Every lifetime and limit here is final: nothing is parsed again on the hit path.
//! - Age counts on the monotonic clock from `arrived`; it never falls while the head stands.
//! - Where stale use is forbidden, all three `stale_*` limits are zero.

use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use http::header::{
    AGE, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, HeaderMap,
    SET_COOKIE, VARY,
};

use crate::age;
use crate::amend::{Amended, Amendment};
use crate::cache_control::CacheControl;
use crate::date;
use crate::exchange::{Exchange, RequestView, ResponseView};
use crate::freshness::{self, LifetimeSource};
use crate::hop_by_hop::remove_hop_by_hop;
use crate::policy::Policy;
use crate::storable::{self, NotStorable};
use crate::targeted::Governing;
use crate::time::Now;
use crate::validate::{self, Precondition, Validators};
use crate::vary::{Vary, VaryAny};

/// The head of a stored response, and what follows from it.
#[derive(Clone, Debug)]
pub struct StoredHead {
    /// Its status.
    pub status: StatusCode,
    /// Its fields as they are sent again: without those that end at this node, without `Age`,
    /// without those that `no-cache` or `private` names; with a `Date`.
    pub headers: HeaderMap,
    /// The selecting fields, with what its request had in them.
    pub vary: Vary,
    /// Its validators.
    pub validators: Validators,
    /// Its freshness lifetime.
    pub lifetime: Duration,
    /// Where that comes from.
    pub lifetime_from: LifetimeSource,
    /// Its age when it arrived (`corrected_initial_age`).
    pub initial_age: Duration,
    /// When it arrived, on the monotonic clock.
    pub arrived: Instant,
    /// When it arrived, by the clock on the wall (`response_time`).
    pub received: SystemTime,
    /// When it was made (`date_value`).
    pub date: SystemTime,
    /// Its request had `Authorization`; the response allowed sharing it all the same (§3.5).
    pub authorized: bool,
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage`: no stale use at a client's or a site's
    /// wish (§4.2.4).
    pub must_revalidate: bool,
    /// Never to be reused without successful validation (§5.2.2.4).
    pub no_cache: bool,
    /// Does not change while fresh (RFC 8246).
    pub immutable: bool,
    /// Past the lifetime, how long it is served while a new one is fetched (RFC 5861 §3).
    pub stale_while_revalidate: Duration,
    /// Past the lifetime, how long it is served instead of an error (RFC 5861 §4).
    pub stale_if_error: Duration,
    /// Past the lifetime, how long it is served where upstream cannot be reached (§4.2.4).
    pub stale_if_disconnected: Duration,
    /// What rules of the site have changed about `headers`, if there were any for it.
    pub amended: Option<Box<Amended>>,
}

impl AsRef<StoredHead> for StoredHead {
    fn as_ref(&self) -> &StoredHead {
        self
    }
}

impl StoredHead {
    /// Decides whether `response` may be stored (§3), and settles what follows from it.
    pub fn of(
        request: &RequestView<'_>,
        response: &ResponseView<'_>,
        policy: &Policy,
        times: &Exchange,
    ) -> Result<Self, NotStorable> {
        let governing = Governing::of(response.headers, policy);
        storable::permitted(request, response, &governing.directives, policy)?;
        let vary = Vary::of(request.headers, response.headers, policy.language)
            .map_err(|VaryAny| NotStorable::VaryAny)?;
        let from = Provenance { vary, authorized: request.headers.contains_key(AUTHORIZATION) };

        let head = Self::settle(response, &governing, from, policy, times);
        head.worth_storing(&governing.directives)?;
        Ok(head)
    }

    /// Settles lifetime, age and limits of a response that may be stored.
    fn settle(
        response: &ResponseView<'_>,
        governing: &Governing,
        from: Provenance,
        policy: &Policy,
        times: &Exchange,
    ) -> Self {
        let said = &governing.directives;
        let received = times.received.wall;
        let date = age::date_value(response.headers, received);
        let lifetime = freshness::lifetime(response, governing, policy, date, received);
        let initial_age = age::initial_age(response.headers, times);
        let before = match lifetime.from {
            LifetimeSource::Rule => initial_age, // however old it came
            LifetimeSource::Targeted
            | LifetimeSource::Surrogate
            | LifetimeSource::SMaxage
            | LifetimeSource::MaxAge
            | LifetimeSource::Expires
            | LifetimeSource::Heuristic
            | LifetimeSource::Negative
            | LifetimeSource::Default
            | LifetimeSource::Unsaid => Duration::ZERO,
        };
        // An old failure is no better than a new one, unless it says so itself.
        let is_failure =
            response.status.is_server_error() || lifetime.from == LifetimeSource::Negative;
        let stale = StaleLimits::of(is_failure, said, policy);
        let headers = stored_fields(response.headers, said, date);
        Self {
            status: response.status,
            vary: from.vary,
            validators: Validators { date: Some(date), ..Validators::of(&headers) },
            lifetime: lifetime.length.saturating_add(before),
            lifetime_from: lifetime.from,
            initial_age,
            arrived: times.received.mono,
            received,
            date,
            authorized: from.authorized,
            must_revalidate: requires_revalidation(said),
            no_cache: said.no_cache.is_everything(),
            immutable: said.immutable,
            stale_while_revalidate: stale.while_revalidate,
            stale_if_error: stale.if_error,
            stale_if_disconnected: stale.if_disconnected,
            amended: None,
            headers,
        }
    }

    /// Whether some later request could ever use it.
    fn worth_storing(&self, said: &CacheControl) -> Result<(), NotStorable> {
        let cacheable = freshness::is_heuristically_cacheable(self.status);
        let has_reason =
            self.lifetime_from.is_explicit() || self.lifetime_from == LifetimeSource::Negative;
        if !has_reason && !cacheable && !said.public {
            return Err(NotStorable::Status); // §3, last item
        }
        if !self.validators.is_empty() {
            return Ok(());
        }
        if self.lifetime_from == LifetimeSource::Unsaid {
            return Err(NotStorable::NoLifetime);
        }
        let longest_stale =
            self.stale_while_revalidate.max(self.stale_if_error).max(self.stale_if_disconnected);
        let usable = !self.no_cache && !(self.lifetime + longest_stale).is_zero();
        if usable { Ok(()) } else { Err(NotStorable::NoValidator) }
    }

    /// `current_age` (§4.2.3).
    pub fn current_age(&self, now: Now) -> Duration {
        let resident = now.mono.saturating_duration_since(self.arrived);
        self.initial_age.saturating_add(resident)
    }

    /// The lifetime less the age, as `Cache-Status` counts it: in whole seconds away from zero, so
    /// that what is fresh is positive and what is stale is not.
    pub fn ttl(&self, now: Now) -> i64 {
        let age = self.current_age(now);
        match self.lifetime.checked_sub(age) {
            Some(left) => whole_seconds_up(left),
            None => -whole_seconds_up(age.saturating_sub(self.lifetime)),
        }
    }

    /// The head after a 304 that [`Validators::confirmed_by`] says is about it (§3.2, §4.3.4):
    /// fields of the 304 replace those stored, and the age starts anew with it.
    ///
    /// Should the response now forbid storing, the new head may be used only after validation:
    /// let it answer this request, or drop it. `Vary` keeps selecting as it did, unless
    /// [`StoredHead::reselected`] says more.
    pub fn freshened(&self, not_modified: &HeaderMap, policy: &Policy, times: &Exchange) -> Self {
        let merged = self.merged_with(not_modified, policy);
        let governing = Governing::of(&merged, policy);
        let said = &governing.directives;
        let response = ResponseView { status: self.status, headers: &merged };
        let from = Provenance { vary: self.vary.clone(), authorized: self.authorized };
        let mut head = Self::settle(&response, &governing, from, policy, times);
        let refused = storable::allowed(said, self.status, self.authorized).is_err();
        if refused || policy.ruled.bypass {
            head.bind_to_validation();
        }
        head
    }

    /// The head of a response that was validated by `request`, where the 304 names other selecting
    /// fields than those stored: from now on these select, with what this request has in them, for
    /// which the response was just said to be right. With `Vary: *` it answers nothing more without
    /// being asked for.
    #[must_use]
    pub fn reselected(
        mut self,
        request: &HeaderMap,
        not_modified: &HeaderMap,
        policy: &Policy,
    ) -> Self {
        if !not_modified.contains_key(VARY) {
            return self;
        }
        match Vary::of(request, not_modified, policy.language) {
            Ok(vary) if vary.names().eq(self.vary.names()) => return self,
            Ok(vary) => self.vary = vary,
            Err(VaryAny) => self.bind_to_validation(),
        }
        self.headers.remove(VARY);
        for line in not_modified.get_all(VARY) {
            self.headers.append(VARY, line.clone());
        }
        self
    }

    /// Never to be used again without asking.
    fn bind_to_validation(&mut self) {
        self.no_cache = true;
        self.stale_while_revalidate = Duration::ZERO;
        self.stale_if_error = Duration::ZERO;
        self.stale_if_disconnected = Duration::ZERO;
    }

    /// §3.2: fields of the 304 in the place of those stored, except for those that are never
    /// stored, that describe the stored body, or that select.
    fn merged_with(&self, not_modified: &HeaderMap, policy: &Policy) -> HeaderMap {
        let mut update = not_modified.clone();
        remove_hop_by_hop(&mut update);
        for name in [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, VARY] {
            update.remove(name);
        }
        if !policy.store_set_cookie {
            update.remove(SET_COOKIE);
        }
        let mut merged = self.original_headers();
        merged.remove(DATE); // without one of its own, the 304 counts from its arrival
        for name in update.keys() {
            merged.remove(name);
            for value in update.get_all(name) {
                // It fails only past what a map can hold, which no limit on heads comes near.
                if merged.try_append(name.clone(), value.clone()).is_err() {
                    return merged;
                }
            }
        }
        merged
    }

    /// Changes what clients get of it.
    pub fn amend(&mut self, amendment: &Amendment) {
        self.unamend();
        let amended = amendment.apply(&mut self.headers, self.initial_age);
        self.amended = Some(Box::new(amended));
    }

    /// Takes back what rules have changed.
    pub fn unamend(&mut self) {
        if let Some(amended) = self.amended.take() {
            amended.undo(&mut self.headers);
        }
    }

    /// Its fields as they were before rules changed them.
    pub fn original_headers(&self) -> HeaderMap {
        let mut fields = self.headers.clone();
        if let Some(amended) = &self.amended {
            amended.undo(&mut fields);
        }
        fields
    }

    /// What the conditions of a client's request come to, answered from this response (§4.3.2).
    pub fn precondition(&self, request: &RequestView<'_>) -> Precondition {
        if !self.status.is_success() {
            return Precondition::Proceed; // RFC 9110 §13.2.1
        }
        validate::precondition_at_cache(request.method, request.headers, &self.validators)
    }
}

/// What a stored response keeps of the request that brought it.
struct Provenance {
    vary: Vary,
    authorized: bool,
}

/// How long past its lifetime a response may be used, by occasion.
struct StaleLimits {
    while_revalidate: Duration,
    if_error: Duration,
    if_disconnected: Duration,
}

impl StaleLimits {
    fn of(is_failure: bool, said: &CacheControl, policy: &Policy) -> Self {
        let unsaid = |limit| if is_failure { Duration::ZERO } else { limit };
        let forbidden =
            said.no_cache.is_everything() || said.must_revalidate || said.proxy_revalidate;
        let beside_s_maxage = said.s_maxage.is_some();
        let ruled = &policy.ruled;
        let limit = |ruled: Option<Duration>, stated: Option<Duration>, unsaid: Duration| {
            let limit = match stated {
                _ if forbidden => Duration::ZERO,
                _ if ruled.is_some() => ruled.unwrap_or_default(),
                Some(stated) if !beside_s_maxage || policy.stale_beside_s_maxage => stated,
                None if !beside_s_maxage => unsaid,
                Some(_) | None => Duration::ZERO,
            };
            limit.min(policy.stale_max)
        };
        Self {
            while_revalidate: limit(
                ruled.stale_while_revalidate,
                said.stale_while_revalidate,
                Duration::ZERO,
            ),
            if_error: limit(
                ruled.stale_if_error,
                said.stale_if_error,
                unsaid(policy.stale_if_error),
            ),
            if_disconnected: limit(
                ruled.stale_if_error,
                said.stale_if_error,
                unsaid(policy.stale_if_disconnected.max(policy.stale_if_error)),
            ),
        }
    }
}

/// §4.2.4, §5.2.2.10: what prohibits stale use in a shared cache.
fn requires_revalidation(said: &CacheControl) -> bool {
    said.must_revalidate || said.proxy_revalidate || said.s_maxage.is_some()
}

/// §3.1: what of a response's fields is stored.
fn stored_fields(response: &HeaderMap, said: &CacheControl, date: SystemTime) -> HeaderMap {
    let mut headers = response.clone();
    remove_hop_by_hop(&mut headers);
    headers.remove(AGE);
    for name in said.no_cache.fields().iter().chain(said.private.fields()) {
        headers.remove(name);
    }
    // RFC 9110 §6.6.1: whoever stores a response without a readable Date records its arrival.
    headers.insert(DATE, date::format(date));
    headers
}

fn whole_seconds_up(duration: Duration) -> i64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::fixtures::{at, exchange_at, headers, secs, store, store_for, wall};

    fn stored(response: &str) -> StoredHead {
        store(response, &Policy::cdn()).unwrap()
    }

    #[test]
    fn what_ends_at_this_node_is_not_stored() {
        let head = stored(
            "Date: @-5\nAge: 7\nCache-Control: max-age=60, no-cache=\"X-Once\", private=\"X-Mine\"
             Connection: close, X-Hop\nX-Hop: 1\nKeep-Alive: 5\nTransfer-Encoding: chunked
             Proxy-Authenticate: x\nX-Once: 1\nX-Mine: 2\nSet-Cookie2: x\nContent-Length: 3",
        );
        let want = headers(
            "Date: @-5\nCache-Control: max-age=60, no-cache=\"X-Once\", private=\"X-Mine\"
             Set-Cookie2: x\nContent-Length: 3",
        );
        assert_eq!(head.headers, want);
        assert_eq!(stored("Cache-Control: max-age=60").headers[DATE], headers("Date: @0")[DATE]);
        let doubtful = stored("Cache-Control: max-age=60\nDate: x\nDate: y");
        assert_eq!(doubtful.headers.get_all(DATE).iter().count(), 1);
        assert_eq!(doubtful.date, wall(0));
    }

    #[test]
    fn age_goes_on_from_its_initial_value_and_a_stepped_clock_changes_nothing() {
        let head = stored("Cache-Control: max-age=60\nAge: 10");
        assert_eq!(head.current_age(at(0)), secs(10));
        assert_eq!(head.current_age(at(25)), secs(35));
        let stepped = Now { wall: wall(-100_000), ..at(25) };
        assert_eq!(head.current_age(stepped), secs(35));
    }

    #[test]
    fn ttl_is_positive_while_fresh_and_negative_once_stale() {
        let head = stored("Cache-Control: max-age=60");
        let after = |millis| {
            let Now { wall, mono } = at(0);
            let since = Duration::from_millis(millis);
            head.ttl(Now { wall: wall + since, mono: mono + since })
        };
        let rows =
            [(0, 60), (1, 60), (1000, 59), (59_999, 1), (60_000, 0), (60_001, -1), (72_000, -12)];
        for (millis, want) in rows {
            assert_eq!(after(millis), want, "after {millis} ms");
        }
    }

    #[test]
    fn limits_of_stale_use_follow_from_directives_and_policy() {
        let hour = 3_600;
        let (day, week) = (24 * hour, 7 * 24 * hour);
        let rows = [
            // Cache-Control; while revalidating, on error, disconnected: in `cdn`, in `rfc`
            ("max-age=1", [0, day, day], [0, 0, week]),
            ("max-age=1, stale-while-revalidate=5", [5, day, day], [5, 0, week]),
            ("max-age=1, stale-if-error=5", [0, 5, 5], [0, 5, 5]),
            ("max-age=1, stale-if-error=0", [0, 0, 0], [0, 0, 0]),
            ("max-age=1, stale-if-error=x", [0, 0, 0], [0, 0, 0]),
            ("max-age=1, stale-if-error=9999999", [0, week, week], [0, week, week]), // stale_max
            ("max-age=1, stale-while-revalidate=9999999", [week, day, day], [week, 0, week]),
            ("max-age=1, must-revalidate, stale-if-error=5", [0, 0, 0], [0, 0, 0]), // §4.2.4
            ("max-age=1, proxy-revalidate, stale-while-revalidate=5", [0, 0, 0], [0, 0, 0]),
            ("no-cache, max-age=1, stale-if-error=5", [0, 0, 0], [0, 0, 0]),
            ("no-cache=\"x\", max-age=1, stale-if-error=5", [0, 5, 5], [0, 5, 5]),
            ("s-maxage=1", [0, 0, 0], [0, 0, 0]), // §5.2.2.10
            ("s-maxage=1, stale-while-revalidate=5", [5, 0, 0], [0, 0, 0]),
            ("s-maxage=1, stale-if-error=5", [0, 5, 5], [0, 0, 0]),
            ("s-maxage=1, must-revalidate, stale-if-error=5", [0, 0, 0], [0, 0, 0]),
        ];
        for (cache_control, cdn, rfc) in rows {
            let response = format!("Cache-Control: {cache_control}\nETag: \"a\"");
            for (policy, want) in [(Policy::cdn(), cdn), (Policy::rfc(), rfc)] {
                let head = store(&response, &policy).unwrap();
                let got =
                    [head.stale_while_revalidate, head.stale_if_error, head.stale_if_disconnected];
                assert_eq!(got.map(|limit| limit.as_secs()), want, "{cache_control:?}");
            }
        }
    }

    #[test]
    fn a_304_updates_fields_lifetime_and_age() {
        let first = stored(
            "Cache-Control: max-age=1\nETag: \"a\"\nDate: @0\nX-Kept: 1\nX-Two: 1\nX-Two: 2
             Content-Length: 3\nContent-Encoding: gzip\nContent-Type: text/html\nVary: Foo
             X-Hop: kept\nAge: 500",
        );
        let not_modified = headers(
            "Cache-Control: max-age=60\nETag: \"a\"\nDate: @98\nX-Two: 3\nX-Two: 4\nX-New: 5
             Content-Length: 0\nContent-Encoding: br\nContent-Type: text/plain\nVary: Bar
             Connection: X-Hop\nX-Hop: gone\nAge: 4\nSet-Cookie: a=1",
        );
        let head = first.freshened(&not_modified, &Policy::cdn(), &exchange_at(100));
        let want = headers(
            "Cache-Control: max-age=60\nETag: \"a\"\nDate: @98\nX-Kept: 1\nX-Two: 3\nX-Two: 4
             X-New: 5\nContent-Length: 3\nContent-Encoding: gzip\nContent-Type: text/plain
             Vary: Foo\nX-Hop: kept",
        );
        assert_eq!(head.headers, want);
        assert_eq!(head.vary, first.vary);
        assert_eq!(head.lifetime, secs(60));
        assert_eq!(head.initial_age, secs(4));
        assert_eq!(head.current_age(at(110)), secs(14));
        let rfc = first.freshened(&not_modified, &Policy::rfc(), &exchange_at(100));
        assert!(rfc.headers.contains_key(SET_COOKIE));
    }

    #[test]
    fn a_304_without_a_date_or_age_makes_the_response_new_at_its_arrival() {
        let first = stored("Cache-Control: max-age=10\nETag: \"a\"\nDate: @-9\nAge: 9");
        let head = first.freshened(&HeaderMap::new(), &Policy::cdn(), &exchange_at(100));
        assert_eq!(head.initial_age, secs(0));
        assert_eq!(head.date, wall(100));
        assert_eq!(head.ttl(at(100)), 10);
    }

    #[test]
    fn a_304_that_takes_the_permission_back_leaves_nothing_but_validation() {
        let rows = [
            ("", "Cache-Control: no-store, max-age=60"),
            ("", "Cache-Control: private, max-age=60"),
            ("Authorization: x", "Cache-Control: max-age=60"),
        ];
        for (request, not_modified) in rows {
            let stored = "Cache-Control: public, max-age=60\nETag: \"a\"";
            let first = store_for(request, 200, stored, &Policy::cdn()).unwrap();
            let head = first.freshened(&headers(not_modified), &Policy::cdn(), &exchange_at(1));
            assert!(!first.no_cache && head.no_cache, "{not_modified}");
            assert_eq!(head.stale_if_error, secs(0), "{not_modified}");
            assert_eq!(head.stale_if_disconnected, secs(0), "{not_modified}");
        }
    }

    #[test]
    fn a_304_that_names_other_selecting_fields_selects_by_its_own_request() {
        let stored = "Cache-Control: max-age=60\nETag: \"a\"\nVary: Foo";
        let first = store_for("Foo: 1", 200, stored, &Policy::cdn()).unwrap();
        let request = headers("Foo: 1\nBar: 2");
        let rows = [
            // Vary of the 304, next request, selected, only after validation
            ("", "Foo: 1", true, false),
            ("Vary: foo", "Foo: 1", true, false),
            ("Vary: Bar", "Foo: 1", false, false),
            ("Vary: Bar", "Foo: 9\nBar: 2", true, false),
            ("Vary: Foo, Bar", "Foo: 1\nBar: 3", false, false),
            ("Vary: Foo\nVary: Bar", "Foo: 1\nBar: 2", true, false),
            ("Vary: Foo\nVary: *", "Foo: 1", true, true),
        ];
        for (not_modified, next, selected, bound) in rows {
            let update = headers(not_modified);
            let head = first.freshened(&update, &Policy::cdn(), &exchange_at(1));
            let head = head.reselected(&request, &update, &Policy::cdn());
            assert_eq!(head.vary.matches(&headers(next)), selected, "{not_modified:?} {next:?}");
            assert_eq!(head.no_cache, bound, "{not_modified:?}");
        }
    }

    #[test]
    fn conditions_of_a_client_are_answered_from_a_success_only() {
        let request = headers("If-None-Match: \"a\"");
        let view = RequestView { method: &Method::GET, headers: &request };
        let response = "Cache-Control: max-age=60\nETag: \"a\"";
        for (status, want) in [(200, Precondition::NotModified), (404, Precondition::Proceed)] {
            let head = store_for("", status, response, &Policy::cdn()).unwrap();
            assert_eq!(head.precondition(&view), want, "{status}"); // RFC 9110 §13.2.1
        }
    }
}
