//! `luminate admin capacity`: how much of what it takes, from what was measured.
//!
//! Every number is a figure of `tests/bench/RESULTS.md` or `deployments/docs/capacity.md` times what is asked for,
//! plus room. The figures stand in
//! one table below, with where each comes from, and are printed with the answer: they hold for that machine, and
//! what is drawn out far beyond them is an estimate.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    cli::{CommandError, table},
    config::{
        ByteSize,
        value::{format_duration, parse_duration},
    },
};

/// The load to bear.
#[derive(Clone, Debug, Args)]
pub struct CapacityFlags {
    /// Series that take samples at a time.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=MOST_SERIES))]
    series: u64,
    /// Time from one sample of a series to the next.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    interval: Duration,
    /// How long samples are kept.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = parse_duration)]
    retention: Duration,
    /// Range queries in a second, on average.
    #[arg(long, value_name = "COUNT", default_value_t = 1.0)]
    queries: f64,
    /// Series that such a query reads.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=MOST_SERIES))]
    query_series: u64,
    /// The range that such a query is over.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    query_range: Duration,
    /// What keeps the samples.
    #[arg(long, value_enum, default_value_t = Backend::Clickhouse)]
    backend: Backend,
    /// Copies that ClickHouse keeps.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    replicas: u32,
    /// How to show the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What keeps the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// One process with a disk.
    Embedded,
    /// Gateways over a ClickHouse.
    Clickhouse,
}

/// How to show the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For a person.
    Table,
    /// For a program.
    Json,
}

const MOST_SERIES: u64 = 10_000_000_000;

/// A figure, and where it is from.
#[derive(Clone, Copy, Debug)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    source: &'static str,
    /// Whether it was put together from others, or stands for more than was measured.
    estimate: bool,
}

/// The machine of all figures.
const MACHINE: &str = "2 virtual cores (Intel Xeon, KVM), 24 GiB, shared with the loader; 2026-11-21";

const CPU_OF_WRITES: &str = "CPU-s per million samples";
const CPU_OF_QUERIES: &str = "CPU-s per million samples read";
/// Up to so many samples a second, inserts are small.
const SMALL: f64 = 1e5;

const fn measured(name: &'static str, value: f64, unit: &'static str, source: &'static str) -> Figure {
    Figure { name, value, unit, source, estimate: false }
}

const fn estimated(name: &'static str, value: f64, unit: &'static str, source: &'static str) -> Figure {
    Figure { name, value, unit, source, estimate: true }
}

/// What a backend costs us.
struct Figures {
    /// Of the first [`SMALL`] samples of a second, which come in small inserts, and of those above.
    first_write_cpu: Figure,
    write_cpu: Figure,
    query_cpu: Figure,
    base_memory: Figure,
    series_memory: Figure,
    query_memory: Figure,
    sample_disk: Figure,
    /// What ClickHouse itself takes in on a core.
    clickhouse_samples: Option<Figure>,
}

impl Figures {
    fn all(&self) -> impl Iterator<Item = &Figure> {
        let Self { first_write_cpu, write_cpu, query_cpu, base_memory, series_memory, query_memory, .. } =
            self;
        [first_write_cpu, write_cpu, query_cpu, base_memory, series_memory, query_memory, &self.sample_disk]
            .into_iter()
            .chain(&self.clickhouse_samples)
    }
}

const EMBEDDED: Figures = Figures {
    first_write_cpu: measured("writing, up to 100000/s", 0.43, CPU_OF_WRITES, "250m of CPU, 100000 series"),
    write_cpu: measured("writing, above", 0.781, CPU_OF_WRITES, "50000 series x 240 scrapes, flushed"),
    query_cpu: measured(
        "querying",
        0.03,
        CPU_OF_QUERIES,
        "sums of rates over an hour, 1.9 and 2.8 million samples",
    ),
    base_memory: measured("memory, at rest", 37.0, "MB", "a server without data"),
    series_memory: measured("memory, of a series", 0.68, "kB", "1000000 series: 715 MB, flushed"),
    query_memory: measured("memory, of queries", 134.0, "MB", "the queries of the bench, one after another"),
    sample_disk: measured("disk", 1.251, "bytes per sample", "50000 series x 240 scrapes, flushed"),
    clickhouse_samples: None,
};

