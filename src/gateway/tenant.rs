//! Whose data a request is about: what its headers say, within what its caller may.
//!
//! `X-Scope-OrgID` (Mimir, Cortex) and `THANOS-TENANT` (Thanos) name a tenant, and `a|b` names several for a read. A header never
//! widens what a caller may: it only chooses among the tenants of the [`Principal`](super::auth::Principal). What
//! is said twice and differently is refused, so that two readers of a request cannot see two tenants in it.

use axum::http::HeaderMap;

use super::{auth::TenantAccess, error::ApiError};
use crate::model::TenantId;

/// The header that names the tenant.
pub const TENANT_HEADER: &str = "X-Scope-OrgID";

/// All headers that may name it.
const TENANT_HEADERS: [&str; 2] = [TENANT_HEADER, "THANOS-TENANT"];

/// The most tenants that are read as one.
const MAX_TENANTS: usize = 64;

/// The tenants a request is for: at least one, sorted, none twice; only one unless `several` may be.
pub fn named(headers: &HeaderMap, access: &TenantAccess, several: bool) -> Result<Vec<TenantId>, ApiError> {
    let Some((header, name)) = header(headers)? else {
        let default = access.default.clone();
        let nobody = || ApiError::bad_data(format!("no tenant is named; name one in {TENANT_HEADER}"));
        return default.map(|tenant| vec![tenant]).ok_or_else(nobody);
    };
    let invalid = |why: &dyn std::fmt::Display| ApiError::bad_data(format!("invalid {header}: {why}"));
    let mut tenants = Vec::new();
    for name in name.split('|') {
        tenants.push(TenantId::new(name).map_err(|why| invalid(&why))?);
        if tenants.len() > MAX_TENANTS {
            return Err(invalid(&format_args!("more than {MAX_TENANTS} tenants")));
        }
    }
    tenants.sort();
    tenants.dedup();
    if let Some(foreign) = tenants.iter().find(|tenant| !access.allows(tenant)) {
        return Err(ApiError::forbidden(format!("not allowed to act for tenant {foreign}")));
    }
    if tenants.len() > 1 && !several {
        return Err(invalid(&"only reads are for several tenants"));
    }
    Ok(tenants)
}

/// Whether a request names any tenant.
pub fn is_named(headers: &HeaderMap) -> bool {
    TENANT_HEADERS.iter().any(|header| headers.contains_key(*header))
}

/// The header that names the tenant, and its value.
fn header(headers: &HeaderMap) -> Result<Option<(&'static str, &str)>, ApiError> {
    let mut found: Option<(&'static str, &str)> = None;
    for header in TENANT_HEADERS {
        let mut values = headers.get_all(header).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            return Err(ApiError::bad_data(format!("{header} is given more than once")));
        }
        let name = std::str::from_utf8(value.as_bytes())
            .map_err(|why| ApiError::bad_data(format!("invalid {header}: {why}")))?;
        match found {
            Some((other, before)) if before != name => {
                return Err(ApiError::bad_data(format!("{other} and {header} name different tenants")));
            }
            Some(_) => {}
            None => found = Some((header, name)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::gateway::auth::TenantPattern;

    fn ask(access: &TenantAccess, several: bool, given: &[(&'static str, &str)]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let names =
            |tenants: Vec<TenantId>| tenants.iter().map(TenantId::as_str).collect::<Vec<_>>().join(" ");
        named(&headers, access, several).map(names).map_err(|error| error.message().to_owned())
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn refused(text: &str) -> Result<String, String> {
        Err(text.to_owned())
    }

    #[test]
    fn who_names_no_tenant_gets_their_own() {
        let anyone = TenantAccess::any(Some(TenantId::anonymous()));
        assert_eq!(ask(&anyone, true, &[]), Ok("anonymous".to_owned()));
        let one_of_many =
            TenantAccess { default: None, others: vec![TenantPattern::Prefix("team-".to_owned())] };
        assert_eq!(ask(&one_of_many, true, &[]), refused("no tenant is named; name one in X-Scope-OrgID"));
        assert_eq!(ask(&one_of_many, true, &[("x-scope-orgid", "team-a")]), Ok("team-a".to_owned()));
    }

    #[test]
    fn a_header_only_chooses_among_the_callers_tenants() {
        let own = TenantAccess::only(tenant("a"));
        assert_eq!(ask(&own, true, &[("x-scope-orgid", "a")]), Ok("a".to_owned()));
        assert_eq!(ask(&own, true, &[("thanos-tenant", "a")]), Ok("a".to_owned()));
        let foreign = refused("not allowed to act for tenant b");
        for name in ["b", "a|b", "b|a|b"] {
            for header in ["x-scope-orgid", "thanos-tenant"] {
                assert_eq!(ask(&own, true, &[(header, name)]), foreign, "{header}: {name}");
            }
        }
    }

    #[test]
    fn several_tenants_are_for_reads() {
        let anyone = TenantAccess::any(None);
        assert_eq!(ask(&anyone, true, &[("x-scope-orgid", "b|a|b")]), Ok("a b".to_owned()));
        let one = refused("invalid X-Scope-OrgID: only reads are for several tenants");
        assert_eq!(ask(&anyone, false, &[("x-scope-orgid", "a|b")]), one);
        assert_eq!(ask(&anyone, false, &[("x-scope-orgid", "a|a")]), Ok("a".to_owned()));
        let many = (0..65).map(|i| format!("t{i}")).collect::<Vec<_>>().join("|");
        let too_many = refused("invalid X-Scope-OrgID: more than 64 tenants");
        assert_eq!(ask(&anyone, true, &[("x-scope-orgid", &many)]), too_many);
    }

    #[test]
    fn headers_that_contradict_each_other_are_refused() {
        let anyone = TenantAccess::any(None);
        let ask = |given: &[(&'static str, &str)]| ask(&anyone, true, given);
        assert_eq!(
            ask(&[("x-scope-orgid", "a"), ("x-scope-orgid", "a")]),
            refused("X-Scope-OrgID is given more than once")
        );
        assert_eq!(
            ask(&[("x-scope-orgid", "a"), ("thanos-tenant", "b")]),
            refused("X-Scope-OrgID and THANOS-TENANT name different tenants")
        );
        assert_eq!(ask(&[("x-scope-orgid", "a"), ("thanos-tenant", "a")]), Ok("a".to_owned()));
    }

    #[test]
    fn a_name_that_will_not_do_is_refused() {
        let anyone = TenantAccess::any(None);
        let long = "x".repeat(151);
        for (name, why) in [
            ("", "tenant id is empty"),
            ("a|", "tenant id is empty"),
            ("|", "tenant id is empty"),
            ("..", "tenant id must not be \".\" or \"..\""),
            ("a|.", "tenant id must not be \".\" or \"..\""),
            ("../b", "tenant id contains the unsupported character '/'"),
            ("%2e%2e%2fb", "tenant id contains the unsupported character '%'"),
            ("%252e", "tenant id contains the unsupported character '%'"),
            ("a b", "tenant id contains the unsupported character ' '"),
            ("a,b", "tenant id contains the unsupported character ','"),
            ("é", "tenant id contains the unsupported character 'é'"),
            ("а", "tenant id contains the unsupported character 'а'"),
            ("{a}", "tenant id contains the unsupported character '{'"),
            (&long, "tenant id is longer than 150 bytes"),
        ] {
            assert_eq!(
                ask(&anyone, true, &[("x-scope-orgid", name)]),
                Err(format!("invalid X-Scope-OrgID: {why}")),
                "{name}"
            );
        }
    }
}
