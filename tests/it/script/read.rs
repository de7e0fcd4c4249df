//! A script's text to commands.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use luminate::{
    model::{
        Histogram, Labels, METRIC_NAME,
        histogram::{CUSTOM_BUCKETS_SCHEMA, Counts, ResetHint, Span},
    },
    promql::{Features, parse},
};

use super::{Action, Command, Eval, Expect, Sample, Series, Text, Wanted, When};

/// Reads a script.
pub(crate) fn parse(text: &str) -> Result<Vec<Command>> {
    let mut blocks: Vec<(usize, &str, Vec<&str>)> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            blocks.push((i + 1, trimmed, Vec::new()));
        } else if let Some((_, _, body)) = blocks.last_mut() {
            body.push(trimmed);
        } else {
            bail!("line {}: indented, but there is no command above", i + 1);
        }
    }
    let command = |(line, head, body): &(usize, &str, Vec<&str>)| {
        let action = action(head, body).with_context(|| format!("line {line}: {head}"))?;
        Ok(Command { line: *line, action })
    };
    blocks.iter().map(command).collect()
}

fn action(head: &str, body: &[&str]) -> Result<Action> {
    let (word, rest) = head.split_once(' ').unwrap_or((head, ""));
    match word {
        "clear" => Ok(Action::Clear),
        "computation" => Ok(Action::Computation),
        "features" => features(rest).map(Action::Features),
        "load" => load(rest, body).map(Action::Load),
        "eval" => eval(rest, body).map(Action::Eval),
        _ => bail!("no such command"),
    }
}

/// The defaults, but for what is named; a dash switches off.
fn features(names: &str) -> Result<Features> {
    let mut features = Features::default();
    for word in names.split_whitespace() {
        let (name, on) = word.strip_prefix('-').map_or((word, true), |name| (name, false));
        let switch = match name {
            "promql-experimental-functions" => &mut features.experimental_functions,
            "promql-extended-range-selectors" => &mut features.extended_range_selectors,
            "promql-binop-fill-modifiers" => &mut features.fill_modifiers,
            "promql-delayed-name-removal" => &mut features.delayed_name_removal,
            "use-start-timestamps" => &mut features.use_start_timestamps,
            "type-and-unit-labels" => &mut features.type_and_unit_labels,
            _ => bail!("no such feature: {name}"),
        };
        *switch = on;
    }
    Ok(features)
}

fn load(step: &str, body: &[&str]) -> Result<Vec<Series>> {
    let step = millis(step)?;
    let series = |line: &&str| -> Result<Series> {
        let (labels, values) = labels(line)?;
        let (values, start) = match values.split_once(" since ") {
            Some((values, start)) => (values, millis(start.trim())?),
            None => (values, 0),
        };
        let values = values_of(values)?;
        let times = (0..).map(|i| i * step);
        let samples = times.zip(values).filter_map(|(t, v)| v.map(|v| (t, v))).collect();
        Ok(Series { labels, samples, start })
    };
    body.iter().map(|line| series(line).with_context(|| (*line).to_owned())).collect()
}

fn eval(rest: &str, body: &[&str]) -> Result<Eval> {
    let (kind, rest) = word(rest);
    let (when, query) = match kind {
        "instant" => match rest.strip_prefix("at ") {
            Some(rest) => {
                let (at, query) = word(rest);
                (When::Instant(millis(at)?), query)
            }
            None => (When::Instant(0), rest),
        },
        "range" => {
            let (start, rest) = after(rest, "from")?;
            let (end, rest) = after(rest, "to")?;
            let (step, query) = after(rest, "step")?;
            (When::Range { start, end, step }, query)
        }
        _ => bail!("an evaluation is instant or range"),
    };
    ensure!(!query.is_empty(), "there is no query");
    let (mut expect, mut wanted) = (Expect::default(), Vec::new());
    for line in body {
        match line.strip_prefix("expect ") {
            Some(what) => expectation(&mut expect, what.trim()),
            None => result(line).map(|result| wanted.push(result)),
        }
        .with_context(|| (*line).to_owned())?;
    }
    Ok(Eval { query: query.to_owned(), when, expect, wanted })
}

