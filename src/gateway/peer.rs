//! Who is at the other end of a connection.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    x509::AttributeTypeAndValue,
};

use super::routes::Door;
use crate::model::Timestamp;

/// The other end of the connection that a request came by, put into its extensions by the listener.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection is from: as a trusted proxy says in its first bytes, or as the system says.
    pub address: SocketAddr,
    /// Where the request is from: as a trusted proxy says in its headers, or the same.
    pub client: IpAddr,
    /// Whether `address` is that of a trusted proxy, which may speak for others.
    pub trusted_proxy: bool,
    /// The listener it came in by: [`Door::Both`] where there is only one.
    pub door: Door,
    /// What the peer showed, and the certificates that we trust vouch for.
    pub certificate: Option<Arc<PeerCertificate>>,
}

impl Default for Peer {
    /// For requests that came by no connection.
    fn default() -> Self {
        Self::at(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), Door::Both)
    }
}

impl Peer {
    /// Nobody but an address.
    pub fn at(address: SocketAddr, door: Door) -> Self {
        let client = address.ip().to_canonical();
        Self { address, client, trusted_proxy: false, door, certificate: None }
    }
}

/// What a verified certificate says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject's common names; nearly always one.
    pub common_names: Vec<String>,
    /// Its organizations.
    pub organizations: Vec<String>,
    /// Its organizational units.
    pub organizational_units: Vec<String>,
    /// Its alternative names: of hosts, mail boxes and resources.
    pub alternative_names: Vec<String>,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// When it ends; the connection may last longer.
    pub not_after: Timestamp,
}

/// Why a certificate cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read: {0}")]
pub struct UnreadableCertificate(String);

impl PeerCertificate {
    /// Reads a certificate; whether anybody vouches for it has been found out before.
    pub fn read(der: &[u8]) -> Result<Self, UnreadableCertificate> {
        let wrong = |error: &dyn std::fmt::Display| UnreadableCertificate(error.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| wrong(&error))?;
        let subject = certificate.subject();
        let alternative = certificate.subject_alternative_name().map_err(|error| wrong(&error))?;
        Ok(Self {
            common_names: texts(subject.iter_common_name()),
            organizations: texts(subject.iter_organization()),
            organizational_units: texts(subject.iter_organizational_unit()),
            alternative_names: alternative
                .iter()
                .flat_map(|names| &names.value.general_names)
                .filter_map(text_of_name)
                .collect(),
            serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            not_after: Timestamp(certificate.validity().not_after.timestamp().saturating_mul(1000)),
        })
    }
}

/// An attribute that is no text stays in the list, as one that names nobody: two are not taken for one.
fn texts<'a>(attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Vec<String> {
    attributes.map(|attribute| attribute.as_str().unwrap_or_default().to_owned()).collect()
}

fn text_of_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            Some((*text).to_owned())
        }
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(v4), _) => Some(IpAddr::from(v4).to_string()),
            (_, Ok(v6)) => Some(IpAddr::from(v6).to_string()),
            (Err(_), Err(_)) => None,
        },
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[(DnType, &str)], alternative: &[&str]) -> PeerCertificate {
        let mut params =
            CertificateParams::new(alternative.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
                .unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        params.serial_number = Some(vec![0x0a, 0xff].into());
        params.not_after = rcgen::date_time_ymd(2031, 1, 2);
        params.subject_alt_names.push(SanType::URI("spiffe://a/b".try_into().unwrap()));
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerCertificate::read(signed.der()).unwrap()
    }

    #[test]
    fn a_certificate_says_who_holds_it() {
        let names = [
            (DnType::CommonName, "agent-7"),
            (DnType::OrganizationName, "team-a"),
            (DnType::OrganizationalUnitName, "edge"),
        ];
        let read = certificate(&names, &["agent.example", "10.0.0.7"]);
        assert_eq!(
            read,
            PeerCertificate {
                common_names: vec!["agent-7".to_owned()],
                organizations: vec!["team-a".to_owned()],
                organizational_units: vec!["edge".to_owned()],
                alternative_names: vec![
                    "agent.example".to_owned(),
                    "10.0.0.7".to_owned(),
                    "spiffe://a/b".to_owned()
                ],
                serial: "0aff".to_owned(),
                not_after: Timestamp(1_925_078_400_000),
            }
        );
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        for bytes in [&b""[..], b"\x30", b"\x30\x82\xff\xff", &[0x30; 300]] {
            assert!(PeerCertificate::read(bytes).is_err());
        }
    }

    #[test]
    fn an_ipv4_address_inside_ipv6_is_itself() {
        let peer = Peer::at("[::ffff:10.0.0.1]:9".parse().unwrap(), Door::Both);
        assert_eq!(peer.client, "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
