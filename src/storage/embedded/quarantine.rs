//! `quarantine/`: what does not read back, for a person to look at and remove.
//!
//! A file comes here by a second name, and only then loses its first: it is never in neither place. Nothing that is here
//! is ever replaced. Another file of the same name gets a number behind it; the same bytes again are there already.
//!
//! A part that lies here is told as damage, and a repair brings back what of it reads back: unless another part stands for
//! it. That one knows so only until it is merged itself, so before any merge the name here gets an [end](REPLACED) that says
//! it for good.

use std::{io, path::Path};

use super::{disk::Disk, part::PartId};

/// The directory's name in the data directory.
pub(crate) const QUARANTINE: &str = "quarantine";

/// How the name of a part ends here that another one stands for.
const REPLACED: &str = ".replaced";

/// What is read at a time of files that are compared.
const PIECE: usize = 1 << 20;

/// Gives a file a second name here, durably.
pub(crate) fn keep(disk: &dyn Disk, data_dir: &Path, path: &Path) -> io::Result<()> {
    link(disk, data_dir, path, "")
}

/// Moves a file here, durably.
pub(crate) fn set_aside(disk: &dyn Disk, data_dir: &Path, path: &Path) -> io::Result<()> {
    keep(disk, data_dir, path)?;
    disk.remove_file(path)?;
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}

/// The parts here that no other is known to stand for.
pub(crate) fn parts(disk: &dyn Disk, data_dir: &Path) -> io::Result<Vec<PartId>> {
    let listed = disk.list(&data_dir.join(QUARANTINE))?;
    Ok(listed.iter().filter_map(|entry| PartId::from_file_name(&entry.name)).collect())
}

/// Marks parts here as ones that others stand for, durably.
pub(crate) fn mark_replaced(disk: &dyn Disk, data_dir: &Path, replaced: &[PartId]) -> io::Result<()> {
    let dir = data_dir.join(QUARANTINE);
    for id in replaced {
        let path = dir.join(id.file_name());
        link(disk, data_dir, &path, REPLACED)?;
        disk.remove_file(&path)?;
        disk.sync_dir(&dir)?;
    }
    Ok(())
}

/// Gives a file a name here that is its own, with an end, unless it has one already.
fn link(disk: &dyn Disk, data_dir: &Path, path: &Path, end: &str) -> io::Result<()> {
    let dir = data_dir.join(QUARANTINE);
    let name = format!("{}{end}", path.file_name().unwrap_or_default().to_string_lossy());
    disk.create_dir_all(&dir)?;
    for number in 1_u32.. {
        let to = dir.join(if number == 1 { name.clone() } else { format!("{name}.{number}") });
        match disk.hard_link(path, &to) {
            Ok(()) => break,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if is_same(disk, path, &to)? {
                    break;
                }
            }
            Err(e) => return Err(e),
        }
    }
    disk.sync_dir(&dir)?;
    disk.sync_dir(data_dir)
}

/// Whether two names are of one file, or of files with the same bytes. What cannot be read is another: it may be damaged.
fn is_same(disk: &dyn Disk, one: &Path, other: &Path) -> io::Result<bool> {
    Ok(disk.is_one_file(one, other)? || has_same_bytes(disk, one, other).unwrap_or(false))
}

fn has_same_bytes(disk: &dyn Disk, one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (disk.open(one)?, disk.open(other)?);
    let length = one.len()?;
    if length != other.len()? {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    while at < length {
        let piece = usize::try_from(length - at).map_or(PIECE, |left| left.min(PIECE));
        one.read_exact_at(&mut a[..piece], at)?;
        other.read_exact_at(&mut b[..piece], at)?;
        if a[..piece] != b[..piece] {
            return Ok(false);
        }
        at += piece as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::atomic::Ordering::SeqCst};

    use super::*;
    use crate::storage::embedded::{disk::SystemDisk, faults::FaultyDisk};

    #[test]
    fn what_is_here_is_never_replaced_and_never_there_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (file, kept) = (dir.path().join("LEDGER"), dir.path().join(QUARANTINE));
        for (bytes, names) in [("one", 1), ("one", 1), ("two", 2), ("six", 3), ("two", 3)] {
            // Another file, as one that is written anew is.
            let _ = fs::remove_file(&file);
            fs::write(&file, bytes).unwrap();
            keep(&SystemDisk, dir.path(), &file).unwrap();
            assert_eq!(fs::read_dir(&kept).unwrap().count(), names, "{bytes}");
        }
        assert_eq!(fs::read_to_string(kept.join("LEDGER")).unwrap(), "one");
        assert_eq!(fs::read_to_string(kept.join("LEDGER.2")).unwrap(), "two");
        set_aside(&SystemDisk, dir.path(), &file).unwrap();
        assert!(!file.exists() && fs::read_dir(&kept).unwrap().count() == 3);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_kept_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::over(std::sync::Arc::new(SystemDisk));
        let (file, kept) = (dir.path().join("LEDGER"), dir.path().join(QUARANTINE));
        for (bytes, names) in [("one", 1), ("one", 1), ("two", 2)] {
            if names == 2 {
                fs::remove_file(&file).unwrap();
            }
            fs::write(&file, bytes).unwrap();
            for _ in 0..2 {
                // Nothing is read of what is one file.
                disk.fail_read.store(1, SeqCst);
                keep(&*disk, dir.path(), &file).unwrap();
                assert_eq!(fs::read_dir(&kept).unwrap().count(), names, "{bytes}");
            }
        }
    }

    #[test]
    fn a_part_that_another_stands_for_is_none_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join(QUARANTINE);
        for bytes in ["a", "b"] {
            fs::create_dir_all(&kept).unwrap();
            for id in [PartId(1), PartId(2)] {
                fs::write(kept.join(id.file_name()), bytes).unwrap();
            }
            mark_replaced(&SystemDisk, dir.path(), &[PartId(1)]).unwrap();
            assert_eq!(parts(&SystemDisk, dir.path()).unwrap(), [PartId(2)]);
        }
        let mut names: Vec<String> = fs::read_dir(&kept)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let one = PartId(1).file_name();
        assert_eq!(names, [format!("{one}.replaced"), format!("{one}.replaced.2"), PartId(2).file_name()]);
        assert_eq!(fs::read_to_string(kept.join(&names[1])).unwrap(), "b");
    }
}