fn expectation(expect: &mut Expect, line: &str) -> Result<()> {
    let (what, rest) = word(line);
    let text = || {
        if let Some(part) = rest.strip_prefix("msg:") {
            Ok(Text::Contains(part.trim().to_owned()))
        } else if let Some(pattern) = rest.strip_prefix("regex:") {
            Ok(Text::Matches(pattern.trim().to_owned()))
        } else if rest.is_empty() {
            Ok(Text::Any)
        } else {
            Err(anyhow!("a text is given by msg: or regex:"))
        }
    };
    match what {
        "ordered" => expect.ordered = true,
        "fail" => expect.fail = Some(text()?),
        "warn" => expect.warn.push(text()?),
        "info" => expect.info.push(text()?),
        "no_warn" => expect.no_warn = true,
        "no_info" => expect.no_info = true,
        "string" => expect.string = Some(string(rest)?),
        "range" => {
            let (vector, rest) = word(rest);
            ensure!(vector == "vector", "expected `range vector from … to … step …`");
            let (start, rest) = after(rest, "from")?;
            let (_, rest) = after(rest, "to")?;
            let (step, _) = after(rest, "step")?;
            expect.matrix = Some((start, step));
        }
        _ => bail!("no such expectation"),
    }
    Ok(())
}

fn result(line: &str) -> Result<Wanted> {
    if let Some(value) = number(line) {
        return Ok(Wanted { labels: None, values: vec![Some(Sample::Float(value))] });
    }
    let (labels, values) = labels(line)?;
    Ok(Wanted { labels: Some(labels), values: values_of(values)? })
}

/// The first word, and what comes after it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// The time after a word that has to come first, and what comes after the time.
fn after<'a>(text: &'a str, name: &str) -> Result<(i64, &'a str)> {
    let (first, rest) = word(text);
    ensure!(first == name, "expected `{name}`, found `{first}`");
    let (time, rest) = word(rest);
    Ok((millis(time)?, rest))
}

/// A time: `5m`, `1h30m`, `-10s`, or seconds.
fn millis(text: &str) -> Result<i64> {
    let (sign, plain) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let literal = parse::parse(plain, &parse::ParserFeatures::default())?;
    let parse::Expr::Number(literal) = literal else { bail!("{text} is no time") };
    #[expect(clippy::cast_possible_truncation, reason = "times in scripts are small")]
    let millis = (literal.value * 1000.0).round() as i64;
    Ok(sign * millis)
}

/// A string in quotes, with PromQL's escapes.
fn string(text: &str) -> Result<String> {
    match parse::parse(text, &parse::ParserFeatures::default())? {
        parse::Expr::String(literal) => Ok(literal.value),
        other => bail!("{other} is no string"),
    }
}

/// A number, or none if the text is no number.
fn number(text: &str) -> Option<f64> {
    let first = text.trim_start_matches(['+', '-']).chars().next()?;
    if !(first.is_ascii_digit() || matches!(first, '.' | 'i' | 'I' | 'n' | 'N')) {
        return None;
    }
    match parse::parse(text, &parse::ParserFeatures::default()) {
        Ok(parse::Expr::Number(literal)) if !literal.duration => Some(literal.value),
        _ => None,
    }
}

/// The labels at the start of a line, and what comes after them.
fn labels(line: &str) -> Result<(Labels, &str)> {
    let is_name = |c: char| c == '_' || c == ':' || c.is_ascii_alphanumeric();
    let name_end = line.find(|c| !is_name(c)).unwrap_or(line.len());
    let (name, mut rest) = line.split_at(name_end);
    let mut pairs = Vec::new();
    if !name.is_empty() {
        pairs.push((METRIC_NAME.to_owned(), name.to_owned()));
    }
    if rest.starts_with('{') && !rest.starts_with("{{") {
        let end = closing_brace(rest).context("the braces are not closed")?;
        if rest[1..end].trim() != "" {
            // A selector's braces have the same form, if they say `=` throughout.
            for matcher in parse::parse_selector(&rest[..=end])? {
                ensure!(matcher.op() == luminate::model::MatchOp::Equal, "labels are given by =");
                pairs.push((matcher.name().to_owned(), matcher.value().to_owned()));
            }
        }
        rest = &rest[end + 1..];
    }
    Ok((Labels::from_pairs(pairs)?, rest.trim_start()))
}

