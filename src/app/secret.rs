//! Secrets that are configured, or in files that are.

use std::{fs, io::Read, path::Path};

use anyhow::{Context, bail};

use crate::{
    config::Password,
    model::{Secret, secret::weakness_of_password},
};

/// More than this is not a secret.
const MAX_BYTES: u64 = 4096;

/// The password of a user, as configured; `file_key` is what names its file.
pub(super) fn read(
    username: &str,
    password: Option<&Password>,
    file_key: &str,
) -> anyhow::Result<Option<Secret>> {
    match password {
        None => Ok(None),
        // It was looked at with the configuration.
        Some(Password::Inline(secret)) => Ok(Some(secret.clone())),
        Some(Password::File(path)) => {
            let secret = read_file(path, file_key)?;
            match weakness_of_password(username, &secret) {
                None => Ok(Some(secret)),
                Some(why) => bail!("the password in {} ({file_key}) {why}", path.display()),
            }
        }
    }
}

/// A secret in a file; a newline at its end is the editor's.
pub(super) fn read_file(path: &Path, key: &str) -> anyhow::Result<Secret> {
    contents(path).with_context(|| format!("cannot read the secret from {} ({key})", path.display()))
}

fn contents(path: &Path) -> anyhow::Result<Secret> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("it is larger than {MAX_BYTES} bytes");
    }
    // The bytes are not in the message: they may be most of the secret.
    let text = String::from_utf8(bytes).ok().context("it is not UTF-8")?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        bail!("it is empty");
    }
    Ok(Secret(secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_its_file_without_the_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let read = || read("admin", Some(&Password::File(path.clone())), "x.password_file");
        for (written, secret) in
            [("hunter2\n", "hunter2"), (" a b", " a b"), ("a\n\n", "a\n"), ("a\r\n", "a")]
        {
            fs::write(&path, written).unwrap();
            assert_eq!(read().unwrap(), Some(Secret(secret.to_owned())), "{written:?}");
        }
        for (written, wrong) in
            [(vec![], "empty"), (vec![b'\n'], "empty"), (vec![0xff], "UTF-8"), (vec![b'a'; 5000], "larger")]
        {
            fs::write(&path, written).unwrap();
            let error = format!("{:#}", read().unwrap_err());
            assert!(error.contains(wrong) && error.contains("x.password_file"), "{error}");
        }
        for (written, wrong) in
            [("your-clickhouse-password\n", "is a placeholder"), ("admin", "everybody tries")]
        {
            fs::write(&path, written).unwrap();
            let error = format!("{:#}", read().unwrap_err());
            assert!(error.contains(wrong) && error.contains("password (x.password_file)"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        let error = format!("{:#}", read().unwrap_err());
        assert!(error.contains("password (x.password_file): No such file"), "{error}");
    }
}
