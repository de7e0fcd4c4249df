//! What every [`KeyStore`] promises, as tests that each store runs.

use super::{Key, KeyRecord, KeyStore, KeyStoreError, Sha256};
use crate::model::Timestamp;

/// A new key of tenant `a` that may read, and its record.
pub(crate) fn key() -> (Key, KeyRecord) {
    let key = Key::draw().unwrap();
    let record = KeyRecord {
        id: key.id.clone(),
        sha256: Sha256::of(&key.secret.0),
        name: String::new(),
        tenant: Some("a".to_owned()),
        tenants: Vec::new(),
        scopes: vec!["read".to_owned()],
        labels: Default::default(),
        filters: Vec::new(),
        limits: Default::default(),
        created: Some(Timestamp(1_000)),
        expires: None,
        disabled: false,
        revoked: None,
    };
    (key, record)
}

/// A record with something in every field.
fn full() -> KeyRecord {
    KeyRecord {
        name: "é \"quoted\" # not a comment: yes".to_owned(),
        tenants: vec!["b*".to_owned(), "null".to_owned()],
        labels: [("team".to_owned(), "no".to_owned())].into(),
        filters: vec!["{env=~\"a|b\"}".to_owned()],
        limits: [("samples_per_second".to_owned(), 5.into())].into_iter().collect(),
        expires: Some(Timestamp(4_102_444_800_123)),
        disabled: true,
        ..key().1
    }
}

/// Holds an empty store to the contract.
pub(crate) async fn hold_to_contract(store: &dyn KeyStore) {
    let (_, record) = key();
    assert_eq!(store.find(&record.id).await, Ok(None));
    assert_eq!(store.list().await, Ok(Vec::new()));
    assert_eq!(store.revoke(&record.id, Timestamp(5)).await, Ok(false));

    store.put(record.clone()).await.unwrap();
    assert_eq!(store.find(&record.id).await, Ok(Some(record.clone())));
    let other = full();
    store.put(other.clone()).await.unwrap();
    let mut both = vec![record.clone(), other.clone()];
    both.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(store.list().await, Ok(both));

    // A record is never overwritten.
    let forged = KeyRecord { scopes: vec!["admin".to_owned()], ..record.clone() };
    assert_eq!(store.put(forged).await, Err(KeyStoreError::Exists(record.id.clone())));
    assert_eq!(store.find(&record.id).await, Ok(Some(record.clone())));

    // A record that means nothing is not kept.
    let broken = KeyRecord { scopes: vec!["raed".to_owned()], ..key().1 };
    assert!(matches!(store.put(broken.clone()).await, Err(KeyStoreError::Broken(_))));
    assert_eq!(store.find(&broken.id).await, Ok(None));

    // A revoked key stays revoked, since the first time.
    assert_eq!(store.revoke(&record.id, Timestamp(7_000)).await, Ok(true));
    assert_eq!(store.revoke(&record.id, Timestamp(9_000)).await, Ok(true));
    let revoked = KeyRecord { revoked: Some(Timestamp(7_000)), ..record };
    assert_eq!(store.find(&revoked.id).await, Ok(Some(revoked.clone())));
    assert_eq!(store.put(revoked.clone()).await, Err(KeyStoreError::Exists(revoked.id)));
    assert_eq!(store.find(&other.id).await, Ok(Some(other)));
}
