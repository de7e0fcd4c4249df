//! What a credential lets its holder do, from text to types.
//!
//! Keys and tokens write the same things: tenants, scopes, labels, filters. They are read here, and whatever is not
//! understood is an error: a filter that is misspelt must not become no filter.

use std::collections::BTreeMap;

use super::{Scope, Scopes, TenantAccess, TenantPattern};
use crate::{
    model::{METRIC_NAME, Matcher, TenantId, TenantIdError},
    promql::parse::{matchers_all_match_empty, parse_selector},
};

/// Labels that say whose data it is, and so are never a caller's to choose.
const RESERVED_LABELS: [&str; 2] = [METRIC_NAME, "__tenant_id__"];

/// The longest filter, in bytes.
const MAX_FILTER_BYTES: usize = 4096;

/// Why what a credential says cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not a tenant's name or pattern.
    #[error("tenant {text:?}: {source}")]
    Tenant {
        /// What is written.
        text: String,
        /// What is wrong with it.
        source: TenantIdError,
    },
    /// Several tenants where one is meant.
    #[error("tenant {0:?} is a pattern, and a request that names nobody has to be for one tenant")]
    Pattern(String),
    /// Not a scope.
    #[error("{0:?} is not a scope, only write, read, delete, rules and admin are")]
    Scope(String),
    /// A label that cannot be stamped on series.
    #[error("label {name:?} {why}")]
    Label {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not a selector, or none that selects.
    #[error("filter {text:?}: {why}")]
    Filter {
        /// What is written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a tenant's name, or the beginning of several: `team-a`, `team-*`, `*`.
///
/// A star may also end a tenant's name; who is let in for all that begin so is let in for that one, too.
pub fn tenant_pattern(text: &str) -> Result<TenantPattern, GrantError> {
    let wrong = |source| GrantError::Tenant { text: text.to_owned(), source };
    match text.strip_suffix('*') {
        Some("") => Ok(TenantPattern::Prefix(String::new())),
        // What comes before the star begins a name, so it has to be able to.
        Some(prefix) if [".", ".."].contains(&prefix) => Ok(TenantPattern::Prefix(prefix.to_owned())),
        Some(prefix) => {
            TenantId::new(prefix).map_err(wrong)?;
            Ok(TenantPattern::Prefix(prefix.to_owned()))
        }
        None => TenantId::new(text).map(TenantPattern::One).map_err(wrong),
    }
}

/// Reads for whom a caller may act: for `default` if a request names nobody, for those of `others` that it names.
pub fn tenants(default: Option<&str>, others: &[String]) -> Result<TenantAccess, GrantError> {
    let default = match default.map(tenant_pattern).transpose()? {
        None => None,
        Some(TenantPattern::One(tenant)) => Some(tenant),
        Some(TenantPattern::Prefix(prefix)) => return Err(GrantError::Pattern(format!("{prefix}*"))),
    };
    Ok(TenantAccess {
        default,
        others: others.iter().map(|text| tenant_pattern(text)).collect::<Result<_, _>>()?,
    })
}

/// Reads scopes by their names.
pub fn scopes<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Scopes, GrantError> {
    let scope = |name: &str| Scope::of_name(name).ok_or_else(|| GrantError::Scope(name.to_owned()));
    names.into_iter().map(scope).collect()
}

/// Reads labels that every written series gets.
pub fn stamps(labels: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, GrantError> {
    let stamp = |(name, value): (&String, &String)| {
        let wrong = |why| Err(GrantError::Label { name: name.clone(), why });
        if name.is_empty() {
            wrong("has no name")
        } else if RESERVED_LABELS.contains(&name.as_str()) {
            wrong("is not to be chosen")
        } else if value.is_empty() {
            wrong("has no value")
        } else {
            Ok((name.clone(), value.clone()))
        }
    };
    labels.iter().map(stamp).collect()
}

/// Reads selectors, one of which must match what is read.
pub fn filters(selectors: &[String]) -> Result<Vec<Vec<Matcher>>, GrantError> {
    let filter = |text: &String| {
        let wrong = |text: &str, why: String| GrantError::Filter { text: text.to_owned(), why };
        if text.len() > MAX_FILTER_BYTES {
            let why = format!("is {} bytes long, {MAX_FILTER_BYTES} may be", text.len());
            return Err(wrong("", why));
        }
        let matchers = parse_selector(text).map_err(|e| wrong(text, e.to_string()))?;
        if matchers_all_match_empty(&matchers) {
            let why = "must contain at least one matcher that does not match the empty value".to_owned();
            return Err(wrong(text, why));
        }
        Ok(matchers)
    };
    selectors.iter().map(filter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn a_pattern_is_a_name_or_the_beginning_of_names() {
        assert!(tenant_pattern("a").unwrap().matches(&tenant("a")));
        assert!(!tenant_pattern("a").unwrap().matches(&tenant("ab")));
        assert!(tenant_pattern("team-*").unwrap().matches(&tenant("team-a")));
        assert!(!tenant_pattern("team-*").unwrap().matches(&tenant("tea")));
        assert!(tenant_pattern("*").unwrap().matches(&tenant("x")));
        for wrong in ["", "a/b", "a|b", "../*", "a b*", "é*", "..", "/*"] {
            let read = tenant_pattern(wrong);
            assert!(read.is_err(), "{wrong:?} was read as {read:?}");
        }
    }

    #[test]
    fn a_default_is_one_tenant() {
        let access = tenants(Some("a"), &["b*".to_owned()]).unwrap();
        assert_eq!(access.default, Some(tenant("a")));
        assert!(access.allows(&tenant("a")) && access.allows(&tenant("bc")) && !access.allows(&tenant("c")));
        assert!(tenants(Some(""), &[]).is_err());
        assert_eq!(tenants(Some("b*"), &[]), Err(GrantError::Pattern("b*".to_owned())));
        assert!(tenants(Some("a"), &["b/*".to_owned()]).is_err());
    }

    #[test]
    fn an_unknown_scope_is_an_error() {
        assert!(scopes(["write", "read"]).unwrap().allow(Scope::Read));
        assert_eq!(scopes(["raed"]), Err(GrantError::Scope("raed".to_owned())));
        assert!(scopes([]).unwrap().is_empty());
    }

    #[test]
    fn labels_that_mean_the_tenant_or_the_metric_are_not_stamped() {
        let read = |name: &str, value: &str| stamps(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert_eq!(read("team", "a").unwrap(), [("team".to_owned(), "a".to_owned())]);
        for (name, value) in [("", "a"), ("team", ""), ("__name__", "a"), ("__tenant_id__", "a")] {
            assert!(read(name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn a_filter_filters() {
        let read = |text: &str| filters(&[text.to_owned()]);
        assert_eq!(read("{env=\"prod\"}").unwrap(), [[Matcher::equal("env", "prod")]]);
        for wrong in
            ["", "{}", "{env=~\".*\"}", "{env!=\"prod\"}", "{env", "up[5m]", "sum(up)", "{env=~\"(\"}"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(&format!("{{env=\"{}\"}}", "x".repeat(5000))).is_err());
    }
}
