//! Whose data a request is about: what its headers say, within what its caller may.

use axum::http::HeaderMap;

use super::{auth::TenantAccess, error::ApiError};
use crate::model::TenantId;

/// The header that names the tenant.
pub const TENANT_HEADER: &str = "X-Scope-OrgID";

/// The tenants a request is for: at least one, sorted, none twice; only one unless `several` may be.
pub fn named(headers: &HeaderMap, access: &TenantAccess, _several: bool) -> Result<Vec<TenantId>, ApiError> {
    let mut named = headers.get_all(TENANT_HEADER).iter();
    let Some(name) = named.next() else {
        let default = access.default.clone();
        return default.map(|tenant| vec![tenant]).ok_or_else(|| ApiError::bad_data("no tenant is named"));
    };
    if named.next().is_some() {
        return Err(ApiError::bad_data(format!("{TENANT_HEADER} is given more than once")));
    }
    let invalid = |why: &dyn std::fmt::Display| ApiError::bad_data(format!("invalid {TENANT_HEADER}: {why}"));
    let name = std::str::from_utf8(name.as_bytes()).map_err(|why| invalid(&why))?;
    let tenant = TenantId::new(name).map_err(|why| invalid(&why))?;
    if !access.allows(&tenant) {
        return Err(ApiError::forbidden(format!("not allowed to act for tenant {tenant}")));
    }
    Ok(vec![tenant])
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn named_all(headers: &HeaderMap) -> Result<Vec<TenantId>, ApiError> {
        super::named(headers, &TenantAccess::any(Some(TenantId::anonymous())), true)
    }

    fn named(values: &[&str]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TENANT_HEADER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        named_all(&headers).map(|t| t[0].to_string()).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn who_names_no_tenant_is_anonymous() {
        assert_eq!(named(&[]), Ok("anonymous".to_owned()));
        assert_eq!(named(&["team-a"]), Ok("team-a".to_owned()));
    }

    #[test]
    fn a_name_that_will_not_do_is_refused() {
        let refused = |text: &str| Err(text.to_owned());
        assert_eq!(named(&[""]), refused("invalid X-Scope-OrgID: tenant id is empty"));
        assert_eq!(
            named(&["a|b"]),
            refused("invalid X-Scope-OrgID: tenant id contains the unsupported character '|'")
        );
        assert_eq!(
            named(&["é"]),
            refused("invalid X-Scope-OrgID: tenant id contains the unsupported character 'é'")
        );
        assert_eq!(named(&["a", "b"]), refused("X-Scope-OrgID is given more than once"));
    }
}
