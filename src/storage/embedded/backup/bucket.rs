//! Backups in a bucket of an S3-compatible store.
//!
//! Objects larger than a piece go up in parts, several at a time, and can be seen when the last is there. What an interrupted upload leaves no
//! listing shows; a rule of the bucket removes it (`AbortIncompleteMultipartUpload`).

use std::{ffi::OsString, fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig, WriteMultipart,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    client::HttpConnector,
    path::Path,
};
use tokio::runtime::Runtime;

use super::{
    BackupError, Result,
    target::{Held, PIECE, Source, Target},
};

/// So many parts of an object are on their way at once.
const IN_FLIGHT: usize = 3;
/// An upload may have 10,000 parts.
const MOST_PARTS: u64 = 9_000;
/// A request that failed in passing is sent again for so long.
const PERSISTENCE: Duration = Duration::from_secs(120);
const MOST_RETRIES: usize = 6;

/// What a store says to whom it does not let in.
const DENIED: [&str; 6] = [
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
];

/// How a bucket is reached; what is not said here the environment says, as for every other program (`AWS_…`).
#[derive(Clone, Debug, Default)]
pub struct S3Settings {
    /// Its URL, if it is not at AWS.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// The access key; then none of the environment counts.
    pub key: Option<S3Key>,
}

/// An access key.
#[derive(Clone)]
pub struct S3Key {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// The token of the session that it is for, if it is for one.
    pub token: Option<String>,
}

impl fmt::Debug for S3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl S3Settings {
    /// What a bucket is opened with; `environment` says what these do not.
    fn over(
        &self,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Vec<(AmazonS3ConfigKey, String)> {
        use AmazonS3ConfigKey::{AccessKeyId, Endpoint, Region, SecretAccessKey, Token};
        // A token is good with its own key only.
        let counts = |key: &AmazonS3ConfigKey| {
            self.key.is_none() || !matches!(key, AccessKeyId | SecretAccessKey | Token)
        };
        let known = environment.filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("AWS_"))?;
            Some((name.to_ascii_lowercase().parse().ok()?, value.into_string().ok()?))
        });
        let key = self.key.as_ref();
        let own = [
            (Endpoint, self.endpoint.as_ref()),
            (Region, self.region.as_ref()),
            (AccessKeyId, key.map(|key| &key.id)),
            (SecretAccessKey, key.map(|key| &key.secret)),
            (Token, key.and_then(|key| key.token.as_ref())),
        ];
        let own = own.into_iter().filter_map(|(key, value)| Some((key, value?.clone())));
        known.filter(|(key, _)| counts(key)).chain(own).collect()
    }
}

/// Part of a bucket that keeps backups.
#[derive(Debug)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    place: String,
    runtime: Runtime,
}

