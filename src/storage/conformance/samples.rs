//! Samples come back as they were written: to the bit, in order, and those of the series and times asked for.

use super::{Subject, ago, bits, floats, labels, matcher, pairs, range};
use crate::{
    model::{Labels, MatchOp, Matcher, STALE_NAN_BITS, TimeRange, Timestamp, stale_nan},
    storage::{BatchSample, LabelsRequest, WriteBatch},
};

pub(super) async fn floats_come_back_to_the_bit(s: &mut Subject<'_>) {
    let odd = [
        0.0,
        -0.0,
        1.0,
        0.1,
        -1e300,
        5e-324,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        stale_nan(),
        f64::from_bits(0x7ff8_dead_beef_0001),
        f64::from_bits(0xfff0_0000_0000_0001),
        123_456_789.123_456_79,
        9_007_199_254_740_993.0,
    ];
    let series = labels(&[("__name__", "odd"), ("job", "x")]);
    let samples: Vec<(i64, f64)> = (0..).zip(odd).map(|(i, v)| (ago(1000) + i * 15_000 + i % 3, v)).collect();
    s.write(&series, &samples).await;
    s.settle().await;
    let all = s.everything().await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].0, series);
    assert_eq!(pairs(&all[0].1), bits(&samples));
    assert_eq!(all[0].1.values[11].to_bits(), STALE_NAN_BITS);
}

pub(super) async fn series_come_sorted_however_they_were_written(s: &mut Subject<'_>) {
    let mut all = Vec::new();
    for i in [5, 3, 9, 1, 7] {
        let series = labels(&[("__name__", &format!("m{}", i % 3)), ("i", &i.to_string())]);
        s.write(&series, &[(ago(60), f64::from(i))]).await;
        all.push(series);
    }
    all.sort();
    s.settle().await;
    let found: Vec<Labels> = s.everything().await.into_iter().map(|(l, _)| l).collect();
    assert_eq!(found, all);
}

pub(super) async fn samples_come_sorted_however_they_were_written(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "late")]);
    s.write(&series, &[(ago(10), 10.0), (ago(30), 30.0)]).await;
    s.write(&series, &[(ago(20), 20.0)]).await;
    s.settle().await;
    s.write(&series, &[(ago(25), 25.0), (ago(5), 5.0), (ago(3 * 86_400), 3.0)]).await;
    s.settle().await;
    let all = s.everything().await;
    let expect = [
        (ago(3 * 86_400), 3.0),
        (ago(30), 30.0),
        (ago(25), 25.0),
        (ago(20), 20.0),
        (ago(10), 10.0),
        (ago(5), 5.0),
    ];
    assert_eq!(pairs(&all[0].1), bits(&expect));
}

pub(super) async fn a_range_includes_both_ends(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "r")]);
    let samples: Vec<(i64, f64)> = (0..100).map(|i| (ago(1000) + i * 1000, 1.0)).collect();
    s.write(&series, &samples).await;
    s.settle().await;
    let found = s.select(&[], range(samples[10].0, samples[20].0)).await;
    assert_eq!(pairs(&found[0].1), bits(&samples[10..=20]));
    let found = s.select(&[], range(samples[10].0 + 1, samples[20].0 - 1)).await;
    assert_eq!(pairs(&found[0].1), bits(&samples[11..20]));
    assert_eq!(s.select(&[], range(0, samples[0].0 - 1)).await, vec![]);
}