/// Where the brace that opens `text` is closed.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (i, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"' | '\'') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None if c == '}' => return Some(i),
            None => {}
        }
    }
    None
}

/// A list of values, one per step; none where there is no sample.
fn values_of(text: &str) -> Result<Vec<Option<Sample>>> {
    let mut values = Vec::new();
    for item in items(text) {
        item_values(item, &mut values).with_context(|| item.to_owned())?;
    }
    Ok(values)
}

/// Splits at blanks that are not within a histogram.
fn items(text: &str) -> Vec<&str> {
    let (mut items, mut start, mut depth) = (Vec::new(), None, 0_usize);
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c.is_whitespace() && depth == 0 {
            items.extend(start.take().map(|start: usize| &text[start..i]));
        } else {
            start.get_or_insert(i);
        }
    }
    items.extend(start.map(|start| &text[start..]));
    items
}

/// `_`, `stale`, `1`, `1x3`, `1+2x3`, and the same with histograms.
fn item_values(item: &str, values: &mut Vec<Option<Sample>>) -> Result<()> {
    if item.starts_with("{{") {
        return histogram_values(item, values);
    }
    let (item, times) = repeated(item)?;
    if item == "_" {
        values.extend(std::iter::repeat_n(None, times.unwrap_or(1)));
        return Ok(());
    }
    let again = times.map_or(1, |times| times + 1);
    if item == "stale" {
        values.extend(std::iter::repeat_n(Some(Sample::Stale), again));
        return Ok(());
    }
    let (mut value, increment) = match number(item) {
        Some(value) => (value, 0.0),
        None => {
            // The increment's sign is the last one that no exponent owns.
            let split = item
                .char_indices()
                .skip(1)
                .filter(|(i, c)| matches!(c, '+' | '-') && !item[..*i].ends_with(['e', 'E', '+', '-']));
            let at = split.last().context("no value")?.0;
            let value = number(&item[..at]).context("no value")?;
            (value, number(&item[at..]).context("no increment")?)
        }
    };
    for _ in 0..again {
        values.push(Some(Sample::Float(value)));
        value += increment;
    }
    Ok(())
}

/// An item without the `xN` at its end, and that N.
fn repeated(item: &str) -> Result<(&str, Option<usize>)> {
    match item.rsplit_once('x') {
        Some((before, times)) => Ok((before, Some(times.parse()?))),
        None => Ok((item, None)),
    }
}

fn histogram_values(item: &str, values: &mut Vec<Option<Sample>>) -> Result<()> {
    let end = item.find("}}").context("the histogram is not closed")?;
    let mut value = NativeHistogram::parse(&item[2..end])?;
    let mut rest = &item[end + 2..];
    let mut increment = None;
    if let Some(sign @ ('+' | '-')) = rest.chars().next() {
        let inner = rest[1..].strip_prefix("{{").context("the increment is no histogram")?;
        let end = inner.find("}}").context("the increment is not closed")?;
        increment = Some((NativeHistogram::parse(&inner[..end])?, if sign == '+' { 1.0 } else { -1.0 }));
        rest = &inner[end + 2..];
    }
    let again = match rest.strip_prefix('x') {
        Some(times) => times.parse::<usize>()? + 1,
        None => {
            ensure!(rest.is_empty() && increment.is_none(), "expected xN behind the histogram");
            1
        }
    };
    for _ in 0..again {
        values.push(Some(Sample::Histogram(Arc::new(value.stored()))));
        if let Some((increment, sign)) = &increment {
            value.add(increment, *sign)?;
        }
    }
    Ok(())
}

