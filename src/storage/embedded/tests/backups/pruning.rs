//! Who makes backups and who removes old ones, side by side.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_no_backup_needs_is_removed() {
    let bench = Bench::new();
    let clock = HandClock::at(NOW);
    let shared: Arc<dyn Clock> = Arc::<HandClock>::clone(&clock);
    let mut all = Vec::new();
    for (i, name) in ["c", "b", "a"].into_iter().enumerate() {
        let store = open(&bench.data).unwrap();
        furnish(&store, i as i64 * 10).await;
        all = everything(&store).await;
        store.close().await.unwrap();
        clock.advance(Duration::from_secs(60));
        bench.make_by(&shared, name, &mut quiet()).unwrap();
    }
    // What was cut off leaves objects that no backup has, and files that are not even objects.
    std::fs::create_dir_all(bench.kept.join("objects/00")).unwrap();
    std::fs::write(bench.kept.join("objects/00").join("00".repeat(32)), "x").unwrap();
    std::fs::write(bench.kept.join("objects/00/x.1.tmp"), "x").unwrap();
    let before = objects(&bench.kept).len();
    let pruned = prune(bench.target.as_ref(), &shared, 2, seed()).unwrap();
    assert_eq!((pruned.backups, pruned.left), (vec!["c".to_owned()], 2));
    assert!(objects(&bench.kept).len() < before);
    for name in ["a", "b"] {
        assert_eq!(findings(&bench.target, Some(name)), [], "{name}");
    }
    let pruned = prune(bench.target.as_ref(), &shared, 1, seed()).unwrap();
    assert_eq!(pruned.backups, ["b"]);
    bench.restore(None, &bench.beside("into")).unwrap();
    assert_eq!(content(&bench.beside("into")).await, all);
    // Nothing is removed where a backup cannot be read, since what it needs cannot be told.
    std::fs::write(bench.kept.join("backups/z.json"), "{}").unwrap();
    let error = prune(bench.target.as_ref(), &shared, 1, seed()).unwrap_err().to_string();
    assert!(error.contains("backups/z.json"), "{error}");
    assert!(bench.list().last().unwrap().manifest.is_err());
    let found = verify(&bench.target, None, &mut quiet()).unwrap();
    assert_eq!(found.manifest.name, "a", "the newest that can be read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_makes_a_backup_and_who_removes_some_see_each_other() {
    let bench = Bench::furnished().await;
    let clock = HandClock::at(NOW);
    let shared: Arc<dyn Clock> = Arc::<HandClock>::clone(&clock);
    bench.make("one").unwrap();
    // In the middle of one, others try.
    let mut tried = Vec::new();
    let told = &mut |progress: Progress| {
        if progress.files == 1 {
            let removed = prune(bench.target.as_ref(), &shared, 1, seed()).unwrap_err().to_string();
            tried.push(removed);
            let other = directory(&system(), &bench.kept);
            of_stopped(other.as_ref(), &bench.data, "meanwhile").unwrap();
        }
    };
    let error = bench.make_by(&shared, "meanwhile", told).unwrap_err().to_string();
    assert!(error.contains("there is a backup meanwhile"), "{error}");
    assert!(tried.len() == 1 && tried[0].contains("a backup is being made"), "{tried:?}");
    assert_eq!(bench.list().len(), 2);
    assert_eq!(std::fs::read_dir(bench.kept.join("claims")).unwrap().count(), 0);

    // Somebody who was cut off counts for an hour, and then for nothing.
    let claim = format!("{{\"work\":\"create\",\"renewed_ms\":{}}}", NOW.0);
    std::fs::write(bench.kept.join("claims/create-1.json"), &claim).unwrap();
    clock.advance(Duration::from_secs(3590));
    assert!(prune(bench.target.as_ref(), &shared, 1, seed()).is_err());
    clock.advance(Duration::from_secs(20));
    prune(bench.target.as_ref(), &shared, 1, seed()).unwrap();
    assert_eq!(std::fs::read_dir(bench.kept.join("claims")).unwrap().count(), 0);
    // And whoever was taken for dead does not finish.
    let told = &mut |progress: Progress| {
        if progress.files == 1 {
            clock.advance(Duration::from_secs(3610));
            prune(bench.target.as_ref(), &shared, 1, seed()).unwrap();
        }
    };
    let error = bench.make_by(&shared, "late", told).unwrap_err().to_string();
    assert!(error.contains("counted it out"), "{error}");
    // While some are removed, none is made.
    let claim = format!("{{\"work\":\"prune\",\"renewed_ms\":{}}}", clock.now().0);
    std::fs::write(bench.kept.join("claims/prune-1.json"), &claim).unwrap();
    let error = bench.make_by(&shared, "x", &mut quiet()).unwrap_err().to_string();
    assert!(error.contains("are being removed"), "{error}");
}
