//! What a life writes: samples at times of their own, others again, histograms, exemplars and metadata, and the book of it.

use std::sync::Arc;

use super::{
    super::labels,
    book::{GROUP, Key},
    life::{DAY, Life, oldest, tenants},
};
use crate::{
    clock::Clock,
    model::{
        Exemplar, Histogram, Labels, Metadata, MetricType, TenantId, Timestamp,
        histogram::{Counts, ResetHint},
    },
    storage::{BatchExemplar, BatchHistogram, BatchSample, Storage, WriteBatch},
};

/// Samples are written so far back at most; the clock is turned far enough for the retention to lie between.
const FAR: i64 = 28 * DAY;
const SERIES: u32 = 6;

impl Life<'_> {
    /// One write by itself.
    pub(super) fn write(&mut self) {
        let asked = self.ask(true);
        self.append_one_by_one(vec![asked]);
    }

    fn append_one_by_one(&mut self, asked: Vec<(TenantId, WriteBatch)>) {
        self.acknowledged(asked, |life, batches| {
            for (tenant, batch) in batches {
                life.runtime.block_on(life.store().append(&tenant, batch)).unwrap();
            }
        });
    }

    pub(super) fn send_again(&mut self) {
        let histograms = (SERIES - 1).to_string();
        for ((tenant, labels, at), bits) in self.book.unacknowledged() {
            let oldest = oldest(self.clock.now(), &tenant, &labels);
            if labels.get("i") != Some(histograms.as_str()) && at >= oldest.0 {
                let mut batch = WriteBatch::over(vec![labels]);
                let (timestamp, value) = (Timestamp(at), f64::from_bits(bits));
                batch.samples.push(BatchSample { series: 0, timestamp, value, start: 0 });
                self.append_one_by_one(vec![(tenant, batch)]);
            }
        }
    }

    /// Several writes at the same time, which share a sync; beside a flush, if asked for.
    pub(super) fn write_together(&mut self, beside_flush: bool) {
        let asked: Vec<_> = (0..3).map(|_| self.ask(false)).collect();
        self.acknowledged(asked, |life, mut batches| {
            let store = life.store();
            let mut write = || {
                let (tenant, batch) = batches.pop().expect("there are three");
                let store = Arc::clone(&store);
                async move { store.append(&tenant, batch).await.map(|_| ()) }
            };
            let (a, b, c) = (write(), write(), write());
            let flush = async { if beside_flush { store.flush().await } else { Ok(()) } };
            let all = life.runtime.block_on(async { tokio::join!(a, flush, b, c) });
            assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok() && all.3.is_ok(), "{all:?}");
        });
    }

    /// Notes what is asked for, asks for it, and notes that it was acknowledged.
    fn acknowledged(
        &mut self,
        asked: Vec<(TenantId, WriteBatch)>,
        ask: impl FnOnce(&Self, Vec<(TenantId, WriteBatch)>),
    ) {
        let begun = self.disk.steps();
        let (mut samples, mut exemplars, mut helps) = (Vec::new(), Vec::new(), 0);
        for (tenant, batch) in &asked {
            let key =
                |series: u32, at: i64| -> Key { (tenant.clone(), batch.labels.labels(series as usize), at) };
            let floats = batch.samples.iter().map(|s| (key(s.series, s.timestamp.0), s.value.to_bits()));
            let histograms =
                batch.histograms.iter().map(|h| (key(h.series, h.timestamp.0), h.histogram.sum.to_bits()));
            samples.extend(floats.chain(histograms));
            exemplars.extend(batch.exemplars.iter().map(|e| key(e.series, e.exemplar.timestamp.0)));
            for metadata in &batch.metadata {
                self.book.help.begin(metadata.help.clone(), begun);
                helps += 1;
            }
        }
        for (key, bits) in &samples {
            self.book.samples.entry(key.clone()).or_default().begin(*bits, begun);
        }
        for key in &exemplars {
            self.book.exemplars.entry(key.clone()).or_default().begin((), begun);
        }
        ask(self, asked);
        let acked = self.disk.steps();
        samples.iter().for_each(|(key, _)| self.book.samples.entry(key.clone()).or_default().end(acked));
        exemplars.iter().for_each(|key| self.book.exemplars.entry(key.clone()).or_default().end(acked));
        if helps > 0 {
            self.book.help.end(acked);
        }
    }

    /// Samples at times of their own, or, of one write at a time, other values at times that have one; never of
    /// a group that was deleted.
    fn ask(&mut self, alone: bool) -> (TenantId, WriteBatch) {
        let tenant = tenants()[self.random.below(2) as usize].clone();
        let group = (self.group + self.random.below(2)).to_string();
        let series: Vec<Labels> = (0..SERIES)
            .map(|i| labels(&[("__name__", "m"), ("i", &i.to_string()), (GROUP, &group)]))
            .collect();
        let mut batch = WriteBatch::over(series);
        let now = self.clock.now();
        for series in 0..1 + self.random.below(SERIES - 1) {
            let far = [0, 0, 0, DAY, 2 * DAY, FAR][self.random.below(6) as usize];
            for _ in 0..1 + self.random.below(8) {
                let number = self.number();
                let timestamp = Timestamp(now.0 - far - i64::from(number));
                let value = f64::from(number) / 8.0;
                let again = alone && self.random.below(4) == 0;
                let timestamp =
                    if again { self.known(&tenant, &batch, series).unwrap_or(timestamp) } else { timestamp };
                if batch.samples.iter().any(|s| s.series == series && s.timestamp == timestamp) {
                    continue;
                }
                batch.samples.push(BatchSample { series, timestamp, value, start: 0 });
            }
        }
        let (number, at) = (self.number(), |n: u32| Timestamp(now.0 - i64::from(n)));
        let histogram = Arc::new(histogram(f64::from(number)));
        let in_last = SERIES - 1;
        batch.histograms.push(BatchHistogram { series: in_last, timestamp: at(number), histogram, start: 0 });
        let number = self.number();
        let exemplar = Exemplar {
            labels: labels(&[("trace_id", &number.to_string())]),
            value: 1.0,
            timestamp: at(number),
        };
        batch.exemplars.push(BatchExemplar { series: 0, exemplar });
        if alone && tenant == TenantId::anonymous() {
            let help = self.number().to_string();
            let (metric, unit) = ("m".to_owned(), String::new());
            batch.metadata.push(Metadata { metric, kind: MetricType::Gauge, help, unit });
        }
        (tenant, batch)
    }

    /// A time at which the series has a sample.
    fn known(&mut self, tenant: &TenantId, batch: &WriteBatch, series: u32) -> Option<Timestamp> {
        let labels = batch.labels.labels(series as usize);
        let recent = oldest(self.clock.now(), tenant, &labels).0;
        let first: Key = (tenant.clone(), labels.clone(), i64::MIN);
        let last: Key = (tenant.clone(), labels, i64::MAX);
        let times: Vec<i64> =
            self.book.samples.range(first..=last).map(|(key, _)| key.2).filter(|at| *at > recent).collect();
        let which = self.random.below(u32::try_from(times.len().max(1)).unwrap());
        times.get(which as usize).map(|at| Timestamp(*at))
    }
}

fn histogram(sum: f64) -> Histogram {
    Histogram {
        schema: 0,
        zero_threshold: 0.001,
        sum,
        reset_hint: ResetHint::Unknown,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts: Counts::Integer { count: 3, zero_count: 3, positive: Vec::new(), negative: Vec::new() },
        custom_values: Vec::new(),
    }
}
