//! Keys in files: of every kind, of none, and changed under way.

use super::*;

fn of_key_file(content: impl AsRef<[u8]>, algorithms: &[Algorithm]) -> Result<Arc<JwtVerifier>, String> {
    let dir = tempfile::tempdir().unwrap();
    let keys = vec![key_file(write(dir.path(), "key", content), Some("a"), algorithms)];
    JwtVerifier::open(&JwtConfig { keys, ..JwtConfig::default() }, clock()).map_err(|e| e.to_string())
}

fn of_jwks(keys: &[Value]) -> Result<Arc<JwtVerifier>, String> {
    of_jwks_text(&json!({"keys": keys}).to_string())
}

fn of_jwks_text(text: &str) -> Result<Arc<JwtVerifier>, String> {
    let dir = tempfile::tempdir().unwrap();
    let jwks_file = Some(write(dir.path(), "jwks", text));
    JwtVerifier::open(&JwtConfig { jwks_file, ..JwtConfig::default() }, clock()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn every_algorithm_verifies_what_it_signed_and_nothing_else() {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    let secret = secret();
    let all: Vec<(&EncodingKey, &[u8], &[Algorithm])> = vec![
        (&secret, SECRET.as_bytes(), &[HS256, HS384, HS512]),
        (&RSA.private, RSA.public_pem.as_bytes(), &[RS256, RS384, RS512, PS256, PS384, PS512]),
        (&P256.private, P256.public_pem.as_bytes(), &[ES256]),
        (&P384.private, P384.public_pem.as_bytes(), &[ES384]),
        (&ED25519.private, ED25519.public_pem.as_bytes(), &[EdDSA]),
    ];
    for (private, public, algorithms) in &all {
        for algorithm in *algorithms {
            let verifier = of_key_file(public, &[*algorithm]).unwrap();
            for (other, _, others) in &all {
                for signed_with in *others {
                    let header = json!({"alg": signed_with, "kid": "a"}).to_string();
                    let token = signed(&header, &good().to_string(), other, *signed_with);
                    let expected = if signed_with == algorithm && std::ptr::eq(*other, *private) {
                        "good"
                    } else {
                        "algorithm"
                    };
                    assert_eq!(verdict(&verifier, &token).await, expected, "{algorithm:?} {signed_with:?}");
                }
            }
        }
    }
    let verifier = of_key_file(&RSA.public_pem, &[RS256]).unwrap();
    assert_eq!(verdict(&verifier, &token_by(&OTHER_RSA, "a")).await, "signature");
}

#[tokio::test]
async fn a_certificate_is_as_good_as_its_key() {
    for pair in [&*RSA, &*P256, &*P384, &*ED25519] {
        let certificate = rcgen::CertificateParams::new(vec!["id.example.com".to_owned()]).unwrap();
        let pem = certificate.self_signed(&pair.pair).unwrap().pem();
        let verifier = of_key_file(pem, &[pair.algorithm]).unwrap();
        assert_eq!(verdict(&verifier, &token_by(pair, "a")).await, "good", "{:?}", pair.algorithm);
    }
}

#[test]
fn a_file_that_holds_no_key_for_its_algorithms_does_not_start() {
    use Algorithm::{ES256, ES384, EdDSA, RS256};
    let two = [RSA.public_pem.as_str(), OTHER_RSA.public_pem.as_str()].concat();
    let garbage = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    let garbage_certificate = garbage.replace("PUBLIC KEY", "CERTIFICATE");
    let cut: String = RSA.public_pem.chars().take(200).collect();
    for (content, algorithm, wrong) in [
        ("", RS256, "is not PEM"),
        ("hello", RS256, "is not PEM"),
        (cut.as_str(), RS256, "is not PEM"),
        (two.as_str(), RS256, "more than one"),
        (garbage, RS256, "cannot be read"),
        (garbage_certificate.as_str(), RS256, "cannot be read"),
        (&RSA.pair.serialize_pem(), RS256, "holds a private key"),
        (&RSA.public_pem, ES256, "is an RSA key, which ES256 does not go with"),
        (&P256.public_pem, ES384, "is a key of the curve P-256, which ES384 does not go with"),
        (&P384.public_pem, ES256, "is a key of the curve P-384, which ES256 does not go with"),
        (&ED25519.public_pem, RS256, "is an Ed25519 key, which RS256 does not go with"),
        (&P256.public_pem, EdDSA, "which EdDSA does not go with"),
        (&garbage.replace("PUBLIC KEY", "NEW THING"), RS256, "neither a public key nor a certificate"),
    ] {
        let error = of_key_file(content, &[algorithm]).unwrap_err();
        assert!(error.starts_with("auth.jwt.keys[0]: ") && error.contains(wrong), "{error}");
        assert!(!error.contains("MII"), "{error}");
    }
    assert!(of_key_file(vec![b'x'; 70_000], &[RS256]).unwrap_err().contains("larger than"));
    let missing = vec![key_file("/nowhere/key.pem".into(), None, &[RS256])];
    let error = unusable(&JwtConfig { keys: missing, ..JwtConfig::default() });
    assert!(error.contains("/nowhere/key.pem cannot be read: No such file"), "{error}");
}

#[tokio::test]
async fn a_token_without_a_kid_means_a_key_without_one_or_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name, pair: &Pair| write(dir.path(), name, &pair.public_pem);
    let (one, other) = (path("one", &RSA), path("other", &OTHER_RSA));
    let by = |pair: &Pair| signed(r#"{"alg":"RS256"}"#, &good().to_string(), &pair.private, Algorithm::RS256);
    let with = |keys: Vec<KeyFile>| open(&JwtConfig { keys, ..JwtConfig::default() });
    let rs256 = [Algorithm::RS256];
    let only = with(vec![key_file(one.clone(), Some("a"), &rs256)]);
    assert_eq!(verdict(&only, &by(&RSA)).await, "good");
    let named =
        with(vec![key_file(one.clone(), Some("a"), &rs256), key_file(other.clone(), Some("b"), &rs256)]);
    assert_eq!(verdict(&named, &by(&RSA)).await, "unknown_key");
    let nameless = with(vec![key_file(one.clone(), None, &rs256), key_file(other.clone(), None, &rs256)]);
    assert_eq!(verdict(&nameless, &by(&RSA)).await, "good");
    assert_eq!(verdict(&nameless, &by(&OTHER_RSA)).await, "good");
    assert_eq!(verdict(&nameless, &token_by(&OTHER_RSA, "whatever")).await, "good");
    let mixed = with(vec![key_file(one, None, &rs256), key_file(other, Some("b"), &rs256)]);
    assert_eq!(verdict(&mixed, &by(&RSA)).await, "good");
    assert_eq!(verdict(&mixed, &by(&OTHER_RSA)).await, "signature");
    assert_eq!(verdict(&mixed, &token_by(&OTHER_RSA, "b")).await, "good");
    assert_eq!(verdict(&mixed, &token_by(&RSA, "b")).await, "signature");
}

#[tokio::test]
async fn a_jwk_set_has_keys_of_every_kind() {
    let oct = json!({"kty": "oct", "kid": "secret", "alg": "HS256", "k": encoded(SECRET)});
    let set = [RSA.jwk("rsa"), P256.jwk("p256"), P384.jwk("p384"), ED25519.jwk("ed"), oct];
    let verifier = of_jwks(&set).unwrap();
    for (pair, kid) in [(&*RSA, "rsa"), (&*P256, "p256"), (&*P384, "p384"), (&*ED25519, "ed")] {
        assert_eq!(verdict(&verifier, &token_by(pair, kid)).await, "good", "{kid}");
    }
    let token = signed(r#"{"alg":"HS256","kid":"secret"}"#, &good().to_string(), &secret(), Algorithm::HS256);
    assert_eq!(verdict(&verifier, &token).await, "good");
    assert_eq!(verifier.counters().keys.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn a_jwk_that_does_not_say_what_it_is_for_is_for_the_usual() {
    let mut jwk = RSA.jwk("a");
    jwk.as_object_mut().unwrap().remove("alg");
    jwk.as_object_mut().unwrap().remove("use");
    let verifier = of_jwks(&[jwk]).unwrap();
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "good");
    let header = r#"{"alg":"PS256","kid":"a"}"#;
    let pss = signed(header, &good().to_string(), &RSA.private, Algorithm::PS256);
    assert_eq!(verdict(&verifier, &pss).await, "algorithm");
}

#[test]
fn a_jwk_that_will_not_do_is_told_of() {
    let but = |pair: &Pair, others: Value| {
        let mut jwk = pair.jwk("a");
        jwk.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
        jwk
    };
    let short = URL_SAFE_NO_PAD.encode([0xff; 128]);
    for (jwk, wrong) in [
        (but(&RSA, json!({"use": "enc"})), "is not for signatures"),
        (but(&RSA, json!({"key_ops": ["encrypt"]})), "is not for verifying"),
        (but(&RSA, json!({"key_ops": "verify"})), "no list"),
        (but(&RSA, json!({"alg": "RSA-OAEP"})), "is no algorithm of ours"),
        (but(&RSA, json!({"alg": "none"})), "is no algorithm of ours"),
        (but(&RSA, json!({"alg": "ES256"})), "which ES256 does not go with"),
        (but(&RSA, json!({"alg": "HS256"})), "which HS256 does not go with"),
        (but(&RSA, json!({"d": "AAAA"})), "is a private key"),
        (but(&RSA, json!({"n": short})), "is an RSA key of 1024 bits"),
        (but(&RSA, json!({"e": "AQ"})), "an exponent that nobody uses"),
        (but(&RSA, json!({"e": "Ag"})), "an exponent that nobody uses"),
        (but(&RSA, json!({"e": ""})), "an exponent that nobody uses"),
        (but(&RSA, json!({"n": "§"})), "not base64url"),
        (but(&RSA, json!({"n": 5})), "no text"),
        (but(&RSA, json!({"kid": 5})), "no text"),
        (but(&RSA, json!({"kid": "x".repeat(2000)})), "name of more than"),
        (but(&P256, json!({"crv": "P-521"})), "of another curve"),
        (but(&P256, json!({"crv": "secp256k1"})), "of another curve"),
        (but(&P256, json!({"x": URL_SAFE_NO_PAD.encode([1; 32])})), "not a point on its curve"),
        (but(&P256, json!({"x": URL_SAFE_NO_PAD.encode([1; 31])})), "not a point on its curve"),
        (but(&P256, json!({"y": ""})), "not a point on its curve"),
        (but(&ED25519, json!({"crv": "Ed448"})), "of another curve"),
        (but(&ED25519, json!({"x": "AAAA"})), "is not an Ed25519 key"),
        (json!({"kty": "oct", "k": encoded(SECRET)}), "does not say for what"),
        (json!({"kty": "oct", "alg": "RS256", "k": encoded(SECRET)}), "which RS256 does not go with"),
        (json!({"kty": "XYZ"}), "of a kind that is not known"),
        (json!({}), "does not say what it is"),
        (json!(5), "is no object"),
    ] {
        let error = of_jwks(std::slice::from_ref(&jwk)).unwrap_err();
        assert!(error.starts_with("auth.jwt.jwks_file: ") && error.contains(wrong), "{jwk}: {error}");
        // In a file of ours one that will not do is a mistake, whatever else there is.
        let error = of_jwks(&[P384.jwk("good"), jwk]).unwrap_err();
        assert!(error.contains(wrong), "{error}");
    }
    assert!(of_jwks(&[P256.jwk("a"), P384.jwk("a")]).unwrap_err().contains("is there twice"));
    assert!(of_jwks(&[]).unwrap_err().contains("it is empty"));
    assert!(of_jwks(&vec![json!({}); 300]).unwrap_err().contains("has 300 keys"));
    for text in ["", "[]", "{}", "{\"keys\": 5}", "{\"keys\":[],\"keys\":[]}", "<html>"] {
        assert!(of_jwks_text(text).is_err(), "{text}");
    }
}

#[tokio::test]
async fn case_15_a_file_that_changes_is_read_again_and_one_that_is_wrong_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "secret", SECRET);
    let verifier = open(&JwtConfig { secret_file: Some(path.clone()), ..JwtConfig::default() });
    let old = token_of(&good());
    assert_eq!(verdict(&verifier, &old).await, "good");
    for wrong in ["", "short", "changeme-changeme-changeme-changeme-changeme"] {
        std::fs::write(&path, wrong).unwrap();
        verifier.look_at_files();
        assert_eq!(verdict(&verifier, &old).await, "good", "{wrong}");
    }
    assert_eq!(verifier.counters().failed_file_reloads.load(Ordering::Relaxed), 3);
    let next = "3vN7yQm2Zx8Kc5Rt9Wb4Hf6Js1Lp0Dg+";
    std::fs::write(&path, format!("{next}\n")).unwrap();
    verifier.look_at_files();
    assert_eq!(verdict(&verifier, &old).await, "signature");
    let key = EncodingKey::from_secret(next.as_bytes());
    let new = signed(r#"{"alg":"HS256"}"#, &good().to_string(), &key, Algorithm::HS256);
    assert_eq!(verdict(&verifier, &new).await, "good");
    std::fs::remove_file(&path).unwrap();
    verifier.look_at_files();
    assert_eq!(verdict(&verifier, &new).await, "good");
    assert_eq!(verifier.counters().file_reloads.load(Ordering::Relaxed), 1);
}

#[test]
fn a_secret_is_in_nothing_that_is_printed_of_a_verifier() {
    let verifier = open(&config());
    let shown = format!("{verifier:?} {:?}", config());
    assert!(!shown.contains(SECRET) && shown.contains("auth.jwt.secret"), "{shown}");
}
