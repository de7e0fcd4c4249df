//! Who may come in.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    parse::{boolean, list, text},
    reader::Reader,
    tls::{ClientCertificates, client_certificates},
};

/// Who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// How callers are told apart.
    pub mode: AuthMode,
    /// Listen on a network without authentication all the same.
    pub force_unauthenticated: bool,
    /// The networks of proxies that speak for others.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificates as credentials.
    pub client_certificates: ClientCertificates,
}

/// How callers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// They are not: whoever reaches the listener may do everything.
    None,
}

pub(super) fn auth(keys: &mut Reader<'_>) -> Auth {
    Auth {
        mode: keys.get("auth.mode", "none", |v| match text(v)? {
            "none" => Ok(AuthMode::None),
            "token" => Err("token is not in this release, only none".to_owned()),
            other => Err(format!("{other:?} is not a mode, only none")),
        }),
        force_unauthenticated: keys.get("auth.force_unauthenticated", "false", boolean),
        trusted_proxies: keys.get("auth.trusted_proxies", "[]", |v| networks(&list(v)?)),
        client_certificates: client_certificates(keys),
    }
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
