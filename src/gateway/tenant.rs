//! Whose data a request is about.
//!
//! [`identify`] stands before every route that touches a tenant's data, and nothing else makes a
//! [`Tenant`]: a handler that takes one cannot be reached without it.

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::error::ApiError;
use crate::model::TenantId;

/// The header that names the tenant.
pub const TENANT_HEADER: &str = "X-Scope-OrgID";

/// The tenant a request may act for.
#[derive(Clone, Debug)]
pub struct Tenant(TenantId);

impl Tenant {
    /// Its name.
    pub fn id(&self) -> &TenantId {
        &self.0
    }
}

/// Finds out the tenant, or answers why not. The answer carries it, too, for the log.
pub async fn identify(mut request: Request, next: Next) -> Response {
    match named_tenant(request.headers()) {
        Ok(tenant) => {
            request.extensions_mut().insert(tenant.clone());
            let mut response = next.run(request).await;
            response.extensions_mut().insert(tenant);
            response
        }
        Err(error) => error.into_response(),
    }
}

fn named_tenant(headers: &HeaderMap) -> Result<Tenant, ApiError> {
    let mut named = headers.get_all(TENANT_HEADER).iter();
    let Some(name) = named.next() else { return Ok(Tenant(TenantId::anonymous())) };
    if named.next().is_some() {
        return Err(ApiError::bad_data(format!("{TENANT_HEADER} is given more than once")));
    }
    let invalid = |why: &dyn std::fmt::Display| ApiError::bad_data(format!("invalid {TENANT_HEADER}: {why}"));
    let name = std::str::from_utf8(name.as_bytes()).map_err(|why| invalid(&why))?;
    TenantId::new(name).map(Tenant).map_err(|why| invalid(&why))
}

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let identified = parts.extensions.get::<Self>().cloned();
        identified
            .ok_or_else(|| ApiError::internal("a route that needs a tenant has no `identify` before it"))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn named(values: &[&str]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TENANT_HEADER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        named_tenant(&headers).map(|t| t.id().to_string()).map_err(|e| e.message().to_owned())
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
