//! Who may come in.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_yaml::Value;

use super::{
    jwt::{Jwt, jwt},
    keys::{self, Keys},
    parse::{boolean, list, one_of},
    reader::Reader,
    tls::{ClientCertificates, client_certificates},
};
use crate::model::TenantId;

/// Who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// How callers are told apart.
    pub mode: AuthMode,
    /// Listen on a network without authentication all the same.
    pub force_unauthenticated: bool,
    /// What a trusted proxy may do that shows no credentials and names a tenant: names of scopes.
    pub proxy_scopes: Vec<String>,
    /// The networks of proxies that speak for others.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificates as credentials.
    pub client_certificates: ClientCertificates,
    /// Another header than `Authorization` that carries credentials, in lower case.
    pub header: Option<String>,
    /// Bad credentials from an address in a minute, before it is told to come back; 0 is without bound.
    pub max_failures_per_minute: u32,
    /// Tenants for whom nobody may act.
    pub disabled_tenants: Vec<TenantId>,
    /// Where API keys are.
    pub api_keys: Keys,
    /// Which tokens are good.
    pub jwt: Jwt,
}

/// How callers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// They are not: whoever reaches the listener may do everything.
    None,
    /// By tokens, keys and certificates; who shows none is turned away.
    Token,
}

pub(super) fn auth(keys: &mut Reader<'_>) -> Auth {
    Auth {
        mode: keys.get("auth.mode", "none", one_of(&[("none", AuthMode::None), ("token", AuthMode::Token)])),
        force_unauthenticated: keys.get("auth.force_unauthenticated", "false", boolean),
        proxy_scopes: keys.get("auth.proxy_scopes", "[]", scopes),
        trusted_proxies: keys.get("auth.trusted_proxies", "[]", |v| networks(&list(v)?)),
        client_certificates: client_certificates(keys),
        header: keys::header(keys),
        max_failures_per_minute: keys::max_failures(keys),
        disabled_tenants: keys.get("auth.disabled_tenants", "[]", |v| tenants(&list(v)?)),
        api_keys: keys::keys(keys),
        jwt: jwt(keys),
    }
}

/// Names of scopes.
pub(super) fn scopes(value: &Value) -> Result<Vec<String>, String> {
    const SCOPES: [&str; 5] = ["write", "read", "delete", "rules", "admin"];
    let scopes = list(value)?;
    match scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        Some(other) => Err(format!("{other:?} is not one of {}", SCOPES.join(", "))),
        None => Ok(scopes),
    }
}

/// Names of tenants, not patterns.
fn tenants(items: &[String]) -> Result<Vec<TenantId>, String> {
    items.iter().map(|item| TenantId::new(item).map_err(|wrong| format!("{item:?}: {wrong}"))).collect()
}

/// Networks in CIDR notation; an address stands for itself.
fn networks(items: &[String]) -> Result<Vec<IpNet>, String> {
    let network = |item: &String| {
        let network = item.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(item.parse::<IpAddr>().ok()?)));
        match network {
            None => Err(format!("{item:?} is not a network, write for example 10.0.0.0/8")),
            Some(network) if network.prefix_len() == 0 => {
                Err(format!("{item:?} is everybody; whoever is trusted may say they are anybody else"))
            }
            Some(network) if network.trunc() != network => {
                Err(format!("{item:?} has bits behind its prefix, did you mean {}?", network.trunc()))
            }
            Some(network) => Ok(network),
        }
    };
    items.iter().map(network).collect()
}
