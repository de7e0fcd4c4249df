//! The list of attacks: which test shows what becomes of each.
//!
//! The numbers are those by which tests are called (`case_6_…`); those that are left out are about what there is not
//! (36: OTLP; 61: files to restore from; 65: how releases are made).

use std::{fs, path::Path};

const JWT: &str = "src/gateway/auth/jwt/tests/attacks.rs";
const JWT_FILES: &str = "src/gateway/auth/jwt/tests/files.rs";
const ISSUERS: &str = "src/gateway/auth/jwt/tests/issuers.rs";
const KEYS: &str = "src/gateway/auth/keys/tests/verify.rs";
const KEY_FILE: &str = "src/gateway/auth/keys/tests/file.rs";
const TENANT: &str = "src/gateway/tenant.rs";
const SERVER: &str = "tests/it/attacks_server.rs";
const HTTP: &str = "tests/it/attacks_http.rs";
const ROLES: &str = "tests/it/roles.rs";
const LEAK: &str = "tests/it/leak/mod.rs";
const TLS: &str = "tests/it/tls.rs";
const ANSWERS: &str = "src/gateway/tests/audit.rs";
const DECODE: &str = "src/ingest/decode/tests.rs";

/// A case: its number, what is tried, and the tests that show what comes of it, as file and name.
type Case = (u8, &'static str, &'static [(&'static str, &'static str)]);

