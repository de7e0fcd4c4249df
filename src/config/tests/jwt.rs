use std::path::PathBuf;

use jsonwebtoken::Algorithm;

use super::*;

const SECRET: &str = "kH8s1vVxQe0Zt3Wq9LrNb7MyUc5Df2a+";

fn jwt(yaml: &str) -> Result<Jwt, Vec<String>> {
    check(&format!("auth: {{mode: token, jwt: {yaml}}}")).map(|config| config.auth.jwt)
}

#[test]
fn a_variable_is_enough_for_a_secret() {
    let mode = ("LUMINATE_AUTH__MODE", "token");
    let config = check_with("", &[mode, ("LUMINATE_AUTH__JWT__SECRET", SECRET)], &[]).unwrap();
    assert_eq!(config.auth.jwt.secret, Some(Secret(SECRET.to_owned())));
    assert!(!format!("{config:?}").contains(SECRET));
    let config =
        check_with("", &[mode, ("LUMINATE_AUTH__JWT__SECRET_FILE", "/run/secrets/jwt-secret")], &[]).unwrap();
    assert_eq!(config.auth.jwt.secret_file, Some(PathBuf::from("/run/secrets/jwt-secret")));
}

#[test]
fn a_secret_is_not_printed() {
    let yaml = format!("auth: {{mode: token, jwt: {{secret: \"{SECRET}\"}}}}");
    let file = ConfigFile::parse("luminate.yaml", &yaml).unwrap();
    let (_, settings) = Config::check(&Sources { file, ..Sources::none() }).unwrap();
    let printed = settings.to_yaml();
    assert!(printed.contains("secret: <secret>") && !printed.contains(SECRET), "{printed}");
}

#[test]
fn a_weak_secret_is_refused_by_the_name_of_its_key_and_not_shown() {
    for (secret, why) in [
        ("    ", "is blank"),
        ("hunter2", "has 7 bytes; it takes at least 32"),
        ("your-strong-secret-here", "has 23 bytes"),
        ("your-strong-secret-here-which-is-long-enough", "is a placeholder"),
        ("changeme-changeme-changeme-changeme", "is a placeholder"),
        ("secretsecretsecretsecretsecretsecret", "is a placeholder"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "over and over"),
    ] {
        let errors = jwt(&format!("{{secret: \"{secret}\"}}")).unwrap_err();
        assert!(errors[0].starts_with("auth.jwt.secret: ") && errors[0].contains(why), "{errors:?}");
        assert!(!errors[0].contains(secret) || secret.trim().is_empty(), "{errors:?}");
    }
}

