//! From a [`Draft`] to a batch for the store: every series gets its id, what is wrong falls out.

use std::sync::Arc;

use super::{
    IngestLimits, Sender,
    decode::{BadSample, Draft},
    known::KnownSeries,
    labels::SeriesLabels,
    outcome::{Reason, Rejections},
};
use crate::{
    model::Timestamp,
    storage::{SampleKind, WriteBatch},
};

/// A batch, and what has to be known of it when the store has answered.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) batch: WriteBatch,
    /// The labels of the batch's series.
    pub(crate) labels: Arc<SeriesLabels>,
    /// What was refused already.
    pub(crate) rejected: Rejections,
    /// The keys of the metadata, to be remembered once it is written.
    pub(crate) metadata_keys: Vec<u128>,
    pub(crate) counts: Counts,
}

/// How the series of a request were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) known: u64,
    pub(crate) new: u64,
    pub(crate) bad_metadata: u64,
}

/// Finds the ids of a draft's series; reads and checks those that are not known.
pub(crate) fn resolve(
    mut draft: Draft,
    sender: &Sender,
    known: &KnownSeries,
    limits: &IngestLimits,
) -> Resolved {
    draft.labels = draft.labels.stamped(&sender.stamps);
    let mut series = Vec::with_capacity(draft.keys.len());
    let unknown = known.find_all(&draft.keys, &mut series);
    let mut counts =
        Counts { known: (draft.keys.len() - unknown.len()) as u64, new: 0, bad_metadata: draft.bad_metadata };
    let mut bad = std::mem::take(&mut draft.bad_series);
    for place in unknown {
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        match draft.labels.read(place, limits) {
            Ok(labels) => {
                series[place] = labels.id();
                known.remember(draft.keys[place], labels.id());
                draft.labels.keep(number, labels);
                counts.new += 1;
            }
            Err(reason) => bad.push((number, reason)),
        }
    }

    let mut rejected = Rejections::default();
    for BadSample { series, timestamp, reason, .. } in draft.bad_samples {
        let describe = || draft.labels.describe(series as usize);
        rejected.add(reason, 1, Some(timestamp), limits.max_examples, describe);
    }
    let mut batch = WriteBatch {
        series,
        labels: Arc::new(Vec::new()),
        samples: draft.samples,
        histograms: draft.histograms,
        exemplars: draft.exemplars,
        metadata: Vec::with_capacity(draft.metadata.len()),
        policy: limits.policy,
        room: None,
    };
    if !bad.is_empty() {
        leave_out(bad, &mut batch, &mut draft.labels, &mut rejected, limits);
    }
    let mut metadata_keys = Vec::new();
    for entry in draft.metadata {
        metadata_keys.push(entry.key);
        batch.metadata.push(entry.metadata);
    }
    let labels = Arc::new(draft.labels);
    batch.labels = Arc::clone(&labels) as _;
    Resolved { batch, labels, rejected, metadata_keys, counts }
}

/// Takes bad series out of a batch, with all they have; the others close the gaps.
fn leave_out(
    mut bad: Vec<(u32, Reason)>,
    batch: &mut WriteBatch,
    labels: &mut SeriesLabels,
    rejected: &mut Rejections,
    limits: &IngestLimits,
) {
    // What was found first about a series is said.
    bad.sort_by_key(|(series, _)| *series);
    bad.dedup_by_key(|(series, _)| *series);

    let mut new_number: Vec<Option<u32>> = vec![None; batch.series.len()];
    let mut bad_series = bad.iter().map(|(series, _)| *series as usize).peekable();
    let mut next = 0;
    for (series, number) in new_number.iter_mut().enumerate() {
        if bad_series.next_if_eq(&series).is_none() {
            *number = Some(next);
            next += 1;
        }
    }

    let mut lost = vec![0_u64; batch.series.len()];
    let mut stays = |series: &mut u32| match new_number[*series as usize] {
        Some(number) => {
            *series = number;
            true
        }
        None => {
            lost[*series as usize] += 1;
            false
        }
    };
    batch.samples.retain_mut(|sample| stays(&mut sample.series));
    batch.histograms.retain_mut(|histogram| stays(&mut histogram.series));
    batch.exemplars.retain_mut(|exemplar| stays(&mut exemplar.series));
    for (series, reason) in bad {
        let count = lost[series as usize].max(1);
        rejected.add(reason, count, None, limits.max_examples, || labels.describe(series as usize));
    }
    let mut kept = new_number.iter().map(Option::is_some);
    batch.series.retain(|_| kept.next().unwrap_or(false));
    labels.renumber(&new_number);
}

/// Adds what the store refused.
pub(crate) fn add_refused(
    rejected: &mut Rejections,
    refused: &[crate::storage::Rejected],
    labels: &SeriesLabels,
    limits: &IngestLimits,
) {
    for crate::storage::Rejected { series, kind, timestamp, reason } in refused {
        let describe = || {
            let what = match kind {
                SampleKind::Float => "",
                SampleKind::Histogram => "histogram of ",
                SampleKind::Exemplar => "exemplar of ",
            };
            format!("{what}{}", labels.describe(*series as usize))
        };
        let at: Timestamp = *timestamp;
        rejected.add(Reason::Store(*reason), 1, Some(at), limits.max_examples, describe);
    }
}
