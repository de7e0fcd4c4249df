//! What a token's claims make of its bearer.
//!
//! ```json
//! {"sub": "agent-7", "exp": 1900000000, "tenant": "team-a", "scope": "write read",
//!  "luminate": {"tenant": "team-a", "tenants": ["team-a-*"], "scopes": ["read"], "labels": {"site": "berlin"},
//!               "filters": ["{env=\"prod\"}"], "limits": {"samples_per_second": 50000}}}
//! ```
//!
//! Nothing is guessed. A token that does not name its tenant is not taken, nor is one with a claim of the wrong kind: who
//! wrote it meant something that we would not do. What the `luminate` claim says about tenants or scopes
//! holds in the place of the general claims; what it says about labels, filters and limits only narrows.
//!
//! * [`standard`]: when a token is good, for whom, from whom.
//! * [`luminate`]: our own claim.
//! * [`vm_access`]: VictoriaMetrics' claim, if that is switched on.

pub(super) mod luminate;
pub(super) mod standard;
pub(super) mod vm_access;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::refusal::{Reason, Refusal, shown};
use crate::{
    gateway::auth::{Known, Principal, Scope, Scopes, TenantAccess, TenantPattern, grant},
    model::{Matcher, TenantId},
};

/// A token's claims.
pub(super) type Claims = Map<String, Value>;

/// No more sets of matchers stand before every read.
const MAX_FILTERS: usize = 64;

/// Where to look for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRules {
    /// The claim that names the tenant; with dots between, a claim within others.
    pub tenant: String,
    /// The claim that lists scopes.
    pub scopes: String,
    /// What is allowed by a token that says nothing about it; nothing refuses such a token.
    pub default_scopes: Scopes,
    /// Whether `vm_access` is looked at.
    pub vm_access: bool,
}

impl Default for ClaimRules {
    fn default() -> Self {
        Self {
            tenant: "tenant".to_owned(),
            scopes: "scope".to_owned(),
            default_scopes: Scopes::default(),
            vm_access: false,
        }
    }
}

/// Who has these claims, and what that lets them do.
pub(super) fn principal(claims: &Claims, rules: &ClaimRules) -> Result<Principal, Refusal> {
    let ours = luminate::read(claims)?;
    let theirs = if rules.vm_access { vm_access::read(claims)? } else { vm_access::VmAccess::default() };
    let tenants = match (ours.tenants, at(claims, &rules.tenant)) {
        (Some(tenants), _) => tenants,
        (None, Some(value)) => tenants_of(value, &rules.tenant)?,
        (None, None) => theirs.tenant.map(TenantAccess::only).ok_or_else(|| {
            Refusal::new(Reason::Tenant, format!("it names no tenant (claim {})", rules.tenant))
        })?,
    };
    let said = match ours.scopes {
        // Who lists scopes here means ours; that there is none does not call for a default.
        Some(scopes) if scopes.is_empty() => {
            return Err(Refusal::new(Reason::Scope, "luminate.scopes has no scope that there is"));
        }
        Some(scopes) => Some(scopes),
        None => scopes_said(claims, &rules.scopes)?,
    };
    let scopes = match (said.filter(|scopes| !scopes.is_empty()), theirs.scopes) {
        // Each only narrows the other: a mode is not there to give more than the scopes.
        (Some(said), Some(mode)) => intersection(said, mode),
        (Some(scopes), None) | (None, Some(scopes)) => scopes,
        (None, None) => rules.default_scopes,
    };
    if scopes.is_empty() {
        return Err(Refusal::new(Reason::Scope, "it does not say what its bearer may do"));
    }
    let mut stamps = ours.stamps;
    for (name, value) in theirs.stamps {
        match stamps.iter().find(|(other, _)| *other == name) {
            Some((_, other)) if *other != value => {
                return Err(claims_wrong(format!("it stamps the label {} in two ways", shown(&name))));
            }
            Some(_) => {}
            None => stamps.push((name, value)),
        }
    }
    stamps.sort_unstable();
    Ok(Principal {
        name: name(claims),
        known: Known::Token,
        scopes,
        tenants,
        stamps,
        filters: both(ours.filters, theirs.filters)?,
        limits: ours.limits,
    })
}

/// The claim at a path, of which a part may have dots itself: `https://example.com/tenant` is a claim, too.
fn at<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(dot, _)| at(claims.get(&path[..dot])?.as_object()?, &path[dot + 1..]))
}

/// Who it is, for logs.
fn name(claims: &Claims) -> String {
    const MOST: usize = 128;
    let named = ["sub", "client_id", "azp"].iter().find_map(|claim| claims.get(*claim)?.as_str());
    let name: String = named.unwrap_or_default().chars().filter(|c| !c.is_control()).take(MOST).collect();
    if name.is_empty() { "token".to_owned() } else { name }
}

fn claims_wrong(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Claims, detail)
}