#[test]
fn keys_have_a_file_and_algorithms_of_one_kind() {
    let expected = [JwtKey {
        kid: Some("a".to_owned()),
        file: PathBuf::from("a.pem"),
        algorithms: vec![Algorithm::RS256, Algorithm::PS256],
    }];
    let keys = "[{kid: a, file: a.pem, algorithms: [RS256, PS256]}]";
    assert_eq!(jwt(&format!("{{keys: {keys}}}")).unwrap().keys, expected);
    let of_environment =
        check_with("auth: {mode: token}", &[("LUMINATE_AUTH__JWT__KEYS", keys)], &[]).unwrap().auth.jwt.keys;
    assert_eq!(of_environment, expected);
    let nameless = jwt("{keys: [{file: s, algorithms: HS512}]}").unwrap();
    assert_eq!((&nameless.keys[0].kid, &*nameless.keys[0].algorithms), (&None, &[Algorithm::HS512][..]));
    for (keys, wrong) in [
        ("5", "takes a list, not a number"),
        ("{a: b}", "takes a list, not a section"),
        ("\"x: [\"", "takes a list, write for example"),
        ("x", "takes a list, write for example"),
        ("[x]", "key 1 is text, not a mapping"),
        ("[{kid: a, algorithms: [RS256]}]", "key 1 names no file"),
        ("[{kid: a, file: \"\", algorithms: [RS256]}]", "key 1 names no file"),
        ("[{kid: a, file: b}]", "key 1 has no algorithms"),
        ("[{kid: a, file: b, algorithms: []}]", "key 1 must name an algorithm"),
        ("[{kid: a, file: b, algorithms: [none]}]", "\"none\" is not one of HS256"),
        ("[{kid: a, file: b, algorithms: [rs256]}]", "\"rs256\" is not one of HS256"),
        ("[{kid: a, file: b, algorithms: [RS256, HS256]}]", "is for RS256 and HS256, which no key is"),
        ("[{kid: \"\", file: b, algorithms: [RS256]}]", "has a kid that is empty"),
        ("[{kid: 5, file: b, algorithms: [RS256]}]", "has a kid that takes text"),
        (
            "[{kid: a, file: b, algorithms: [RS256], use: sig}]",
            "has something else than kid, file and algorithms",
        ),
        (
            "[{kid: a, file: b, algorithms: [RS256]}, {kid: a, file: c, algorithms: [ES256]}]",
            "key 2 has the kid \"a\" of another one",
        ),
    ] {
        let errors = jwt(&format!("{{keys: {keys}}}")).unwrap_err();
        assert!(errors[0].starts_with("auth.jwt.keys: ") && errors[0].contains(wrong), "{keys}: {errors:?}");
    }
    let many = format!("[{}]", vec!["{file: b, algorithms: [RS256]}"; 65].join(", "));
    assert!(jwt(&format!("{{keys: {many}}}")).unwrap_err()[0].contains("more than 64 keys"));
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (yaml, wrong) in [
        ("{secret_algorithms: [RS256]}", "RS256 is not HS256, HS384 or HS512"),
        ("{secret_algorithms: []}", "must name an algorithm"),
        ("{jwks_algorithms: [HS256]}", "HS256 is not an algorithm of public keys"),
        ("{jwks_algorithms: [none]}", "is not one of HS256"),
        ("{jwks_url: \"http://id.example.com/keys\"}", "is not encrypted"),
        ("{jwks_url: \"id.example.com\"}", "is not a URL"),
        ("{jwks_url: \"file:///etc/passwd\"}", "is not a URL"),
        ("{jwks_url: \"https://\"}", "is not a URL"),
        ("{jwks_url: \"https://a:b@id.example.com/\"}", "holds a user"),
        ("{oidc_issuer: \"http://id.example.com\"}", "is not encrypted"),
        ("{refresh: 0}", "auth.jwt.refresh"),
        ("{refresh_floor: 1ms}", "auth.jwt.refresh_floor"),
        ("{leeway: 3m}", "must be at most 2m"),
        ("{leeway: 1500ms}", "takes whole seconds"),
        ("{leeway: 30}", "has no unit"),
        ("{audience: [\"\"]}", "has an empty name"),
        ("{issuer: [a]}", "takes text"),
        ("{claims: {tenant: \"\"}}", "is not a claim's name"),
        ("{claims: {tenant: a..b}}", "is not a claim's name"),
        ("{claims: {tenant: [a]}}", "takes text"),
        ("{claims: {scope: a}}", "did you mean auth.jwt.claims.scopes?"),
        ("{default_scopes: [raed]}", "is not one of write, read"),
        ("{vm_access: yes}", "takes true or false"),
        ("{ca_file: ca.pem}", "no keys are fetched"),
        ("{secert: x}", "did you mean auth.jwt.secret?"),
    ] {
        let errors = jwt(yaml).unwrap_err();
        assert!(errors[0].contains(wrong), "{yaml}: {errors:?}");
    }
    let both = jwt(&format!("{{secret: \"{SECRET}\", secret_file: x}}")).unwrap_err();
    assert!(both[0].contains("only one of them can be the secret"), "{both:?}");
    let other = jwt("{oidc_issuer: \"https://a\", issuer: \"https://b\"}").unwrap_err();
    assert!(other[0].contains("is about no key"), "{other:?}");
    assert!(jwt(&format!("{{oidc_issuer: \"https://a\", issuer: \"b\", secret: \"{SECRET}\"}}")).is_ok());
}

#[test]
fn keys_that_nobody_asks_for_are_refused() {
    let errors = check(&format!("auth: {{jwt: {{secret: \"{SECRET}\"}}}}")).unwrap_err();
    assert!(errors[0].starts_with("auth.mode: is none, so that nobody is asked"), "{errors:?}");
}
