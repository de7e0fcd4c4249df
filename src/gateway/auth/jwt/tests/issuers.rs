//! Keys that issuers publish: fetched, changed, gone, and not to be had.

use super::{issuer::Issuer, *};

/// As long as a test may take on the slowest of machines.
const PATIENCE: Duration = Duration::from_secs(600);

struct Setup {
    issuer: Issuer,
    clock: Arc<HandClock>,
    verifier: Arc<JwtVerifier>,
}

fn setup() -> Setup {
    let issuer = Issuer::start();
    let jwks_url = Some(issuer.url("/jwks"));
    let clock = clock();
    let config = JwtConfig { jwks_url, wait: PATIENCE, ..JwtConfig::default() };
    let verifier = JwtVerifier::open(&config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    Setup { issuer, clock, verifier }
}

fn read(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Fetches keys from an issuer that answers so, and gives what is wrong with that.
async fn wrong_answer(status: &str, headers: &str, body: &[u8]) {
    let Setup { issuer, verifier, .. } = setup();
    issuer.put_with("/jwks", status, headers, body);
    issuer.put("/elsewhere", "200 OK", &json!({"keys": [RSA.jwk("a")]}).to_string());
    verifier.refresh_keys().await;
    let c = verifier.counters();
    assert_eq!((read(&c.refreshes), read(&c.failed_refreshes)), (0, 1), "{status} {headers}");
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "unavailable");
    // Once for us, once more for the token.
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn keys_are_fetched_when_a_token_names_one() {
    let Setup { issuer, verifier, .. } = setup();
    issuer.publish(&[RSA.jwk("a"), P256.jwk("b")]);
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "good");
    assert_eq!(verdict(&verifier, &token_by(&P256, "b")).await, "good");
    assert_eq!(issuer.asked(), 1);
    assert_eq!(verifier.keys_age(), Some(Duration::ZERO));
}

#[tokio::test]
async fn case_15_a_new_key_is_good_at_once_and_an_old_one_until_it_is_gone() {
    let Setup { issuer, verifier, clock } = setup();
    issuer.publish(&[RSA.jwk("old")]);
    assert_eq!(verdict(&verifier, &token_by(&RSA, "old")).await, "good");
    issuer.publish(&[RSA.jwk("old"), P256.jwk("new")]);
    clock.advance(Duration::from_secs(30));
    assert_eq!(verdict(&verifier, &token_by(&P256, "new")).await, "good");
    assert_eq!(verdict(&verifier, &token_by(&RSA, "old")).await, "good");
    issuer.publish(&[P256.jwk("new")]);
    assert_eq!(verdict(&verifier, &token_by(&RSA, "old")).await, "good");
    verifier.refresh_keys().await;
    assert_eq!(verdict(&verifier, &token_by(&RSA, "old")).await, "unknown_key");
    assert_eq!(verdict(&verifier, &token_by(&P256, "new")).await, "good");
}

#[tokio::test]
async fn case_15_a_key_by_an_old_name_takes_the_place_of_the_old_one() {
    let Setup { issuer, verifier, .. } = setup();
    issuer.publish(&[RSA.jwk("a")]);
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "good");
    issuer.publish(&[OTHER_RSA.jwk("a")]);
    verifier.refresh_keys().await;
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "signature");
    assert_eq!(verdict(&verifier, &token_by(&OTHER_RSA, "a")).await, "good");
}

