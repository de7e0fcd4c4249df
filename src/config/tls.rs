//! TLS under the connections we accept, and certificates as credentials.

use std::path::PathBuf;

use super::{
    auth::scopes,
    parse::{boolean, file, one_of},
    reader::Reader,
};

/// TLS under the connections we accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Our certificate, and those that lead to it.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Who vouches for clients' certificates.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// The oldest version we speak.
    pub min_version: TlsVersion,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    Off,
    /// They may.
    Optional,
    /// They have to.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

/// Whether a client's certificate is a credential, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Whether it is one.
    pub enabled: bool,
    /// Where the tenant stands in it.
    pub tenant_from: SubjectPart,
    /// What its holder may do, by name.
    pub scopes: Vec<String>,
}

/// A part of a certificate's subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectPart {
    /// The common name.
    CommonName,
    /// The organization.
    Organization,
    /// The organizational unit.
    OrganizationalUnit,
}

/// Reads the section; none without a certificate.
pub(super) fn server_tls(keys: &mut Reader<'_>) -> Option<ServerTls> {
    let cert_file = keys.get("server.tls.cert_file", "\"\"", file);
    let key_file = keys.get("server.tls.key_file", "\"\"", file);
    let client_ca_file = keys.get("server.tls.client_ca_file", "\"\"", file);
    let client_auth = keys.get(
        "server.tls.client_auth",
        "\"off\"",
        one_of(&[
            ("off", ClientAuth::Off),
            ("optional", ClientAuth::Optional),
            ("required", ClientAuth::Required),
        ]),
    );
    let min_version = keys.get("server.tls.min_version", "\"1.2\"", |value| match value.as_f64() {
        Some(1.2) => Ok(TlsVersion::Tls12),
        Some(1.3) => Ok(TlsVersion::Tls13),
        Some(_) | None => one_of(&[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)])(value),
    });
    match (client_auth, &client_ca_file) {
        (ClientAuth::Off, None) | (ClientAuth::Optional | ClientAuth::Required, Some(_)) => {}
        (ClientAuth::Off, Some(_)) => {
            keys.refuse("server.tls.client_ca_file", "is not looked at with client_auth: off");
        }
        (ClientAuth::Optional | ClientAuth::Required, None) => {
            keys.refuse("server.tls.client_auth", "takes client_ca_file: who vouches for clients");
        }
    }
    match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => {
            Some(ServerTls { cert_file, key_file, client_ca_file, client_auth, min_version })
        }
        (None, None) => {
            if client_ca_file.is_some() || min_version != TlsVersion::Tls12 {
                keys.refuse("server.tls.cert_file", "must be set for the rest of server.tls to do anything");
            }
            None
        }
        (Some(_), None) => {
            keys.refuse("server.tls.key_file", "must be set: a certificate needs its key");
            None
        }
        (None, Some(_)) => {
            keys.refuse("server.tls.cert_file", "must be set: a key needs its certificate");
            None
        }
    }
}

/// Reads the section.
pub(super) fn client_certificates(keys: &mut Reader<'_>) -> ClientCertificates {
    ClientCertificates {
        enabled: keys.get("auth.client_certificates.enabled", "false", boolean),
        tenant_from: keys.get(
            "auth.client_certificates.tenant_from",
            "organization",
            one_of(&[
                ("common_name", SubjectPart::CommonName),
                ("organization", SubjectPart::Organization),
                ("organizational_unit", SubjectPart::OrganizationalUnit),
            ]),
        ),
        scopes: keys.get("auth.client_certificates.scopes", "[write, read]", |value| match scopes(value)? {
            none if none.is_empty() => Err("names nothing that a certificate is good for".to_owned()),
            names => Ok(names),
        }),
    }
}
