//! What is kept of a key: whose it is and what it may, but not its secret.
//!
//! The same fields in the same form, whether a record stands in a YAML file or as JSON in Redis:
//!
//! ```yaml
//! id: 4fQzR81bXk2C
//! sha256: 9f86d0…                   # of the secret
//! name: prometheus of team a
//! tenant: team-a                    # for whom, if the request names nobody
//! tenants: [team-b, "shared-*"]     # for whom else
//! scopes: [write, read]
//! labels: {team: a}                 # stamped on what is written
//! filters: ['{env="prod"}']         # one of them must match what is read
//! limits: {samples_per_second: 1000}
//! created: 2026-01-01T00:00:00Z
//! expires: 2027-01-01T00:00:00Z
//! disabled: true                    # for a while
//! revoked: 2026-06-01T00:00:00Z     # for ever
//! ```
//!
//! Fields that are not known make a record unreadable: one of them could have narrowed what the key may.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::key::{KeyId, Sha256};
use crate::{
    gateway::{
        auth::{
            Known, LimitOverrides, Principal, Scope,
            grant::{self, GrantError},
        },
        limit::overrides::OverrideErrors,
    },
    model::Timestamp,
};

/// What is kept of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Which key.
    pub id: KeyId,
    /// The hash of its secret.
    pub sha256: Sha256,
    /// What it is for, in its owner's words; at most [`MAX_NAME_BYTES`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// For whom it is, if a request names nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// For whom else, by name or pattern.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// What it may.
    pub scopes: Vec<String>,
    /// Labels that each series written with it gets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Selectors, one of which must match what is read with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// Limits of its own, by name.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub limits: serde_json::Map<String, serde_json::Value>,
    /// When it was made.
    #[serde(default, with = "date", skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it ends.
    #[serde(default, with = "date", skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Out of use, for a while.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// Out of use for ever, since then.
    #[serde(default, with = "date", skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

/// The longest name of a key, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// Why a record is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// What it grants cannot be understood.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// It grants nothing.
    #[error("no scope is given")]
    NoScope,
    /// It is for nobody, and not for operating the server either.
    #[error("no tenant is given")]
    NoTenant,
    /// A limit is wrong.
    #[error("limits: {0}")]
    Limits(#[from] OverrideErrors),
    /// The name is too long, or would garble a terminal.
    #[error("the name must be at most {MAX_NAME_BYTES} bytes without control characters")]
    Name,
}

impl KeyRecord {
    /// Who the key's holder is; fails if the record says something that cannot be understood, so that who
    /// keeps records can tell early.
    pub fn principal(&self) -> Result<Principal, RecordError> {
        if self.name.len() > MAX_NAME_BYTES || self.name.contains(char::is_control) {
            return Err(RecordError::Name);
        }
        let scopes = grant::scopes(self.scopes.iter().map(String::as_str))?;
        let tenants = grant::tenants(self.tenant.as_deref(), &self.tenants)?;
        if scopes.is_empty() {
            return Err(RecordError::NoScope);
        }
        if tenants.default.is_none() && tenants.others.is_empty() && !scopes.allow(Scope::Admin) {
            return Err(RecordError::NoTenant);
        }
        Ok(Principal {
            name: if self.name.is_empty() { self.id.to_string() } else { self.name.clone() },
            known: Known::Key(self.id.to_string()),
            scopes,
            tenants,
            stamps: grant::stamps(&self.labels)?,
            filters: grant::filters(&self.filters)?,
            limits: LimitOverrides::read(&serde_json::Value::Object(self.limits.clone()))?,
        })
    }

    /// Whether it is in use at a moment, or why not.
    pub fn is_in_use(&self, now: Timestamp) -> Result<(), OutOfUse> {
        if self.revoked.is_some() {
            Err(OutOfUse::Revoked)
        } else if self.disabled {
            Err(OutOfUse::Disabled)
        } else if self.expires.is_some_and(|end| end <= now) {
            Err(OutOfUse::Expired)
        } else {
            Ok(())
        }
    }
}

/// Why a key that exists does not let its holder in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfUse {
    /// For ever.
    Revoked,
    /// For a while.
    Disabled,
    /// Its time is over.
    Expired,
}

impl OutOfUse {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
        }
    }

    /// The name under which it is counted.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Revoked => "revoked_key",
            Self::Disabled => "disabled_key",
            Self::Expired => "expired_key",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Moments as RFC 3339 has them.
mod date {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::model::Timestamp;

