use super::*;
use crate::{
    gateway::limit::table::Rules,
    model::{Limit, TenantLimits},
};

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

struct Case {
    dir: tempfile::TempDir,
    table: Arc<LimitTable>,
}

impl Case {
    fn new() -> Self {
        let rules = Rules {
            hard: TenantLimits::unlimited().with(Limit::Samples, 1000),
            settles_itself: true,
            ..Rules::of(TenantLimits::default())
        };
        Self { dir: tempfile::tempdir().unwrap(), table: Arc::new(LimitTable::new(rules)) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("overrides.yaml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn open(&self) -> Result<OverridesFile, String> {
        OverridesFile::open(&self.path(), Duration::from_secs(10), Arc::clone(&self.table))
    }

    fn samples(&self, name: &str) -> Option<u64> {
        self.table.limits_of(&tenant(name), &LimitOverrides::default()).get(Limit::Samples)
    }
}

fn of_a(samples: u64) -> String {
    format!("overrides: {{a: {{samples_per_second: {samples}}}}}\n")
}

#[test]
fn everybody_and_tenants_have_what_is_written() {
    let text = "overrides:\n  '*': {queries_per_second: 3}\n  a:\n    samples_per_second: 5\n    max_query_range: \
                30d\n  b: {}\n  c: null\n";
    let read = read(text.as_bytes()).unwrap();
    assert_eq!(read.everybody.to_json(), serde_json::json!({"queries_per_second": 3}));
    let expected = serde_json::json!({"samples_per_second": 5, "max_query_range": "30d"});
    assert_eq!(read.tenants[&tenant("a")].to_json(), expected);
    assert!(read.tenants[&tenant("b")].is_empty() && read.tenants[&tenant("c")].is_empty());
    assert_eq!(super::read(b"overrides: {}").unwrap(), TenantOverrides::default());
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let wrong = |text: &str| read(text.as_bytes()).unwrap_err().join("\n");
    let all = wrong(
        "override: 1\noverrides:\n  a: {samples: 1, max_query_range: 5}\n  b/c: {}\n  5: {}\n  d: [1]\n  e: {1: 2}\n  \
         f: {samples_per_second: .inf, on_conflict: !x last}\n  g: {samples_burst: .nan}\n",
    );
    for part in [
        "override: unknown, there is only overrides",
        "overrides.a.samples: unknown limit",
        "overrides.a.max_query_range: \"5\" has no unit",
        "overrides.b/c: tenant id contains the unsupported character '/'",
        "a tenant's name is not text; write it in quotes",
        "overrides.d: takes limits by their names, not a list",
        "a limit's name is not text",
        "there are no tags here",
        "overrides.g.samples_burst: \".nan\" is not a whole number",
    ] {
        assert!(all.contains(part), "{part}\nis not in\n{all}");
    }
    for (text, why) in [
        ("", "has no overrides"),
        ("# nothing\n", "has no overrides"),
        ("other: {}", "has no overrides"),
        ("[1]", "has no overrides"),
        ("overrides:\n", "takes tenants by their names"),
        ("overrides: {a: {samples_per_second: 1}, a: {}}", "duplicate"),
        ("overrides: {a: {samples_per_second: 1, samples_per_second: 2}}", "duplicate"),
        ("overrides: {a: {samp", "line 1"),
        ("overrides: \u{0}", ""),
    ] {
        let told = wrong(text);
        assert!(told.contains(why), "{text:?}: {told}");
    }
    let many: String = (0..1000).map(|i| format!("  t{i}: {{x: 1}}\n")).collect();
    let told = wrong(&format!("overrides:\n{many}"));
    assert!(told.lines().count() == MOST_ERRORS + 1 && told.ends_with("and more is wrong"), "{told}");
}

#[test]
fn a_file_has_to_be_there_and_right_at_the_start() {
    let case = Case::new();
    assert!(case.open().unwrap_err().contains("No such file"));
    case.write("overrides: {a: {samples: 1}}");
    assert!(case.open().unwrap_err().contains("overrides.a.samples: unknown limit"));
    case.write("overrides: {a: {on_conflict: reject}}");
    assert!(case.open().unwrap_err().contains("overrides.a.on_conflict: the store settles"));
    case.write(&format!("overrides: {{}} # {}", "x".repeat(usize::try_from(MAX_BYTES).unwrap())));
    assert!(case.open().unwrap_err().contains("larger than 16MiB"));
    std::fs::write(case.path(), b"overrides: {a\xff: {}}").unwrap();
    assert!(case.open().is_err());
    case.write(&of_a(7));
    case.open().unwrap();
    assert_eq!(case.samples("a"), Some(7));
}

#[test]
fn a_change_is_taken_when_it_has_settled() {
    let case = Case::new();
    case.write(&of_a(1));
    let file = case.open().unwrap();
    assert_eq!(file.look_again(), None);
    // A file that is being written: each look finds another one.
    for half in ["overrides: {", "overrides: {}\n", "overrides:\n  b: {samples_per_second: 2}\n"] {
        case.write(half);
        assert_eq!(file.look_again(), None);
        assert_eq!((case.samples("a"), file.every()), (Some(1), SETTLES));
    }
    assert_eq!(file.look_again(), Some(Ok(())));
    assert_eq!((case.samples("a"), case.samples("b")), (Some(1000), Some(2)), "hard limits hold");
    assert_eq!((file.look_again(), file.every()), (None, Duration::from_secs(10)));
    // Back before it was taken: nothing happened.
    case.write(&of_a(3));
    assert_eq!(file.look_again(), None);
    case.write("overrides:\n  b: {samples_per_second: 2}\n");
    assert_eq!(file.look_again(), None);
    assert_eq!(file.look_again(), None);
    // Who asks for it does not wait.
    case.write(&of_a(4));
    assert_eq!(file.read_again(), Ok(()));
    assert_eq!((case.samples("a"), file.look_again()), (Some(4), None));
}

#[test]
fn a_broken_or_missing_file_is_told_once_and_changes_nothing() {
    let case = Case::new();
    case.write(&of_a(1));
    let file = case.open().unwrap();
    let breaks = |how: &dyn Fn(), why: &str| {
        how();
        assert_eq!(file.look_again(), None, "it may be being written");
        let told = file.look_again().unwrap().unwrap_err();
        assert!(told.contains(why) && told.contains("overrides.yaml"), "{told}");
        assert_eq!(file.look_again(), None, "told once");
        assert_eq!(case.samples("a"), Some(1));
        assert!(file.read_again().unwrap_err().contains(why), "told again to who asks");
        assert_eq!(file.look_again(), None);
    };
    let whole = of_a(2);
    for end in [0, 5, whole.len() - 5] {
        breaks(&|| case.write(&whole[..end]), "");
    }
    breaks(&|| case.write("overrides: {a: {samples_per_second: 2}, b: {x: 1}}"), "overrides.b.x");
    breaks(&|| std::fs::remove_file(case.path()).unwrap(), "No such file");
    breaks(&|| std::fs::create_dir(case.path()).unwrap(), "directory");
    std::fs::remove_dir(case.path()).unwrap();
    case.write(&of_a(1));
    assert_eq!(file.look_again(), Some(Ok(())), "it is over");
    assert_eq!(file.look_again(), None);
    case.write(&of_a(2));
    assert_eq!(file.look_again(), None);
    assert_eq!(file.look_again(), Some(Ok(())));
    assert_eq!(case.samples("a"), Some(2));
}
