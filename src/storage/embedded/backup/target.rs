//! Where backups are kept: objects that have names, written whole, found again by their names.

use std::{fmt, path::PathBuf, str::FromStr};

use bytes::Bytes;

use super::Result;

/// Bytes are read and written in pieces of this size.
pub(super) const PIECE: u64 = 8 << 20;

/// Gives the pieces of an object in order, and then nothing.
pub type Source<'a> = dyn FnMut() -> Result<Option<Bytes>> + 'a;

/// Keeps objects under names with `/` between their parts.
///
/// # Contract
///
/// * **Whole.** An object that can be seen is whole; what was interrupted cannot be seen.
/// * **Durable.** When a call that writes returns `Ok`, what it wrote survives a crash.
/// * **Current.** What one has written or removed, all see so from then on.
pub trait Target: fmt::Debug + Send + Sync {
    /// What it is called in messages.
    fn place(&self) -> &str;

    /// What is in a folder and in those below it, in the order of names.
    fn list(&self, folder: &str) -> Result<Vec<Held>>;

    /// All of a small object.
    fn get(&self, name: &str) -> Result<Bytes>;

    /// `length` bytes of an object from `offset` on.
    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Bytes>;

    /// Writes an object of `bytes` bytes, in place of the one of that name if there is one. An error of the source ends
    /// it without a trace.
    fn put(&self, name: &str, bytes: u64, source: &mut Source<'_>) -> Result<()>;

    /// Writes a small object if there is none of that name, and tells whether there was none.
    fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool>;

    /// Removes an object, if it is there.
    fn remove(&self, name: &str) -> Result<()>;

    /// Removes what was begun and never finished. Nobody may be writing.
    fn sweep(&self) -> Result<()>;
}

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Where backups are, as it is written: `file:///DIRECTORY` or `s3://BUCKET/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A directory of this machine.
    Directory(PathBuf),
    /// Part of a bucket.
    Bucket {
        /// The bucket.
        bucket: String,
        /// What the names of all objects begin with; may be empty.
        prefix: String,
    },
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err("write a directory from the root on: file:///DIRECTORY".to_owned());
            }
            return Ok(Self::Directory(PathBuf::from(path)));
        }
        let Some(rest) = text.strip_prefix("s3://") else {
            return Err("write file:///DIRECTORY or s3://BUCKET/PREFIX".to_owned());
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if bucket.is_empty() || !bucket.chars().all(plain) {
            // What else is written there may be keys: it is not repeated.
            return Err(
                "a bucket has letters, digits and ._-, and no keys: those belong in the environment or in \
                        files"
                    .to_owned(),
            );
        }
        let prefix = prefix.trim_matches('/');
        let sound = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
        if !prefix.is_empty() && !prefix.split('/').all(sound) {
            return Err("a prefix has letters, digits and ._- between its /".to_owned());
        }
        Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file://{}", path.display()),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_or_a_bucket() {
        for (text, printed) in [
            ("file:///mnt/b", "file:///mnt/b"),
            ("s3://b", "s3://b"),
            ("s3://my.bucket-1/a/b_c/", "s3://my.bucket-1/a/b_c"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn a_place_with_keys_in_it_is_refused_and_not_repeated() {
        for text in [
            "s3://key:secret@bucket/a",
            "s3://",
            "s3:///a",
            "s3://b/../c",
            "s3://b/a//c",
            "file://a",
            "disk:b",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
