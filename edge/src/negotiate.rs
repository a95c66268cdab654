//! Which form of a stored response a request gets: as it came, or in a coding that was made of it
//! (RFC 9110 §12.5.3); and what is to be made for the next one.
//!
//! A client that says by `If-None-Match` which form it has is answered about that one. A `Range`
//! is cut from the unencoded form, whose bytes are there from the beginning and stay what they
//! are, unless `If-Range` names another. An `If-Range` with a date holds for no response that has
//! several forms: they share the date.

use std::borrow::Cow;

use http::{HeaderMap, Method, StatusCode, header};
use meridian_edge_rules::coding::{Accepted, Choice, Coding, choose};
use meridian_edge_rules::derived::{Held, derived, forbids_transformation, held, vary_by_coding};
use meridian_edge_rules::exchange::RequestView;
use meridian_edge_rules::stored::StoredHead;
use meridian_edge_rules::validate::EntityTag;

use crate::coder::Plan;
use crate::core::Core;
use crate::forms::Forms;
use crate::key::CacheKey;
use crate::route::Site;
use crate::store::Stored;
use crate::stored_body::StoredBody;

/// What a request gets.
#[derive(Debug)]
pub(crate) struct Form<'a, B> {
    pub(crate) head: Cow<'a, StoredHead>,
    pub(crate) body: B,
    /// Whether a `Range` may be heeded.
    pub(crate) ranges: bool,
}

/// The form of `stored` for `request`. `None`: the client refuses every one that there is.
pub(crate) fn of_stored<'a>(
    core: &Core,
    site: &Site,
    request: &RequestView<'_>,
    stored: &'a Stored,
) -> Option<Form<'a, &'a StoredBody>> {
    match (stored.forms(), &site.compression) {
        (Some(forms), Some(plan)) => among(core, plan, request, stored, forms),
        (None, _) | (_, None) => Some(as_it_came(stored.head(), stored.body())),
    }
}

/// The same of a response that is still arriving: as it comes, if at all.
pub(crate) fn of_arriving<'a>(
    request: &RequestView<'_>,
    head: &'a StoredHead,
    has_forms: bool,
) -> Option<Form<'a, ()>> {
    let whole = as_it_came(head, ());
    if !has_forms {
        return Some(whole);
    }
    let accepted = Accepted::of(request.headers);
    match held(request, head, accepted) {
        Some(Held::Identity) => Some(whole),
        Some(Held::Coded(coding, tag)) => Some(unmade(head, coding, tag, ())),
        None if accepted.accepts_identity() => {
            Some(Form { ranges: !is_dated(request.headers), ..whole })
        }
        None => None,
    }
}

/// Whether a response of `site` may be put into codings here once it is stored. If so its fields
/// say that the answer depends on what a client accepts.
pub(crate) fn will_have_forms(
    site: &Site,
    status: StatusCode,
    fields: &mut HeaderMap,
    length: Option<u64>,
) -> bool {
    let plan = site.compression.as_ref();
    let concerned = plan.is_some_and(|plan| plan.concerns(status, fields, length));
    if concerned {
        vary_by_coding(fields);
    }
    concerned
}

/// What a response that is about to be stored has in the place of forms: room for them, if it may
/// have any and all of it is here.
pub(crate) fn first_forms(
    site: &Site,
    key: &CacheKey,
    head: &mut StoredHead,
    body: &StoredBody,
) -> Option<Forms<StoredBody>> {
    let concerned = will_have_forms(site, head.status, &mut head.headers, Some(body.len()));
    (concerned && body.is_whole()).then(|| Forms::new(key.clone(), body.clone()))
}

/// Has made what a request like this would best get of what was just stored, if it was.
pub(crate) fn prepare(core: &Core, site: &Site, request: &HeaderMap, stored: Option<&Stored>) {
    if let (Some(forms), Some(plan)) = (stored.and_then(Stored::forms), &site.compression) {
        order(core, plan, forms, choose(Accepted::of(request), offer(plan, request)));
    }
}

/// The form that came.
pub(crate) fn as_it_came<B>(head: &StoredHead, body: B) -> Form<'_, B> {
    Form { head: Cow::Borrowed(head), body, ranges: true }
}

/// The form that a client has and that is not there: only to say that it is still good.
fn unmade<B>(head: &StoredHead, coding: Coding, tag: EntityTag, body: B) -> Form<'_, B> {
    Form { head: Cow::Owned(derived(head, coding, Some(tag), 0)), body, ranges: false }
}

fn among<'a>(
    core: &Core,
    plan: &Plan,
    request: &RequestView<'_>,
    stored: &'a Stored,
    forms: &'a Forms<StoredBody>,
) -> Option<Form<'a, &'a StoredBody>> {
    let fields = request.headers;
    let whole = as_it_came(stored.head(), stored.body());
    let coded = |coding| {
        let (head, body) = forms.form(stored.head(), coding)?;
        Some(Form { head: Cow::Borrowed(head), body, ranges: true })
    };
    let accepted = Accepted::of(fields);
    match held(request, stored.head(), accepted) {
        Some(Held::Identity) => return Some(whole),
        Some(Held::Coded(coding, tag)) => {
            let same = |form: &Form<'_, _>| form.head.validators.etag.as_ref() == Some(&tag);
            let made = coded(coding).filter(same);
            return made.or_else(|| Some(unmade(stored.head(), coding, tag, stored.body())));
        }
        None => {}
    }
    if *request.method == Method::GET && fields.contains_key(header::RANGE) {
        match fields.get(header::IF_RANGE).map(|field| EntityTag::parse(field.as_bytes())) {
            None if accepted.accepts_identity() => return Some(whole),
            Some(Some(tag)) => {
                let names = |form: &Form<'_, _>| {
                    form.head.validators.etag.as_ref().is_some_and(|ours| ours.strong_eq(&tag))
                };
                if accepted.accepts_identity() && names(&whole) {
                    return Some(whole);
                }
                let wanted = Coding::ALL.into_iter().filter(|coding| accepted.accepts(*coding));
                if let Some(form) = wanted.filter_map(coded).find(names) {
                    return Some(form);
                }
            }
            None | Some(None) => {}
        }
    }
    order(core, plan, forms, choose(accepted, offer(plan, fields)));
    let made = offer(plan, fields).filter(|coding| forms.bodies().coded(*coding).is_some());
    let form = match choose(accepted, made) {
        Choice::Identity => whole,
        Choice::Coded(coding) => coded(coding).unwrap_or(whole),
        Choice::NotAcceptable => return None,
    };
    Some(Form { ranges: !is_dated(fields), ..form })
}

/// The codings that may be used for a request: none, if it asks to leave content as it is.
fn offer(plan: &Plan, request: &HeaderMap) -> impl Iterator<Item = Coding> {
    let forbidden = forbids_transformation(request, &header::CACHE_CONTROL);
    plan.codings.iter().copied().filter(move |_| !forbidden)
}

fn order(core: &Core, plan: &Plan, forms: &Forms<StoredBody>, choice: Choice) {
    if let Choice::Coded(coding) = choice
        && forms.bodies().coded(coding).is_none()
    {
        core.edge.compressor.order(forms.bodies(), coding, plan.levels);
    }
}

/// Whether `If-Range` says anything but one tag.
fn is_dated(request: &HeaderMap) -> bool {
    let field = request.get(header::IF_RANGE);
    field.is_some_and(|field| EntityTag::parse(field.as_bytes()).is_none())
}
