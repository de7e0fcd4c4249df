use std::{
    fs,
    num::NonZeroUsize,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;

use super::{
    conformance::{hold_to_contract, key},
    *,
};
use crate::{
    clock::{HandClock, SystemClock},
    gateway::auth::keys::file::{KeyFileError, Looked},
    model::Timestamp,
};

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.yaml");
    (dir, path)
}

fn yaml(records: &[KeyRecord]) -> String {
    format!("keys:\n{}", serde_yaml::to_string(records).unwrap())
}

/// Puts another file in the place of one.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("tmp");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_file_is_a_store() {
    let (_dir, path) = place();
    hold_to_contract(&*FileKeyStore::open_or_new(&path).unwrap()).await;
    // And so it is to the next process.
    let again = FileKeyStore::open(&path).unwrap();
    assert_eq!(again.list().await.unwrap().len(), 2);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left lying about");
}

#[tokio::test]
async fn a_file_that_changed_is_read_again_and_one_that_did_not_is_not() {
    let (_dir, path) = place();
    let (one, other) = (key().1, key().1);
    write(&path, &yaml(std::slice::from_ref(&one)));
    let store = FileKeyStore::open(&path).unwrap();
    let generation = store.generation();
    assert_eq!(store.look().unwrap(), Looked::Unchanged);
    assert_eq!(store.generation(), generation);
    write(&path, &yaml(&[one.clone(), other.clone()]));
    assert_eq!(store.look().unwrap(), Looked::Read(2));
    assert_ne!(store.generation(), generation);
    assert_eq!(store.find(&other.id).await, Ok(Some(other.clone())));
    let generation = store.generation();
    write(&path, &format!("# the same again\n{}", yaml(&[one.clone(), other.clone()])));
    assert_eq!(store.look().unwrap(), Looked::Read(2));
    assert_eq!(store.generation(), generation, "the same keys are no change");
    write(&path, "keys: []\n");
    assert_eq!(store.look().unwrap(), Looked::Read(0));
    assert_eq!(store.find(&other.id).await, Ok(None));
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let (_dir, path) = place();
    let (key, record) = key();
    let text = yaml(std::slice::from_ref(&record));
    write(&path, &text);
    let store = FileKeyStore::open(&path).unwrap();
    let generation = store.generation();
    let twice = yaml(&[record.clone(), record.clone()]);
    let secret = key.reveal().0;
    for (bad, said) in [
        (String::new(), "is empty"),
        (" \n\n".to_owned(), "is empty"),
        (text[..text.len() - 20].to_owned(), "keys.yaml: "),
        (text[..10].to_owned(), "keys.yaml: "),
        ("\u{0}\u{1}garbage".to_owned(), "keys.yaml: "),
        ("[]".to_owned(), "keys.yaml: "),
        ("keys: 5".to_owned(), "keys.yaml: "),
        ("kays: []".to_owned(), "unknown field `kays`"),
        ("{}".to_owned(), "missing field `keys`"),
        (twice, "is there twice"),
        (text.replace("scopes:", "scope:"), "unknown field `scope`"),
        (text.replace("- read", "- raed"), "\"raed\" is not a scope"),
        (text.replace("tenant: a", "tenant: ../a"), "tenant \"../a\""),
        (text.replace("sha256: ", &format!("sha256: {secret} #")), "64 hexadecimal digits"),
        (format!("keys:\n- {secret}\n"), "lum_…"),
        (format!("keys:\n- {{id: {secret}}}\n"), "keys.yaml: "),
        (text.replace("tenant: a", &format!("tenant: {secret}/")), "lum_…"),
        ("#".repeat(17 << 20), "larger than 16 MiB"),
    ] {
        write(&path, &bad);
        let error = store.look().unwrap_err().to_string();
        let begins = &bad[..bad.len().min(200)];
        assert!(error.contains(said), "{error}\nis said of\n{begins}");
        assert!(!error.contains(&key.secret.0), "{error}");
        assert!(FileKeyStore::check(&path).is_err());
        assert_eq!(store.look().unwrap(), Looked::Unchanged, "it is told once");
        assert!(store.state().is_broken.load(Ordering::Relaxed));
        assert_eq!(store.find(&record.id).await, Ok(Some(record.clone())));
    }
    assert_eq!(store.generation(), generation);
    fs::remove_file(&path).unwrap();
    assert!(matches!(store.look(), Err(KeyFileError::Read { .. })));
    assert_eq!(store.find(&record.id).await, Ok(Some(record.clone())));
    write(&path, &text);
    assert_eq!(store.look().unwrap(), Looked::Read(1));
    assert!(!store.state().is_broken.load(Ordering::Relaxed));
}

#[test]
fn a_server_does_not_start_without_its_file() {
    let (dir, path) = place();
    assert!(matches!(FileKeyStore::open(&path), Err(KeyFileError::Read { .. })));
    let error = FileKeyStore::open(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("is not a file"), "{error}");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let error = FileKeyStore::open(&path).unwrap_err().to_string();
    assert!(error.ends_with("is not a file"), "{error}");
}

