//! What claims make of a bearer.

use super::*;
use crate::{
    gateway::auth::{Scope, Scopes, TenantAccess, TenantPattern},
    model::{Limit, MatchOp, Matcher, TenantId},
};

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn scopes(scopes: &[Scope]) -> Scopes {
    scopes.iter().copied().collect()
}

async fn of(others: Value) -> Result<Arc<Principal>, &'static str> {
    bearer(&ClaimRules::default(), &good_but(others)).await
}

async fn by_vm(others: Value) -> Result<Arc<Principal>, &'static str> {
    let rules = ClaimRules { vm_access: true, ..ClaimRules::default() };
    bearer(&rules, &good_but(others)).await
}

fn filters(bearer: &Principal) -> Vec<String> {
    let text = |set: &Vec<Matcher>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    bearer.filters.iter().map(text).collect()
}

#[tokio::test]
async fn a_tenant_may_be_one_or_several_of_which_the_first_is_the_default() {
    let one = of(json!({"tenant": "team-a"})).await.unwrap();
    assert_eq!(one.tenants, TenantAccess::only(tenant("team-a")));
    let several = of(json!({"tenant": ["a", "b", "team-*"]})).await.unwrap();
    let others = vec![TenantPattern::One(tenant("b")), TenantPattern::Prefix("team-".to_owned())];
    assert_eq!(several.tenants, TenantAccess { default: Some(tenant("a")), others });
    let pattern = of(json!({"tenant": ["team-*", "a"]})).await.unwrap();
    assert_eq!(pattern.tenants.default, None);
    assert!(pattern.tenants.allows(&tenant("team-7")) && pattern.tenants.allows(&tenant("a")));
    assert!(!pattern.tenants.allows(&tenant("b")));
}

#[tokio::test]
async fn claims_are_found_at_their_paths() {
    let rules = |tenant: &str| ClaimRules { tenant: tenant.to_owned(), ..ClaimRules::default() };
    let nested =
        good_but(json!({"tenant": null, "realm": {"org": {"id": "team-b"}}, "https://x.io/t": "team-c"}));
    let of =
        async |path: &str| bearer(&rules(path), &nested).await.map(|bearer| bearer.tenants.default.clone());
    assert_eq!(of("realm.org.id").await, Ok(Some(tenant("team-b"))));
    assert_eq!(of("https://x.io/t").await, Ok(Some(tenant("team-c"))));
    for missing in ["tenant", "realm.org.name", "realm.id", "realm.org.id.x", "org", "realm"] {
        assert_eq!(of(missing).await, Err("tenant"), "{missing}");
    }
}

#[tokio::test]
async fn scopes_are_text_or_a_list_and_others_are_ignored() {
    use Scope::{Admin, Delete, Read, Rules, Write};
    for (claims, expected) in [
        (json!({"scope": "read"}), scopes(&[Read])),
        (json!({"scope": "openid write  read profile"}), scopes(&[Read, Write])),
        (json!({"scope": ["delete", "rules", "email"]}), scopes(&[Delete, Rules])),
        (json!({"scope": "admin"}), scopes(&[Admin])),
        (json!({"scope": null, "scp": ["write"]}), scopes(&[Write])),
        (json!({"scope": null, "scp": "write"}), scopes(&[Write])),
        (json!({"luminate": {"scopes": ["read"]}}), scopes(&[Read])),
        (json!({"luminate": {"scopes": "delete"}}), scopes(&[Delete])),
    ] {
        assert_eq!(of(claims.clone()).await.unwrap().scopes, expected, "{claims}");
    }
    for claims in [
        json!({"scope": null}),
        json!({"scope": ""}),
        json!({"scope": "openid"}),
        json!({"scope": "READ"}),
        json!({"scope": "read,write"}),
        json!({"scope": 5}),
        json!({"scope": ["read", 5]}),
        json!({"scope": {"read": true}}),
        json!({"luminate": {"scopes": []}}),
        json!({"luminate": {"scopes": ["raed"]}}),
        json!({"luminate": {"scopes": 5}}),
    ] {
        assert_eq!(of(claims.clone()).await.unwrap_err(), "scope", "{claims}");
    }
    let rules = ClaimRules { default_scopes: scopes(&[Read]), ..ClaimRules::default() };
    let silent = bearer(&rules, &good_but(json!({"scope": "openid"}))).await.unwrap();
    assert_eq!(silent.scopes, scopes(&[Read]));
    let none = bearer(&rules, &good_but(json!({"luminate": {"scopes": []}}))).await;
    assert_eq!(none.unwrap_err(), "scope");
    let rules = ClaimRules { scopes: "realm.roles".to_owned(), ..ClaimRules::default() };
    let roles = good_but(json!({"realm": {"roles": ["read"]}}));
    assert_eq!(bearer(&rules, &roles).await.unwrap().scopes, scopes(&[Read]));
}

