use super::*;

fn target() -> Target {
    Target { database: "luminate".to_owned(), cluster: None }
}

const fn migration(version: u32, min_compatible: u32) -> Migration {
    Migration { version, name: "step", min_compatible, text: "SELECT 1" }
}

const STEPS: [Migration; 3] = [migration(1, 1), migration(2, 1), migration(3, 2)];
const FIRST: Migrations = Migrations { all: STEPS.split_at(1).0, needed: 1 };
const SECOND: Migrations = Migrations { all: STEPS.split_at(2).0, needed: 1 };
const THIRD: Migrations = Migrations { all: &STEPS, needed: 2 };

fn state(versions: &[u32]) -> State {
    let applied = |version: &u32| {
        let step = STEPS.iter().find(|step| step.version == *version).unwrap();
        Applied {
            version: *version,
            name: step.name.to_owned(),
            checksum: step.checksum(),
            min_compatible: step.min_compatible,
            applied_ms: 0,
        }
    };
    State { applied: versions.iter().map(applied).collect(), layout: Some(Layout::Single) }
}

#[test]
fn what_fits_is_used_and_nothing_else_refused() {
    let problem = |ours: Migrations, versions: &[u32]| ours.problem(&state(versions), &target());
    for (ours, versions) in [
        (FIRST, &[1][..]),
        (FIRST, &[1, 2]),
        (SECOND, &[1]),
        (SECOND, &[1, 2]),
        (SECOND, &[1, 2, 3]),
        (THIRD, &[1, 2]),
        (THIRD, &[1, 2, 3]),
    ] {
        assert_eq!(problem(ours, versions), None, "{versions:?} for {ours:?}");
    }
    assert_eq!(
        problem(FIRST, &[1, 2, 3]).as_deref(),
        Some(
            "the schema is at version 3 and can be used from version 2 on, but this Luminate knows version 1: \
             run a later Luminate"
        )
    );
    assert_eq!(
        problem(THIRD, &[1]).as_deref(),
        Some(
            "the schema is older than this Luminate needs, it lacks version 2 (step): run `luminate schema \
             apply` of this Luminate"
        )
    );
    assert_eq!(
        problem(FIRST, &[]).as_deref(),
        Some("the schema is missing in database luminate: run `luminate schema apply`")
    );
}

#[test]
fn a_step_left_out_is_pending_though_later_ones_are_there() {
    assert_eq!(THIRD.pending(&state(&[1, 3])), [&STEPS[1]]);
    assert!(THIRD.problem(&state(&[1, 3]), &target()).unwrap().contains("lacks version 2"));
    assert!(FIRST.pending(&state(&[1, 2, 3])).is_empty());
}

#[test]
fn tables_are_used_as_they_lie() {
    let cluster = Target { cluster: Some("main".to_owned()), ..target() };
    let single = state(&[1]);
    let spread = State { layout: Some(Layout::Cluster), ..state(&[1]) };
    assert_eq!(FIRST.problem(&spread, &cluster), None);
    assert!(FIRST.problem(&spread, &target()).unwrap().contains("name it in storage.clickhouse.cluster"));
    assert!(FIRST.problem(&single, &cluster).unwrap().contains("not of the cluster main"));
}

#[test]
fn a_text_that_was_another_one_is_told() {
    let mut other = state(&[1, 2]);
    assert!(SECOND.changed(&other).is_empty());
    other.applied[1].checksum = "0".to_owned();
    assert_eq!(SECOND.changed(&other), [&other.applied[1]]);
}

#[test]
fn comments_do_not_change_a_checksum() {
    let text = |text| Migration { text, ..STEPS[0] }.checksum();
    assert_eq!(text("A;\nB; -- why"), text("-- what\nA;\n\n\nB;"));
    assert_ne!(text("A; B"), text("A; C"));
}

#[test]
fn our_steps_are_numbered_and_get_along() {
    for (step, number) in OURS.all.iter().zip(1..) {
        assert_eq!(step.version, number);
        assert!((1..=number).contains(&step.min_compatible), "{}", step.name);
    }
    assert!((1..=OURS.last()).contains(&OURS.needed));
}

#[test]
fn every_statement_of_ours_can_be_applied_again_and_is_filled() {
    for cluster in [None, Some("main".to_owned())] {
        let target = Target { cluster, ..target() };
        let mut statements = foundation(&target);
        statements.extend(OURS.all.iter().flat_map(|step| step.statements(&target)));
        for statement in statements {
            let again = ["IF NOT EXISTS", "IF EXISTS"].iter().any(|words| statement.contains(words));
            assert!(again, "{statement}");
            let unfilled =
                statement.replace("{shard}", "").replace("{replica}", "").replace("{database}", "");
            assert!(!unfilled.contains(['{', '}']), "{statement}");
            let everywhere = statement.contains("ON CLUSTER 'main'");
            assert_eq!(everywhere, target.cluster.is_some(), "{statement}");
        }
    }
}

#[test]
fn every_table_of_a_shard_is_one_of_the_cluster() {
    let target = Target { cluster: Some("main".to_owned()), ..target() };
    let script = script(&target);
    let shards: Vec<&str> = script
        .split("CREATE TABLE IF NOT EXISTS `luminate`.")
        .filter_map(|rest| rest.split(' ').next()?.strip_suffix("_local"))
        .collect();
    assert_eq!(shards.len(), 8, "{shards:?}");
    for table in shards {
        let over = format!("CREATE TABLE IF NOT EXISTS `luminate`.{table} ON CLUSTER 'main' AS");
        assert!(script.contains(&over), "{over}");
    }
}

#[test]
fn a_view_is_dropped_before_it_is_made_anew() {
    let statements = renewed_views(&Target { database: "other".to_owned(), cluster: None });
    assert_eq!(statements[0], "DROP VIEW IF EXISTS `other`.label_values_mv SYNC");
    assert!(statements[1].contains(" TO `other`.label_values "), "{statements:?}");
    // Those of the changes, too.
    assert_eq!(statements.len(), 8);
    assert!(statements.iter().all(|statement| statement.contains("_mv")), "{statements:?}");
}
