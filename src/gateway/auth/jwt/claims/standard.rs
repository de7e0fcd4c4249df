//! The claims that every token has: when it is good, who issued it, for whom, and its name.

use std::time::Duration;

use serde_json::Value;

use super::{Claims, claims_wrong};
use crate::{
    gateway::auth::jwt::refusal::{Reason, Refusal, shown},
    model::Timestamp,
};

/// The last second of the year 9999. Nothing later was meant.
const LAST: i64 = 253_402_300_799;

/// What is asked of every token, whatever its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandardRules {
    /// Whom it has to be for; nobody is whoever.
    pub audience: Vec<String>,
    /// What it has to be for (`typ` in its header); none is whatever.
    pub typ: Option<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

impl Default for StandardRules {
    fn default() -> Self {
        Self { audience: Vec::new(), typ: None, leeway: Duration::from_secs(30) }
    }
}

/// What a token says about when it is good, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    exp: i64,
    nbf: Option<i64>,
    iat: Option<i64>,
}

impl Times {
    /// Reads them: whole seconds from 1970 to 9999.
    pub(crate) fn of(claims: &Claims) -> Result<Self, Refusal> {
        let exp =
            seconds(claims, "exp")?.ok_or_else(|| claims_wrong("it does not say when it expires (exp)"))?;
        Ok(Self { exp, nbf: seconds(claims, "nbf")?, iat: seconds(claims, "iat")? })
    }

    /// From when on it is of no use any more.
    pub(crate) fn end(self, leeway: Duration) -> Timestamp {
        Timestamp(self.exp.saturating_add(whole(leeway)).saturating_mul(1000))
    }

    /// Whether it is good at a moment.
    pub(crate) fn check(self, now: Timestamp, leeway: Duration) -> Result<(), Refusal> {
        if now >= self.end(leeway) {
            return Err(Refusal::new(Reason::Expired, format!("it was good until {}", self.exp)));
        }
        for (claim, from) in [("nbf", self.nbf), ("iat", self.iat)] {
            let from = from.unwrap_or(0);
            if now.0 < from.saturating_sub(whole(leeway)).saturating_mul(1000) {
                return Err(Refusal::new(Reason::NotYet, format!("it is good from {from} ({claim})")));
            }
        }
        Ok(())
    }
}

fn whole(leeway: Duration) -> i64 {
    i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX)
}

fn seconds(claims: &Claims, claim: &str) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    let seconds = value.as_i64().filter(|seconds| (0..=LAST).contains(seconds));
    seconds
        .map(Some)
        .ok_or_else(|| claims_wrong(format!("{claim} is no whole number of seconds from 1970 to 9999")))
}

/// Whether a token is for the use that is asked for. `typ` may leave out the `application/` of its media type.
pub(crate) fn check_type(typ: Option<&str>, rules: &StandardRules) -> Result<(), Refusal> {
    fn bare(typ: &str) -> String {
        let typ = typ.to_ascii_lowercase();
        typ.strip_prefix("application/").unwrap_or(&typ).to_owned()
    }
    match (&rules.typ, typ) {
        (None, _) => Ok(()),
        (Some(wanted), Some(typ)) if bare(wanted) == bare(typ) => Ok(()),
        (Some(wanted), typ) => {
            let typ = typ.map_or_else(|| "nothing".to_owned(), shown);
            Err(Refusal::new(Reason::Type, format!("it is for {typ}, not {wanted} (typ)")))
        }
    }
}

/// Whether the right one issued it.
pub(crate) fn check_issuer(claims: &Claims, wanted: Option<&str>) -> Result<(), Refusal> {
    let said = claims.get("iss");
    match (wanted, said) {
        (None, None | Some(Value::String(_))) => Ok(()),
        (Some(wanted), Some(Value::String(issuer))) if issuer == wanted => Ok(()),
        (Some(wanted), Some(Value::String(issuer))) => {
            Err(Refusal::new(Reason::Issuer, format!("{} issued it, not {wanted}", shown(issuer))))
        }
        (Some(wanted), None) => {
            Err(Refusal::new(Reason::Issuer, format!("it does not say that {wanted} issued it")))
        }
        (_, Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
            Err(Refusal::new(Reason::Issuer, "iss is no text"))
        }
    }
}

/// Whether it is for us.
pub(crate) fn check_audience(claims: &Claims, wanted: &[String]) -> Result<(), Refusal> {
    let refuse = |detail: &str| Err(Refusal::new(Reason::Audience, detail));
    let ours =
        |audience: &Value| audience.as_str().is_some_and(|audience| wanted.iter().any(|w| w == audience));
    match claims.get("aud") {
        Some(Value::Array(audiences)) if !audiences.iter().all(Value::is_string) => {
            refuse("aud is no list of texts")
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            refuse("aud is neither text nor a list of texts")
        }
        None | Some(Value::String(_) | Value::Array(_)) if wanted.is_empty() => Ok(()),
        Some(audience @ Value::String(_)) if ours(audience) => Ok(()),
        Some(Value::Array(audiences)) if audiences.iter().any(ours) => Ok(()),
        Some(Value::String(_) | Value::Array(_)) => refuse("it is for somebody else (aud)"),
        None => refuse("it does not say for whom it is (aud)"),
    }
}

/// A token's name, by which it can be taken back.
pub(crate) fn id(claims: &Claims) -> Result<Option<&str>, Refusal> {
    match claims.get("jti") {
        None => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(claims_wrong("jti is no text"))
        }
    }
}