/// One tenant, or a list whose first is the one of requests that name none.
fn tenants_of(value: &Value, claim: &str) -> Result<TenantAccess, Refusal> {
    match value {
        Value::String(name) => Ok(TenantAccess::only(tenant(name, claim)?)),
        Value::Array(items) => {
            let mut patterns = patterns_of(items, claim)?;
            let default = match patterns.first() {
                Some(TenantPattern::One(tenant)) => Some(tenant.clone()),
                Some(TenantPattern::Prefix(_)) | None => None,
            };
            if default.is_some() {
                patterns.remove(0);
            }
            Ok(TenantAccess { default, others: patterns })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(Refusal::new(Reason::Tenant, format!("{claim} is neither a tenant nor a list of tenants")))
        }
    }
}

fn patterns_of(items: &[Value], claim: &str) -> Result<Vec<TenantPattern>, Refusal> {
    if items.is_empty() {
        return Err(Refusal::new(Reason::Tenant, format!("{claim} is an empty list")));
    }
    let wrong = || Refusal::new(Reason::Tenant, format!("{claim} has something in it that is no text"));
    items.iter().map(|item| pattern(item.as_str().ok_or_else(wrong)?, claim)).collect()
}

fn pattern(text: &str, claim: &str) -> Result<TenantPattern, Refusal> {
    if text.trim_end_matches('*').contains('*') || text.ends_with("**") {
        return Err(star(text, claim));
    }
    grant::tenant_pattern(text).map_err(|e| Refusal::new(Reason::Tenant, format!("{claim}: {e}")))
}

/// A tenant's name. A star in it is taken for a pattern out of place, although names may have stars.
fn tenant(name: &str, claim: &str) -> Result<TenantId, Refusal> {
    if name.contains('*') {
        let detail =
            format!("{claim} has a star, which is taken at the end and in a list only: {}", shown(name));
        return Err(Refusal::new(Reason::Tenant, detail));
    }
    TenantId::new(name).map_err(|e| Refusal::new(Reason::Tenant, format!("{claim}: {e}")))
}

fn star(text: &str, claim: &str) -> Refusal {
    let detail = format!("{claim} has a star, which is taken at the end and in a list only: {}", shown(text));
    Refusal::new(Reason::Tenant, detail)
}

/// What the claim of scopes lists; `scp` is the other name under which issuers have it.
fn scopes_said(claims: &Claims, path: &str) -> Result<Option<Scopes>, Refusal> {
    let elsewhere = || if path == "scope" { claims.get("scp") } else { None };
    at(claims, path).or_else(elsewhere).map(|value| scopes_of(value, path)).transpose()
}

/// The scopes that are ours among those of a text with spaces between, or of a list.
fn scopes_of(value: &Value, claim: &str) -> Result<Scopes, Refusal> {
    let wrong = || Refusal::new(Reason::Scope, format!("{claim} is neither text nor a list of texts"));
    match value {
        Value::String(names) => Ok(names.split(' ').filter_map(Scope::of_name).collect()),
        Value::Array(items) => {
            let names = items.iter().map(|item| item.as_str().ok_or_else(wrong));
            Ok(names.collect::<Result<Vec<_>, _>>()?.into_iter().filter_map(Scope::of_name).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(wrong()),
    }
}

/// What two sets both allow.
fn intersection(a: Scopes, b: Scopes) -> Scopes {
    Scope::ALL.into_iter().filter(|scope| a.allow(*scope) && b.allow(*scope)).collect()
}

/// Selectors that narrow, one of which must match.
fn filters_of(selectors: Vec<String>) -> Result<Vec<Vec<Matcher>>, Refusal> {
    if selectors.len() > MAX_FILTERS {
        return Err(claims_wrong(format!("it has more than {MAX_FILTERS} filters")));
    }
    grant::filters(&selectors).map_err(|e| claims_wrong(e.to_string()))
}

/// The sets of matchers that let through what both let through; no sets at all let everything through.
fn both(ours: Vec<Vec<Matcher>>, theirs: Vec<Vec<Matcher>>) -> Result<Vec<Vec<Matcher>>, Refusal> {
    if ours.is_empty() || theirs.is_empty() {
        return Ok(if ours.is_empty() { theirs } else { ours });
    }
    if ours.len() * theirs.len() > MAX_FILTERS {
        return Err(claims_wrong(format!("its filters make more than {MAX_FILTERS} together")));
    }
    Ok(ours.iter().flat_map(|a| theirs.iter().map(move |b| [a.as_slice(), b].concat())).collect())
}

/// Labels that are stamped on writes.
fn stamps_of(labels: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, Refusal> {
    grant::stamps(labels).map_err(|e| claims_wrong(e.to_string()))
}

/// A list of texts.
fn texts(value: &Value, claim: &str) -> Result<Vec<String>, Refusal> {
    let wrong = || claims_wrong(format!("{claim} is no list of texts"));
    let items = value.as_array().ok_or_else(wrong)?;
    items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
}

/// An object of texts.
fn text_map(value: &Value, claim: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let wrong = || claims_wrong(format!("{claim} is no object of texts"));
    let entries = value.as_object().ok_or_else(wrong)?;
    let entry = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    entries.iter().map(|one| entry(one).ok_or_else(wrong)).collect()
}
