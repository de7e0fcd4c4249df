//! Trouble that passes, and what is somebody else's, is no damage: nothing is mended for it.

use std::{os::unix::fs::chown, sync::atomic::Ordering::SeqCst};

use super::{
    crashes::furnished,
    mending::{change, copied, files, mend_on, parts, served},
    *,
};
use crate::storage::embedded::mend::{Access, look, mend};

/// What a directory holds, but for what every start writes.
fn held(dir: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut held = files(dir);
    held.retain(|name, _| !name.ends_with("LOCK"));
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_in_passing_is_not_mended_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let whole = furnished(dir.path()).await;
    let damaged = copied(dir.path());
    // A part is damaged, and one is set aside.
    let all = parts(damaged.path());
    let length = usize::try_from(std::fs::metadata(&all[0]).unwrap().len()).unwrap();
    change(&all[0], length - 60, |byte| byte ^ 4, 1);
    served(damaged.path()).await;
    change(&all[1], 40, |byte| byte ^ 1, 1);
    let disk = FaultyDisk::over(system());
    let shared: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&disk);
    disk.fail_read.store(u64::MAX, SeqCst);
    let report = look(&shared, damaged.path(), Access::Alone).unwrap();
    assert!(report.findings.len() >= 2 && report.unread.is_empty(), "{report:#?}");
    let reads = u64::MAX - disk.fail_read.load(SeqCst);
    assert!(reads > 20, "{reads}");
    let mut nth = 1;
    loop {
        let copy = copied(damaged.path());
        let before = held(copy.path());
        disk.fail_read.store(nth, SeqCst);
        let outcome = mend_on(&shared, copy.path());
        let survived = disk.fail_read.swap(0, SeqCst) > 0;
        if nth <= reads {
            // The catalog is looked at as far as it can be.
            let told = outcome.as_ref().map_or(true, |repair| {
                let notes = &repair.before.notes;
                !repair.before.unread.is_empty()
                    || notes.iter().any(|note| note.contains("could not be copied"))
            });
            assert!(told, "read {nth}: {outcome:#?}");
            if outcome.as_ref().map_or(true, |repair| repair.after.is_none()) {
                assert!(held(copy.path()) == before, "read {nth}: {outcome:#?}");
            }
        }
        let again = mend_on(&shared, copy.path()).unwrap_or_else(|e| panic!("read {nth}: {e}"));
        assert_eq!(again.after.map_or_else(Vec::new, |after| after.findings), [], "read {nth}");
        assert!(served(copy.path()).await == (whole.clone(), vec![]), "read {nth}");
        if survived {
            break;
        }
        // The first ones one by one, and then not all that a start reads.
        nth += if nth < reads { 1 } else { 3 };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_is_for_the_user_whose_directory_it_is() {
    let dir = tempfile::tempdir().unwrap();
    furnished(dir.path()).await;
    let copy = copied(dir.path());
    change(&parts(copy.path())[0], 40, |byte| byte ^ 1, 1);
    if chown(copy.path(), Some(4_000_000), None).is_err() {
        assert!(
            std::env::var_os("LUMINATE_TEST_REQUIRE_ALL").is_none(),
            "only root can give a directory away"
        );
        #[expect(clippy::print_stderr, reason = "who runs the tests should know what was not tested")]
        {
            eprintln!("\n=== SKIPPED: only root can give a directory to another user ===\n");
        }
        return;
    }
    let before = held(copy.path());
    let error = mend_on(&system(), copy.path()).unwrap_err().to_string();
    assert!(error.contains("belongs to user 4000000"), "{error}");
    assert!(held(copy.path()) == before);
    let said = mend(&system(), &clock(), copy.path(), true).unwrap();
    assert!(!said.steps.is_empty(), "looking is for everybody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_began_while_a_store_was_opened_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    furnished(dir.path()).await;
    let copy = copied(dir.path());
    let disk = FaultyDisk::over(system());
    disk.hold.store(true, SeqCst);
    let opened = std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            let disk: Arc<dyn Disk> = Arc::<FaultyDisk>::clone(&disk);
            Engine::open_at(small(copy.path()), disk, clock()).map(drop)
        });
        while !disk.has_waited.load(SeqCst) {
            std::thread::yield_now();
        }
        // It has looked, and is about to take the lock.
        std::fs::write(copy.path().join("RESTORING"), "one 1\n").unwrap();
        disk.hold.store(false, SeqCst);
        opening.join().unwrap()
    });
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("half restored"), "{error}");
    let error = mend_on(&system(), copy.path()).unwrap_err().to_string();
    assert!(error.contains("half restored"), "{error}");
}
