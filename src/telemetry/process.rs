//! What the operating system knows of this process, read from `/proc`; elsewhere there is nothing to tell.

use std::{fs, sync::Arc};

use super::{
    Figure, Source,
    cgroup::{self, Bounds},
};
use crate::{clock::Clock, model::Timestamp};

/// Gives the figures of this process, which started now.
pub fn source(clock: Arc<dyn Clock>) -> Source {
    let started = clock.now();
    Box::new(move || {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let status = fs::read_to_string("/proc/self/status").ok();
        // The directory is open while it is read, which is one that does not count.
        let open_files = fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count().saturating_sub(1));
        let limits = fs::read_to_string("/proc/self/limits").ok();
        let mut figures = figures(started, stat.as_deref(), status.as_deref(), open_files);
        figures.extend(of_bounds(limits.as_deref(), cgroup::bounds()));
        figures
    })
}

/// About the bytes of memory that this process may have; none where that is not known.
pub fn memory_bound() -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of bytes")]
    cgroup::bounds().memory_bytes.map(|bytes| bytes as u64)
}

fn figures(
    started: Timestamp,
    stat: Option<&str>,
    status: Option<&str>,
    open_files: Option<usize>,
) -> Vec<Figure> {
    let build = Figure::gauge("luminate_build_info", "The version that runs", 1.0);
    let mut figures = vec![
        build.with("version", env!("CARGO_PKG_VERSION")),
        Figure::gauge(
            "luminate_process_start_time_seconds",
            "When the process started, since the Unix epoch",
            seconds(started),
        ),
    ];
    if let Some(cpu) = stat.and_then(cpu_seconds) {
        figures.push(Figure::counter(
            "luminate_process_cpu_seconds",
            "Processor time used, in user and system mode",
            cpu,
        ));
    }
    if let Some(bytes) = status.and_then(|status| kibibytes(status, "VmRSS:")) {
        figures.push(Figure::gauge("luminate_process_resident_memory_bytes", "Memory in use", bytes));
    }
    if let Some(threads) = status.and_then(|status| number(status, "Threads:")) {
        figures.push(Figure::gauge("luminate_process_threads", "Threads", threads));
    }
    if let Some(open) = open_files.and_then(|n| u32::try_from(n).ok()) {
        figures.push(Figure::gauge("luminate_process_open_fds", "Open file descriptors", f64::from(open)));
    }
    figures
}

/// What we may have of what is told above.
fn of_bounds(limits: Option<&str>, bounds: Bounds) -> Vec<Figure> {
    let most = "Files that may be open";
    let memory = "Memory we may use: our control group's limit, or the machine's";
    let cpus = "Processors we may use: our control group's quota, or the machine's";
    let figures = [
        ("luminate_process_max_fds", most, limits.and_then(max_open_files)),
        ("luminate_process_memory_limit_bytes", memory, bounds.memory_bytes),
        ("luminate_process_cpu_limit_cores", cpus, bounds.cpus),
    ];
    let known = |(name, help, value): (_, _, Option<f64>)| Some(Figure::gauge(name, help, value?));
    figures.into_iter().filter_map(known).collect()
}

/// The soft limit: the first number after the name.
fn max_open_files(limits: &str) -> Option<f64> {
    number(limits, "Max open files")
}

fn seconds(at: Timestamp) -> f64 {
    // A float holds milliseconds of any year we will see.
    std::time::Duration::from_millis(u64::try_from(at.millis()).unwrap_or(0)).as_secs_f64()
}

/// User and system time. The name, in parentheses, may hold spaces; the kernel counts in hundredths.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}

pub(super) fn kibibytes(status: &str, name: &str) -> Option<f64> {
    number(status, name).map(|kib| kib * 1024.0)
}

fn number(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::FigureValue;

    #[test]
    fn a_process_name_may_hold_anything() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("nonsense"), None);
        assert_eq!(cpu_seconds("1 (x) S"), None);
    }

    #[test]
    fn bounds_are_told_as_far_as_there_are_some() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        let figures = of_bounds(Some(limits), Bounds { memory_bytes: Some(5.0), cpus: None });
        let told: Vec<_> = figures.iter().map(|figure| (figure.name, figure.value.clone())).collect();
        assert_eq!(
            told,
            [
                ("luminate_process_max_fds", FigureValue::Gauge(1024.0)),
                ("luminate_process_memory_limit_bytes", FigureValue::Gauge(5.0)),
            ]
        );
        assert!(of_bounds(Some("Max open files  unlimited"), Bounds::default()).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let names = |figures: Vec<Figure>| figures.iter().map(|f| f.name).collect::<Vec<_>>();
        let all = figures(Timestamp(1_500), None, Some("VmRSS:\t  10 kB\nThreads:\t3\n"), Some(4));
        assert_eq!(all[1].value, FigureValue::Gauge(1.5));
        assert_eq!(all[2].value, FigureValue::Gauge(10_240.0));
        assert_eq!(
            names(figures(Timestamp(0), None, None, None)),
            ["luminate_build_info", "luminate_process_start_time_seconds"]
        );
    }
}
