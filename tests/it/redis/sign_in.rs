//! Who we are to Redis: a user with no more rights than needed, by TLS, with a certificate of ours.

use std::{fs, sync::Arc, time::Duration};

use luminate::{
    gateway::{
        auth::keys::{KeyStore, RedisKeyStore},
        redis::{LinkState, RedisTlsConfig},
    },
    model::Secret,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::setting::{Gateway, RedisServer, config, samples, tenant, until};
use crate::server::free_port;

#[tokio::test]
async fn a_user_of_our_own_needs_no_more_than_it_is_told_to_have() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let _: () = server.ask(
        "ACL SETUSER luminate on >sesame resetkeys ~luminate:* -@all +eval +evalsha +time +hmget +hset \
         +pexpire +persist +set +hsetnx +sadd +smembers",
    );
    let mut ours = config(&server);
    ours.username = Some("luminate".to_owned());
    ours.password = Some(Secret("wrong".to_owned()));
    let gateway = Gateway::over(&ours, Duration::from_secs(10));
    until("the password is refused", async || gateway.link.check().detail.contains("uthentication")).await;
    assert!(gateway.buckets.is_on_its_own());
    assert!(gateway.takes(&tenant("a"), samples(3, 3, 1)).await, "by its share");
    let _: () = server.ask("ACL SETUSER luminate >wrong");
    gateway.until(LinkState::Closed).await;
    assert!(gateway.takes(&tenant("a"), samples(1, 100_000, 100_000)).await);
    assert!(!gateway.takes(&tenant("a"), samples(1, 100_000, 100_000)).await);

    let keys = RedisKeyStore::new(Arc::clone(&gateway.link), Duration::from_secs(10));
    assert_eq!(keys.list().await, Ok(Vec::new()));

    // Keys of others are out of reach, and one without the right to write is as good as away.
    let mut others = ours.clone();
    others.prefix = "other".to_owned();
    let gateway = Gateway::over(&others, Duration::from_secs(10));
    until("it is refused", async || gateway.link.check().detail.contains("NoPerm")).await;
    let shown = format!("{ours:?}{:?}", gateway.link.check());
    assert!(!shown.contains("wrong"), "{shown}");
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    if !crate::server::have("redis-server") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, others) = (authority("ours"), authority("others"));
    let issue = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ours).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (certificate, key) = issue(&["127.0.0.1"]);
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("ca"), ours.pem()).unwrap();
    fs::write(path("certificate"), certificate).unwrap();
    fs::write(path("key"), key).unwrap();
    let (ca, certificate, key) = (path("ca"), path("certificate"), path("key"));
    let port = free_port();
    let tls_port = port.to_string();
    // The port without TLS is switched off by the second of two.
    let arguments = [
        "--port",
        "0",
        "--tls-port",
        &tls_port,
        "--tls-ca-cert-file",
        &ca,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "yes",
    ];
    let server = RedisServer::start_in(tempfile::tempdir().unwrap(), port, &arguments).unwrap();
    let identity = || {
        let (certificate, key) = issue(&["luminate"]);
        Some((certificate.into_bytes(), key.into_bytes()))
    };
    // What the program does at its start.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let mut trusting = config(&server);
    trusting.tls = Some(RedisTlsConfig { ca: Some(ours.pem().into_bytes()), identity: identity() });
    let gateway = Gateway::connected(&trusting).await;
    assert!(gateway.takes(&tenant("a"), samples(1, 10, 1)).await);

    for (what, tls) in [
        ("another authority", RedisTlsConfig { ca: Some(others.pem().into_bytes()), identity: identity() }),
        ("the system's authorities", RedisTlsConfig { ca: None, identity: identity() }),
        ("no certificate of ours", RedisTlsConfig { ca: Some(ours.pem().into_bytes()), identity: None }),
    ] {
        let mut wary = config(&server);
        wary.tls = Some(tls);
        let gateway = Gateway::over(&wary, Duration::from_secs(10));
        gateway.until(LinkState::Open).await;
        assert_eq!(
            gateway.link.counters().connections.load(std::sync::atomic::Ordering::Relaxed),
            0,
            "{what}"
        );
    }
    // Without TLS there is nobody to talk to.
    let gateway = Gateway::over(&config(&server), Duration::from_secs(10));
    gateway.until(LinkState::Open).await;
}