const CASES: &[Case] = &[
    (1, "alg: none", &[(JWT, "case_1_no_algorithm_is_none_in_any_spelling")]),
    (2, "a public key as secret", &[(JWT, "case_2_a_public_key_is_no_secret")]),
    (
        3,
        "an algorithm that is not the key's",
        &[(JWT, "case_3_an_algorithm_that_is_not_the_keys_is_refused")],
    ),
    (4, "a secret that can be guessed", &[(JWT, "case_4_a_secret_that_can_be_guessed_does_not_start")]),
    (5, "no signature", &[(JWT, "case_5_a_signature_that_is_empty_stripped_or_cut_is_none")]),
    (
        6,
        "too early, too late",
        &[
            (JWT, "case_6_a_token_is_good_from_and_until_when_it_says_give_or_take_the_leeway"),
            (JWT, "case_6_a_token_that_is_known_to_be_good_expires_all_the_same"),
        ],
    ),
    (7, "times of other types", &[(JWT, "case_7_a_time_is_a_whole_number_of_seconds")]),
    (8, "claims left out", &[(JWT, "case_8_what_is_asked_for_has_to_be_there")]),
    (
        9,
        "another issuer or audience",
        &[(JWT, "case_9_a_token_of_another_issuer_or_for_another_audience_is_refused")],
    ),
    (10, "hostile key ids", &[(JWT, "case_10_the_name_of_a_key_is_only_a_name")]),
    (11, "jku, jwk, x5u", &[(JWT, "case_11_a_key_that_a_token_brings_or_names_is_not_looked_at")]),
    (12, "a name twice", &[(JWT, "case_12_a_name_that_stands_twice_is_refused")]),
    (13, "crit", &[(JWT, "case_13_a_header_that_asks_for_something_is_refused")]),
    (14, "too long, too deep", &[(JWT, "case_14_a_token_that_is_too_long_or_nested_too_deep_is_refused")]),
    (
        15,
        "rotation, and an issuer that is down",
        &[
            (ISSUERS, "case_15_a_new_key_is_good_at_once_and_an_old_one_until_it_is_gone"),
            (ISSUERS, "case_15_while_an_issuer_is_down_what_it_last_published_holds"),
            (ISSUERS, "case_15_tokens_with_unknown_keys_make_us_ask_only_so_often"),
            (JWT_FILES, "case_15_a_file_that_changes_is_read_again_and_one_that_is_wrong_is_not_taken"),
        ],
    ),
    (
        16,
        "a token for another use",
        &[(JWT, "case_16_a_token_for_another_use_is_refused_if_one_is_asked_for")],
    ),
    (
        17,
        "a token that was taken back",
        &[(JWT, "case_17_a_token_that_was_taken_back_is_refused_although_it_was_known_to_be_good")],
    ),
    (18, "no tenant", &[(JWT, "case_18_who_names_no_tenant_is_not_let_in")]),
    // How long comparing takes is not measured: it is made sure that the same is done in all cases.
    (19, "timing", &[(KEYS, "every_key_that_is_looked_up_costs_one_look_and_one_comparison")]),
    (
        20,
        "poisoned caches",
        &[
            (KEYS, "a_key_lets_its_holder_in_and_nobody_else"),
            ("src/gateway/auth/jwt/cache.rs", "what_is_known_holds_for_its_time_and_its_keys"),
        ],
    ),
    (
        21,
        "a flood of bad credentials",
        &[
            (KEYS, "a_flood_of_bad_keys_costs_no_good_one_its_place"),
            ("src/gateway/auth/jwt/cache.rs", "a_flood_of_bad_tokens_pushes_out_no_good_one_and_is_bounded"),
        ],
    ),
    (
        22,
        "a key that was revoked",
        &[
            (KEYS, "a_revoked_key_is_out_within_the_time_keys_are_remembered"),
            (KEY_FILE, "a_key_revoked_in_the_file_is_out_when_the_file_was_read"),
            ("tests/it/redis/keys.rs", "keys_are_made_revoked_and_asked_for"),
        ],
    ),
    (23, "a disabled tenant", &[(ANSWERS, "a_disabled_tenant_is_refused_on_every_route_and_nobody_else_is")]),
    (
        24,
        "guessing",
        &[
            ("src/gateway/auth/guard.rs", "who_fails_too_often_is_told_when_to_come_back"),
            ("tests/it/keys.rs", "a_key_is_made_taken_and_taken_back_and_never_seen_again"),
        ],
    ),
    (
        25,
        "keys in logs",
        &[
            (SERVER, "secrets_are_in_nothing_that_is_written_or_answered"),
            ("src/gateway/auth/credential.rs", "neither_credentials_nor_errors_show_secrets"),
        ],
    ),
    (
        26,
        "another tenant's name in a header",
        &[
            (TENANT, "a_header_only_chooses_among_the_callers_tenants"),
            (ROLES, "every_route_answers_every_kind_of_caller_as_written"),
        ],
    ),
    (
        27,
        "two names, and several at once",
        &[
            (TENANT, "headers_that_contradict_each_other_are_refused"),
            (TENANT, "several_tenants_are_for_reads"),
        ],
    ),
    (
        28,
        "names that are paths",
        &[(TENANT, "a_name_that_will_not_do_is_refused"), (HTTP, "a_path_is_taken_as_it_is_written")],
    ),
    (
        29,
        "__tenant_id__ in samples and matchers",
        &[
            ("src/storage/conformance/views.rs", "several_tenants_are_one"),
            ("src/gateway/auth/grant.rs", "labels_that_mean_the_tenant_or_the_metric_are_not_stamped"),
        ],
    ),
    (
        30,
        "reading across tenants",
        &[(LEAK, "every_route_that_reads_is_asked"), (LEAK, "nobody_is_told_what_is_not_theirs")],
    ),
    (
        31,
        "SQL in names, values and matchers",
        &[
            (LEAK, "nobody_is_told_what_is_not_theirs_by_clickhouse"),
            ("src/storage/clickhouse/read/matchers.rs", "no_value_is_in_the_text"),
            ("src/storage/clickhouse/tables.rs", "a_name_stays_within_its_quotes"),
        ],
    ),
    (
        32,
        "Redis commands in a tenant's name",
        &[("tests/it/redis/buckets.rs", "a_tenants_name_is_part_of_a_key_and_nothing_more")],
    ),
    (
        33,
        "a snappy bomb",
        &[
            (SERVER, "a_bomb_goes_off_on_no_route"),
            (DECODE, "the_declared_size_is_checked_before_anything_else"),
        ],
    ),
    (34, "a gzip bomb", &[(SERVER, "a_bomb_goes_off_on_no_route")]),
    (35, "a zstd bomb", &[(SERVER, "a_bomb_goes_off_on_no_route")]),
    (
        37,
        "protobuf that never ends",
        &[
            (DECODE, "malformed_requests_are_refused"),
            (DECODE, "counts_are_bounded"),
            (DECODE, "a_request_cut_anywhere_does_no_harm"),
        ],
    ),
    (
        38,
        "labels that are too many, too long or no text",
        &[
            ("src/ingest/validate/tests.rs", "labels_are_checked"),
            (DECODE, "a_million_labels_are_too_many_for_a_series_and_no_trouble"),
        ],
    ),
    (
        39,
        "too many series",
        &[("src/storage/embedded/tests/active.rs", "flushes_do_not_make_room_for_too_many")],
    ),
    (
        40,
        "queries of death",
        &[
            ("src/promql/parse/tests/survives.rs", "nesting_has_an_end"),
            ("src/model/regex/tests.rs", "patterns_of_death_are_refused_or_harmless"),
            ("src/query/evaluate.rs", "a_text_beyond_the_limit_is_refused_before_it_is_parsed"),
        ],
    ),
    (41, "a million selectors", &[(SERVER, "selectors_without_number_are_refused")]),
    (
        42,
        "too slow on purpose",
        &[
            (HTTP, "a_head_that_trickles_in_is_given_up"),
            (HTTP, "a_body_that_trickles_in_is_given_up"),
            (HTTP, "a_handshake_that_does_not_come_is_given_up"),
        ],
    ),
    (
        43,
        "too many connections",
        &[
            (HTTP, "one_client_cannot_take_all_connections"),
            ("src/gateway/listener/tests.rs", "above_the_limit_a_connection_waits_until_another_ends"),
        ],
    ),
    (
        44,
        "floods of HTTP/2",
        &[
            (HTTP, "streams_that_are_opened_and_reset_end_the_connection"),
            (HTTP, "a_head_that_never_ends_ends_the_connection"),
            (HTTP, "data_with_nothing_in_it_ends_the_connection"),
        ],
    ),
    (45, "heads that are too large", &[(HTTP, "heads_that_are_too_large_are_refused")]),
    (
        46,
        "going round a limit",
        &[
            (HTTP, "a_path_is_taken_as_it_is_written"),
            ("tests/it/redis/buckets.rs", "three_gateways_share_a_bucket_and_no_token_is_lost_or_made"),
            ("src/gateway/limit/local/tests.rs", "a_changed_limit_is_no_burst"),
            ("src/gateway/limit/table.rs", "a_rate_that_nobody_has_more_of_is_not_had_in_one_burst"),
            ("src/gateway/tests/limits.rs", "no_spelling_of_a_request_has_a_rate_of_its_own"),
            ("src/gateway/tests/limits.rs", "a_body_of_unknown_length_pays_when_it_has_come"),
        ],
    ),
    (47, "answers without end", &[("src/query/evaluate.rs", "lists_of_series_are_bounded_too")]),
    (
        48,
        "smuggled requests",
        &[
            (HTTP, "a_request_whose_length_is_ambiguous_hides_no_other"),
            (HTTP, "chunks_that_are_malformed_hide_no_request"),
            (HTTP, "a_line_that_is_no_request_is_refused"),
        ],
    ),
    (
        49,
        "other methods",
        &[
            (HTTP, "a_method_cannot_be_overridden"),
            (ROLES, "head_and_options_and_other_methods_do_not_slip_past"),
        ],
    ),
    (50, "paths that mean others", &[(HTTP, "a_path_is_taken_as_it_is_written")]),
    (
        51,
        "pages of other origins",
        &[("src/gateway/tests/manners.rs", "pages_of_configured_origins_may_read")],
    ),
    (52, "what browsers make of answers", &[(ANSWERS, "every_answer_tells_browsers_and_caches_to_keep_out")]),
    (53, "scripts in errors", &[(ANSWERS, "every_answer_tells_browsers_and_caches_to_keep_out")]),
    (54, "redirects", &[(ANSWERS, "every_answer_tells_browsers_and_caches_to_keep_out")]),
    (
        55,
        "forged forwarding headers",
        &[
            (SERVER, "what_is_denied_or_ordered_is_kept_and_text_of_callers_makes_no_lines"),
            ("src/gateway/listener/proxies.rs", "the_client_is_the_rightmost_that_is_no_proxy"),
            (HTTP, "a_proxy_header_is_read_from_trusted_proxies_only_and_they_have_to_send_it"),
        ],
    ),
    (
        56,
        "lines in logs",
        &[
            (SERVER, "what_is_denied_or_ordered_is_kept_and_text_of_callers_makes_no_lines"),
            ("src/gateway/audit.rs", "an_entry_is_one_line_whatever_its_texts_hold"),
        ],
    ),
    (57, "every route and role", &[(ROLES, "every_route_answers_every_kind_of_caller_as_written")]),
    (58, "operating by the data port", &[(HTTP, "what_operates_the_server_is_not_on_the_data_port")]),
    (
        59,
        "files that are broken",
        &[
            (KEY_FILE, "a_bad_file_changes_nothing"),
            (TLS, "a_certificate_that_will_not_do_leaves_the_old_one_in_force"),
            ("src/gateway/limit/file/tests.rs", "a_broken_or_missing_file_is_told_once_and_changes_nothing"),
            (SERVER, "what_is_read_while_we_run_is_read_again_at_once_when_somebody_asks"),
        ],
    ),
    (
        60,
        "secrets in what is printed",
        &[
            (SERVER, "secrets_are_in_nothing_that_is_written_or_answered"),
            ("src/config/tests.rs", "a_password_is_not_printed"),
            ("src/config/tests/jwt.rs", "a_secret_is_not_printed"),
        ],
    ),
    (
        62,
        "files that others can read",
        &[
            (SERVER, "what_a_server_keeps_is_for_its_owner_only"),
            (KEY_FILE, "a_file_that_others_can_read_is_told_of"),
        ],
    ),
    (
        63,
        "TLS that is too old, certificates that will not do",
        &[
            (TLS, "both_versions_of_tls_are_spoken_and_what_is_older_is_refused"),
            (TLS, "a_client_without_a_good_certificate_is_refused_where_one_is_required"),
            (TLS, "new_certificates_are_taken_up_when_their_files_change"),
        ],
    ),
    (
        64,
        "servers that are somebody else",
        &[
            ("src/storage/clickhouse/client/tests/tls.rs", "a_server_is_trusted_by_its_certificate"),
            ("tests/it/redis/sign_in.rs", "certificates_are_checked_on_both_sides"),
            (ISSUERS, "keys_are_fetched_only_from_whom_we_trust"),
        ],
    ),
    (
        66,
        "what the audit log leaves out",
        &[
            (SERVER, "what_is_denied_or_ordered_is_kept_and_text_of_callers_makes_no_lines"),
            (ANSWERS, "an_order_is_kept_even_if_its_caller_leaves"),
            ("src/gateway/reload.rs", "what_fails_is_told_and_shown_until_it_is_over"),
        ],
    ),
];

#[test]
fn every_case_has_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (number, what, tests) in CASES {
        assert!(!tests.is_empty(), "{number}: {what}");
        for (file, name) in *tests {
            let text = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(text.contains(&format!("fn {name}(")), "{number}, {what}: {file} has no {name}");
        }
    }
    let numbers: Vec<u8> = CASES.iter().map(|(number, ..)| *number).collect();
    assert!(numbers.is_sorted());
    let absent: Vec<u8> = (1..=66).filter(|number| !numbers.contains(number)).collect();
    assert_eq!(absent, [36, 61, 65]);
}