/// A histogram as scripts write it: `{{schema:0 sum:5 count:4 buckets:[1 2 1]}}`.
#[derive(Clone, Debug)]
struct NativeHistogram {
    schema: i32,
    sum: f64,
    count: f64,
    zero_count: f64,
    zero_threshold: f64,
    positive: (i32, Vec<f64>),
    negative: (i32, Vec<f64>),
    custom_values: Vec<f64>,
    hint: ResetHint,
}

impl NativeHistogram {
    fn parse(text: &str) -> Result<Self> {
        let mut histogram = Self {
            schema: 0,
            sum: 0.0,
            count: 0.0,
            zero_count: 0.0,
            zero_threshold: 0.0,
            positive: (0, Vec::new()),
            negative: (0, Vec::new()),
            custom_values: Vec::new(),
            hint: ResetHint::Unknown,
        };
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (key, after) = rest.split_once(':').context("a histogram is a list of key:value")?;
            let (value, after) = match after.strip_prefix('[') {
                Some(list) => list.split_once(']').context("the list is not closed")?,
                None => after.split_once(' ').unwrap_or((after, "")),
            };
            let list = || {
                value.split_whitespace().map(|v| number(v).context("no number")).collect::<Result<Vec<_>>>()
            };
            let float = || number(value).with_context(|| format!("{value} is no number"));
            match key {
                "schema" => histogram.schema = value.parse()?,
                "sum" => histogram.sum = float()?,
                "count" => histogram.count = float()?,
                "z_bucket" => histogram.zero_count = float()?,
                "z_bucket_w" => histogram.zero_threshold = float()?,
                "offset" => histogram.positive.0 = value.parse()?,
                "n_offset" => histogram.negative.0 = value.parse()?,
                "buckets" => histogram.positive.1 = list()?,
                "n_buckets" => histogram.negative.1 = list()?,
                "custom_values" => histogram.custom_values = list()?,
                "counter_reset_hint" => {
                    histogram.hint = match value {
                        "unknown" => ResetHint::Unknown,
                        "reset" => ResetHint::Yes,
                        "not_reset" => ResetHint::No,
                        "gauge" => ResetHint::Gauge,
                        _ => bail!("no such hint: {value}"),
                    }
                }
                _ => bail!("no such key: {key}"),
            }
            rest = after.trim_start();
        }
        let custom = histogram.schema == CUSTOM_BUCKETS_SCHEMA;
        ensure!(custom || histogram.custom_values.is_empty(), "custom values need schema -53");
        Ok(histogram)
    }

    fn add(&mut self, other: &Self, sign: f64) -> Result<()> {
        ensure!(self.schema == other.schema, "histograms with different schemas are not added here");
        self.sum += sign * other.sum;
        self.count += sign * other.count;
        self.zero_count += sign * other.zero_count;
        for (mine, others) in [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)] {
            let first = if mine.1.is_empty() { others.0 } else { mine.0.min(others.0) };
            let before = usize::try_from(mine.0 - first).unwrap_or(0);
            mine.1.splice(0..0, std::iter::repeat_n(0.0, before));
            mine.0 = first;
            let from = usize::try_from(others.0 - first)?;
            mine.1.resize(mine.1.len().max(from + others.1.len()), 0.0);
            for (mine, other) in mine.1[from..].iter_mut().zip(&others.1) {
                *mine += sign * other;
            }
        }
        Ok(())
    }

    /// As it is stored.
    fn stored(&self) -> Histogram {
        let spans = |(offset, buckets): &(i32, Vec<f64>)| {
            let length = u32::try_from(buckets.len()).expect("scripts are small");
            if buckets.is_empty() { Vec::new() } else { vec![Span { offset: *offset, length }] }
        };
        Histogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            sum: self.sum,
            reset_hint: self.hint,
            positive_spans: spans(&self.positive),
            negative_spans: spans(&self.negative),
            counts: Counts::Float {
                count: self.count,
                zero_count: self.zero_count,
                positive: self.positive.1.clone(),
                negative: self.negative.1.clone(),
            },
            custom_values: self.custom_values.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(text: &str) -> Vec<Option<f64>> {
        let float = |sample: &Option<Sample>| match sample {
            Some(Sample::Float(value)) => Some(*value),
            _ => None,
        };
        values_of(text).unwrap().iter().map(float).collect()
    }

    #[test]
    fn values_may_be_repeated_and_counted_up() {
        assert_eq!(floats("1 _ 2.5 -3"), [Some(1.0), None, Some(2.5), Some(-3.0)]);
        assert_eq!(floats("1+2x3"), [Some(1.0), Some(3.0), Some(5.0), Some(7.0)]);
        assert_eq!(floats("10-5x2"), [Some(10.0), Some(5.0), Some(0.0)]);
        assert_eq!(floats("7x1 _x2 1e3"), [Some(7.0), Some(7.0), None, None, Some(1000.0)]);
        assert_eq!(floats("-1-1x1"), [Some(-1.0), Some(-2.0)]);
        assert_eq!(floats("1e-2+1e+1x1"), [Some(0.01), Some(10.01)]);
        assert_eq!(floats("0x2"), [Some(0.0); 3]);
        assert_eq!(floats("10x1"), [Some(10.0); 2]);
        assert_eq!(floats("Inf -Inf"), [Some(f64::INFINITY), Some(f64::NEG_INFINITY)]);
        assert_eq!(values_of("stale").unwrap(), [Some(Sample::Stale)]);
        assert!(values_of("1 foo").is_err());
    }

    #[test]
    fn labels_may_have_any_characters() {
        let (labels, rest) = labels(r#"up{a="}", "b.c"='d', e=`f\`} 1 2"#).unwrap();
        assert_eq!(labels.to_string(), r#"{__name__="up", a="}", "b.c"="d", e="f\\"}"#);
        assert_eq!(rest, "1 2");
        assert_eq!(super::labels("{} 1").unwrap(), (Labels::empty(), "1"));
        assert!(super::labels(r#"{a!="b"} 1"#).is_err());
    }

    #[test]
    fn histograms_are_read_and_added() {
        let values = values_of(
            "{{schema:1 sum:2 count:3 offset:-1 buckets:[1 2]}}+{{schema:1 count:1 buckets:[1]}}x1",
        );
        let Some(Sample::Histogram(second)) = &values.unwrap()[1] else { panic!("two histograms") };
        assert_eq!(second.positive_spans, [Span { offset: -1, length: 2 }]);
        let wanted =
            Counts::Float { count: 4.0, zero_count: 0.0, positive: vec![1.0, 3.0], negative: Vec::new() };
        assert_eq!(second.counts, wanted);
    }

    #[test]
    fn features_are_switched_from_their_defaults() {
        let script = parse("features use-start-timestamps -promql-binop-fill-modifiers\nfeatures\n").unwrap();
        let switched = Features { use_start_timestamps: true, fill_modifiers: false, ..Features::default() };
        assert_eq!(script[0].action, Action::Features(switched));
        assert_eq!(script[1].action, Action::Features(Features::default()));
    }

    #[test]
    fn a_script_is_a_list_of_commands() {
        let text = "# comment\nload 30s\n  a 1 2\n\nclear\neval range from 0 to 1m step 30s a + 1\n  expect no_warn\n  {} 2 3\n";
        let script = parse(text).unwrap();
        assert_eq!(script.iter().map(|c| c.line).collect::<Vec<_>>(), [2, 5, 6]);
        let Action::Load(series) = &script[0].action else { panic!("a load") };
        assert_eq!(series[0].samples, [(0, Sample::Float(1.0)), (30_000, Sample::Float(2.0))]);
        let Action::Eval(eval) = &script[2].action else { panic!("an eval") };
        assert_eq!(eval.query, "a + 1");
        assert_eq!(eval.when, When::Range { start: 0, end: 60_000, step: 30_000 });
        assert!(eval.expect.no_warn);
        for wrong in [
            "what\n",
            "features what\n",
            "  indented\n",
            "eval a\n",
            "load x\n",
            "eval instant at 0 a\n  expect nothing\n",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
