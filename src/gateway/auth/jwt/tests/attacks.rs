//! What people send who are not to get in, in the order of the list of attacks.

use rcgen::PublicKeyData;

use super::*;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

async fn with_header(header: &str) -> &'static str {
    verdict(&open(&config()), &signed(header, &good().to_string(), &secret(), Algorithm::HS256)).await
}

async fn with_claims(others: Value) -> &'static str {
    verdict(&open(&config()), &token_of(&good_but(others))).await
}

async fn with_claims_text(claims: &str) -> &'static str {
    verdict(&open(&config()), &signed(HEADER, claims, &secret(), Algorithm::HS256)).await
}

#[tokio::test]
async fn a_good_token_is_good() {
    let verifier = open(&config());
    let token = token_of(&good());
    let bearer = verifier.verify(&token).await.unwrap();
    assert_eq!((bearer.name.as_str(), bearer.known.clone()), ("agent-7", crate::gateway::auth::Known::Token));
    assert_eq!(verdict(&verifier, &token).await, "good");
    assert_eq!(verifier.counters().verified.load(Ordering::Relaxed), 1);
    assert_eq!(verifier.counters().cached.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn case_1_no_algorithm_is_none_in_any_spelling() {
    for none in ["none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "HS1", "RSA"] {
        let header = json!({"alg": none}).to_string();
        assert_eq!(with_header(&header).await, "algorithm", "{none:?}");
        let unsigned = format!("{}.{}.", encoded(&header), encoded(&good().to_string()));
        assert_eq!(verdict(&open(&config()), &unsigned).await, "signature", "{none:?}");
    }
    for header in [r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#, r#"{"alg":256}"#, r#"{"alg":{}}"#, "{}"] {
        assert_eq!(with_header(header).await, "malformed", "{header}");
    }
}

#[tokio::test]
async fn case_2_a_public_key_is_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    for pair in [&*RSA, &*P256, &*ED25519] {
        let path = write(dir.path(), "key.pem", &pair.public_pem);
        for kid in [None, Some("a")] {
            let keys = vec![key_file(path.clone(), kid, &[pair.algorithm])];
            let verifier = open(&JwtConfig { keys, ..JwtConfig::default() });
            let der = pair.pair.subject_public_key_info();
            for public in [pair.public_pem.as_bytes(), pair.public_pem.trim_end().as_bytes(), &der] {
                let key = EncodingKey::from_secret(public);
                let header = json!({"alg": "HS256", "kid": kid}).to_string().replace(r#","kid":null"#, "");
                let forged = signed(&header, &good().to_string(), &key, Algorithm::HS256);
                let refused = verdict(&verifier, &forged).await;
                assert_eq!(refused, "algorithm", "{:?} {kid:?}", pair.algorithm);
            }
        }
    }
}

#[tokio::test]
async fn case_3_an_algorithm_that_is_not_the_keys_is_refused() {
    let verifier = open(&config());
    for other in [Algorithm::HS384, Algorithm::HS512] {
        let header = json!({"alg": other}).to_string();
        let token = signed(&header, &good().to_string(), &secret(), other);
        assert_eq!(verdict(&verifier, &token).await, "algorithm");
    }
    let dir = tempfile::tempdir().unwrap();
    let keys = vec![key_file(write(dir.path(), "rsa", &RSA.public_pem), Some("a"), &[Algorithm::PS256])];
    let verifier = open(&JwtConfig { keys, ..JwtConfig::default() });
    assert_eq!(verdict(&verifier, &token_by(&RSA, "a")).await, "algorithm");
    let pss = signed(r#"{"alg":"PS256","kid":"a"}"#, &good().to_string(), &RSA.private, Algorithm::PS256);
    assert_eq!(verdict(&verifier, &pss).await, "good");
}

#[test]
fn case_4_a_secret_that_can_be_guessed_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    for (weak, why) in [
        ("", "is blank"),
        ("   \n", "is blank"),
        ("short\n", "has 5 bytes"),
        ("kH8s1vVxQe0Zt3Wq9LrNb7MyUc5Df2a\n", "has 31 bytes"),
        ("your-strong-secret-here-your-strong-secret-here", "is a placeholder"),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "over and over"),
    ] {
        let path = write(dir.path(), "secret", weak);
        let error = unusable(&JwtConfig { secret_file: Some(path.clone()), ..JwtConfig::default() });
        assert!(error.starts_with("auth.jwt.secret_file: ") && error.contains(why), "{error}");
        let keys = vec![key_file(path, Some("a"), &[Algorithm::HS256])];
        let error = unusable(&JwtConfig { keys, ..JwtConfig::default() });
        assert!(error.starts_with("auth.jwt.keys[0]: ") && error.contains(why), "{error}");
        let error = unusable(&JwtConfig { secret: Some(Secret(weak.to_owned())), ..JwtConfig::default() });
        assert!(error.starts_with("auth.jwt.secret ") && error.contains(why), "{error}");
        let jwks =
            json!({"keys": [{"kty": "oct", "alg": "HS256", "k": encoded(weak.trim_end_matches('\n'))}]});
        let jwks_file = Some(write(dir.path(), "jwks", jwks.to_string()));
        let error = unusable(&JwtConfig { jwks_file, ..JwtConfig::default() });
        assert!(error.starts_with("auth.jwt.jwks_file: ") && error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn case_5_a_signature_that_is_empty_stripped_or_cut_is_none() {
    let verifier = open(&config());
    let token = token_of(&good());
    let (message, signature) = token.rsplit_once('.').unwrap();
    for bad in [
        format!("{message}."),
        format!("{message}.{}", &signature[1..]),
        format!("{message}.{}", &signature[..signature.len() - 4]),
        format!("{message}.{signature}="),
        format!("{message}.{signature}AA"),
        format!("{message}. "),
        format!("{message}.{}", encoded("")),
    ] {
        assert_eq!(verdict(&verifier, &bad).await, "signature", "{bad}");
    }
    for bad in
        [message, "", ".", "..", "...", &format!("{token}.x"), &format!(".{token}"), " ", "a.b.c", "é.é.é"]
    {
        let refused = verdict(&verifier, bad).await;
        assert!(["malformed", "signature"].contains(&refused), "{bad:?}: {refused}");
    }
}

#[tokio::test]
async fn case_6_a_token_is_good_from_and_until_when_it_says_give_or_take_the_leeway() {
    for (claims, expected) in [
        (json!({"exp": NOW + 1}), "good"),
        (json!({"exp": NOW}), "good"),
        (json!({"exp": NOW - 29}), "good"),
        (json!({"exp": NOW - 30}), "expired"),
        (json!({"exp": NOW - 31}), "expired"),
        (json!({"exp": 0}), "expired"),
        (json!({"nbf": NOW + 30}), "good"),
        (json!({"nbf": NOW + 31}), "not_yet_valid"),
        (json!({"iat": NOW + 30}), "good"),
        (json!({"iat": NOW + 31}), "not_yet_valid"),
        (json!({"nbf": 0, "iat": 0}), "good"),
        (json!({"exp": 253_402_300_799_i64}), "good"),
        (json!({"exp": 253_402_300_800_i64}), "claims"),
    ] {
        assert_eq!(with_claims(claims.clone()).await, expected, "{claims}");
    }
    let standard = StandardRules { leeway: Duration::ZERO, ..StandardRules::default() };
    let verifier = open(&JwtConfig { standard, ..config() });
    assert_eq!(verdict(&verifier, &token_of(&good_but(json!({"exp": NOW})))).await, "expired");
    assert_eq!(verdict(&verifier, &token_of(&good_but(json!({"nbf": NOW + 1})))).await, "not_yet_valid");
    assert_eq!(verdict(&verifier, &token_of(&good_but(json!({"nbf": NOW})))).await, "good");
}

#[tokio::test]
async fn case_6_a_token_that_is_known_to_be_good_expires_all_the_same() {
    let clock = clock();
    let verifier = JwtVerifier::open(&config(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let token = token_of(&good_but(json!({"exp": NOW + 10})));
    assert_eq!(verdict(&verifier, &token).await, "good");
    clock.advance(Duration::from_millis(39_999));
    assert_eq!(verdict(&verifier, &token).await, "good");
    clock.advance(Duration::from_millis(1));
    assert_eq!(verdict(&verifier, &token).await, "expired");
}

#[tokio::test]
async fn case_6_a_token_that_comes_too_early_is_good_when_its_time_has_come() {
    let clock = clock();
    let verifier = JwtVerifier::open(&config(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let token = token_of(&good_but(json!({"nbf": NOW + 31})));
    assert_eq!(verdict(&verifier, &token).await, "not_yet_valid");
    clock.advance(Duration::from_secs(1));
    assert_eq!(verdict(&verifier, &token).await, "good");
}

#[tokio::test]
async fn case_7_a_time_is_a_whole_number_of_seconds() {
    for claim in ["exp", "nbf", "iat"] {
        for wrong in [
            "\"1900000000\"",
            "null",
            "[1900000000]",
            "{}",
            "true",
            "1900000000.5",
            "1900000000.0",
            "1.9e9",
            "-1",
            "-1900000000",
            "1e308",
            "18446744073709551615",
            "-9223372036854775808",
            "99999999999999999999999",
            "\"\"",
        ] {
            let claims = good_but(json!({claim: "HERE"})).to_string().replace("\"HERE\"", wrong);
            assert_eq!(with_claims_text(&claims).await, "claims", "{claim}: {wrong}");
        }
        let claims = good_but(json!({claim: "HERE"})).to_string().replace("\"HERE\"", "1e999");
        assert_eq!(with_claims_text(&claims).await, "malformed", "{claim}");
    }
}

#[tokio::test]
async fn case_8_what_is_asked_for_has_to_be_there() {
    assert_eq!(with_claims(json!({"exp": null})).await, "claims");
    let audience = vec!["luminate".to_owned()];
    let standard = StandardRules { audience, ..StandardRules::default() };
    let verifier =
        open(&JwtConfig { standard, issuer: Some("https://id.example.com".to_owned()), ..config() });
    let both = json!({"iss": "https://id.example.com", "aud": "luminate"});
    for (others, expected) in [
        (json!({}), "issuer"),
        (json!({"aud": "luminate"}), "issuer"),
        (json!({"iss": "https://id.example.com"}), "audience"),
        (both, "good"),
    ] {
        assert_eq!(verdict(&verifier, &token_of(&good_but(others.clone()))).await, expected, "{others}");
    }
}

#[tokio::test]
async fn case_9_a_token_of_another_issuer_or_for_another_audience_is_refused() {
    let standard = StandardRules {
        audience: vec!["luminate".to_owned(), "metrics".to_owned()],
        ..StandardRules::default()
    };
    let verifier =
        open(&JwtConfig { standard, issuer: Some("https://id.example.com".to_owned()), ..config() });
    let ours = "https://id.example.com";
    for (issuer, audience, expected) in [
        (json!(ours), json!(["other", "metrics"]), "good"),
        (json!(ours), json!(["luminate"]), "good"),
        (json!(ours), json!("Luminate"), "audience"),
        (json!(ours), json!("luminate "), "audience"),
        (json!(ours), json!(["other"]), "audience"),
        (json!(ours), json!([]), "audience"),
        (json!(ours), json!(["luminate", 5]), "audience"),
        (json!(ours), json!({"luminate": true}), "audience"),
        (json!(ours), json!(5), "audience"),
        (json!("https://id.example.com/"), json!("luminate"), "issuer"),
        (json!("http://id.example.com"), json!("luminate"), "issuer"),
        (json!([ours]), json!("luminate"), "issuer"),
        (json!(""), json!("luminate"), "issuer"),
    ] {
        let token = token_of(&good_but(json!({"iss": issuer, "aud": audience})));
        assert_eq!(verdict(&verifier, &token).await, expected, "{issuer} {audience}");
    }
    // Who asks for nobody in particular still refuses what is no name.
    assert_eq!(with_claims(json!({"aud": 5})).await, "audience");
    assert_eq!(with_claims(json!({"iss": [1]})).await, "issuer");
}

#[tokio::test]
async fn case_10_the_name_of_a_key_is_only_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let keys = vec![key_file(write(dir.path(), "a", SECRET), Some("a"), &[Algorithm::HS256])];
    let verifier = open(&JwtConfig { keys, ..JwtConfig::default() });
    let by = |kid: &str| {
        signed(
            &json!({"alg": "HS256", "kid": kid}).to_string(),
            &good().to_string(),
            &secret(),
            Algorithm::HS256,
        )
    };
    assert_eq!(verdict(&verifier, &by("a")).await, "good");
    for kid in [
        "",
        "b",
        "A",
        "a ",
        "a\0",
        "../../../../dev/null",
        "/dev/null",
        "a' OR '1'='1",
        "a; DROP TABLE keys",
        "http://127.0.0.1/key",
        "*",
        "\n",
    ] {
        assert_eq!(verdict(&verifier, &by(kid)).await, "unknown_key", "{kid:?}");
    }
    assert_eq!(verdict(&verifier, &by(&"a".repeat(1 << 20))).await, "too_long");
    for kid in ["null", "5", "[\"a\"]", "{\"a\":\"a\"}"] {
        let header = format!(r#"{{"alg":"HS256","kid":{kid}}}"#);
        let token = signed(&header, &good().to_string(), &secret(), Algorithm::HS256);
        assert_eq!(verdict(&verifier, &token).await, "malformed", "{kid}");
    }
    // Nothing signed with the empty secret is ever good.
    let empty = EncodingKey::from_secret(b"");
    let token = signed(r#"{"alg":"HS256","kid":"/dev/null"}"#, &good().to_string(), &empty, Algorithm::HS256);
    assert_eq!(verdict(&verifier, &token).await, "unknown_key");
}

#[tokio::test]
async fn case_11_a_key_that_a_token_brings_or_names_is_not_looked_at() {
    let issuer = issuer::Issuer::start();
    issuer.publish(&[P256.jwk("evil")]);
    let dir = tempfile::tempdir().unwrap();
    let keys = vec![key_file(write(dir.path(), "rsa", &RSA.public_pem), Some("a"), &[Algorithm::RS256])];
    let verifier = open(&JwtConfig { keys, ..JwtConfig::default() });
    let url = issuer.url("/jwks");
    for evil in [
        json!({"jku": url}),
        json!({"x5u": url}),
        json!({"jwk": P256.jwk("evil")}),
        json!({"x5c": ["MIIB"]}),
        json!({"jku": url, "jwk": P256.jwk("evil"), "x5u": url, "x5c": []}),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "evil"});
        header.as_object_mut().unwrap().extend(evil.as_object().unwrap().clone());
        let token = signed(&header.to_string(), &good().to_string(), &P256.private, Algorithm::ES256);
        assert_eq!(verdict(&verifier, &token).await, "unknown_key", "{header}");
        // And they do no harm where the key is one of ours.
        header["alg"] = "RS256".into();
        header["kid"] = "a".into();
        let token = signed(&header.to_string(), &good().to_string(), &RSA.private, Algorithm::RS256);
        assert_eq!(verdict(&verifier, &token).await, "good", "{header}");
    }
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn case_12_a_name_that_stands_twice_is_refused() {
    assert_eq!(with_header(r#"{"alg":"HS256","alg":"HS256"}"#).await, "malformed");
    assert_eq!(with_header(r#"{"alg":"none","alg":"HS256"}"#).await, "malformed");
    assert_eq!(with_header(r#"{"alg":"HS256","kid":"a","kid":"b"}"#).await, "malformed");
    let claims = good().to_string();
    for twice in [
        claims.replacen('{', r#"{"tenant":"team-b","#, 1),
        claims.replacen('{', r#"{"exp":9999999999,"#, 1),
        claims.replacen('{', r#"{"\u0074enant":"team-b","#, 1),
        claims.replacen('{', r#"{"luminate":{"tenant":"a","tenant":"b"},"#, 1),
    ] {
        assert_eq!(with_claims_text(&twice).await, "malformed", "{twice}");
    }
}

#[tokio::test]
async fn case_13_a_header_that_asks_for_something_is_refused() {
    for crit in [r#"["exp"]"#, r#"["b64"]"#, "[]", "null", "\"exp\"", r#"["http://example.invalid/x"]"#] {
        let header = format!(r#"{{"alg":"HS256","crit":{crit},"b64":false}}"#);
        assert_eq!(with_header(&header).await, "malformed", "{crit}");
    }
}

#[tokio::test]
async fn case_14_a_token_that_is_too_long_or_nested_too_deep_is_refused() {
    let claims = good_but(json!({"padding": "x".repeat(8 << 10)}));
    assert_eq!(verdict(&open(&config()), &token_of(&claims)).await, "too_long");
    assert_eq!(verdict(&open(&config()), &"a.".repeat(10 << 20)).await, "too_long");
    let nested = |depth: usize| {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        good_but(json!({"deep": "HERE"})).to_string().replace("\"HERE\"", &deep)
    };
    assert_eq!(with_claims_text(&nested(1000)).await, "malformed");
    assert_eq!(with_claims_text(&nested(100)).await, "good");
    let deep = format!("{}{}", r#"{"a":"#.repeat(700), "1".to_owned() + &"}".repeat(700));
    assert_eq!(with_header(&deep).await, "malformed");
}

#[tokio::test]
async fn case_16_a_token_for_another_use_is_refused_if_one_is_asked_for() {
    let standard = StandardRules { typ: Some("at+jwt".to_owned()), ..StandardRules::default() };
    let verifier = open(&JwtConfig { standard, ..config() });
    for (typ, expected) in [
        (r#","typ":"at+jwt""#, "good"),
        (r#","typ":"AT+JWT""#, "good"),
        (r#","typ":"application/at+jwt""#, "good"),
        (r#","typ":"JWT""#, "type"),
        (r#","typ":"id+jwt""#, "type"),
        (r#","typ":"logout+jwt""#, "type"),
        (r#","typ":"""#, "type"),
        ("", "type"),
        (r#","typ":5"#, "malformed"),
    ] {
        let header = format!(r#"{{"alg":"HS256"{typ}}}"#);
        let token = signed(&header, &good().to_string(), &secret(), Algorithm::HS256);
        assert_eq!(verdict(&verifier, &token).await, expected, "{typ}");
    }
}

#[tokio::test]
async fn case_17_a_token_that_was_taken_back_is_refused_although_it_was_known_to_be_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "revoked", "# taken back\nother\n");
    let verifier = open(&JwtConfig { revoked_file: Some(path.clone()), ..config() });
    let token = token_of(&good_but(json!({"jti": "token-1"})));
    assert_eq!(verdict(&verifier, &token).await, "good");
    std::fs::write(&path, "other\r\n  token-1  \n").unwrap();
    assert_eq!(verdict(&verifier, &token).await, "good");
    verifier.look_at_files();
    assert_eq!(verdict(&verifier, &token).await, "revoked");
    // A list that cannot be read any more still holds.
    std::fs::write(&path, [0xff]).unwrap();
    verifier.look_at_files();
    assert_eq!(verdict(&verifier, &token).await, "revoked");
    std::fs::write(&path, "").unwrap();
    verifier.look_at_files();
    assert_eq!(verdict(&verifier, &token).await, "good");
    assert_eq!(verdict(&verifier, &token_of(&good_but(json!({"jti": ["token-1"]})))).await, "claims");
    let missing = unusable(&JwtConfig { revoked_file: Some("/nowhere/revoked".into()), ..config() });
    assert!(missing.starts_with("auth.jwt.revoked_file: /nowhere/revoked"), "{missing}");
}

#[tokio::test]
async fn case_18_who_names_no_tenant_is_not_let_in() {
    for tenant in [
        json!(null),
        json!(""),
        json!([]),
        json!([""]),
        json!([1]),
        json!(["a", null]),
        json!(5),
        json!(true),
        json!({"id": "a"}),
        json!("a/b"),
        json!("../b"),
        json!(".."),
        json!("a|b"),
        json!("x".repeat(151)),
        json!("team-*"),
        json!("*"),
        json!(["a*b"]),
        json!(["a**"]),
    ] {
        assert_eq!(with_claims(json!({"tenant": tenant})).await, "tenant", "{tenant}");
    }
    let null = good_but(json!({"tenant": "HERE"})).to_string().replace("\"HERE\"", "null");
    assert_eq!(with_claims_text(&null).await, "tenant");
}

#[tokio::test]
async fn a_bad_token_costs_a_signature_once_and_is_counted_each_time() {
    let clock = clock();
    let verifier = JwtVerifier::open(&config(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let forged = signed(HEADER, &good().to_string(), &EncodingKey::from_secret(&[7; 32]), Algorithm::HS256);
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, &forged).await, "signature");
    }
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(read(&verifier.counters().cached_refusals), 2);
    assert_eq!(verifier.counters().refused(Reason::Signature), 3);
    clock.advance(Duration::from_secs(10));
    assert_eq!(verdict(&verifier, &forged).await, "signature");
    assert_eq!(read(&verifier.counters().cached_refusals), 2);
}