pub(super) async fn every_kind_of_matcher_selects(s: &mut Subject<'_>) {
    let all: Vec<Labels> = [
        vec![("__name__", "http"), ("code", "200"), ("job", "api")],
        vec![("__name__", "http"), ("code", "404"), ("job", "api")],
        vec![("__name__", "http"), ("code", "500"), ("job", "web")],
        vec![("__name__", "http"), ("job", "web")],
        vec![("__name__", "up"), ("job", "api")],
    ]
    .iter()
    .map(|pairs| labels(pairs))
    .collect();
    for series in &all {
        s.write(series, &[(ago(60), 1.0)]).await;
    }
    s.settle().await;
    use MatchOp::{Equal, Matches, NotEqual, NotMatches};
    /// Matchers, and which of the series they find.
    type Case = (&'static [(MatchOp, &'static str, &'static str)], &'static [usize]);
    let cases: &[Case] = &[
        (&[(Equal, "__name__", "http")], &[0, 1, 2, 3]),
        (&[(Equal, "__name__", "http"), (Equal, "code", "200")], &[0]),
        (&[(Equal, "code", "")], &[3, 4]),
        (&[(NotEqual, "code", "")], &[0, 1, 2]),
        (&[(NotEqual, "code", "200")], &[1, 2, 3, 4]),
        (&[(Matches, "code", "4..|5..")], &[1, 2]),
        (&[(Matches, "code", "200|404")], &[0, 1]),
        (&[(Matches, "code", "2.*")], &[0]),
        (&[(Matches, "code", ".*")], &[0, 1, 2, 3, 4]),
        (&[(Matches, "code", ".+")], &[0, 1, 2]),
        (&[(Matches, "code", "|500")], &[2, 3, 4]),
        (&[(NotMatches, "code", "2.*")], &[1, 2, 3, 4]),
        (&[(NotMatches, "code", ".+")], &[3, 4]),
        (&[(NotMatches, "code", "200|")], &[1, 2]),
        (&[(Equal, "job", "api"), (NotMatches, "__name__", "h.*")], &[4]),
        (&[(Equal, "job", "nobody")], &[]),
        (&[(Equal, "nothing", "x")], &[]),
        (&[(NotEqual, "nothing", "x")], &[0, 1, 2, 3, 4]),
    ];
    for (matchers, expect) in cases {
        let matchers: Vec<Matcher> =
            matchers.iter().map(|(op, name, value)| matcher(*op, name, value)).collect();
        let mut expect: Vec<Labels> = expect.iter().map(|i| all[*i].clone()).collect();
        expect.sort();
        let found: Vec<Labels> =
            s.select(&matchers, TimeRange::ALL).await.into_iter().map(|(l, _)| l).collect();
        assert_eq!(found, expect, "{matchers:?}");
        let request = LabelsRequest { matchers: vec![matchers.clone()], range: TimeRange::ALL, limit: 0 };
        let found = s.store.series(&s.tenant, request).await.expect("series are answered");
        assert_eq!(found, expect, "series {matchers:?}");
    }
}

pub(super) async fn start_timestamps_come_back(s: &mut Subject<'_>) {
    let series = labels(&[("__name__", "started_total")]);
    let mut batch = floats(&series, &[(ago(60), 1.0), (ago(45), 2.0), (ago(30), 3.0), (ago(15), 4.0)]);
    batch.samples[1].start = ago(90);
    batch.samples[2].start = ago(90);
    batch.samples[3].start = ago(31);
    assert_eq!(s.append(batch).await.samples, 4);
    s.settle().await;
    let all = s.everything().await;
    let starts: Vec<i64> = (0..4).map(|i| all[0].1.start(i)).collect();
    assert_eq!(starts, [0, ago(90), ago(90), ago(31)]);
}

pub(super) async fn many_series_over_many_days_come_back(s: &mut Subject<'_>) {
    let all: Vec<Labels> = (0..300)
        .map(|i| labels(&[("__name__", "bulk"), ("i", &format!("{i:03}")), ("odd", ["", "y"][i % 2])]))
        .collect();
    let value = |series: usize, i: i64| (i * i % 1009) as f64 / 8.0 + series as f64;
    let time = |i: i64| ago(4 * 86_400) + i * 601_003;
    for day in 0..4_i64 {
        let mut batch = WriteBatch::over(all.clone());
        for i in day * 143..(day + 1) * 143 {
            for series in 0..all.len() {
                let ordinal = u32::try_from(series).expect("300 fit");
                let (timestamp, value) = (Timestamp(time(i)), value(series, i));
                batch.samples.push(BatchSample { series: ordinal, timestamp, value, start: 0 });
            }
        }
        let appended = s.append(batch).await;
        assert_eq!((appended.samples, appended.rejected.len()), (143 * 300, 0));
        if day == 1 {
            s.settle().await;
        }
    }
    s.settle().await;
    let found = s.everything().await;
    assert_eq!(found.len(), all.len());
    for (series, (labels, samples)) in found.iter().enumerate() {
        assert_eq!(labels, &all[series]);
        let expect: Vec<(i64, f64)> = (0..4 * 143).map(|i| (time(i), value(series, i))).collect();
        assert_eq!(pairs(samples), bits(&expect), "{labels}");
    }
    let some = s
        .select(&[Matcher::equal("odd", "y"), Matcher::equal("i", "007")], range(time(100), time(400)))
        .await;
    assert_eq!(some.len(), 1);
    assert_eq!(some[0].1.len(), 301);
}
