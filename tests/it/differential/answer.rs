//! What a server answers, and whether two answers are the same.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::grammar::{Grid, Question};

/// How far values may be apart, relative to the larger one.
pub(super) const RELATIVE: f64 = 1e-9;

/// How far values may be apart, relative to the largest amount that goes into them: where large amounts
/// cancel out, what is left of them is noise.
const OF_SCALE: f64 = 1e-13;

/// The status, and what comes with it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub json: Value,
}

impl Answer {
    pub(super) fn error(&self) -> &str {
        self.json["error"].as_str().unwrap_or_default()
    }

    /// How many samples there are.
    pub(super) fn samples(&self) -> usize {
        match &self.json["data"]["result"] {
            Value::Array(all) if self.json["data"]["resultType"] != "scalar" => {
                all.iter().map(|s| s["values"].as_array().map_or(1, Vec::len)).sum()
            }
            Value::Null => 0,
            _ => 1,
        }
    }
}

/// A client of one server that keeps its connection.
#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    pub(super) fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)));
        Self { agent: config.build().into(), base: base.to_owned() }
    }

    pub(super) fn ask(&self, query: &str, grid: Grid) -> Answer {
        let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        let (path, mut form) = match grid {
            Grid::Instant(at) => ("query", vec![("time", seconds(at))]),
            Grid::Range { start, end, step } => {
                let form = vec![("start", seconds(start)), ("end", seconds(end)), ("step", seconds(step))];
                ("query_range", form)
            }
        };
        form.push(("query", query.to_owned()));
        let mut answer = self.agent.post(format!("{}/api/v1/{path}", self.base)).send_form(form).unwrap();
        let body = answer.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
        let json = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{query}: {e}: {body}"));
        Answer { status: answer.status().as_u16(), json }
    }
}

/// Where two answers first differ.
pub(super) fn difference(question: &Question, ours: &Answer, theirs: &Answer) -> Option<String> {
    if ours.status != theirs.status || ours.json["errorType"] != theirs.json["errorType"] {
        let shown = |a: &Answer| format!("{} {} {:?}", a.status, a.json["errorType"], a.error());
        return Some(format!("{}, not {}", shown(ours), shown(theirs)));
    }
    if ours.status != 200 {
        return None;
    }
    let (ours, theirs) = (&ours.json["data"], &theirs.json["data"]);
    if ours["resultType"] != theirs["resultType"] {
        return Some(format!("{} is not {}", ours["resultType"], theirs["resultType"]));
    }
    let scale = question.expr.scale;
    let (our, their) = (&ours["result"], &theirs["result"]);
    match ours["resultType"].as_str() {
        Some("string") => (our != their).then(|| format!("{our} is not {their}")),
        Some("scalar") => pair(our, their, scale),
        _ => {
            if matches!(question.grid, Grid::Range { .. })
                && labels(our) != labels(their)
                && sorted_labels(our) == sorted_labels(their)
            {
                return Some(format!("series in the order {:?}, not {:?}", labels(our), labels(their)));
            }
            if question.ordered
                && let Some(found) = order(our, their, scale)
            {
                return Some(found);
            }
            series(our, their, scale)
        }
    }
}

fn array(result: &Value) -> &[Value] {
    result.as_array().map_or(&[], Vec::as_slice)
}

fn labels(result: &Value) -> Vec<String> {
    array(result).iter().map(|s| s["metric"].to_string()).collect()
}

fn sorted_labels(result: &Value) -> Vec<String> {
    let mut all = labels(result);
    all.sort();
    all
}

/// Where the values in their order first differ.
fn order(ours: &Value, theirs: &Value, scale: f64) -> Option<String> {
    let both = array(ours).iter().zip(array(theirs));
    both.map(|(our, their)| pair(&our["value"], &their["value"], scale))
        .find_map(|found| found.map(|text| format!("in order: {text}")))
}

fn series(ours: &Value, theirs: &Value, scale: f64) -> Option<String> {
    let by_labels = |result: &Value| -> BTreeMap<String, Value> {
        array(result).iter().map(|s| (s["metric"].to_string(), s.clone())).collect()
    };
    let (our_count, their_count) = (array(ours).len(), array(theirs).len());
    let (ours, theirs) = (by_labels(ours), by_labels(theirs));
    if our_count != their_count || !ours.keys().eq(theirs.keys()) {
        let missing: Vec<_> = theirs.keys().filter(|k| !ours.contains_key(*k)).take(3).collect();
        let extra: Vec<_> = ours.keys().filter(|k| !theirs.contains_key(*k)).take(3).collect();
        return Some(format!("{our_count} series, not {their_count}; missing {missing:?}, extra {extra:?}"));
    }
    for (labels, their) in &theirs {
        let our = &ours[labels];
        let points = |s: &Value| -> Vec<Value> {
            s["values"].as_array().cloned().unwrap_or_else(|| vec![s["value"].clone()])
        };
        let (our, their) = (points(our), points(their));
        let times = |points: &[Value]| -> Vec<Value> { points.iter().map(|p| p[0].clone()).collect() };
        if times(&our) != times(&their) {
            let only = |a: &[Value], b: &[Value]| -> Vec<String> {
                a.iter().filter(|p| b.iter().all(|q| q[0] != p[0])).take(3).map(Value::to_string).collect()
            };
            return Some(format!(
                "{labels}: {} points, not {}; missing {:?}, extra {:?}",
                our.len(),
                their.len(),
                only(&their, &our),
                only(&our, &their)
            ));
        }
        let found = our.iter().zip(&their).find_map(|(our, their)| pair(our, their, scale));
        if let Some(found) = found {
            return Some(format!("{labels}: {found}"));
        }
    }
    None
}

fn pair(our: &Value, their: &Value, scale: f64) -> Option<String> {
    let value = |pair: &Value| pair[1].as_str().and_then(|text| text.parse::<f64>().ok());
    let same = match (value(our), value(their)) {
        (Some(a), Some(b)) => {
            let near = (a - b).abs() <= (RELATIVE * a.abs().max(b.abs())).max(OF_SCALE * scale);
            our[0].as_f64() == their[0].as_f64()
                && (a == b || a.is_nan() && b.is_nan() || near && b.is_finite())
        }
        _ => false,
    };
    (!same).then(|| format!("{our} is not {their}"))
}