impl Bucket {
    /// Uses `prefix` of a bucket, which `connector` makes connections to. Nothing is asked of it yet.
    ///
    /// It blocks, and may not be used within an asynchronous runtime.
    pub fn new(
        bucket: &str,
        prefix: &str,
        settings: &S3Settings,
        connector: impl HttpConnector,
    ) -> Result<Self> {
        let settings = settings.over(std::env::vars_os());
        let builder = settings
            .into_iter()
            .fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value));
        let retry =
            RetryConfig { max_retries: MOST_RETRIES, retry_timeout: PERSISTENCE, ..RetryConfig::default() };
        let store = builder
            .with_bucket_name(bucket)
            // Not every store takes many names at once.
            .with_disable_bulk_delete(true)
            .with_retry(retry)
            .with_http_connector(connector)
            .build()
            .map_err(|e| BackupError::Refused(format!("the bucket {bucket} cannot be used: {e}")))?;
        let place = match prefix {
            "" => format!("s3://{bucket}"),
            prefix => format!("s3://{bucket}/{prefix}"),
        };
        Self::over(Arc::new(store), prefix, place)
    }

    /// Uses part of any store.
    pub(super) fn over(store: Arc<dyn ObjectStore>, prefix: &str, place: String) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("luminate-backup")
            .enable_all()
            .build()
            .map_err(BackupError::local("starting the runtime"))?;
        Ok(Self { store, prefix: prefix.to_owned(), place, runtime })
    }

    fn path(&self, name: &str) -> Path {
        if self.prefix.is_empty() { Path::from(name) } else { Path::from(format!("{}/{name}", self.prefix)) }
    }

    fn failed(&self, doing: &str, name: &str) -> impl FnOnce(Error) -> BackupError {
        let (place, doing, name) = (self.place.clone(), format!("{doing} {name}"), name.to_owned());
        move |error| {
            let text = error.to_string();
            match (&error, code(&text).unwrap_or_default()) {
                (_, "NoSuchBucket") => {
                    BackupError::Place { place, doing, why: "there is no such bucket".to_owned() }
                }
                (Error::NotFound { .. }, _) => BackupError::Missing { place, name },
                (_, code) if DENIED.contains(&code) => {
                    let why = format!("the keys are wrong or may not do this ({code})");
                    BackupError::Place { place, doing, why }
                }
                // It was asked for what lies behind its end.
                (_, "InvalidRange") => BackupError::Damaged { place, name, why: "it ends early".to_owned() },
                _ => BackupError::Place { place, doing, why: text.replace('\n', " ") },
            }
        }
    }

    async fn upload(&self, name: &str, bytes: u64, source: &mut Source<'_>) -> Result<()> {
        let path = self.path(name);
        if bytes <= PIECE {
            let mut all = BytesMut::new();
            while let Some(piece) = source()? {
                all.extend_from_slice(&piece);
            }
            let put = self.store.put(&path, PutPayload::from_bytes(all.freeze())).await;
            return put.map(|_| ()).map_err(self.failed("writing", name));
        }
        let upload = self.store.put_multipart(&path).await.map_err(self.failed("writing", name))?;
        let chunk = usize::try_from(PIECE.max(bytes.div_ceil(MOST_PARTS))).unwrap_or(usize::MAX);
        let mut write = WriteMultipart::new_with_chunk_size(upload, chunk);
        let sent = async {
            while let Some(piece) = source()? {
                write.wait_for_capacity(IN_FLIGHT).await.map_err(self.failed("writing", name))?;
                write.put(piece);
            }
            Ok(())
        }
        .await;
        match sent {
            Ok(()) => write.finish().await.map(|_| ()).map_err(self.failed("writing", name)),
            Err(error) => {
                if let Err(error) = write.abort().await {
                    tracing::debug!(%error, "an upload could not be taken back");
                }
                Err(error)
            }
        }
    }
}

/// The code that an S3 store gives for an error, out of its XML.
fn code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    Some(rest.split_once("</Code>")?.0)
}

impl Target for Bucket {
    fn place(&self) -> &str {
        &self.place
    }

    fn list(&self, folder: &str) -> Result<Vec<Held>> {
        let prefix = self.path(folder);
        let found: Result<Vec<_>, Error> =
            self.runtime.block_on(self.store.list(Some(&prefix)).try_collect());
        let under = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let mut held: Vec<Held> = found
            .map_err(self.failed("listing", folder))?
            .into_iter()
            .filter_map(|meta| {
                let name = meta.location.as_ref().strip_prefix(&under)?.to_owned();
                Some(Held { name, bytes: meta.size })
            })
            .collect();
        held.sort();
        Ok(held)
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        let path = self.path(name);
        let got = self.runtime.block_on(async { self.store.get(&path).await?.bytes().await });
        got.map_err(self.failed("reading", name))
    }

    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Bytes> {
        if length == 0 {
            // A range of no bytes cannot be asked for.
            return Ok(Bytes::new());
        }
        let path = self.path(name);
        let read = self.runtime.block_on(self.store.get_range(&path, offset..offset.saturating_add(length)));
        let bytes = read.map_err(self.failed("reading", name))?;
        if bytes.len() as u64 == length {
            return Ok(bytes);
        }
        let why = format!("it ends after {} bytes", offset + bytes.len() as u64);
        Err(BackupError::Damaged { place: self.place.clone(), name: name.to_owned(), why })
    }

    fn put(&self, name: &str, bytes: u64, source: &mut Source<'_>) -> Result<()> {
        self.runtime.block_on(self.upload(name, bytes, source))
    }

    fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool> {
        let path = self.path(name);
        let put = async |mode| {
            let options = PutOptions { mode, ..PutOptions::default() };
            self.store.put_opts(&path, PutPayload::from_bytes(bytes.clone()), options).await
        };
        self.runtime
            .block_on(async {
                match put(PutMode::Create).await {
                    Ok(_) => Ok(true),
                    Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
                    // A store without conditions.
                    Err(error) if error.to_string().contains("NotImplemented") => {
                        match self.store.head(&path).await {
                            Ok(_) => return Ok(false),
                            Err(Error::NotFound { .. }) => {}
                            Err(error) => return Err(error),
                        }
                        put(PutMode::Overwrite).await.map(|_| true)
                    }
                    Err(error) => Err(error),
                }
            })
            .map_err(self.failed("writing", name))
    }

