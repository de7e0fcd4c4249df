//! The samples of several tenants' series as those of one selection.
//!
//! What each tenant's store gives keeps its order; only the series' numbers change, since with the tenant's label
//! they stand elsewhere. Where all can be read at any place, so can the whole; else all are
//! handed on through one channel, in time order for each series as they came.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::federation::with_tenant;
use crate::{
    model::TenantId,
    storage::{GridRow, ReadSeries, Result, Run, Runs, Selected, SeriesSamples, StorageError},
    task,
};

/// Batches that wait to be taken.
const BATCHES: usize = 4;

/// Which number each of a source's series has among all.
type Numbers = Arc<[u32]>;

/// Puts the selections of tenants together.
pub(super) fn joined<'t>(answers: impl Iterator<Item = (&'t TenantId, Selected)>) -> Result<Selected> {
    let (mut found, mut sources, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut taken = None;
    for (source, (tenant, selected)) in answers.enumerate() {
        let series = selected.series.iter().enumerate();
        found.extend(series.map(|(place, labels)| (with_tenant(labels, tenant), (source, place))));
        warnings.extend(selected.warnings.into_iter().map(|warning| format!("tenant {tenant}: {warning}")));
        sources.push((tenant, vec![0; selected.series.len()], selected.runs));
        if *taken.get_or_insert(selected.taken) != selected.taken {
            return Err(unexpected());
        }
    }
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let (mut series, mut places) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len()));
    for (number, (labels, (source, place))) in (0_u32..).zip(found) {
        series.push(labels);
        places.push((source, place));
        sources[source].1[place] = number;
    }
    let named =
        |(tenant, numbers, runs): (&TenantId, Vec<u32>, Runs)| (tenant.clone(), Numbers::from(numbers), runs);
    let sources = sources.into_iter().map(named).collect();
    Ok(Selected { runs: together(sources, places)?, series, taken: taken.unwrap_or(0), warnings })
}

fn together(sources: Vec<(TenantId, Numbers, Runs)>, places: Vec<(usize, usize)>) -> Result<Runs> {
    if sources.iter().all(|(_, _, runs)| matches!(runs, Runs::SeriesMajor(_))) {
        let readers = sources.into_iter().filter_map(|(tenant, _, runs)| match runs {
            Runs::SeriesMajor(reader) => Some((tenant, reader)),
            Runs::TimeMajor(_) | Runs::Rows(_) => None,
        });
        return Ok(Runs::SeriesMajor(Arc::new(Readers { readers: readers.collect(), places })));
    }
    if sources.iter().any(|(_, _, runs)| matches!(runs, Runs::Rows(_))) {
        let (send, rows) = mpsc::channel(BATCHES);
        for (_, numbers, runs) in sources {
            let Runs::Rows(rows) = runs else { return Err(unexpected()) };
            task::spawn(
                "federated-rows",
                forward(rows, numbers, send.clone(), |row: &mut GridRow| &mut row.ordinal),
            );
        }
        return Ok(Runs::Rows(rows));
    }
    let (send, runs) = mpsc::channel(BATCHES);
    for (_, numbers, source) in sources {
        match source {
            Runs::TimeMajor(runs) => {
                task::spawn(
                    "federated-runs",
                    forward(runs, numbers, send.clone(), |run: &mut Run| &mut run.ordinal),
                );
            }
            Runs::SeriesMajor(reader) => {
                let send = send.clone();
                tokio::task::spawn_blocking(move || read_all(&*reader, &numbers, &send));
            }
            Runs::Rows(_) => return Err(unexpected()),
        }
    }
    Ok(Runs::TimeMajor(runs))
}

fn unexpected() -> StorageError {
    StorageError::Unsupported("the stores of several tenants answered in different ways".to_owned())
}

/// Hands batches on under their new numbers, until that is all or nobody wants more.
async fn forward<T>(
    mut from: mpsc::Receiver<Result<Vec<T>>>,
    numbers: Numbers,
    to: mpsc::Sender<Result<Vec<T>>>,
    ordinal: fn(&mut T) -> &mut u32,
) {
    loop {
        let batch = tokio::select! {
            batch = from.recv() => batch,
            () = to.closed() => return,
        };
        let Some(batch) = batch else { return };
        let renumbered = batch.and_then(|mut batch| {
            for item in &mut batch {
                let ordinal = ordinal(item);
                let number = usize::try_from(*ordinal).ok().and_then(|place| numbers.get(place));
                *ordinal = *number.ok_or_else(|| no_such_series(*ordinal))?;
            }
            Ok(batch)
        });
        let failed = renumbered.is_err();
        if to.send(renumbered).await.is_err() || failed {
            return;
        }
    }
}

/// Reads series after series into a channel.
fn read_all(reader: &dyn ReadSeries, numbers: &[u32], to: &mpsc::Sender<Result<Vec<Run>>>) {
    for (place, number) in numbers.iter().enumerate() {
        let mut samples = SeriesSamples::default();
        let run = reader.read(place, &mut samples).map(|()| vec![Run { ordinal: *number, samples }]);
        let failed = run.is_err();
        if to.blocking_send(run).is_err() || failed {
            return;
        }
    }
}

/// Reads each series where it is.
#[derive(Debug)]
struct Readers {
    readers: Vec<(TenantId, Arc<dyn ReadSeries>)>,
    /// Of each series, its reader and its number there.
    places: Vec<(usize, usize)>,
}

impl ReadSeries for Readers {
    fn read(&self, ordinal: usize, into: &mut SeriesSamples) -> Result<()> {
        let Some((reader, place)) = self.places.get(ordinal) else { return Err(no_such_series(ordinal)) };
        self.readers[*reader].1.read(*place, into)
    }

    fn warnings(&self) -> Vec<String> {
        let of = |(tenant, reader): &(TenantId, Arc<dyn ReadSeries>)| {
            let named = |warning| format!("tenant {tenant}: {warning}");
            reader.warnings().into_iter().map(named).collect::<Vec<_>>()
        };
        self.readers.iter().flat_map(of).collect()
    }
}

fn no_such_series(number: impl std::fmt::Display) -> StorageError {
    StorageError::Unsupported(format!("there is no series number {number}"))
}