#[tokio::test]
async fn case_15_while_an_issuer_is_down_what_it_last_published_holds() {
    let Setup { issuer, verifier, clock } = setup();
    issuer.publish(&[RSA.jwk("a")]);
    verifier.refresh_keys().await;
    let before = verifier.keychain.generation();
    for (status, body) in
        [("500 Internal Server Error", ""), ("200 OK", "{\"keys\":[]}"), ("200 OK", "<html>")]
    {
        issuer.put("/jwks", status, body);
        clock.advance(Duration::from_secs(3600));
        verifier.refresh_keys().await;
    }
    let c = verifier.counters();
    assert_eq!((read(&c.refreshes), read(&c.failed_refreshes)), (1, 3));
    assert_eq!(verifier.keys_age(), Some(Duration::from_secs(3 * 3600)));
    assert_eq!(verifier.keychain.generation(), before);
    let later = good_but(json!({"exp": NOW + 4 * 3600})).to_string();
    let token = signed(r#"{"alg":"RS256","kid":"a"}"#, &later, &RSA.private, Algorithm::RS256);
    assert_eq!(verdict(&verifier, &token).await, "good");
    // Somebody else's key is refused, not put off: we do have keys.
    let other = signed(r#"{"alg":"ES256","kid":"b"}"#, &later, &P256.private, Algorithm::ES256);
    assert_eq!(verdict(&verifier, &other).await, "unknown_key");
    issuer.publish(&[P256.jwk("b")]);
    verifier.refresh_keys().await;
    assert_eq!(verdict(&verifier, &other).await, "good");
}

#[tokio::test]
async fn case_15_tokens_with_unknown_keys_make_us_ask_only_so_often() {
    let Setup { issuer, verifier, clock } = setup();
    issuer.publish(&[RSA.jwk("a")]);
    for i in 0..100 {
        let token = token_by(&P256, &format!("unknown-{i}"));
        assert_eq!(verdict(&verifier, &token).await, "unknown_key");
    }
    assert_eq!(issuer.asked(), 1);
    clock.advance(Duration::from_millis(29_999));
    assert_eq!(verdict(&verifier, &token_by(&P256, "x")).await, "unknown_key");
    assert_eq!(issuer.asked(), 1);
    clock.advance(Duration::from_millis(1));
    assert_eq!(verdict(&verifier, &token_by(&P256, "x")).await, "unknown_key");
    assert_eq!(issuer.asked(), 2);
    // What is signed with a secret is never an issuer's.
    clock.advance(Duration::from_secs(60));
    assert_eq!(verdict(&verifier, &token_of(&good())).await, "algorithm");
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn case_15_many_at_once_ask_once() {
    let Setup { issuer, verifier, .. } = setup();
    issuer.publish(&[RSA.jwk("a")]);
    issuer.hold();
    let token = Arc::new(token_by(&RSA, "a"));
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (verifier, token) = (Arc::clone(&verifier), Arc::clone(&token));
            task::spawn("test", async move { verdict(&verifier, &token).await })
        })
        .collect();
    while issuer.asked() == 0 {
        tokio::task::yield_now().await;
    }
    // One who goes away does not end it for the others.
    waiting[0].abort();
    issuer.release();
    for one in waiting.into_iter().skip(1) {
        assert_eq!(one.await.unwrap(), "good");
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn those_who_wait_for_keys_are_not_too_many() {
    let Setup { issuer, verifier, .. } = setup();
    issuer.publish(&[RSA.jwk("a")]);
    issuer.hold();
    let token = Arc::new(token_by(&RSA, "a"));
    let all: Vec<_> = (0..100)
        .map(|_| {
            let (verifier, token) = (Arc::clone(&verifier), Arc::clone(&token));
            task::spawn("test", async move { verdict(&verifier, &token).await })
        })
        .collect();
    while all.iter().filter(|one| one.is_finished()).count() < 36 {
        tokio::task::yield_now().await;
    }
    issuer.release();
    let mut verdicts = Vec::new();
    for one in all {
        verdicts.push(one.await.unwrap());
    }
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == "unavailable").count(), 36);
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == "good").count(), 64);
}

#[tokio::test]
async fn nobody_waits_for_ever_for_an_issuer_that_does_not_answer() {
    let issuer = Issuer::start();
    issuer.publish(&[RSA.jwk("a")]);
    issuer.hold();
    let config = JwtConfig {
        jwks_url: Some(issuer.url("/jwks")),
        wait: Duration::from_millis(1),
        ..JwtConfig::default()
    };
    let verifier = open(&config);
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "unavailable");
    issuer.release();
    // Fetching went on, or is done.
    verifier.refresh_keys().await;
    verifier.refresh_keys().await;
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "good");
}

#[tokio::test]
async fn a_server_starts_without_its_issuer_and_says_that_it_cannot_tell() {
    let issuer = Issuer::start();
    issuer.put("/jwks", "503 Service Unavailable", "");
    let clock = clock();
    let config = JwtConfig { jwks_url: Some(issuer.url("/jwks")), wait: PATIENCE, ..config() };
    let verifier = JwtVerifier::open(&config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "unavailable");
    assert_eq!(read(&verifier.counters().unavailable), 1);
    // What our own key signs needs nobody; what it did not sign is bad.
    assert_eq!(verdict(&verifier, &token_of(&good())).await, "good");
    let forged = signed(
        r#"{"alg":"HS256"}"#,
        &good().to_string(),
        &EncodingKey::from_secret(&[1; 32]),
        Algorithm::HS256,
    );
    assert_eq!(verdict(&verifier, &forged).await, "signature");
    issuer.publish(&[RSA.jwk("a")]);
    clock.advance(Duration::from_secs(30));
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "good");
    assert_eq!(verifier.keys_age(), Some(Duration::ZERO));
}

