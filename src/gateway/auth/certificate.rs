//! Certificates as credentials: the tenant is a name of the certificate's subject.
//!
//! The listener has verified the certificate, once for its connection; connections last, so that each request
//! looks again whether the certificate still holds.

use super::{AuthError, Known, LimitOverrides, Principal, Scopes, TenantAccess};
use crate::{
    gateway::peer::PeerCertificate,
    model::{TenantId, Timestamp},
};

/// What holders of certificates may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRules {
    /// Where the tenant stands.
    pub tenant_from: SubjectName,
    /// What they may do.
    pub scopes: Scopes,
}

/// A part of a certificate's subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// Its common name.
    CommonName,
    /// Its organization.
    Organization,
    /// Its organizational unit.
    OrganizationalUnit,
}

impl SubjectName {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommonName => "common_name",
            Self::Organization => "organization",
            Self::OrganizationalUnit => "organizational_unit",
        }
    }
}

/// Who holds a certificate that the listener has verified.
pub fn principal(
    certificate: &PeerCertificate,
    rules: &CertificateRules,
    now: Timestamp,
) -> Result<Principal, AuthError> {
    let refused = |reason, detail| Err(AuthError::Refused { reason, detail });
    if certificate.not_after < now {
        return refused("certificate_expired", format!("of serial number {}", certificate.serial));
    }
    let names = match rules.tenant_from {
        SubjectName::CommonName => &certificate.common_names,
        SubjectName::Organization => &certificate.organizations,
        SubjectName::OrganizationalUnit => &certificate.organizational_units,
    };
    let part = rules.tenant_from.as_str();
    let [name] = &names[..] else {
        return refused("certificate_tenant", format!("its subject has {} of {part}, not one", names.len()));
    };
    let tenant = match TenantId::new(name) {
        Ok(tenant) => tenant,
        Err(error) => return refused("certificate_tenant", format!("its {part} is no tenant: {error}")),
    };
    let name = match &certificate.common_names[..] {
        [name, ..] => name.clone(),
        [] => tenant.to_string(),
    };
    Ok(Principal {
        name,
        known: Known::Certificate,
        scopes: rules.scopes,
        tenants: TenantAccess::only(tenant),
        stamps: Vec::new(),
        filters: Vec::new(),
        limits: LimitOverrides::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::auth::Scope;

    fn certificate(organizations: &[&str]) -> PeerCertificate {
        PeerCertificate {
            common_names: vec!["agent-7".to_owned()],
            organizations: organizations.iter().map(|name| (*name).to_owned()).collect(),
            organizational_units: Vec::new(),
            alternative_names: Vec::new(),
            serial: "0aff".to_owned(),
            not_after: Timestamp(1_000),
        }
    }

    fn rules(tenant_from: SubjectName) -> CertificateRules {
        CertificateRules { tenant_from, scopes: [Scope::Write].into_iter().collect() }
    }

    fn reason(certificate: &PeerCertificate, now: i64) -> &'static str {
        match principal(certificate, &rules(SubjectName::Organization), Timestamp(now)) {
            Err(AuthError::Refused { reason, .. }) => reason,
            Err(AuthError::Missing | AuthError::Unavailable(_) | AuthError::TooManyFailures { .. })
            | Ok(_) => "",
        }
    }

    #[test]
    fn the_tenant_is_the_configured_name_of_the_subject() {
        let certificate = certificate(&["team-a"]);
        let holder = principal(&certificate, &rules(SubjectName::Organization), Timestamp(1_000)).unwrap();
        assert_eq!(holder.name, "agent-7");
        assert_eq!(holder.tenants, TenantAccess::only(TenantId::new("team-a").unwrap()));
        assert!(holder.scopes.allow(Scope::Write) && !holder.scopes.allow(Scope::Read));
        let holder = principal(&certificate, &rules(SubjectName::CommonName), Timestamp(0)).unwrap();
        assert_eq!(holder.tenants, TenantAccess::only(TenantId::new("agent-7").unwrap()));
    }

    #[test]
    fn a_certificate_that_names_no_tenant_or_two_is_refused() {
        for names in [&[][..], &["a", "b"], &[""], &["../a"], &["a|b"]] {
            assert_eq!(reason(&certificate(names), 0), "certificate_tenant", "{names:?}");
        }
    }

    #[test]
    fn a_certificate_that_ended_while_the_connection_went_on_is_refused() {
        assert_eq!(reason(&certificate(&["team-a"]), 1_001), "certificate_expired");
    }
}
