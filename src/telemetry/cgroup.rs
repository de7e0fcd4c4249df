//! What this process may use, as its control groups say: memory and processor time, of either version of them.
//!
//! A bound holds for a group and for all below it, so the lowest on the way up counts. In a container the way ends at
//! the container's own group, which is what is mounted there as the root. Where there is no bound the machine is one.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// The bounds of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bounds {
    /// Bytes of memory.
    pub(super) memory_bytes: Option<f64>,
    /// Processors, a part of one included.
    pub(super) cpus: Option<f64>,
}

/// The bounds of this process.
pub(super) fn bounds() -> Bounds {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = bounds_below(Path::new(ROOT), &groups);
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let memory = machine.and_then(|text| super::process::kibibytes(&text, "MemTotal:"));
    let threads = std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok());
    Bounds {
        memory_bytes: least(of_groups.memory_bytes, memory),
        cpus: least(of_groups.cpus, threads.map(f64::from)),
    }
}

fn bounds_below(root: &Path, groups: &str) -> Bounds {
    let mut bounds = Bounds::default();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let has = |name| controllers.split(',').any(|controller| controller == name);
        if controllers.is_empty() {
            for group in ways_up(root, path) {
                bounds.memory_bytes = least(bounds.memory_bytes, number(&group.join("memory.max")));
                bounds.cpus = least(bounds.cpus, quota(&group.join("cpu.max")));
            }
        }
        if has("memory") {
            for group in ways_up(&root.join("memory"), path) {
                bounds.memory_bytes =
                    least(bounds.memory_bytes, number(&group.join("memory.limit_in_bytes")));
            }
        }
        if has("cpu") {
            // The directory has the names of all that are mounted together, or is reached by each of them.
            for mounted in [root.join(controllers), root.join("cpu")] {
                for group in ways_up(&mounted, path) {
                    let period = number(&group.join("cpu.cfs_period_us"));
                    let quota = number(&group.join("cpu.cfs_quota_us"));
                    bounds.cpus = least(bounds.cpus, share(quota, period));
                }
            }
        }
    }
    bounds
}

/// A group and those it is in, the mount last. A path that climbs above it is that of a group we cannot see.
fn ways_up(mount: &Path, path: &str) -> Vec<PathBuf> {
    let path = path.trim_start_matches('/');
    let seen = if path.split('/').any(|step| step == "..") { "" } else { path };
    mount.join(seen).ancestors().take_while(|group| group.starts_with(mount)).map(Path::to_owned).collect()
}

/// A file's number; none if it is not there, or says `max`.
fn number(path: &Path) -> Option<f64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `QUOTA PERIOD`, or `max PERIOD`.
fn quota(path: &Path) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    share(quota.parse().ok(), period.parse().ok())
}

/// How many processors a quota is; one below zero is none.
fn share(quota: Option<f64>, period: Option<f64>) -> Option<f64> {
    let (quota, period) = quota.zip(period)?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn least(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bounds that files below a root say.
    fn read(groups: &str, files: &[(&str, &str)]) -> Bounds {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        bounds_below(root.path(), groups)
    }

    #[test]
    fn the_lowest_bound_on_the_way_up_counts() {
        let groups = "0::/kubepods/pod1/luminate\n";
        let bounds = read(
            groups,
            &[
                ("kubepods/pod1/luminate/memory.max", "max\n"),
                ("kubepods/pod1/memory.max", "2147483648\n"),
                ("kubepods/memory.max", "8589934592\n"),
                ("kubepods/pod1/luminate/cpu.max", "25000 100000\n"),
                ("kubepods/pod1/cpu.max", "max 100000\n"),
            ],
        );
        assert_eq!(bounds, Bounds { memory_bytes: Some(2_147_483_648.0), cpus: Some(0.25) });
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let files = [("memory.max", "536870912\n"), ("cpu.max", "100000 100000\n")];
        let bounds = Bounds { memory_bytes: Some(536_870_912.0), cpus: Some(1.0) };
        assert_eq!(read("0::/\n", &files), bounds);
        assert_eq!(read("0::/../../pod1/luminate\n", &files), bounds);
    }

    #[test]
    fn the_first_version_is_understood() {
        let groups = "12:memory:/docker/a\n11:cpu,cpuacct:/docker/a\n0::/docker/a\n";
        let bounds = read(
            groups,
            &[
                ("memory/docker/a/memory.limit_in_bytes", "67108864\n"),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("cpu,cpuacct/docker/a/cpu.cfs_quota_us", "150000\n"),
                ("cpu,cpuacct/docker/a/cpu.cfs_period_us", "100000\n"),
                ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
                ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(bounds, Bounds { memory_bytes: Some(67_108_864.0), cpus: Some(1.5) });
    }

    #[test]
    fn nonsense_is_no_bound() {
        let files = [("memory.max", "much\n"), ("cpu.max", "0 0\n")];
        for groups in ["", "x", "0::", "::::"] {
            assert_eq!(read(groups, &files), Bounds::default(), "{groups}");
        }
        assert!(bounds().cpus.is_some());
    }
}
