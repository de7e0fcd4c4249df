//! Where and how the server listens: two doors, TLS, proxies.

use super::*;

#[test]
fn a_door_to_operate_the_server_by_is_another_one_and_not_open_to_the_network() {
    let config = check("server: {admin_listen: \"localhost:8081\"}").unwrap();
    assert_eq!(config.server.admin_listen, Some("127.0.0.1:8081".parse().unwrap()));
    assert_eq!(check("server: {admin_listen: \"\"}").unwrap().server.admin_listen, None);
    refuses(
        "server: {admin_listen: \"127.0.0.1:8080\"}",
        &["server.admin_listen: 127.0.0.1:8080 is server.listen; it takes another port (luminate.yaml)"],
    );
    refuses(
        "server: {admin_listen: 8081}",
        &["server.admin_listen: takes text, not a number (luminate.yaml)"],
    );
    refuses(
        "server: {admin_open: true}",
        &["server.admin_open: is about server.admin_listen, which is not set (luminate.yaml)"],
    );
    let open = "server: {admin_listen: \":8081\"}";
    let errors = check(open).unwrap_err();
    assert!(errors[0].contains("set server.admin_open: true"), "{errors:?}");
    check(&format!("{open}\nauth: {{mode: token}}")).unwrap();
    check(&format!("{open}\nauth: {{force_unauthenticated: true}}")).unwrap();
    check("server: {admin_listen: \":8081\", admin_open: true}").unwrap();
}

#[test]
fn tls_has_a_certificate_and_its_key() {
    assert_eq!(check("").unwrap().server.tls, None);
    let tls =
        check("server: {tls: {cert_file: a, key_file: b, min_version: 1.3}}").unwrap().server.tls.unwrap();
    assert_eq!((tls.client_auth, tls.min_version), (ClientAuth::Off, TlsVersion::Tls13));
    for (keys, told) in [
        ("cert_file: a", "server.tls.key_file: must be set: a certificate needs its key"),
        ("key_file: a", "server.tls.cert_file: must be set: a key needs its certificate"),
        ("min_version: 1.3", "server.tls.cert_file: must be set for the rest of server.tls to do anything"),
        (
            "cert_file: a, key_file: b, min_version: 1.1",
            "server.tls.min_version: takes text, not a number (luminate.yaml)",
        ),
        (
            "cert_file: a, key_file: b, client_auth: required",
            "server.tls.client_auth: takes client_ca_file: who vouches for clients (luminate.yaml)",
        ),
        (
            "cert_file: a, key_file: b, client_ca_file: c",
            "server.tls.client_ca_file: is not looked at with client_auth: off (luminate.yaml)",
        ),
        (
            "cert_file: a, key_file: b, client_ca_file: c, client_auth: always",
            "server.tls.client_auth: \"always\" is not one of off, optional, required (luminate.yaml)",
        ),
        ("cert: a", "server.tls.cert: unknown key, did you mean server.tls.cert_file? (luminate.yaml)"),
    ] {
        let errors = check(&format!("server: {{tls: {{{keys}}}}}")).unwrap_err();
        assert!(errors.iter().any(|error| error.starts_with(told)), "{keys}: {errors:?}");
    }
    let by_variable = check_with(
        "",
        &[
            ("LUMINATE_SERVER__TLS__CERT_FILE", "a"),
            ("LUMINATE_SERVER__TLS__KEY_FILE", "b"),
            ("LUMINATE_SERVER__TLS__MIN_VERSION", "1.2"),
        ],
        &[],
    );
    assert_eq!(by_variable.unwrap().server.tls.unwrap().min_version, TlsVersion::Tls12);
}

#[test]
fn a_certificate_is_a_credential_only_where_it_is_asked_for() {
    let tls = "server: {tls: {cert_file: a, key_file: b, client_ca_file: c, client_auth: optional}}";
    let enabled = "auth: {mode: token, client_certificates: {enabled: true, tenant_from: common_name}}";
    let config = check(&format!("{tls}\n{enabled}")).unwrap();
    assert_eq!(config.auth.client_certificates.tenant_from, SubjectPart::CommonName);
    assert_eq!(config.auth.client_certificates.scopes, ["write", "read"]);
    refuses(
        enabled,
        &["auth.client_certificates.enabled: takes server.tls with client_auth: optional or required \
           (luminate.yaml)"],
    );
    refuses(
        &format!("{tls}\nauth: {{client_certificates: {{enabled: true}}}}"),
        &["auth.client_certificates.enabled: is not looked at with auth.mode: none (luminate.yaml)"],
    );
    for (scopes, told) in [
        ("[]", "names nothing that a certificate is good for"),
        ("[write, root]", "\"root\" is not one of write, read, delete, rules, admin"),
    ] {
        refuses(
            &format!("auth: {{client_certificates: {{scopes: {scopes}}}}}"),
            &[&format!("auth.client_certificates.scopes: {told} (luminate.yaml)")],
        );
    }
}

#[test]
fn proxies_are_trusted_by_their_networks() {
    let config = check("auth: {trusted_proxies: [10.0.0.0/8, 192.0.2.1, \"fd00::/8\"]}").unwrap();
    let networks: Vec<String> = config.auth.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]);
    for (network, told) in [
        ("proxy.example", "is not a network"),
        ("10.0.0.0/33", "is not a network"),
        ("10.0.0.1/8", "did you mean 10.0.0.0/8?"),
        ("0.0.0.0/0", "is everybody"),
        ("::/0", "is everybody"),
    ] {
        let errors = check(&format!("auth: {{trusted_proxies: [\"{network}\"]}}")).unwrap_err();
        assert!(errors[0].contains(told), "{errors:?}");
    }
    refuses(
        "server: {proxy_protocol: v1v2}",
        &["server.proxy_protocol: takes auth.trusted_proxies: whose word is to be taken (luminate.yaml)"],
    );
    check("server: {proxy_protocol: v1v2}\nauth: {trusted_proxies: [10.0.0.0/8]}").unwrap();
}

#[test]
fn a_request_has_time_for_a_query() {
    refuses(
        "server: {limits: {request_timeout: 1m}}",
        &["server.limits.request_timeout: is less than query.timeout, so that queries would be cut short \
           (luminate.yaml)"],
    );
    check("server: {limits: {request_timeout: 1m}}\nquery: {timeout: 30s}").unwrap();
}
