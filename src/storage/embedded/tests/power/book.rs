//! What a store was asked to keep, when it was asked, and when it said that it had.

use std::collections::BTreeMap;

use crate::model::{Labels, TenantId, Timestamp};

/// The label by which whole groups of series are deleted.
pub(super) const GROUP: &str = "group";

/// A moment, in steps of the disk: what was acknowledged by `kept` must be there, and what was begun by `begun` may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) kept: usize,
    pub(super) begun: usize,
}

impl Moment {
    pub(super) fn at(step: usize) -> Self {
        Self { kept: step, begun: step }
    }
}

/// Something that was asked for after so many steps, and acknowledged after so many.
#[derive(Clone, Debug)]
struct Said<T> {
    what: T,
    begun: usize,
    acked: Option<usize>,
}

/// Things that replace each other, from the oldest on.
#[derive(Clone, Debug)]
pub(super) struct Replacing<T>(Vec<Said<T>>);

impl<T> Default for Replacing<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone + PartialEq> Replacing<T> {
    pub(super) fn begin(&mut self, what: T, step: usize) {
        self.0.push(Said { what, begun: step, acked: None });
    }

    /// What was begun last is acknowledged.
    pub(super) fn end(&mut self, step: usize) {
        self.0.last_mut().expect("something was begun").acked = Some(step);
    }

    fn allows(&self, found: Option<&T>, moment: Moment) -> bool {
        let kept = self.0.iter().rposition(|said| said.acked.is_some_and(|acked| acked <= moment.kept));
        match found {
            None => kept.is_none(),
            Some(found) => {
                let since = &self.0[kept.unwrap_or(0)..];
                since.iter().any(|said| said.begun <= moment.begun && said.what == *found)
            }
        }
    }

    /// What was begun last, if that was not acknowledged.
    fn open(&self) -> Option<&T> {
        self.0.last().filter(|said| said.acked.is_none()).map(|said| &said.what)
    }

    fn as_of(&self, step: usize) -> Self {
        let begun = self.0.iter().filter(|said| said.begun <= step).cloned();
        let settle = |said: Said<T>| {
            let acked = said.acked.filter(|acked| *acked <= step).map(|_| 0);
            Said { begun: 0, acked, ..said }
        };
        Self(begun.map(settle).collect())
    }
}

/// A series of a tenant, and a time.
pub(super) type Key = (TenantId, Labels, i64);

/// A copy of all that there was at a time.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    pub(super) name: String,
    pub(super) begun: usize,
    pub(super) acked: usize,
    /// From which step on it may have gone.
    pub(super) may_go: Option<usize>,
}

impl Copied {
    /// What it must have, and what it may have.
    pub(super) fn moment(&self) -> Moment {
        Moment { kept: self.begun, begun: self.acked }
    }

    /// Whether it must be there after so many steps.
    pub(super) fn stays(&self, step: usize) -> bool {
        self.acked <= step && self.may_go.is_none_or(|from| step < from)
    }
}

/// A backup that was restored.
#[derive(Clone, Debug)]
pub(super) struct Restored {
    /// The directory's name.
    pub(super) dir: String,
    pub(super) of: Copied,
    pub(super) begun: usize,
    pub(super) acked: usize,
}

/// Since when the samples of a series are kept when the clock shows some time.
pub(super) type Oldest<'a> = &'a dyn Fn(&TenantId, &Labels) -> Timestamp;

/// All that was asked of a store.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// The bits of samples; of histograms, those of the sum.
    pub(super) samples: BTreeMap<Key, Replacing<u64>>,
    pub(super) exemplars: BTreeMap<Key, Replacing<()>>,
    /// Groups that were deleted.
    pub(super) deleted: BTreeMap<String, Replacing<()>>,
    pub(super) document: Replacing<String>,
    pub(super) help: Replacing<String>,
    /// Snapshots and backups that were made.
    pub(super) snapshots: Vec<Copied>,
    pub(super) backups: Vec<Copied>,
    /// Directories that backups were restored into.
    pub(super) restored: Vec<Restored>,
    /// What the clock showed from which step on.
    pub(super) clock: Vec<(usize, Timestamp)>,
}

