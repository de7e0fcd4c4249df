//! Calls go one way, and every file says what it is for: rules about the source, kept by reading it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Which modules of `src/` a module may name beside itself. Top to bottom, it is the path of a request.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("gateway", &["ingest", "query", "promql", "storage", "model", "clock", "task"]),
    ("query", &["promql", "storage", "model", "clock", "task"]),
    ("ingest", &["storage", "model", "clock", "task"]),
    ("promql", &["storage", "model", "clock", "task"]),
    ("storage", &["model", "clock", "task"]),
    ("model", &[]),
    ("clock", &["model"]),
    ("task", &[]),
    ("config", &["model"]),
    ("self_scrape", &["storage", "model", "clock", "task"]),
    ("telemetry", &["gateway", "ingest", "query", "model", "clock"]),
    ("cli", &["app", "config", "telemetry", "model", "clock"]),
];

/// Modules that build the others, and may name all of them.
const OVER_ALL: &[&str] = &["app", "lib", "main"];

/// Backends, which only they themselves and `app` may name.
const BACKENDS: &[&str] = &["embedded", "clickhouse"];

#[test]
fn calls_go_one_way() {
    let mut wrong = Vec::new();
    for file in source_files() {
        let module = module_of(&file);
        if OVER_ALL.contains(&module.as_str()) {
            continue;
        }
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: module {module} has no place in the layers", file.display()));
            continue;
        };
        for named in modules_named_in(&product_code(&file)) {
            if named != module && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{}: {module} may not name crate::{named}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_app_names_a_backend() {
    let mut wrong = Vec::new();
    for file in source_files() {
        let module = module_of(&file);
        for backend in BACKENDS {
            let own = Path::new("storage").join(backend);
            let inside = file.strip_prefix(source()).unwrap().starts_with(own);
            let text = product_code(&file);
            let named =
                text.contains(&format!("storage::{backend}")) || text.contains(&format!("{backend}::"));
            if named && !inside && module != "app" {
                wrong.push(format!("{}: names the backend {backend}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_the_gateway_and_the_clients_know_http() {
    let mut wrong = Vec::new();
    for file in source_files() {
        let module = module_of(&file);
        let speaks_to_clickhouse = file.starts_with(source().join("storage/clickhouse/client"));
        if ["gateway", "cli", "app"].contains(&module.as_str()) || speaks_to_clickhouse {
            continue;
        }
        for library in ["axum::", "hyper::", "tower::", "tower_http::"] {
            if product_code(&file).contains(library) {
                wrong.push(format!("{}: names {library}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_opens_with_its_idea() {
    let mut wrong = Vec::new();
    for file in source_files() {
        let is_test = file.file_stem().is_some_and(|stem| stem == "tests")
            || file.components().any(|part| part.as_os_str() == "tests");
        if !is_test && !fs::read_to_string(&file).unwrap().starts_with("//! ") {
            wrong.push(format!("{}: does not begin with a module doc", file.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn source_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The top-level module a file belongs to.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(source()).unwrap();
    let top = inside.components().next().unwrap().as_os_str().to_string_lossy();
    top.trim_end_matches(".rs").to_owned()
}

/// A file's code without comments and without its tests, which may reach for whatever they need.
fn product_code(file: &Path) -> String {
    let in_tests = file.file_stem().is_some_and(|stem| stem == "tests")
        || file.components().any(|part| part.as_os_str() == "tests");
    if in_tests {
        return String::new();
    }
    let text = fs::read_to_string(file).unwrap();
    let product = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = product.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The top-level modules a text names, as `crate::a` or in `use crate::{a::…, b}`.
fn modules_named_in(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => named.extend(heads(list)),
            None => named.extend(Some(head(rest))),
        }
    }
    named.remove("");
    named
}

/// The first segment of each path of a brace list, up to its end.
fn heads(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(head(list[start..at].trim()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

fn head(path: &str) -> String {
    path.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn names_are_found_in_lists_and_alone() {
    let text = "use crate::{\n    clock::Clock,\n    model::{A, b::C},\n    task,\n};\nfn f(x: crate::storage::X) {}";
    let named: Vec<String> = modules_named_in(text).into_iter().collect();
    assert_eq!(named, ["clock", "model", "storage", "task"]);
}
