//! What holds of any text that is no token of ours.

use proptest::prelude::*;

use super::*;

fn tokens() -> Vec<(Arc<JwtVerifier>, String)> {
    let dir = tempfile::tempdir().unwrap();
    let mut all = vec![(open(&config()), token_of(&good()))];
    for pair in [&*RSA, &*P256, &*ED25519] {
        let keys = vec![key_file(write(dir.path(), "key", &pair.public_pem), Some("a"), &[pair.algorithm])];
        all.push((open(&JwtConfig { keys, ..JwtConfig::default() }), token_by(pair, "a")));
    }
    all
}

/// Whether a text is taken, asked of a verifier that has no runtime to wait in.
fn is_good(verifier: &JwtVerifier, text: &str) -> bool {
    use futures_util::FutureExt;
    verifier.verify(text).now_or_never().expect("without issuers nothing is waited for").is_ok()
}

#[test]
fn no_token_is_good_that_was_changed_anywhere() {
    let tokens = tokens();
    for (verifier, token) in &tokens {
        assert!(is_good(verifier, token));
        // Every byte in turn, by one that a token may have.
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(!is_good(verifier, &String::from_utf8(bytes).unwrap()), "byte {at}");
        }
    }
    let mut runner = proptest::test_runner::TestRunner::default();
    let change = (0..tokens.len(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), "\\PC{0,5}");
    runner
        .run(&change, |(which, from, to, put)| {
            let (verifier, token) = &tokens[which];
            let (from, to) = (from.index(token.len()), to.index(token.len() + 1));
            let mut changed = token.clone();
            changed.replace_range(from.min(to)..to.max(from), &put);
            prop_assert!(changed == *token || !is_good(verifier, &changed), "{}", changed);
            Ok(())
        })
        .unwrap();
}

proptest! {
    #[test]
    fn no_text_whatever_is_good_or_does_harm(text in "\\PC{0,200}|[A-Za-z0-9_.-]{0,300}") {
        prop_assert!(!is_good(&open(&config()), &text));
    }

    #[test]
    fn no_claims_whatever_do_harm(
        name in "[a-z]{1,9}|luminate|vm_access|tenant|scope|exp|nbf|iat|aud|iss|jti",
        value in "[\\[\\]{}\":,a-z0-9.eE+-]{0,60}|-?[0-9]{1,30}(e[0-9]{1,3})?",
    ) {
        let claims = good_but(json!({name: "HERE"})).to_string().replace("\"HERE\"", &value);
        let claims_rules = ClaimRules { vm_access: true, ..ClaimRules::default() };
        let token = signed(r#"{"alg":"HS256"}"#, &claims, &secret(), Algorithm::HS256);
        // Good or bad, as long as it is one of the two.
        let _ = is_good(&open(&JwtConfig { claims: claims_rules, ..config() }), &token);
    }
}