#[tokio::test]
async fn an_issuer_that_is_started_after_us_is_found() {
    let issuer = Issuer::start();
    issuer.publish(&[RSA.jwk("a")]);
    let config = JwtConfig { jwks_url: Some(issuer.url("/jwks")), wait: PATIENCE, ..JwtConfig::default() };
    let verifier = open(&config);
    verifier.start(0);
    while verifier.keys_age().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "good");
}

#[tokio::test]
async fn what_is_no_set_of_keys_is_not_taken() {
    let set = json!({"keys": [RSA.jwk("a")]}).to_string();
    wrong_answer("404 Not Found", "", set.as_bytes()).await;
    wrong_answer("302 Found", "Location: /elsewhere\r\n", b"").await;
    wrong_answer("307 Temporary Redirect", "Location: http://169.254.169.254/\r\n", set.as_bytes()).await;
    wrong_answer("204 No Content", "", b"").await;
    wrong_answer("200 OK", "", b"").await;
    wrong_answer("200 OK", "", b"null").await;
    wrong_answer("200 OK", "", b"{\"keys\":{}}").await;
    let huge = format!("{{\"padding\":\"{}\",{}", "x".repeat(1 << 20), &set[1..]);
    wrong_answer("200 OK", "", huge.as_bytes()).await;
    let deep = format!("{{\"padding\":{}{},{}", "[".repeat(1000), "]".repeat(1000), &set[1..]);
    wrong_answer("200 OK", "", deep.as_bytes()).await;
}

#[tokio::test]
async fn keys_that_nobody_should_publish_are_left_out() {
    let Setup { issuer, verifier, .. } = setup();
    let mut private = OTHER_RSA.jwk("private");
    private["d"] = "AAAA".into();
    let mut encryption = OTHER_RSA.jwk("encryption");
    encryption["use"] = "enc".into();
    let oct = json!({"kty": "oct", "kid": "secret", "alg": "HS256", "k": encoded(SECRET)});
    issuer.publish(&[oct, private, encryption, RSA.jwk("a")]);
    verifier.refresh_keys().await;
    assert_eq!(read(&verifier.counters().keys), 1);
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "good");
    assert_eq!(verdict(&verifier, &token_by(&OTHER_RSA, "private")).await, "unknown_key");
    assert_eq!(verdict(&verifier, &token_by(&OTHER_RSA, "encryption")).await, "unknown_key");
    let token = signed(r#"{"alg":"HS256","kid":"secret"}"#, &good().to_string(), &secret(), Algorithm::HS256);
    assert_eq!(verdict(&verifier, &token).await, "unknown_key");
}

#[tokio::test]
async fn who_publishes_a_key_by_the_name_of_one_of_ours_does_not_replace_it() {
    let issuer = Issuer::start();
    issuer.publish(&[OTHER_RSA.jwk("ours"), OTHER_RSA.jwk("theirs")]);
    let dir = tempfile::tempdir().unwrap();
    let keys = vec![key_file(write(dir.path(), "key", &RSA.public_pem), Some("ours"), &[Algorithm::RS256])];
    let verifier = open(&JwtConfig { keys, jwks_url: Some(issuer.url("/jwks")), ..JwtConfig::default() });
    verifier.refresh_keys().await;
    assert_eq!(verdict(&verifier, &token_by(&RSA, "ours")).await, "good");
    assert_eq!(verdict(&verifier, &token_by(&OTHER_RSA, "ours")).await, "signature");
    assert_eq!(verdict(&verifier, &token_by(&OTHER_RSA, "theirs")).await, "good");
}