const CLICKHOUSE: Figures = Figures {
    first_write_cpu: measured(
        "writing, up to 100000/s",
        1.25,
        CPU_OF_WRITES,
        "three gateways of 250m, 100000/s",
    ),
    write_cpu: measured("writing, above", 0.68, CPU_OF_WRITES, "three gateways of 250m, 250000/s"),
    query_cpu: measured(
        "querying",
        0.07,
        CPU_OF_QUERIES,
        "sums of rates over an hour, 1.9 and 2.8 million samples",
    ),
    base_memory: measured("memory, while writing", 108.0, "MB", "16 writers, 50000 series"),
    series_memory: estimated(
        "memory, of a series",
        0.133,
        "kB",
        "1000000 series at 100000 samples/s: 234 MB, less the 108 MB of 50000",
    ),
    query_memory: measured("memory, of queries", 50.0, "MB", "158 MB while querying, less 108 MB"),
    sample_disk: measured("disk", 2.26, "bytes per sample", "all tables, merged; one copy"),
    clickhouse_samples: Some(estimated(
        "ClickHouse, writing",
        0.305,
        "million samples/s per core",
        "16 writers; the engine shared its core with the loader",
    )),
};

/// Of a core or of memory, this much is to be in use at most.
const BUSY: f64 = 0.7;
/// The same of disks: merges and backups need room.
const FULL: f64 = 0.8;
/// A gateway's limit, as the manifests have it, in cores.
const GATEWAY_CORES: f64 = 1.0;
/// Gateways that the autoscaler starts with, and ends with.
const GATEWAYS: (u64, u64) = (3, 10);
/// The least that the manifests ask for: thousandths of a core, and bytes.
const LEAST_CPU: u64 = 250;
const LEAST_MEMORY: u64 = 512 << 20;
/// The embedded engine's ballast, and a log that was not yet flushed.
const ENGINE_DISK: u64 = (64 << 20) + (256 << 20);

const KB: f64 = 1000.0;
const MB: f64 = 1e6;

/// What it takes.
#[derive(Clone, Debug, PartialEq)]
struct Capacity {
    samples_per_second: f64,
    samples_kept: f64,
    writing_cores: f64,
    querying_cores: f64,
    pods: u64,
    cpu_request_millicores: u64,
    cpu_limit_millicores: u64,
    memory_used_bytes: u64,
    memory_request_bytes: u64,
    memory_limit_bytes: u64,
    disk_bytes: u64,
    clickhouse_cores: Option<f64>,
    notes: Vec<String>,
}

