use std::{path::PathBuf, time::Duration};

use super::*;

fn auth(yaml: &str) -> Result<Auth, Vec<String>> {
    check(&format!("auth: {{mode: token, {yaml}}}")).map(|config| config.auth)
}

#[test]
fn keys_are_in_a_file_and_remembered_for_a_while() {
    let yaml = "api_keys: {file: /etc/luminate/keys.yaml, cache_size: 7, cache_ttl: 1m, stale_ttl: 0}";
    let keys = auth(yaml).unwrap().api_keys;
    assert_eq!(keys.file, Some(PathBuf::from("/etc/luminate/keys.yaml")));
    assert_eq!((keys.cache_size.get(), keys.cache_ttl), (7, Duration::from_secs(60)));
    assert_eq!(keys.stale_ttl, Duration::ZERO);
    let by_default = auth("").unwrap();
    assert_eq!(by_default.api_keys.file, None);
    assert_eq!(by_default.api_keys.cache_size.get(), 1000);
    assert_eq!((by_default.header, by_default.max_failures_per_minute), (None, 60));
}

#[test]
fn what_makes_no_sense_of_keys_is_refused() {
    refuses(
        "auth: {mode: token, max_failures_per_minute: -1, \
         api_keys: {file: [a], cache_size: 0, cache_ttl: 0, stale_ttl: 5, reload_interval: 10ms, files: x}}",
        &[
            "auth.max_failures_per_minute: takes a whole number from 0 to 1000000 (luminate.yaml)",
            "auth.api_keys.cache_size: takes a whole number from 1 to 1000000 (luminate.yaml)",
            "auth.api_keys.file: takes text, not a list (luminate.yaml)",
            "auth.api_keys.reload_interval: must be at least 1s (luminate.yaml)",
            "auth.api_keys.cache_ttl: must be more than 0 (luminate.yaml)",
            "auth.api_keys.stale_ttl: \"5\" has no unit, write for example 5s (luminate.yaml)",
            "auth.api_keys.files: unknown key, did you mean auth.api_keys.file? (luminate.yaml)",
        ],
    );
}

#[test]
fn keys_that_nobody_is_asked_for_are_refused() {
    let errors = check("auth: {api_keys: {file: keys.yaml}}").unwrap_err();
    assert!(errors[0].starts_with("auth.mode: is none"), "{errors:?}");
}

#[test]
fn another_header_is_one_that_means_nothing_else() {
    assert_eq!(auth("header: X-Api-Key").unwrap().header, Some("x-api-key".to_owned()));
    for wrong in [
        "authorization",
        "X-Scope-OrgID",
        "THANOS-TENANT",
        "Host",
        "\"x y\"",
        "\"x:\"",
        "é",
        "\"x\\r\\ny\"",
        "[a]",
    ] {
        let errors = auth(&format!("header: {wrong}")).unwrap_err();
        assert!(errors[0].starts_with("auth.header: "), "{errors:?}");
    }
}

#[test]
fn tenants_are_disabled_by_their_names() {
    let names = |auth: Auth| auth.disabled_tenants.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(auth("disabled_tenants: [team-a, \"1-5\"]").unwrap()), ["team-a", "1-5"]);
    assert_eq!(names(auth("").unwrap()), [""; 0]);
    for wrong in ["[a/b]", "[..]", "[\"\"]", "[a|b]", "{a: b}", "[1]"] {
        let errors = auth(&format!("disabled_tenants: {wrong}")).unwrap_err();
        assert!(errors[0].starts_with("auth.disabled_tenants: "), "{errors:?}");
    }
}