#[tokio::test]
async fn our_own_claim_says_everything() {
    let bearer = of(json!({"luminate": {
        "tenant": "team-b",
        "tenants": ["team-c", "x-*"],
        "scopes": ["read", "write"],
        "labels": {"site": "berlin", "env": "prod"},
        "filters": ["{env=\"prod\"}", "{env=~\"dev|test\",team=\"a\"}"],
        "limits": {"samples_per_second": 50000, "max_active_series": "unlimited", "query_timeout": "5s"},
    }}))
    .await
    .unwrap();
    assert_eq!(bearer.tenants.default, Some(tenant("team-b")));
    assert!(bearer.tenants.allows(&tenant("x-1")) && !bearer.tenants.allows(&tenant("team-a")));
    assert_eq!(
        bearer.stamps,
        [("env", "prod"), ("site", "berlin")].map(|(n, v)| (n.to_owned(), v.to_owned()))
    );
    assert_eq!(filters(&bearer), ["env=\"prod\"", "env=~\"dev|test\",team=\"a\""]);
    assert_eq!(bearer.filters[1][0].op(), MatchOp::Matches);
    let value = |limit| bearer.limits.values.iter().find(|(of, _)| *of == limit).map(|(_, value)| *value);
    assert_eq!(value(Limit::Samples), Some(Some(50_000)));
    assert_eq!(value(Limit::ActiveSeries), Some(None));
    assert_eq!(value(Limit::QueryTimeout), Some(Some(5000)));
    let first = of(json!({"tenant": null, "luminate": {"tenants": ["a", "b"]}})).await.unwrap();
    assert_eq!(first.tenants.default, Some(tenant("a")));
}

#[tokio::test]
async fn a_fence_that_cannot_be_read_lets_nobody_in() {
    for ours in [
        json!("team-a"),
        json!([]),
        json!({"filter": ["{env=\"prod\"}"]}),
        json!({"filters": []}),
        json!({"filters": "{env=\"prod\"}"}),
        json!({"filters": [5]}),
        json!({"filters": ["{}"]}),
        json!({"filters": [""]}),
        json!({"filters": ["{env=~\".*\"}"]}),
        json!({"filters": ["{env=\"prod\"", "{a=\"b\"}"]}),
        json!({"filters": ["sum(up)"]}),
        json!({"filters": ["{env=~\"(\"}"]}),
        json!({"filters": vec!["{a=\"b\"}"; 65]}),
        json!({"labels": []}),
        json!({"labels": {"a": 1}}),
        json!({"labels": {"": "x"}}),
        json!({"labels": {"a": ""}}),
        json!({"labels": {"__name__": "x"}}),
        json!({"labels": {"__tenant_id__": "x"}}),
        json!({"limits": []}),
        json!({"limits": null}),
        json!({"limits": {"samples_per_secnd": 5}}),
        json!({"limits": {"samples_per_second": -5}}),
        json!({"limits": {"samples_per_second": "many"}}),
        json!({"tenants": "team-a"}),
    ] {
        let refused = of(json!({"luminate": ours})).await.unwrap_err();
        assert_eq!(refused, "claims", "{ours}");
    }
    for ours in
        [json!({"tenant": ""}), json!({"tenant": ["a"]}), json!({"tenants": []}), json!({"tenants": [1]})]
    {
        assert_eq!(of(json!({"luminate": ours})).await.unwrap_err(), "tenant", "{ours}");
    }
}

#[tokio::test]
async fn a_bearers_name_fits_in_a_log_line() {
    let named = of(json!({"sub": "a\nb\u{1b}[31m"})).await.unwrap();
    assert_eq!(named.name, "ab[31m");
    assert_eq!(of(json!({"sub": "x".repeat(1000)})).await.unwrap().name.len(), 128);
    assert_eq!(of(json!({"sub": null, "client_id": "c"})).await.unwrap().name, "c");
    assert_eq!(of(json!({"sub": null})).await.unwrap().name, "token");
    assert_eq!(of(json!({"sub": 5})).await.unwrap().name, "token");
}

#[tokio::test]
async fn the_older_shape_of_vm_access_is_understood_as_object_and_as_text() {
    let claim = json!({
        "tenant_id": {"account_id": 1, "project_id": 5},
        "extra_labels": {"team": "dev"},
        "extra_filters": ["{env=~\"prod|dev\"}", "{env=\"x\"}"],
        "mode": 1,
    });
    for shape in [claim.clone(), json!(claim.to_string())] {
        let bearer = by_vm(json!({"tenant": null, "scope": null, "vm_access": shape})).await.unwrap();
        assert_eq!(bearer.tenants, TenantAccess::only(tenant("1-5")));
        assert_eq!(bearer.scopes, scopes(&[Scope::Read]));
        assert_eq!(bearer.stamps, [("team".to_owned(), "dev".to_owned())]);
        assert_eq!(filters(&bearer), ["team=\"dev\",env=~\"prod|dev\"", "team=\"dev\",env=\"x\""]);
    }
    for (mode, expected) in [
        (json!({"mode": 0}), vec![Scope::Read, Scope::Write]),
        (json!({}), vec![Scope::Read, Scope::Write]),
        (json!({"mode": 2}), vec![Scope::Write]),
    ] {
        let mut claim = json!({"tenant_id": {"account_id": 7}});
        claim.as_object_mut().unwrap().extend(mode.as_object().unwrap().clone());
        let bearer = by_vm(json!({"tenant": null, "scope": null, "vm_access": claim})).await.unwrap();
        assert_eq!((bearer.scopes, bearer.tenants.default.clone()), (scopes(&expected), Some(tenant("7"))));
        assert!(bearer.filters.is_empty());
    }
    // Without the switch it says nothing.
    let off = of(json!({"tenant": null, "vm_access": claim})).await;
    assert_eq!(off.unwrap_err(), "tenant");
}

