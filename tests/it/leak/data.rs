//! What there is to leak: three tenants with two teams each, and each team's data marked all over with its name.

use serde_json::json;

use super::target::{Ask, Target};
use crate::token::{claims, sign, with};

/// The tenants.
pub const TENANTS: [&str; 3] = ["zq-alpha", "zq-beta", "zq-gamma"];
/// The teams of each.
pub const TEAMS: [&str; 2] = ["red", "blue"];
/// What writers say of themselves and stamps take away.
pub const FORGED: &str = "zqforged";
/// Samples of a series.
pub const SAMPLES: i64 = 12;
/// Between two of them, in milliseconds.
pub const STEP: i64 = 15_000;

/// Whose a series is: a place among the tenants, and one among the teams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub tenant: usize,
    pub team: usize,
}

impl Owner {
    pub fn all() -> impl Iterator<Item = Self> {
        (0..TENANTS.len()).flat_map(|tenant| (0..TEAMS.len()).map(move |team| Self { tenant, team }))
    }

    /// A word that nothing has but what is theirs; no mark is a part of another.
    pub fn mark(self) -> String {
        format!("zq{}{}", &TENANTS[self.tenant][3..], TEAMS[self.team])
    }

    /// What their series have for a value, so that sums tell whose were added.
    pub fn value(self) -> u64 {
        1 << (10 + 4 * self.tenant + 2 * self.team)
    }

    /// How many series they have.
    pub fn series(self) -> usize {
        self.metrics().len() + 1
    }

    /// Their series without the native histogram: labels in JSON, the stamp not among them.
    fn metrics(self) -> Vec<serde_json::Value> {
        let mark = self.mark();
        let mut metrics = vec![
            json!({"__name__": "shared_total", "zone": mark, "instance": "i1", "job": "j"}),
            json!({"__name__": format!("{mark}_gauge"), "zone": "z", "team": FORGED}),
            json!({"__name__": "target_info", "instance": "i1", "job": "j", "version": mark}),
            json!({"__name__": "labelled", format!("{mark}_label"): "x", "team": FORGED}),
            json!({"__name__": "claimed", "__tenant_id__": mark, "original___tenant_id__": format!("{mark}_deeper")}),
        ];
        metrics.extend(["1", "2"].map(|n| json!({"__name__": "dup", "zone": mark, "n": n})));
        metrics
            .extend(["0.1", "+Inf"].map(|le| json!({"__name__": "classic_bucket", "zone": mark, "le": le})));
        metrics
    }

    /// All of it, as lines to import.
    fn lines(self, end: i64) -> String {
        let (mark, tenant, value) = (self.mark(), TENANTS[self.tenant], self.value());
        let times: Vec<i64> = (0..SAMPLES).map(|i| end - (SAMPLES - 1 - i) * STEP).collect();
        let mut lines: Vec<serde_json::Value> = self
            .metrics()
            .into_iter()
            .map(|metric| json!({"metric": metric, "values": vec![value; times.len()], "timestamps": times}))
            .collect();
        let histogram = |at: &i64| {
            json!({
                "timestamp": at, "schema": 0, "sum": 3.0, "zero_threshold": 0.001,
                "positive_spans": [[0, 2]],
                "integer": {"count": 3, "zero_count": 0, "positive": [1, 1], "negative": []},
            })
        };
        let histograms: Vec<_> = times.iter().map(histogram).collect();
        lines.push(json!({"metric": {"__name__": "native", "zone": mark}, "histograms": histograms}));
        let exemplar = json!({"labels": {"trace": mark, "team": "any"}, "value": 1.0, "timestamp": times[0]});
        lines.push(json!({"metric": {"__name__": "shared_total", "zone": mark, "instance": "i1", "job": "j"}, "exemplars": [exemplar]}));
        for (metric, kind, help) in [
            (format!("{mark}_gauge"), "gauge", format!("of {mark}")),
            // Metadata is a tenant's and not a team's.
            ("shared".to_owned(), "counter", format!("of {tenant}")),
        ] {
            lines.push(json!({"metadata": {"metric": metric, "type": kind, "help": help, "unit": ""}}));
        }
        // Refused, and remembered as such.
        lines.push(json!({"metric": {"__name__": "late", "zone": mark}, "values": [1], "timestamps": [end + 86_400_000]}));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// What lets their writer in.
    fn token(self) -> String {
        let labels = json!({"luminate": {"labels": {"team": TEAMS[self.team]}}});
        sign(&with(claims(TENANTS[self.tenant], "write"), labels))
    }
}

/// Writes everybody's data, the newest samples of which are at `end`.
pub fn write(target: &Target, end: i64) {
    for owner in Owner::all() {
        let ask = Ask {
            method: "POST",
            path: format!("/api/v1/import?extra_label=team={FORGED}"),
            headers: vec![("Authorization", format!("Bearer {}", owner.token()))],
            body: owner.lines(end).into_bytes(),
        };
        let answer = target.send(&ask);
        // One sample is refused.
        assert_eq!(answer.status, 400, "{owner:?}: {}", answer.text());
        assert!(answer.text().contains("1 rejected"), "{owner:?}: {}", answer.text());
    }
}
