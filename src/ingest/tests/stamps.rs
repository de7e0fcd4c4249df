//! Labels that a sender's series get, whatever they had of the same names.

use super::*;
use crate::{
    model::{Labels, TimeRange},
    storage::{LabelsRequest, Storage, memory::MemoryStore},
};

fn stamped(stamps: &[(&str, &str)]) -> Sender {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Sender { stamps: stamps.iter().map(owned).collect(), ..Sender::of(TenantId::anonymous()) }
}

async fn everything(store: &MemoryStore) -> Vec<Labels> {
    let request = LabelsRequest { matchers: vec![], range: TimeRange::ALL, limit: 0 };
    store.series(&TenantId::anonymous(), request).await.unwrap()
}

#[tokio::test]
async fn a_stamp_stands_in_the_place_of_what_the_client_says() {
    let sender = stamped(&[("team", "a"), ("aa", "1")]);
    let series = [
        Series::new(&[("__name__", "up"), ("team", "b")]).sample(1, 1.0),
        Series::new(&[("__name__", "up"), ("job", "x")]).sample(1, 2.0),
    ];
    let (one, two) = (compress(&write_request(&series, &[])), compress(&write_request2(&series)));
    let expect = [
        r#"anonymous {__name__="up", aa="1", team="a"} 1 1"#,
        r#"anonymous {__name__="up", aa="1", job="x", team="a"} 1 2"#,
    ];
    for version in [Version::One, Version::Two] {
        let (store, ingest) = ingest(IngestLimits::default());
        // First read, then recognised.
        for _ in 0..2 {
            let outcome = match version {
                Version::One => ingest.remote_write_v1(&sender, one.clone()).await,
                Version::Two => ingest.remote_write_v2(&sender, two.clone()).await,
            };
            assert_eq!(outcome.unwrap().samples, 2);
            assert_eq!(std::mem::take(&mut *store.samples.lock()).len(), 2);
        }
        assert_eq!(ingest.counters().known_series.load(Ordering::Relaxed), 2);
        match version {
            Version::One => ingest.remote_write_v1(&sender, one.clone()).await,
            Version::Two => ingest.remote_write_v2(&sender, two.clone()).await,
        }
        .unwrap();
        assert_eq!(stored(&store), expect);
    }
}

#[tokio::test]
async fn the_same_bytes_are_other_series_for_senders_with_other_stamps() {
    let (store, ingest) = ingest(IngestLimits::default());
    let body = compress(&write_request(&[up("x").sample(1, 1.0)], &[]));
    for stamps in [&[][..], &[("team", "a")], &[("team", "b")], &[("tea", "mb")], &[("team", "a")]] {
        ingest.remote_write_v1(&stamped(stamps), body.clone()).await.unwrap();
    }
    assert_eq!(
        stored(&store),
        [
            r#"anonymous {__name__="up", job="x"} 1 1"#,
            r#"anonymous {__name__="up", job="x", team="a"} 1 1"#,
            r#"anonymous {__name__="up", job="x", team="b"} 1 1"#,
            r#"anonymous {__name__="up", job="x", tea="mb"} 1 1"#,
            r#"anonymous {__name__="up", job="x", team="a"} 1 1"#,
        ]
    );
}

#[tokio::test]
async fn what_came_is_judged_as_it_came() {
    let (store, ingest) = ingest(IngestLimits::default());
    // A stamp makes nothing right that was wrong, and nothing wrong that was right.
    let limits = Arc::new(TenantLimits::default().with(Limit::LabelNames, 3));
    let sender = Sender { limits, ..stamped(&[("__name__", "named"), ("b", "1"), ("c", "2"), ("d", "3")]) };
    let series = [
        Series::new(&[("b", "x")]).sample(1, 1.0),
        Series::new(&[("__name__", "up"), ("b", "x"), ("b", "y")]).sample(1, 2.0),
        Series::new(&[("__name__", "up"), ("b", "x"), ("a", "y")]).sample(1, 3.0),
        Series::new(&[("__name__", "up"), ("a", "x"), ("b", "y")]).sample(1, 4.0),
        Series::new(&[("__name__", "up"), ("a", "x"), ("b", "y"), ("c", "z")]).sample(1, 5.0),
    ];
    let outcome = ingest.remote_write_v2(&sender, compress(&write_request2(&series))).await.unwrap();
    assert_eq!(outcome.samples, 1);
    assert_eq!(outcome.rejected.total, 4);
    assert_eq!(stored(&store), [r#"anonymous {__name__="named", a="x", b="1", c="2", d="3"} 1 4"#]);
}

#[tokio::test]
async fn an_import_cannot_say_otherwise_and_its_exemplars_keep_their_labels() {
    let store = MemoryStore::new(HandClock::at(NOW), None);
    let ingest =
        Arc::new(Ingest::new(Arc::clone(&store) as _, HandClock::at(NOW), IngestLimits::default(), (1, 2)));
    let lines = concat!(
        r#"{"metric":{"__name__":"up","team":"b"},"values":[1],"timestamps":[1]}"#,
        "\n",
        r#"{"metric":{"__name__":"up","team":"b"},"values":[],"timestamps":[],"#,
        r#""exemplars":[{"labels":{"team":"c"},"value":1,"timestamp":1}]}"#,
        "\n",
        r#"{"metadata":{"metric":"up","type":"gauge","help":"team","unit":""}}"#,
        "\n",
    );
    let extra = vec![("team".to_owned(), "d".to_owned()), ("zone".to_owned(), "z".to_owned())];
    let mut import = ingest.import(&stamped(&[("team", "a")]), extra).unwrap();
    import.push(lines.as_bytes()).await.unwrap();
    let imported = import.finish().await.unwrap();
    assert_eq!((imported.bad_lines, imported.outcome.samples, imported.outcome.exemplars), (0, 1, 1));
    let series = everything(&store).await;
    assert_eq!(
        series.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [r#"{__name__="up", team="a", zone="z"}"#]
    );
    let exemplars = store.exemplars(&TenantId::anonymous(), vec![], TimeRange::ALL).await.unwrap();
    assert_eq!(exemplars[0].series, series[0]);
    assert_eq!(exemplars[0].exemplars[0].labels.to_string(), r#"{team="c"}"#);
}

#[tokio::test]
async fn what_an_import_received_is_compared_as_it_came() {
    let store = MemoryStore::new(HandClock::at(NOW), None);
    let ingest =
        Arc::new(Ingest::new(Arc::clone(&store) as _, HandClock::at(NOW), IngestLimits::default(), (1, 2)));
    let line = r#"{"metric":{"__name__":"up","team":"b"},"values":[1],"timestamps":[1]}"#;
    let mut plain = ingest.import(&stamped(&[]), Vec::new()).unwrap();
    plain.push(format!("{line}\n").as_bytes()).await.unwrap();
    let checksum = plain.finish().await.unwrap().received.checksum();
    for (said, bad) in [(checksum.to_string(), 0), ("00000000000000000000000000000001".to_owned(), 1)] {
        let end = format!(r#"{{"end":{{"samples":1,"histograms":0,"exemplars":0,"checksum":"{said}"}}}}"#);
        let mut import = ingest.import(&stamped(&[("team", "a")]), Vec::new()).unwrap();
        import.push(format!("{line}\n{end}\n").as_bytes()).await.unwrap();
        let imported = import.finish().await.unwrap();
        assert_eq!((imported.bad_lines, imported.received.checksum()), (bad, checksum));
    }
}