#[test]
fn a_file_that_others_can_read_is_told_of() {
    let (_dir, path) = place();
    write(&path, "keys: []");
    for (mode, is_told) in [(0o600, false), (0o640, false), (0o604, true), (0o666, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(FileKeyStore::check(&path).unwrap().is_some(), is_told, "{mode:o}");
    }
}

#[tokio::test]
async fn writing_takes_the_file_from_the_public_and_leaves_links_alone() {
    let (dir, path) = place();
    write(&path, "keys: []");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    let link = dir.path().join("link.yaml");
    symlink(&path, &link).unwrap();
    let store = FileKeyStore::open(&link).unwrap();
    let record = key().1;
    store.put(record.clone()).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(mode(&path), 0o660);
    assert_eq!(store.find(&record.id).await, Ok(Some(record)));
}

#[tokio::test]
async fn a_writer_that_was_interrupted_leaves_the_old_file() {
    let (_dir, path) = place();
    let store = FileKeyStore::open_or_new(&path).unwrap();
    let first = key().1;
    store.put(first.clone()).await.unwrap();
    // Half of the new file, and it never took the old one's place.
    let left = path.with_file_name(".keys.yaml.new");
    fs::write(&left, "keys:\n- id: abc").unwrap();
    let again = FileKeyStore::open(&path).unwrap();
    assert_eq!(again.list().await.unwrap(), std::slice::from_ref(&first));
    let second = key().1;
    again.put(second.clone()).await.unwrap();
    assert_eq!(again.list().await.unwrap().len(), 2);
    assert!(!left.exists());
}

#[tokio::test]
async fn a_bad_file_is_not_written_over() {
    let (_dir, path) = place();
    let store = FileKeyStore::open_or_new(&path).unwrap();
    for bad in ["keys: 5", "kays: []", &yaml(&[key().1])[..60]] {
        write(&path, bad);
        assert!(matches!(store.put(key().1).await, Err(KeyStoreError::Broken(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_take_turns() {
    let (_dir, path) = place();
    FileKeyStore::open_or_new(&path).unwrap();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            crate::task::spawn("writer", async move {
                // Each as if it were another process.
                let store = FileKeyStore::open(&path).unwrap();
                for _ in 0..3 {
                    store.put(key().1).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(FileKeyStore::open(&path).unwrap().len(), 24);
}

/// Who holds a key that stays is let in whatever happens to the file meanwhile, and who holds one that is revoked is
/// not, once the file was read that says so.
#[tokio::test(flavor = "multi_thread")]
async fn verifying_goes_on_while_the_file_is_read_again() {
    let (_dir, path) = place();
    let ((stays, stays_record), (goes, goes_record)) = (key(), key());
    write(&path, &yaml(&[stays_record.clone(), goes_record.clone()]));
    let store = FileKeyStore::open(&path).unwrap();
    let size = NonZeroUsize::new(10).unwrap();
    let rules = CacheRules { size, ttl: Duration::from_secs(300), stale_ttl: Duration::ZERO };
    let keys = Arc::new(ApiKeys::new(Arc::clone(&store) as Arc<dyn KeyStore>, rules, SystemClock::start()));
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (keys, done, key) = (Arc::clone(&keys), Arc::clone(&done), stays.reveal().0);
            crate::task::spawn("caller", async move {
                let mut verified = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    keys.verify(&key).await.unwrap();
                    verified += 1;
                    tokio::task::yield_now().await;
                }
                verified
            })
        })
        .collect();
    for round in 0..50 {
        let revoked = KeyRecord { revoked: Some(Timestamp(5)), ..goes_record.clone() };
        let goes_now = if round % 2 == 0 { revoked } else { goes_record.clone() };
        let is_revoked = goes_now.revoked.is_some();
        write(&path, &yaml(&[goes_now, stays_record.clone()]));
        store.look_aside().await.unwrap();
        assert_eq!(keys.verify(&goes.reveal().0).await.is_err(), is_revoked, "round {round}");
        write(&path, "keys: [");
        assert!(store.look_aside().await.is_err());
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_key_revoked_in_the_file_is_out_when_the_file_was_read() {
    let (_dir, path) = place();
    let store = FileKeyStore::open_or_new(&path).unwrap();
    let (key, record) = key();
    store.put(record).await.unwrap();
    let size = NonZeroUsize::new(10).unwrap();
    let rules = CacheRules { size, ttl: Duration::from_secs(300), stale_ttl: Duration::from_secs(900) };
    let clock = HandClock::at(Timestamp(0));
    let keys = ApiKeys::new(Arc::clone(&store) as Arc<dyn KeyStore>, rules, clock);
    keys.verify(&key.reveal().0).await.unwrap();
    // By another process.
    let operator = FileKeyStore::open(&path).unwrap();
    assert!(operator.revoke(&key.id, Timestamp(1)).await.unwrap());
    assert_eq!(store.look().unwrap(), Looked::Read(1));
    let error = keys.verify(&key.reveal().0).await.unwrap_err().to_string();
    assert_eq!(error, format!("revoked_key: key {} is revoked", key.id));
}