    fn remove(&self, name: &str) -> Result<()> {
        match self.runtime.block_on(self.store.delete(&self.path(name))) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("removing", name)(error)),
        }
    }

    fn sweep(&self) -> Result<()> {
        // Uploads that were not finished cannot be seen; a rule of the bucket removes them.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn bucket(store: &Arc<InMemory>, prefix: &str) -> Bucket {
        let store: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(store);
        Bucket::over(store, prefix, "s3://b".to_owned()).unwrap()
    }

    #[test]
    fn a_bucket_keeps_what_a_target_promises() {
        let store = Arc::new(InMemory::new());
        for prefix in ["", "a/b"] {
            let bucket = bucket(&store, prefix);
            let mut once = Some(Bytes::from_static(b"one"));
            bucket.put("objects/1/1", 3, &mut || Ok(once.take())).unwrap();
            assert!(bucket.put_new("backups/x.json", Bytes::from_static(b"{}")).unwrap());
            assert!(!bucket.put_new("backups/x.json", Bytes::from_static(b"[]")).unwrap());
            assert_eq!(bucket.get("backups/x.json").unwrap(), "{}");
            assert_eq!(bucket.read("objects/1/1", 1, 2).unwrap(), "ne");
            assert_eq!(bucket.read("objects/1/1", 3, 0).unwrap(), "");
            assert_eq!(bucket.list("objects").unwrap(), [Held { name: "objects/1/1".to_owned(), bytes: 3 }]);
            bucket.remove("objects/1/1").unwrap();
            bucket.remove("objects/1/1").unwrap();
            assert!(matches!(bucket.get("objects/1/1"), Err(BackupError::Missing { .. })));
            assert_eq!(bucket.list("objects").unwrap(), []);
        }
    }

    #[test]
    fn large_objects_go_up_in_parts_and_not_at_all_if_they_end_in_an_error() {
        let bucket = bucket(&Arc::new(InMemory::new()), "p");
        let size = 2 * PIECE + 5;
        let whole: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let send = |name: &str, fails: bool| {
            let mut at = 0;
            bucket.put(name, size, &mut || {
                let end = (at + 5_000_000).min(whole.len());
                if fails && end == whole.len() {
                    return Err(BackupError::Refused("no more".to_owned()));
                }
                let piece = (at < end).then(|| Bytes::copy_from_slice(&whole[at..end]));
                at = end;
                Ok(piece)
            })
        };
        assert!(send("bad", true).is_err());
        assert!(matches!(bucket.get("bad"), Err(BackupError::Missing { .. })));
        send("good", false).unwrap();
        assert_eq!(bucket.get("good").unwrap(), whole);
        assert!(bucket.read("good", size, 1).is_err());
    }

    fn key(token: Option<&str>) -> Option<S3Key> {
        let token = token.map(str::to_owned);
        Some(S3Key { id: "id".to_owned(), secret: "s3cret".to_owned(), token })
    }

    #[test]
    fn a_key_that_is_given_counts_alone_with_its_token() {
        use AmazonS3ConfigKey::{AccessKeyId, Region, SecretAccessKey, Token};
        let environment = || {
            [
                ("AWS_REGION", "r"),
                ("AWS_ACCESS_KEY_ID", "other"),
                ("AWS_SECRET_ACCESS_KEY", "others"),
                ("AWS_SESSION_TOKEN", "others too"),
                ("PATH", "/bin"),
            ]
            .into_iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        };
        let pairs = |key| -> Vec<_> { S3Settings { key, ..S3Settings::default() }.over(environment()) };
        let own = [(Region, "r"), (AccessKeyId, "id"), (SecretAccessKey, "s3cret"), (Token, "t0ken")];
        let own = own.map(|(key, value)| (key, value.to_owned()));
        assert_eq!(pairs(key(Some("t0ken"))), own);
        assert_eq!(pairs(key(None)), own[..3]);
        assert_eq!(pairs(None).len(), 4);
    }

    #[test]
    fn keys_are_not_told() {
        let key = key(Some("t0ken"));
        let text = format!("{:?}", S3Settings { key, ..S3Settings::default() });
        assert!(!text.contains("s3cret") && !text.contains("t0ken"), "{text}");
    }
}
