//! The claim that VictoriaMetrics' gateways take, in both of its shapes.
//!
//! ```json
//! {"vm_access": {"tenant_id": {"account_id": 1, "project_id": 5}, "mode": 1,
//!                "extra_labels": {"team": "dev"}, "extra_filters": ["{env=~\"prod|dev\"}"]}}
//! {"vm_access": {"metrics_account_id": 1, "metrics_project_id": 5,
//!                "metrics_extra_labels": ["team=dev"], "metrics_extra_filters": ["{env=~\"prod|dev\"}"]}}
//! ```
//!
//! An account is a tenant: account 1 is `1`, and its project 5 is `1-5`; project 0 is the account itself, as it is there. Labels are
//! stamped on writes and must match on reads; of the filters one must match. The older shape has a mode: 0, which
//! is also that of a claim without one, is reading and writing, 1 reading, 2 writing.
//!
//! Unlike there, a claim without an account names no tenant; nobody is let in to account 0 for want of another.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Claims, claims_wrong, filters_of, stamps_of, text_map, texts};
use crate::{
    gateway::auth::{
        Scope, Scopes,
        jwt::{
            json,
            refusal::{Reason, Refusal, shown},
        },
    },
    model::{Matcher, TenantId},
};

const CLAIM: &str = "vm_access";

/// What the claim says.
#[derive(Debug, Default)]
pub(super) struct VmAccess {
    pub(super) tenant: Option<TenantId>,
    pub(super) scopes: Option<Scopes>,
    pub(super) stamps: Vec<(String, String)>,
    /// One of them must match.
    pub(super) filters: Vec<Vec<Matcher>>,
}

/// Reads the claim: an object, or one written as text.
pub(super) fn read(claims: &Claims) -> Result<VmAccess, Refusal> {
    let owned;
    let claim = match claims.get(CLAIM) {
        None => return Ok(VmAccess::default()),
        Some(Value::Object(claim)) => claim,
        Some(Value::String(text)) => {
            owned = json::object(text.as_bytes()).map_err(|e| claims_wrong(format!("vm_access {e}")))?;
            &owned
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
            return Err(claims_wrong("vm_access is neither an object nor the text of one"));
        }
    };
    let (mut access, mut older, mut newer) = (VmAccess::default(), false, false);
    let (mut labels, mut selectors) = (BTreeMap::new(), Vec::new());
    let mut mode = 0;
    for (name, value) in claim {
        match name.as_str() {
            "tenant_id" => {
                older = true;
                let ids =
                    value.as_object().ok_or_else(|| claims_wrong("vm_access.tenant_id is no object"))?;
                if let Some(unknown) = ids.keys().find(|key| *key != "account_id" && *key != "project_id") {
                    return Err(claims_wrong(format!(
                        "vm_access.tenant_id has an unknown {}",
                        shown(unknown)
                    )));
                }
                access.tenant = tenant(ids, "account_id", "project_id")?;
            }
            "mode" => {
                older = true;
                mode = number(value, "vm_access.mode")?;
            }
            "extra_labels" => {
                older = true;
                labels = text_map(value, "vm_access.extra_labels")?;
            }
            "metrics_account_id" | "metrics_project_id" => {
                newer = true;
                access.tenant = tenant(claim, "metrics_account_id", "metrics_project_id")?;
            }
            "metrics_extra_labels" => {
                newer = true;
                labels = labels_of_list(value)?;
            }
            "extra_filters" => {
                older = true;
                selectors = texts(value, "vm_access.extra_filters")?;
            }
            "metrics_extra_filters" => {
                newer = true;
                selectors = texts(value, "vm_access.metrics_extra_filters")?;
            }
            // What is about logs is not about us.
            logs if logs.starts_with("logs_") => {}
            other => return Err(claims_wrong(format!("{} is nothing that vm_access has", shown(other)))),
        }
    }
    if older && newer {
        return Err(claims_wrong("vm_access is of both shapes at once"));
    }
    if older {
        access.scopes = Some(scopes_of_mode(mode)?);
    }
    let always: Vec<Matcher> = labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
    let either = filters_of(selectors)?;
    access.filters = match (always.is_empty(), either.is_empty()) {
        (true, _) => either,
        (false, true) => vec![always],
        (false, false) => either.into_iter().map(|one| [always.as_slice(), &one].concat()).collect(),
    };
    access.stamps = stamps_of(&labels)?;
    Ok(access)
}

fn scopes_of_mode(mode: u32) -> Result<Scopes, Refusal> {
    match mode {
        0 => Ok([Scope::Read, Scope::Write].into_iter().collect()),
        1 => Ok([Scope::Read].into_iter().collect()),
        2 => Ok([Scope::Write].into_iter().collect()),
        _ => Err(Refusal::new(Reason::Scope, format!("vm_access.mode is {mode}, not 0, 1 or 2"))),
    }
}

fn number(value: &Value, claim: &str) -> Result<u32, Refusal> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| claims_wrong(format!("{claim} is no number that fits")))
}

/// A project without its account names nobody.
fn tenant(ids: &Map<String, Value>, account: &str, project: &str) -> Result<Option<TenantId>, Refusal> {
    let id = |name: &str| {
        let wrong = |_| Refusal::new(Reason::Tenant, format!("vm_access: {name} is no number that fits"));
        ids.get(name).map(|value| number(value, name).map_err(wrong)).transpose()
    };
    let name = match (id(account)?, id(project)?.unwrap_or(0)) {
        (None, _) => return Err(Refusal::new(Reason::Tenant, format!("vm_access has no {account}"))),
        (Some(account), 0) => account.to_string(),
        (Some(account), project) => format!("{account}-{project}"),
    };
    TenantId::new(&name).map(Some).map_err(|e| Refusal::new(Reason::Tenant, e.to_string()))
}

fn labels_of_list(value: &Value) -> Result<BTreeMap<String, String>, Refusal> {
    let mut labels = BTreeMap::new();
    for text in texts(value, "vm_access.metrics_extra_labels")? {
        let wrong = || claims_wrong(format!("{} in vm_access is not label=value", shown(&text)));
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        if labels.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(claims_wrong(format!("vm_access has the label {} twice", shown(name))));
        }
    }
    Ok(labels)
}
