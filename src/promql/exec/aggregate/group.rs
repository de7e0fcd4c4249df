//! Which series come together.

use foldhash::{HashMap, HashMapExt};

use crate::{
    model::{Labels, METRIC_NAME},
    promql::{
        QueryError,
        exec::{
            context::Context,
            rows::{Row, SeriesRow},
        },
        functions::vector::is_metadata_label,
        plan::Aggregation,
    },
};

/// The groups of an aggregation, in the order of their first series.
#[derive(Debug)]
pub struct Groups {
    /// The groups.
    pub all: Vec<Group>,
}

/// Series that are aggregated together.
#[derive(Debug)]
pub struct Group {
    /// What they have in common.
    pub labels: Labels,
    /// Whether the name goes when the query is done, because it does for one of them.
    pub drop_name: bool,
    /// Places of the series.
    pub members: Vec<usize>,
}

impl Groups {
    /// Groups rows.
    pub fn of(context: &Context, rows: &[SeriesRow], aggregation: &Aggregation) -> Result<Self, QueryError> {
        let mut all: Vec<Group> = Vec::new();
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut keys = Keys::default();
        for (member, row) in rows.iter().enumerate() {
            context.check()?;
            let labels = keys.of(&row.labels, aggregation, false);
            let place = *places.entry(labels).or_insert_with_key(|labels| {
                all.push(Group { labels: labels.clone(), drop_name: false, members: Vec::new() });
                all.len() - 1
            });
            all[place].members.push(member);
            all[place].drop_name |= row.drop_name;
        }
        Ok(Self { all })
    }
}

impl Group {
    /// The group's result, if it has any value.
    pub fn row(&self, row: Row) -> Option<SeriesRow> {
        (!row.is_empty()).then(|| SeriesRow { labels: self.labels.clone(), drop_name: self.drop_name, row })
    }
}

/// The groups' labels of many series, each made once.
#[derive(Debug, Default)]
pub struct Keys {
    text: String,
    known: HashMap<Box<str>, Labels>,
}

impl Keys {
    /// The labels by which a series is grouped, which has a name that has lost its meaning if `renamed`.
    pub fn of(&mut self, labels: &Labels, aggregation: &Aggregation, renamed: bool) -> Labels {
        let kept = |name: &str| is_kept(name, aggregation) && !(renamed && is_metadata_label(name));
        self.text.clear();
        labels.write_only(kept, &mut self.text);
        if let Some(known) = self.known.get(self.text.as_str()) {
            return known.clone();
        }
        let key = labels.only(kept);
        self.known.insert(self.text.as_str().into(), key.clone());
        key
    }
}

/// The labels by which a series is grouped: those of `by` that it has, or all but those of `without` and the name.
pub fn key(labels: &Labels, aggregation: &Aggregation) -> Labels {
    labels.only(|name| is_kept(name, aggregation))
}

fn is_kept(name: &str, aggregation: &Aggregation) -> bool {
    let listed = aggregation.grouping.iter().any(|label| label == name);
    if aggregation.without { !listed && name != METRIC_NAME } else { listed }
}