#[tokio::test]
async fn the_newer_shape_of_vm_access_is_understood() {
    let bearer = by_vm(json!({"tenant": null, "vm_access": {
        "metrics_account_id": 1, "metrics_project_id": 0,
        "metrics_extra_labels": ["team=dev", "env=a=b"],
        "logs_account_id": 2, "logs_extra_filters": ["x"],
    }}))
    .await
    .unwrap();
    assert_eq!(bearer.tenants, TenantAccess::only(tenant("1")));
    assert_eq!(bearer.scopes, scopes(&[Scope::Read, Scope::Write]));
    assert_eq!(filters(&bearer), ["env=\"a=b\",team=\"dev\""]);
    let no_scope =
        by_vm(json!({"tenant": null, "scope": null, "vm_access": {"metrics_account_id": 1}})).await;
    assert_eq!(no_scope.unwrap_err(), "scope");
}

#[tokio::test]
async fn vm_access_narrows_what_other_claims_say() {
    let bearer = by_vm(json!({
        "scope": "read write delete",
        "luminate": {"filters": ["{env=\"prod\"}"], "labels": {"site": "b"}},
        "vm_access": {"mode": 1, "extra_labels": {"team": "dev"}},
    }))
    .await
    .unwrap();
    assert_eq!(bearer.scopes, scopes(&[Scope::Read]));
    assert_eq!(bearer.tenants, TenantAccess::only(tenant("team-a")));
    assert_eq!(filters(&bearer), ["env=\"prod\",team=\"dev\""]);
    assert_eq!(bearer.stamps.len(), 2);
    let write_only = by_vm(json!({"scope": "read", "vm_access": {"mode": 2}})).await;
    assert_eq!(write_only.unwrap_err(), "scope");
    let two_ways =
        json!({"luminate": {"labels": {"team": "a"}}, "vm_access": {"extra_labels": {"team": "b"}}});
    assert_eq!(by_vm(two_ways).await.unwrap_err(), "claims");
}

#[tokio::test]
async fn a_vm_access_that_cannot_be_read_lets_nobody_in() {
    for claim in [
        json!(5),
        json!([]),
        json!("{"),
        json!("[]"),
        json!(r#"{"mode":1,"mode":0}"#),
        json!({"mode": "1"}),
        json!({"mode": -1}),
        json!({"tenant_id": "1"}),
        json!({"tenant_id": {"account_id": 1, "acount": 2}}),
        json!({"mode": 1, "metrics_account_id": 1}),
        json!({"extra_filter": ["{a=\"b\"}"]}),
        json!({"extra_filters": "{a=\"b\"}"}),
        json!({"extra_filters": ["{}"]}),
        json!({"extra_filters": ["nonsense{"]}),
        json!({"extra_labels": {"a": 1}}),
        json!({"extra_labels": {"__name__": "a"}}),
        json!({"metrics_extra_labels": ["a"]}),
        json!({"metrics_extra_labels": ["a=1", "a=2"]}),
        json!({"metrics_extra_labels": ["=1"]}),
        json!({"metrics_extra_labels": {"a": "1"}}),
    ] {
        assert_eq!(by_vm(json!({"vm_access": claim})).await.unwrap_err(), "claims", "{claim}");
    }
    for claim in [
        json!({"tenant_id": {}}),
        json!({"tenant_id": {"project_id": 5}}),
        json!({"tenant_id": {"account_id": -1}}),
        json!({"tenant_id": {"account_id": "1"}}),
        json!({"tenant_id": {"account_id": 4294967296_u64}}),
        json!({"metrics_project_id": 5}),
    ] {
        assert_eq!(
            by_vm(json!({"tenant": null, "vm_access": claim})).await.unwrap_err(),
            "tenant",
            "{claim}"
        );
    }
    assert_eq!(by_vm(json!({"tenant": null, "vm_access": {}})).await.unwrap_err(), "tenant");
    assert_eq!(by_vm(json!({"vm_access": {"mode": 3}})).await.unwrap_err(), "scope");
}