/// What a store shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shown {
    pub(super) samples: BTreeMap<Key, u64>,
    pub(super) exemplars: BTreeMap<Key, ()>,
    pub(super) document: Option<String>,
    pub(super) help: Option<String>,
}

impl Book {
    /// What the clock showed after so many steps.
    pub(super) fn now(&self, step: usize) -> Timestamp {
        let shown = self.clock.iter().rev().find(|(from, _)| *from <= step);
        shown.or(self.clock.first()).expect("the clock was looked at").1
    }

    /// The same, seen from a life that begins when so many steps were taken.
    pub(super) fn as_of(&self, step: usize) -> Self {
        Self {
            samples: settled(&self.samples, step),
            exemplars: settled(&self.exemplars, step),
            deleted: settled(&self.deleted, step),
            document: self.document.as_of(step),
            help: self.help.as_of(step),
            clock: vec![(0, self.now(step))],
            ..Self::default()
        }
    }

    /// Samples that somebody will send again, since nobody has told that they are kept.
    pub(super) fn unacknowledged(&self) -> Vec<(Key, u64)> {
        let open = self.samples.iter().filter_map(|(key, said)| Some((key, *said.open()?)));
        let deleted = |key: &Key| key.1.get(GROUP).is_some_and(|group| self.deleted.contains_key(group));
        open.filter(|(key, _)| !deleted(key)).map(|(key, bits)| (key.clone(), bits)).collect()
    }

    /// What is wrong with what is shown; what is before `oldest` must have gone.
    pub(super) fn faults(&self, shown: &Shown, moment: Moment, oldest: Oldest<'_>) -> Vec<String> {
        let mut faults = self.faults_of("sample", &self.samples, &shown.samples, moment, oldest);
        faults.extend(self.faults_of("exemplar", &self.exemplars, &shown.exemplars, moment, oldest));
        if !self.document.allows(shown.document.as_ref(), moment) {
            faults.push(format!("the document is {:?}, of {:?}", shown.document, self.document));
        }
        if !self.help.allows(shown.help.as_ref(), moment) {
            faults.push(format!("the metadata is {:?}, of {:?}", shown.help, self.help));
        }
        faults
    }

    fn faults_of<T: Clone + PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        said: &BTreeMap<Key, Replacing<T>>,
        shown: &BTreeMap<Key, T>,
        moment: Moment,
        oldest: Oldest<'_>,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, said) in said {
            let (tenant, labels, at) = key;
            let found = shown.get(key);
            let (must_go, may_go) = self.gone(labels, moment);
            let too_old = *at < oldest(tenant, labels).0;
            if must_go && found.is_some() {
                faults.push(format!("the {what} of {labels} at {at} was deleted and is there"));
            }
            if too_old && found.is_some() {
                faults.push(format!("the {what} of {labels} at {at} is too old and is there"));
            }
            let excused = found.is_none() && (may_go || too_old);
            if !must_go && !excused && !said.allows(found, moment) {
                faults.push(format!("the {what} of {labels} at {at} is {found:?}, of {said:?}"));
            }
        }
        let unknown = shown.keys().filter(|key| !said.contains_key(*key));
        faults.extend(unknown.map(|key| format!("the {what} of {} at {} was never written", key.1, key.2)));
        faults
    }

    /// Whether a series must not be seen any more, and whether that may be so.
    fn gone(&self, labels: &Labels, moment: Moment) -> (bool, bool) {
        let deleted = labels.get(GROUP).and_then(|group| self.deleted.get(group));
        deleted.map_or((false, false), |said| (!said.allows(None, moment), said.allows(Some(&()), moment)))
    }
}

fn settled<K: Clone + Ord, T: Clone + PartialEq>(
    all: &BTreeMap<K, Replacing<T>>,
    step: usize,
) -> BTreeMap<K, Replacing<T>> {
    all.iter().map(|(key, said)| (key.clone(), said.as_of(step))).collect()
}
