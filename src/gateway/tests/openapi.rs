//! The description of the API against the routes there are.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml::Value;

use super::TestApp;
use crate::gateway::ROUTES;

/// What can stand under a path and is a method.
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

fn description() -> Value {
    serde_yaml::from_str(include_str!("../../../schema/openapi.yaml")).unwrap()
}

#[tokio::test]
async fn every_route_is_described_with_its_methods_and_nothing_else_is() {
    let app = TestApp::start().await;
    let mut routes = BTreeMap::new();
    for route in ROUTES {
        // No route takes this, and each then tells what it takes; a GET takes HEAD, which nobody has to describe.
        let refused = app.call("PATCH", route.path, &[("host", "localhost")], "").await;
        assert_eq!(refused.status, 405, "{}", route.path);
        let allowed = refused.headers["allow"].to_str().unwrap().to_ascii_lowercase();
        let methods = allowed.split(',').filter(|method| *method != "head").map(str::to_owned);
        routes.insert(route.path.to_owned(), methods.collect::<BTreeSet<String>>());
    }
    let description = description();
    let described: BTreeMap<String, BTreeSet<String>> = description["paths"]
        .as_mapping()
        .unwrap()
        .iter()
        .map(|(path, operations)| {
            let keys = operations.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap().to_owned());
            (path.as_str().unwrap().to_owned(), keys.filter(|key| METHODS.contains(&key.as_str())).collect())
        })
        .collect();
    assert_eq!(described, routes);
}

#[test]
fn what_is_referred_to_is_there_and_names_are_given_once() {
    let description = description();
    let (mut references, mut names) = (Vec::new(), Vec::new());
    walk(&description, &mut |key, value| match (key, value.as_str()) {
        ("$ref", Some(text)) => references.push(text.to_owned()),
        ("operationId", Some(text)) => names.push(text.to_owned()),
        _ => {}
    });
    for reference in &references {
        let way = reference.strip_prefix("#/").unwrap();
        let found = way.split('/').fold(&description, |value, part| &value[part]);
        assert!(!found.is_null(), "{reference}");
    }
    for part in ["parameters", "responses", "schemas"] {
        for name in description["components"][part].as_mapping().unwrap().keys() {
            let reference = format!("#/components/{part}/{}", name.as_str().unwrap());
            assert!(references.contains(&reference), "nothing refers to {reference}");
        }
    }
    let given = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), given, "{names:?}");
}

fn walk(value: &Value, each: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Mapping(mapping) => {
            for (key, value) in mapping {
                if let Some(key) = key.as_str() {
                    each(key, value);
                }
                walk(value, each);
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| walk(item, each)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
    }
}

#[tokio::test]
async fn the_description_is_served_in_the_version_that_is_asked_for() {
    let app = TestApp::start().await;
    for (path, version) in [
        ("/api/v1/openapi.yaml", "3.1.0"),
        ("/prometheus/api/v1/openapi.yaml?openapi_version=3.1", "3.1.0"),
        ("/api/v1/openapi.yaml?openapi_version=3.2", "3.2.0"),
        // As Prometheus does.
        ("/api/v1/openapi.yaml?openapi_version=2", "3.1.0"),
    ] {
        let reply = app.get(path).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.headers["content-type"], "application/yaml; charset=utf-8");
        let told: Value = serde_yaml::from_str(reply.text()).unwrap();
        assert_eq!(told["openapi"], version, "{path}");
    }
}