#[tokio::test]
async fn an_issuer_says_where_its_keys_are_and_has_to_be_the_issuer_of_its_tokens() {
    let issuer = Issuer::start();
    let name = issuer.url("/realm");
    let discovery = "/realm/.well-known/openid-configuration";
    let document =
        |issuer_name: &str, keys: &str| json!({"issuer": issuer_name, "jwks_uri": keys}).to_string();
    issuer.publish(&[RSA.jwk("a")]);
    issuer.put(discovery, "200 OK", &document(&name, &issuer.url("/jwks")));
    let config = JwtConfig { oidc_issuer: Some(name.clone()), ..config() };
    let by = |issued_by: Value| {
        let claims = good_but(json!({"iss": issued_by})).to_string();
        signed(r#"{"alg":"RS256","kid":"a"}"#, &claims, &RSA.private, Algorithm::RS256)
    };
    let verifier = open(&config);
    verifier.refresh_keys().await;
    assert_eq!(verdict(&verifier, &by(json!(name))).await, "good");
    assert_eq!(verdict(&verifier, &by(json!(format!("{name}/")))).await, "issuer");
    assert_eq!(verdict(&verifier, &by(json!(null))).await, "issuer");
    // The issuer is that of its keys; ours are not bound to it.
    assert_eq!(verdict(&verifier, &token_of(&good())).await, "good");
    let jwks = issuer.url("/jwks");
    for wrong in [
        document(&format!("{name}/"), &jwks),
        document(&name.to_uppercase(), &jwks),
        document("https://id.example.com", &jwks),
        json!({"jwks_uri": jwks}).to_string(),
        json!({"issuer": name}).to_string(),
        document(&name, "http://169.254.169.254/latest/meta-data"),
        document(&name, "http://id.example.com/keys"),
        document(&name, "file:///etc/passwd"),
        document(&name, "/jwks"),
        document(&name, &issuer.url("/nothing")),
        "[]".to_owned(),
    ] {
        issuer.put(discovery, "200 OK", &wrong);
        let verifier = open(&config);
        verifier.refresh_keys().await;
        assert_eq!(verdict(&verifier, &by(json!(name))).await, "unavailable", "{wrong}");
    }
}

#[tokio::test]
async fn keys_are_fetched_only_from_whom_we_trust() {
    let of = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (certificate.self_signed(&key).unwrap(), key)
    };
    let (here, elsewhere) = (of("127.0.0.1"), of("id.example.com"));
    let dir = tempfile::tempdir().unwrap();
    for (shown, trusted, expected) in
        [(&here, &here, "good"), (&here, &elsewhere, "unavailable"), (&elsewhere, &elsewhere, "unavailable")]
    {
        let issuer = Issuer::start_tls(&shown.0, &shown.1);
        issuer.publish(&[RSA.jwk("a")]);
        let ca_file = Some(write(dir.path(), "ca.pem", trusted.0.pem()));
        let jwks_url = Some(issuer.url("/jwks"));
        let verifier = open(&JwtConfig { ca_file, jwks_url, ..JwtConfig::default() });
        assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, expected);
    }
}

#[test]
fn a_place_that_keys_are_not_fetched_from_does_not_start() {
    for url in ["http://169.254.169.254/", "https://[fe80::1]/", "http://id.example.com/", "nonsense"] {
        let error = unusable(&JwtConfig { jwks_url: Some(url.to_owned()), ..JwtConfig::default() });
        assert!(error.starts_with("auth.jwt.jwks_url "), "{error}");
        let error = unusable(&JwtConfig { oidc_issuer: Some(url.to_owned()), ..JwtConfig::default() });
        assert!(error.starts_with("auth.jwt.oidc_issuer "), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let jwks_url = Some("https://id.example.com/".to_owned());
    for (content, wrong) in
        [("", "holds no certificate"), ("-----BEGIN CERTIFICATE-----\n", "cannot be used")]
    {
        let ca_file = Some(write(dir.path(), "ca.pem", content));
        let error = unusable(&JwtConfig { jwks_url: jwks_url.clone(), ca_file, ..JwtConfig::default() });
        assert!(error.starts_with("auth.jwt.ca_file: ") && error.contains(wrong), "{error}");
    }
}

#[test]
fn what_failed_is_tried_again_soon_and_processes_do_not_ask_together() {
    let (usual, floor) = (Duration::from_secs(300), Duration::from_secs(30));
    let seconds = |failures, incomplete| next_refresh(usual, floor, failures, incomplete, 100).as_secs();
    assert_eq!(seconds(0, false), 300);
    assert_eq!(seconds(1, false), 30);
    assert_eq!([1, 2, 3, 4, 5, 6, 60].map(|n| seconds(n, true)), [1, 2, 4, 8, 16, 30, 30]);
    for seed in 0..1000 {
        let wait = next_refresh(usual, floor, 0, false, seed);
        assert!(Duration::from_secs(270) <= wait && wait <= Duration::from_secs(330), "{wait:?}");
    }
    assert_ne!(next_refresh(usual, floor, 0, false, 1), next_refresh(usual, floor, 0, false, 2));
}
