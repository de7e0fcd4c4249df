mod listening;

use std::time::Duration;

use super::*;
use crate::model::{Limit, Millis, Secret, TenantId};

mod jwt;
mod keys;

fn check(yaml: &str) -> Result<Config, Vec<String>> {
    check_with(yaml, &[], &[])
}

fn check_with(
    yaml: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Config, Vec<String>> {
    let lines = |errors: ConfigErrors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>();
    let sources = Sources {
        file: ConfigFile::parse("luminate.yaml", yaml).map_err(lines)?,
        environment: environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        flags: flags
            .iter()
            .map(|(path, value)| FlagValue { path, flag: "--flag", value: (*value).to_owned() })
            .collect(),
    };
    Config::check(&sources).map(|(config, _)| config).map_err(lines)
}

#[track_caller]
fn refuses(yaml: &str, expected: &[&str]) {
    let errors = check(yaml).unwrap_err();
    assert_eq!(errors, expected, "{yaml}");
}

#[test]
fn nothing_written_is_the_defaults() {
    let config = check("").unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.storage.retention, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(config.limits.defaults.get(Limit::CreationGrace), Some(600_000));
    assert_eq!(config.limits.defaults.get(Limit::OutOfOrderWindow), None);
    assert_eq!(config.query.lookback_delta, Millis(300_000));
    assert!(config.self_scrape.enabled);
    assert_eq!(check("server:\nlog: {level: }\n").unwrap(), config);
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file() {
    let yaml = "storage: {retention: {default: 1d}}";
    let days = |config: Config| config.storage.retention.unwrap().as_secs() / 86_400;
    let env = ("LUMINATE_STORAGE__RETENTION__DEFAULT", "2d");
    let flag = ("storage.retention.default", "3d");
    assert_eq!(days(check_with(yaml, &[], &[]).unwrap()), 1);
    assert_eq!(days(check_with(yaml, &[env], &[]).unwrap()), 2);
    assert_eq!(days(check_with(yaml, &[env], &[flag]).unwrap()), 3);
}

#[test]
fn the_environment_sets_lists_numbers_and_switches() {
    let config = check_with(
        "",
        &[
            ("LUMINATE_FEATURES", "promql-delayed-name-removal, use-start-timestamps"),
            ("LUMINATE_QUERY__MAX_SAMPLES", "17"),
            ("LUMINATE_SELF_SCRAPE__ENABLED", "false"),
        ],
        &[],
    )
    .unwrap();
    assert!(config.features.names().eq(["promql-delayed-name-removal", "use-start-timestamps"]));
    assert_eq!(config.query.max_samples, 17);
    assert!(!config.self_scrape.enabled);
}

#[test]
fn a_variable_of_the_surroundings_is_not_a_key() {
    assert!(
        check_with("", &[("LUMINATE_SVC_PORT", "tcp://10.0.0.1:80"), ("LUMINATE_URL", "x")], &[]).is_ok()
    );
    let errors = check_with("", &[("LUMINATE_SERVER__LISTN", "x")], &[]).unwrap_err();
    assert_eq!(errors, ["server.listn: unknown key, did you mean server.listen? (LUMINATE_SERVER__LISTN)"]);
}

#[test]
fn an_unknown_key_gets_the_closest_one_as_a_suggestion() {
    refuses(
        "server: {listn: x}\nstorge: {}\nretention: 3d\nfrobnicate: 1\n",
        &[
            "server.listn: unknown key, did you mean server.listen? (luminate.yaml)",
            "storge: unknown key, did you mean storage? (luminate.yaml)",
            "retention: unknown key, did you mean storage.retention? (luminate.yaml)",
            "frobnicate: unknown key (luminate.yaml)",
        ],
    );
}

#[test]
fn all_errors_are_told_at_once() {
    refuses(
        "server: {listen: nowhere}\nquery: {timeout: 30, max_samples: -1}\nlog: {format: xml}\nx: 1\n",
        &[
            "server.listen: \"nowhere\" is not an address, write for example 127.0.0.1:8080 (luminate.yaml)",
            "query.timeout: \"30\" has no unit, write for example 30s (luminate.yaml)",
            "query.max_samples: takes a whole number from 1 (luminate.yaml)",
            "log.format: \"xml\" is not one of auto, json, console (luminate.yaml)",
            "x: unknown key (luminate.yaml)",
        ],
    );
}

#[test]
fn zero_retention_is_forever() {
    assert_eq!(check("storage: {retention: {default: 0}}").unwrap().storage.retention, None);
    assert_eq!(check("storage: {retention: {default: 0d}}").unwrap().storage.retention, None);
    refuses(
        "storage: {retention: {default: 30}}",
        &["storage.retention.default: \"30\" has no unit, write for example 30d (luminate.yaml)"],
    );
    refuses(
        "storage: {retention: {default: 1s}}",
        &["storage.retention.default: must be at least 1m, or 0 to keep samples forever (luminate.yaml)"],
    );
}

#[test]
fn what_a_later_release_does_is_refused_by_name() {
    refuses("rules: []\n", &["rules: rules is not in this release (luminate.yaml)"]);
}

#[test]
fn memory_is_a_size_or_what_the_process_may_have() {
    let limit = |text: &str| check(text).unwrap().memory.limit;
    assert_eq!(limit(""), None);
    assert_eq!(limit("memory: {limit: auto}"), None);
    assert_eq!(limit("memory: {limit: 1GiB}"), Some(ByteSize(1 << 30)));
    refuses(
        "memory: {limit: 1MiB}",
        &["memory.limit: 1MiB is not from 32MiB to 9223372036854775807B (luminate.yaml)"],
    );
}

const CLICKHOUSE: &str = "storage: {backend: clickhouse, clickhouse: {addresses: [a]}}";

#[test]
fn a_clickhouse_has_an_address() {
    let config = check(CLICKHOUSE).unwrap();
    assert_eq!(config.storage.backend, Backend::ClickHouse);
    assert_eq!(config.storage.clickhouse.addresses, ["http://a:8123"]);
    refuses(
        "storage: {backend: clickhouse}",
        &["storage.clickhouse.addresses: names no server; write for example [http://clickhouse:8123]"],
    );
    refuses(
        "storage: {backend: clickhouse, clickhouse: {addresses: [\"your-clickhouse-host:9000\"]}}",
        &["storage.clickhouse.addresses: \"your-clickhouse-host:9000\" is the port of ClickHouse's native \
           protocol; its HTTP ports are 8123 and 8443 (TLS), write http://your-clickhouse-host:8123 \
           (luminate.yaml)"],
    );
    let of_environment = check_with(
        "storage: {backend: clickhouse}",
        &[("LUMINATE_STORAGE__CLICKHOUSE__ADDRESSES", "a:1, https://b")],
        &[],
    );
    assert_eq!(of_environment.unwrap().storage.clickhouse.addresses, ["http://a:1", "https://b:8443"]);
}

#[test]
fn what_a_guide_leaves_to_be_filled_in_is_refused() {
    refuses(
        "storage:
  backend: clickhouse
  clickhouse:
    addresses: [ch, \"your-clickhouse-host:8123\"]
    username: your-username
    password: your-clickhouse-password
redis:
  rate_limit: {enabled: true}
  url: redis://:changeme@your-redis-host.default
",
        &[
            "redis.url: \"your-redis-host.default\" is a placeholder; write where your Redis is (luminate.yaml)",
            "redis.url: has a password that is a placeholder; put the real password there (luminate.yaml)",
            "storage.clickhouse.addresses: \"http://your-clickhouse-host:8123\" is a placeholder; write where your \
             ClickHouse is (luminate.yaml)",
            "storage.clickhouse.username: \"your-username\" is a placeholder; write who we are to ClickHouse \
             (luminate.yaml)",
            "storage.clickhouse.password: is a placeholder; put the real password there (luminate.yaml)",
        ],
    );
    refuses(
        "storage: {backend: clickhouse, clickhouse: {addresses: [a], username: admin, password: admin}}",
        &[
            "storage.clickhouse.password: of user admin is admin, which is the first that everybody tries; set \
           another (luminate.yaml)",
        ],
    );
    // Of what is not used nothing is asked.
    assert!(check("storage: {clickhouse: {username: your-username, password: changeme}}").is_ok());
    assert!(check("redis: {url: 'redis://your-redis-host', password: changeme}").is_ok());
}

#[test]
fn what_clickhouse_cannot_keep_is_refused() {
    let with = |more: &str| format!("{CLICKHOUSE}\n{more}");
    assert!(check(&with("limits: {defaults: {on_conflict: last}}")).is_ok());
    refuses(
        &with("limits: {defaults: {on_conflict: reject, out_of_order_window: 1h}}"),
        &["limits.defaults.on_conflict: on ClickHouse the greatest of two values at a time wins, whichever \
           came first; leave it at last (luminate.yaml)"],
    );
    for quorum in ["0", "17", "most", "-1"] {
        refuses(
            &format!("storage: {{clickhouse: {{insert_quorum: {quorum}}}}}"),
            &[
                "storage.clickhouse.insert_quorum: takes a number of replicas from 1 to 16, or auto for most of \
               them (luminate.yaml)",
            ],
        );
    }
    assert_eq!(
        check("storage: {clickhouse: {insert_quorum: auto}}").unwrap().storage.clickhouse.insert_quorum,
        "auto"
    );
}

#[test]
fn parts_of_a_clickhouse_go_together() {
    refuses(
        "storage: {backend: clickhouse, clickhouse: {addresses: [a], tls: {cert_file: x}, \
         password: a, password_file: b, batch: {bytes: 2MiB, queue_bytes: 1MiB}}}",
        &[
            "storage.clickhouse.password_file: is set, and storage.clickhouse.password too; only one of them \
             can be the password (luminate.yaml)",
            "storage.clickhouse.tls.cert_file: is set, but no address begins with https:// (luminate.yaml)",
            "storage.clickhouse.tls.cert_file: needs tls.key_file beside it (luminate.yaml)",
            "storage.clickhouse.batch.queue_bytes: 1MiB is less than the 2MiB of one insert \
             (storage.clickhouse.batch.bytes) (luminate.yaml)",
        ],
    );
    for name in ["a b", "a`b", "a'", "system", "", "x;y"] {
        assert!(check(&format!("storage: {{clickhouse: {{database: \"{name}\"}}}}")).is_err(), "{name}");
    }
    for name in ["a b", "a'b", "{}", "{a", "a`"] {
        assert!(check(&format!("storage: {{clickhouse: {{cluster: \"{name}\"}}}}")).is_err(), "{name}");
    }
    let macros = check("storage: {clickhouse: {cluster: \"{cluster}\"}}").unwrap();
    assert_eq!(macros.storage.clickhouse.cluster.as_deref(), Some("{cluster}"));
}

#[test]
fn a_password_is_not_printed() {
    let yaml = "storage: {clickhouse: {password: hunter2}}";
    let file = ConfigFile::parse("luminate.yaml", yaml).unwrap();
    let (config, settings) = Config::check(&Sources { file, ..Sources::none() }).unwrap();
    let inline = Password::Inline(Secret("hunter2".to_owned()));
    assert_eq!(config.storage.clickhouse.password, Some(inline));
    let printed = settings.to_yaml();
    assert!(printed.contains("password: <secret>") && !printed.contains("hunter2"), "{printed}");
    assert!(!format!("{config:?}{settings:?}").contains("hunter2"));
    assert_eq!(
        check(&printed).unwrap_err(),
        [
            "storage.clickhouse.password: <secret> is what stands for a secret that is not shown (luminate.yaml)"
        ]
    );
    refuses(
        "storage: {clickhouse: {password: 12345}}",
        &["storage.clickhouse.password: takes text; write it in quotes (luminate.yaml)"],
    );
}

#[test]
fn answers_are_shared_where_samples_are() {
    let redis = "redis: {url: 'redis://a', cache: {enabled: true, ttl: 5m}}\n";
    let config = check(&format!("{redis}storage: {{backend: clickhouse, clickhouse: {{addresses: [a]}}}}"));
    assert_eq!(config.unwrap().redis.cache, Some(Duration::from_secs(300)));
    refuses(
        redis,
        &[
            "redis.cache.enabled: with the embedded backend is of no use: nobody else has its samples; answers are \
           shared over storage.backend clickhouse (luminate.yaml)",
        ],
    );
    refuses("redis: {cache: {ttl: 2d}}", &["redis.cache.ttl: must be at most 1d (luminate.yaml)"]);
}

#[test]
fn tenants_may_have_a_retention() {
    let yaml =
        "storage: {backend: clickhouse, clickhouse: {addresses: [a]}, retention: {tenants: [x=90d, y=0]}}";
    let days = |days: u64| Some(Duration::from_secs(days * 86_400));
    let tenant = |name| TenantId::new(name).unwrap();
    let config = check(yaml).unwrap();
    assert_eq!(config.storage.tenant_retention, [(tenant("x"), days(90)), (tenant("y"), None)]);
    let embedded = check("storage: {retention: {tenants: [x=90d, y=0]}}").unwrap();
    assert_eq!(embedded.storage.tenant_retention, config.storage.tenant_retention);
    for (items, wrong) in [
        ("x", "is not tenant=duration"),
        ("x=90", "has no unit"),
        ("x=1s", "at least 1m"),
        ("a/b=1d", "unsupported character"),
        ("=1d", "tenant id"),
        ("x=1d, x=2d", "names x twice"),
    ] {
        let errors = check(&format!("storage: {{retention: {{tenants: [{items}]}}}}")).unwrap_err();
        assert!(errors[0].contains(wrong), "{items}: {errors:?}");
    }
}

#[test]
fn series_may_have_a_retention() {
    let rules = "[{selector: '{job=\"debug\"}', keep: 3d, tenant: x}, {selector: audit, keep: 0}]";
    let config = check(&format!("storage: {{retention: {{rules: {rules}}}}}")).unwrap();
    let rule = |tenant: Option<&str>, selector: &str, days: Option<u64>| RetentionRule {
        tenant: tenant.map(|tenant| TenantId::new(tenant).unwrap()),
        selector: selector.to_owned(),
        keep: days.map(|days| Duration::from_secs(days * 86_400)),
    };
    let expect = [rule(Some("x"), "{job=\"debug\"}", Some(3)), rule(None, "audit", None)];
    assert_eq!(config.storage.retention_rules, expect);
    let variable = ("LUMINATE_STORAGE__RETENTION__RULES", rules);
    assert_eq!(check_with("", &[variable], &[]).unwrap().storage.retention_rules, expect);
    refuses(
        &CLICKHOUSE.replace("[a]}", "[a]}, retention: {rules: [{selector: a, keep: 1d}]}"),
        &[
            "storage.retention.rules: is only with storage.backend embedded; on ClickHouse a tenant's samples are \
           all kept for the same time, see storage.retention.tenants (luminate.yaml)",
        ],
    );
    for (rule, wrong) in [
        ("x", "rule 1 is"),
        ("{keep: 1d}", "rule 1 has no selector"),
        ("{selector: '', keep: 1d}", "rule 1 has no selector"),
        ("{selector: a}", "rule 1 does not say how long"),
        ("{selector: a, keep: 3}", "has no unit"),
        ("{selector: a, keep: 1s}", "at least 1m"),
        ("{selector: a, keep: 1d, tenant: a/b}", "unsupported character"),
        ("{selector: a, keep: 1d, kep: 1d}", "has something else than tenant, selector and keep"),
    ] {
        let errors = check(&format!("storage: {{retention: {{rules: [{rule}]}}}}")).unwrap_err();
        assert!(errors[0].contains(wrong), "{rule}: {errors:?}");
    }
}

#[test]
fn old_samples_may_be_put_together() {
    let rules =
        "[{selector: '{job=\"debug\"}', tenant: x, after: 7d, resolution: 1h}, {after: 30d, resolution: 5m}]";
    let config = check(&format!("storage: {{downsampling: {rules}}}")).unwrap();
    let rule = |tenant: Option<&str>, selector: Option<&str>, days: u64, minutes: u64| Downsampling {
        tenant: tenant.map(|tenant| TenantId::new(tenant).unwrap()),
        selector: selector.map(ToOwned::to_owned),
        after: Duration::from_secs(days * 86_400),
        resolution: Duration::from_secs(minutes * 60),
    };
    let expect = [rule(Some("x"), Some("{job=\"debug\"}"), 7, 60), rule(None, None, 30, 5)];
    assert_eq!(config.storage.downsampling, expect);
    let variable = ("LUMINATE_STORAGE__DOWNSAMPLING", rules);
    assert_eq!(check_with("", &[variable], &[]).unwrap().storage.downsampling, expect);
    refuses(
        &CLICKHOUSE.replace("[a]}", "[a]}, downsampling: [{after: 30d, resolution: 5m}]"),
        &[
            "storage.downsampling: is only with storage.backend embedded; ClickHouse keeps all samples as they are \
           (luminate.yaml)",
        ],
    );
    for (rule, wrong) in [
        ("x", "rule 1 is"),
        ("{resolution: 5m}", "rule 1 does not say after how long"),
        ("{after: 30d}", "rule 1 does not say at which resolution"),
        ("{after: 30, resolution: 5m}", "has no unit"),
        ("{after: 1d, resolution: 5m}", "less than 2d"),
        ("{after: 30d, resolution: 7m}", "does not divide a day"),
        ("{after: 30d, resolution: 10s}", "does not divide a day"),
        (
            "{after: 30d, resolution: 5m, keep: 1d}",
            "something else than tenant, selector, after and resolution",
        ),
    ] {
        let errors = check(&format!("storage: {{downsampling: [{rule}]}}")).unwrap_err();
        assert!(errors[0].contains(wrong), "{rule}: {errors:?}");
    }
}

#[test]
fn with_clickhouse_our_own_metrics_are_some_tenants() {
    assert!(!check(CLICKHOUSE).unwrap().self_scrape.enabled);
    assert!(check(&format!("{CLICKHOUSE}\nself_scrape: {{tenant: ops}}")).unwrap().self_scrape.enabled);
    refuses(
        &format!("{CLICKHOUSE}\nself_scrape: {{enabled: true}}"),
        &["self_scrape.tenant: must be set: with ClickHouse, say whose data our own metrics are"],
    );
    let file = ConfigFile::parse("luminate.yaml", CLICKHOUSE).unwrap();
    let (config, settings) = Config::check(&Sources { file, ..Sources::none() }).unwrap();
    assert_eq!(check(&settings.to_yaml()).unwrap(), config);
}

#[test]
fn an_open_door_without_authentication_is_refused() {
    for listen in ["0.0.0.0:8080", ":8080", "192.168.0.1:8080", "[::]:8080"] {
        let errors = check(&format!("server: {{listen: \"{listen}\"}}")).unwrap_err();
        assert!(errors[0].contains("auth.force_unauthenticated: true"), "{errors:?}");
        let forced = format!("server: {{listen: \"{listen}\"}}\nauth: {{force_unauthenticated: true}}");
        assert!(check(&forced).is_ok());
    }
    assert!(check("server: {listen: \"[::1]:8080\"}").is_ok());
}

#[test]
fn one_request_has_to_fit_among_those_in_flight() {
    refuses(
        "server: {limits: {max_in_flight_bytes: 1MiB, max_decompressed_bytes: 2MiB}}",
        &["server.limits.max_in_flight_bytes: 1MiB is less than the 2MiB that one request may have \
           (server.limits.max_decompressed_bytes) (luminate.yaml)"],
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_refused() {
    refuses("server: 5", &["server: is a section and takes keys, not a value (luminate.yaml)"]);
    refuses("server: {listen: {a: b}}", &["server.listen: takes text, not a section (luminate.yaml)"]);
    refuses("features: {a: b}", &["features: takes a list, not a section (luminate.yaml)"]);
    refuses("1: 2", &["luminate.yaml: has a key that is not text"]);
    refuses(
        "log: {level: loud}",
        &["log.level: \"loud\" is not one of error, warn, info, debug, trace (luminate.yaml)"],
    );
    refuses(
        "self_scrape: {tenant: a/b, enabled: yes}",
        &[
            "self_scrape.enabled: takes true or false (luminate.yaml)",
            "self_scrape.tenant: tenant id contains the unsupported character '/' (luminate.yaml)",
        ],
    );
}

#[test]
fn a_file_that_is_not_a_mapping_is_refused() {
    for yaml in ["[1]", "text", "a: b: c", "a: 1\na: 2", "\t- x", "a: &x [*x", "{\"a\"", "\u{0}"] {
        let errors = check(yaml).unwrap_err();
        assert!(errors[0].starts_with("luminate.yaml: "), "{errors:?}");
    }
}

#[test]
fn a_file_that_is_missing_is_an_error_with_its_name() {
    let errors = ConfigFile::read(Path::new("/nowhere/luminate.yaml")).unwrap_err();
    assert!(errors.to_string().starts_with("/nowhere/luminate.yaml: "), "{errors}");
}

#[test]
fn settings_print_as_a_file_that_says_the_same() {
    let mut sources = Sources::none();
    sources.environment = vec![("LUMINATE_STORAGE__EMBEDDED__WAL__SYNC".to_owned(), "os".to_owned())];
    let (config, settings) = Config::check(&sources).unwrap();
    assert_eq!(check(&settings.to_yaml()).unwrap(), config);
    assert_eq!(config.storage.embedded.wal_sync, WalSync::Os);
    let sync = settings.iter().find(|s| s.path == "storage.embedded.wal.sync").unwrap();
    assert_eq!(sync.origin.to_string(), "LUMINATE_STORAGE__EMBEDDED__WAL__SYNC");
}

/// The file we ship spells out the defaults, so it can never disagree with them.
#[test]
fn the_file_we_ship_is_the_defaults_and_leaves_no_key_out() {
    let shipped =
        ConfigFile::parse("luminate.yaml", include_str!("../../deployments/luminate.yaml")).unwrap();
    let (config, written) = Config::check(&Sources { file: shipped, ..Sources::none() }).unwrap();
    let (default, settings) = Config::check(&Sources::none()).unwrap();
    assert_eq!(config, default);
    for (written, default) in written.iter().zip(settings.iter()) {
        assert_ne!(written.origin, Origin::Default, "{} is not in deployments/luminate.yaml", written.path);
        assert_eq!(written.value, default.value, "{}", written.path);
    }
}

#[test]
fn every_limit_has_a_default_and_a_cap() {
    let config = check(
        "limits: {defaults: {samples_per_second: 1000, max_query_range: 30d, answer_400: [samples_per_second]}, \
         hard: {samples_per_second: 500, max_label_names: 32}, overrides_file: o.yaml, reload_interval: 1m}",
    )
    .unwrap();
    let limits = config.limits;
    assert_eq!(limits.defaults.get(Limit::Samples), Some(1000));
    assert!(limits.defaults.refuses_for_good(Limit::Samples));
    assert_eq!(limits.defaults.get(Limit::QueryRange), Some(30 * 86_400_000));
    assert_eq!(limits.hard.get(Limit::Samples), Some(500));
    assert_eq!(limits.hard.get(Limit::LabelNameBytes), None);
    assert_eq!(limits.overrides_file, Some("o.yaml".into()));
    for limit in Limit::ALL {
        let name = limit.name();
        let errors =
            check(&format!("limits: {{defaults: {{{name}: x}}, hard: {{{name}: []}}}}")).unwrap_err();
        assert_eq!(errors.len(), 2, "{name}: {errors:?}");
    }
}

#[test]
fn a_limit_that_cannot_be_is_refused() {
    let file = |text: &str| format!("{text} (luminate.yaml)");
    for (yaml, expected) in [
        ("defaults: {max_label_names: 0}", "limits.defaults.max_label_names: 0 is not from 1 to 10000"),
        ("defaults: {max_label_names: unlimited}", "limits.defaults.max_label_names: cannot be unlimited"),
        (
            "defaults: {creation_grace: 10}",
            "limits.defaults.creation_grace: \"10\" has no unit, write for example 10s, or unlimited",
        ),
        (
            "hard: {samples_per_second: -1}",
            "limits.hard.samples_per_second: \"-1\" is not a whole number, or unlimited",
        ),
        ("defaults: {answer_400: [samples]}", "limits.defaults.answer_400: \"samples\" is not a limit"),
        ("reload_interval: 10ms", "limits.reload_interval: must be at least 1s"),
        (
            "hard: {on_conflict: last}",
            "limits.hard.on_conflict: unknown key, did you mean limits.defaults.on_conflict?",
        ),
    ] {
        refuses(&format!("limits: {{{yaml}}}"), &[&file(expected)]);
    }
}

#[test]
fn a_request_has_to_fit_into_a_burst() {
    let refused = |key: &str, burst: &str| {
        let message = format!(
            "{key}: {burst} at once is less than the 32MiB that one request may have (server.limits.max_body_bytes), \
             which could never be sent; set one or the other"
        );
        vec![message]
    };
    let errors = |yaml: &str| {
        let lines = check(yaml).unwrap_err();
        lines.iter().map(|line| line.trim_end_matches(" (luminate.yaml)").to_owned()).collect::<Vec<_>>()
    };
    let default = "limits.defaults.bytes_burst";
    assert_eq!(errors("limits: {defaults: {bytes_per_second: 1MiB}}"), refused(default, "1MiB"));
    assert_eq!(
        errors("limits: {defaults: {bytes_per_second: 64MiB, bytes_burst: 2MiB}}"),
        refused(default, "2MiB")
    );
    assert_eq!(
        errors("limits: {defaults: {bytes_per_second: 64MiB}, hard: {bytes_burst: 3MiB}}"),
        refused("limits.hard.bytes_burst", "3MiB")
    );
    for fits in [
        "limits: {defaults: {bytes_per_second: 1MiB, bytes_burst: 32MiB}}",
        "limits: {defaults: {bytes_per_second: 32MiB}}",
        "limits: {defaults: {bytes_per_second: 0}}",
        "{limits: {defaults: {bytes_per_second: 1MiB}}, server: {limits: {max_body_bytes: 1MiB}}}",
    ] {
        check(fits).unwrap();
    }
}