    pub(super) fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(at) = at else { return serializer.serialize_none() };
        let date = jiff::Timestamp::from_millisecond(at.millis()).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&date)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let date: jiff::Timestamp = text.parse().map_err(|_| {
            D::Error::custom(format!("{text:?} is not a date, write for example 2026-01-31T00:00:00Z"))
        })?;
        Ok(Some(Timestamp(date.as_millisecond())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantId;

    const WHOLE: &str = r#"{
        "id": "4fQzR81bXk2C",
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "name": "prometheus of team a", "tenant": "team-a", "tenants": ["shared-*"],
        "scopes": ["write", "read"], "labels": {"team": "a"}, "filters": ["{env=\"prod\"}"],
        "limits": {"samples_per_second": 1000, "max_query_range": "30d"},
        "created": "2026-01-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z",
        "disabled": true, "revoked": "2026-06-01T00:00:00Z"
    }"#;

    fn read(json: &str) -> KeyRecord {
        serde_json::from_str(json).unwrap()
    }

    fn bare() -> KeyRecord {
        let json = r#"{"id": "aaaaaaaaaaaa", "tenant": "a", "scopes": ["read"],
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#;
        read(json)
    }

    #[test]
    fn a_record_reads_back_from_json_and_yaml() {
        for record in [read(WHOLE), bare()] {
            let json = serde_json::to_string(&record).unwrap();
            assert_eq!(read(&json), record, "{json}");
            let yaml = serde_yaml::to_string(&record).unwrap();
            assert_eq!(serde_yaml::from_str::<KeyRecord>(&yaml).unwrap(), record, "{yaml}");
        }
    }

    #[test]
    fn a_record_tells_who_its_holder_is() {
        let principal = read(WHOLE).principal().unwrap();
        assert_eq!(principal.name, "prometheus of team a");
        assert_eq!(principal.known, Known::Key("4fQzR81bXk2C".to_owned()));
        assert!(principal.scopes.allow(Scope::Write) && !principal.scopes.allow(Scope::Delete));
        let allows = |name: &str| principal.tenants.allows(&TenantId::new(name).unwrap());
        assert!(allows("team-a") && allows("shared-x") && !allows("team-b"));
        assert_eq!(principal.stamps, [("team".to_owned(), "a".to_owned())]);
        assert_eq!(principal.filters.len(), 1);
        assert_eq!(principal.limits.values.len(), 2);
        assert_eq!(bare().principal().unwrap().name, "aaaaaaaaaaaa");
    }

    #[test]
    fn a_record_that_is_not_understood_is_of_no_use() {
        let with = |change: fn(&mut KeyRecord)| {
            let mut record = bare();
            change(&mut record);
            record.principal().unwrap_err().to_string()
        };
        assert_eq!(with(|r| r.scopes.clear()), "no scope is given");
        assert_eq!(with(|r| r.tenant = None), "no tenant is given");
        assert!(with(|r| r.scopes = vec!["raed".to_owned()]).contains("\"raed\" is not a scope"));
        assert!(with(|r| r.tenant = Some("*".to_owned())).contains("is a pattern"));
        assert!(with(|r| r.filters = vec!["{}".to_owned()]).contains("filter \"{}\""));
        assert!(with(|r| r.labels = BTreeMap::from([("__name__".into(), "x".into())])).contains("__name__"));
        assert!(with(|r| drop(r.limits.insert("samples".into(), 1.into()))).contains("limits: samples"));
        assert!(with(|r| r.name = "a\u{1b}[2J".to_owned()).contains("control characters"));
        assert!(with(|r| r.name = "a".repeat(201)).contains("200 bytes"));
        let mut operator = bare();
        (operator.tenant, operator.scopes) = (None, vec!["admin".to_owned()]);
        assert!(operator.principal().is_ok());
    }

    #[test]
    fn fields_that_are_not_known_and_dates_that_are_none_are_errors() {
        for (field, said) in [
            ("\"filter\": [\"{env=\\\"prod\\\"}\"]", "unknown field `filter`"),
            ("\"expires\": \"tomorrow\"", "\"tomorrow\" is not a date"),
            ("\"expires\": 1767225600", "expected a string"),
            ("\"disabled\": \"yes\"", "expected a boolean"),
            ("\"tenants\": \"b\"", "expected a sequence"),
        ] {
            let json = serde_json::to_string(&bare()).unwrap();
            let json = format!("{},{field}}}", json.strip_suffix('}').unwrap());
            let error = serde_json::from_str::<KeyRecord>(&json).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_key_is_in_use_until_it_ends() {
        let end = Timestamp(1000);
        let ending = KeyRecord { expires: Some(end), ..bare() };
        assert_eq!(ending.is_in_use(Timestamp(999)), Ok(()));
        assert_eq!(ending.is_in_use(end), Err(OutOfUse::Expired));
        let disabled = KeyRecord { disabled: true, ..bare() };
        assert_eq!(disabled.is_in_use(end), Err(OutOfUse::Disabled));
        let revoked = KeyRecord { revoked: Some(end), ..disabled };
        assert_eq!(revoked.is_in_use(Timestamp(0)), Err(OutOfUse::Revoked));
    }
}