/// Reckons, and prints.
pub fn run(flags: &CapacityFlags) -> Result<(), CommandError> {
    let usage = |why: &str| Err(CommandError::Usage(why.to_owned()));
    if flags.interval.is_zero() || flags.query_range.is_zero() {
        return usage("--interval and --query-range are more than 0");
    }
    if flags.retention.is_zero() {
        return usage("--retention 0 is forever, and takes a disk without end; give the time to plan for");
    }
    if !flags.queries.is_finite() || flags.queries < 0.0 {
        return usage("--queries is a number from 0 on");
    }
    if flags.backend == Backend::Embedded && flags.replicas != 1 {
        return usage("--replicas is about ClickHouse; the embedded backend keeps one copy");
    }
    let capacity = reckon(flags);
    let text = match flags.output {
        Output::Table => shown(flags, &capacity),
        Output::Json => format!("{:#}\n", document(flags, &capacity)),
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn figures(backend: Backend) -> &'static Figures {
    match backend {
        Backend::Embedded => &EMBEDDED,
        Backend::Clickhouse => &CLICKHOUSE,
    }
}

fn reckon(flags: &CapacityFlags) -> Capacity {
    let figures = figures(flags.backend);
    let series = float(flags.series);
    let samples_per_second = series / flags.interval.as_secs_f64();
    let samples_kept = samples_per_second * flags.retention.as_secs_f64();
    let (first, more) = (samples_per_second.min(SMALL), (samples_per_second - SMALL).max(0.0));
    let writing_cores = (first * figures.first_write_cpu.value + more * figures.write_cpu.value) / 1e6;
    let of_range = (flags.query_range.as_secs_f64() / flags.interval.as_secs_f64()).max(1.0);
    let read = float(flags.query_series.min(flags.series)) * of_range;
    let querying_cores = flags.queries * read * figures.query_cpu.value / 1e6;
    let cores = writing_cores + querying_cores;
    let queries = if flags.queries > 0.0 { figures.query_memory.value * MB } else { 0.0 };
    // Any gateway may get any series, and the engine has them all.
    let memory = figures.base_memory.value * MB + series * figures.series_memory.value * KB + queries;
    let mut notes = Vec::new();
    let (pods, cpu_limit) = match flags.backend {
        Backend::Embedded => (1, round_up(cores / BUSY * 1000.0, 1000).max(1000)),
        Backend::Clickhouse => {
            let pods = whole(cores / (GATEWAY_CORES * BUSY)).max(GATEWAYS.0);
            if pods > GATEWAYS.1 {
                let message =
                    format!("the autoscaler ends at {}: raise maxReplicas to {pods} and more", GATEWAYS.1);
                notes.push(message);
            }
            (pods, 1000)
        }
    };
    let cpu_request = round_up(cores / float(pods) / BUSY * 1000.0, 50).clamp(LEAST_CPU, cpu_limit);
    let memory_request = round_up(memory / BUSY, 64 << 20).max(LEAST_MEMORY);
    let kept = samples_kept * figures.sample_disk.value * f64::from(flags.replicas);
    let engine = if flags.backend == Backend::Embedded { ENGINE_DISK } else { 0 };
    let disk = round_up(kept / FULL, 1 << 30).saturating_add(round_up(float(engine), 1 << 30));
    notes.push("series that come and go cost more than series that stay: count a day's".to_owned());
    if flags.backend == Backend::Clickhouse {
        notes.push("the disk is ClickHouse's, all copies together; gateways have none".to_owned());
    }
    Capacity {
        samples_per_second,
        samples_kept,
        writing_cores,
        querying_cores,
        pods,
        cpu_request_millicores: cpu_request,
        cpu_limit_millicores: cpu_limit,
        memory_used_bytes: whole(memory),
        memory_request_bytes: memory_request,
        memory_limit_bytes: memory_request.saturating_mul(if flags.backend == Backend::Embedded {
            2
        } else {
            4
        }),
        disk_bytes: disk,
        clickhouse_cores: figures
            .clickhouse_samples
            .map(|figure| samples_per_second / 1e6 / figure.value / BUSY * f64::from(flags.replicas)),
        notes,
    }
}

fn shown(flags: &CapacityFlags, capacity: &Capacity) -> String {
    let c = capacity;
    let per_pod = if c.pods == 1 { "" } else { " of each" };
    let cores = |millicores: u64| format!("{millicores}m");
    let size = |bytes: u64| format!("{} ({})", ByteSize(bytes), gigabytes(bytes));
    let mut rows = vec![
        ["samples per second".to_owned(), format!("{:.0}", c.samples_per_second)],
        ["samples kept".to_owned(), format!("{:.3e}", c.samples_kept)],
        ["cores, writing".to_owned(), format!("{:.3}", c.writing_cores)],
        ["cores, queries".to_owned(), format!("{:.3}", c.querying_cores)],
        ["pods".to_owned(), c.pods.to_string()],
        [
            format!("cpu{per_pod}: request, limit"),
            format!("{}, {}", cores(c.cpu_request_millicores), cores(c.cpu_limit_millicores)),
        ],
        [format!("memory{per_pod}: in use"), gigabytes(c.memory_used_bytes)],
        [
            format!("memory{per_pod}: request, limit"),
            format!("{}, {}", ByteSize(c.memory_request_bytes), ByteSize(c.memory_limit_bytes)),
        ],
        ["disk".to_owned(), size(c.disk_bytes)],
    ];
    rows.extend(c.clickhouse_cores.map(|n| ["ClickHouse's cores, writing".to_owned(), format!("{n:.1}")]));
    let mut text = table::columns(&rows);
    text.push('\n');
    for note in &c.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text.push_str(&format!(
        "room: cores and memory are planned to be {:.0} % in use, disks {:.0} %\n\nfrom figures of {MACHINE}:\n",
        BUSY * 100.0,
        FULL * 100.0
    ));
    let figures = figures(flags.backend).all().map(|figure| {
        let how = if figure.estimate { "estimate" } else { "measured" };
        [
            format!("  {}", figure.name),
            format!("{} {}", figure.value, figure.unit),
            format!("{how}: {}", figure.source),
        ]
    });
    text.push_str(&table::columns(&figures.collect::<Vec<_>>()));
    text
}

fn document(flags: &CapacityFlags, c: &Capacity) -> Value {
    let backend = match flags.backend {
        Backend::Embedded => "embedded",
        Backend::Clickhouse => "clickhouse",
    };
    let figures: Vec<Value> = figures(flags.backend)
        .all()
        .map(|figure| {
            let Figure { name, value, unit, source, estimate } = figure;
            json!({ "name": name, "value": value, "unit": unit, "source": source, "estimate": estimate })
        })
        .collect();
    json!({
        "asked": {
            "series": flags.series,
            "interval": format_duration(flags.interval),
            "retention": format_duration(flags.retention),
            "queriesPerSecond": flags.queries,
            "querySeries": flags.query_series,
            "queryRange": format_duration(flags.query_range),
            "backend": backend,
            "replicas": flags.replicas,
        },
        "samplesPerSecond": c.samples_per_second,
        "samplesKept": c.samples_kept,
        "writingCores": c.writing_cores,
        "queryingCores": c.querying_cores,
        "pods": c.pods,
        "pod": {
            "cpuRequestMillicores": c.cpu_request_millicores,
            "cpuLimitMillicores": c.cpu_limit_millicores,
            "memoryUsedBytes": c.memory_used_bytes,
            "memoryRequestBytes": c.memory_request_bytes,
            "memoryLimitBytes": c.memory_limit_bytes,
        },
        "diskBytes": c.disk_bytes,
        "clickhouseCores": c.clickhouse_cores,
        "notes": c.notes,
        "machine": MACHINE,
        "figures": figures,
    })
}

fn gigabytes(bytes: u64) -> String {
    match float(bytes) {
        small if small < 1e9 => format!("{:.0} MB", small / MB),
        large if large < 1e12 => format!("{:.1} GB", large / 1e9),
        huge => format!("{:.2} TB", huge / 1e12),
    }
}

/// The next multiple of `unit`.
fn round_up(amount: f64, unit: u64) -> u64 {
    whole(amount / float(unit)).saturating_mul(unit)
}

/// The next whole number; too much is the most there is.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from a float saturates")]
fn whole(amount: f64) -> u64 {
    amount.ceil() as u64
}

#[expect(clippy::cast_precision_loss, reason = "plans are rough")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: CapacityFlags,
    }

    fn flags(line: &str) -> CapacityFlags {
        Line::try_parse_from(["capacity"].into_iter().chain(line.split(' '))).unwrap().flags
    }

    #[test]
    fn a_million_series_over_clickhouse_fit_the_manifests() {
        let c = reckon(&flags("--series 1000000 --queries 0"));
        assert_eq!((c.samples_per_second.round(), c.pods), (66_667.0, 3));
        assert_eq!((c.cpu_request_millicores, c.cpu_limit_millicores), (250, 1000));
        // 108 MB and 133 bytes a series.
        assert_eq!(c.memory_used_bytes, 241_000_000);
        assert_eq!((c.memory_request_bytes, c.memory_limit_bytes), (512 << 20, 2 << 30));
        // 66667/s x 30 d x 2.26 bytes, 80 % full.
        assert_eq!(c.disk_bytes >> 30, 455);
        let copies = reckon(&flags("--series 1000000 --queries 0 --replicas 2"));
        assert_eq!(copies.disk_bytes >> 30, 910);
    }

    #[test]
    fn more_of_anything_never_takes_less() {
        let base = "--series 100000";
        let least = reckon(&flags(base));
        for more in
            ["--queries 50", "--retention 1y", "--interval 1s", "--query-range 30d", "--query-series 90000"]
        {
            for backend in ["embedded", "clickhouse"] {
                let (a, b) = (
                    reckon(&flags(&format!("{base} --backend {backend}"))),
                    reckon(&flags(&format!("{base} --backend {backend} {more}"))),
                );
                let all = |c: &Capacity| {
                    [c.pods, c.cpu_limit_millicores * c.pods, c.memory_request_bytes, c.disk_bytes]
                };
                assert!(all(&a).iter().zip(all(&b)).all(|(a, b)| *a <= b), "{backend} {more}: {a:?} {b:?}");
                assert_ne!(a, b, "{backend} {more}");
            }
        }
        assert_eq!(least.pods, 3);
        let most = reckon(&flags("--series 10000000000 --interval 1s --retention 100y --queries 1e300"));
        assert_eq!(most.disk_bytes, u64::MAX);
        assert!(most.notes[0].contains("maxReplicas"), "{most:?}");
    }

    #[test]
    fn what_cannot_be_planned_for_is_refused() {
        for line in [
            "--series 1 --retention 0",
            "--series 1 --interval 0",
            "--series 1 --query-range 0",
            "--series 1 --queries NaN",
            "--series 1 --queries=-1",
            "--series 1 --backend embedded --replicas 2",
        ] {
            assert_eq!(run(&flags(line)).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in
            ["--series 0", "--series -1", "--series many", "--series 1 --interval soon", "--interval 15s"]
        {
            assert!(Line::try_parse_from(["capacity"].into_iter().chain(line.split(' '))).is_err(), "{line}");
        }
    }
}
