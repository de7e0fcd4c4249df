//! Our own claim: tenants, scopes, labels, filters and limits of one token.

use serde_json::Value;

use super::{Claims, claims_wrong, filters_of, patterns_of, scopes_of, stamps_of, tenant, text_map, texts};
use crate::gateway::auth::{LimitOverrides, Scopes, TenantAccess, TenantPattern};
use crate::{
    gateway::auth::jwt::refusal::{Reason, Refusal, shown},
    model::Matcher,
};

/// The claim's name.
const CLAIM: &str = "luminate";

/// What the claim says.
#[derive(Debug, Default)]
pub(super) struct Luminate {
    pub(super) tenants: Option<TenantAccess>,
    pub(super) scopes: Option<Scopes>,
    pub(super) stamps: Vec<(String, String)>,
    /// One of them must match.
    pub(super) filters: Vec<Vec<Matcher>>,
    pub(super) limits: LimitOverrides,
}

/// Reads the claim. A name in it that is not known is an error: it may be a misspelt fence.
pub(super) fn read(claims: &Claims) -> Result<Luminate, Refusal> {
    let mut ours = Luminate::default();
    let Some(claim) = claims.get(CLAIM) else { return Ok(ours) };
    let claim = claim.as_object().ok_or_else(|| claims_wrong("luminate is no object"))?;
    let (mut default, mut others) = (None, None);
    for (name, value) in claim {
        match name.as_str() {
            "tenant" => default = Some(one_tenant(value)?),
            "tenants" => others = Some(patterns_of(list(value, "luminate.tenants")?, "luminate.tenants")?),
            "scopes" => ours.scopes = Some(scopes_of(value, "luminate.scopes")?),
            "labels" => ours.stamps = stamps_of(&text_map(value, "luminate.labels")?)?,
            "filters" => ours.filters = filters(value)?,
            "limits" if !value.is_object() => return Err(claims_wrong("luminate.limits is no object")),
            "limits" => {
                ours.limits = LimitOverrides::read(value)
                    .map_err(|wrong| claims_wrong(format!("luminate.limits: {wrong}")))?;
            }
            other => return Err(claims_wrong(format!("{} is nothing that luminate has", shown(other)))),
        }
    }
    ours.tenants = match (default, others) {
        (None, None) => None,
        (Some(default), others) => {
            Some(TenantAccess { default: Some(default), others: others.unwrap_or_default() })
        }
        (None, Some(mut others)) => match others.first() {
            Some(TenantPattern::One(first)) => {
                let default = Some(first.clone());
                others.remove(0);
                Some(TenantAccess { default, others })
            }
            Some(TenantPattern::Prefix(_)) | None => Some(TenantAccess { default: None, others }),
        },
    };
    Ok(ours)
}

fn one_tenant(value: &Value) -> Result<crate::model::TenantId, Refusal> {
    let wrong = || Refusal::new(Reason::Tenant, "luminate.tenant is no text");
    tenant(value.as_str().ok_or_else(wrong)?, "luminate.tenant")
}

fn list<'a>(value: &'a Value, claim: &str) -> Result<&'a [Value], Refusal> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| claims_wrong(format!("{claim} is no list")))
}

/// An empty list is an error: its writer had filters in mind, and none at all is everything.
fn filters(value: &Value) -> Result<Vec<Vec<Matcher>>, Refusal> {
    let selectors = texts(value, "luminate.filters")?;
    if selectors.is_empty() {
        return Err(claims_wrong("luminate.filters is an empty list"));
    }
    filters_of(selectors)
}
