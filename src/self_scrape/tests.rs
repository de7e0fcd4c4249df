use parking_lot::Mutex;

use super::*;
use crate::{
    clock::HandClock,
    model::{Matcher, TimeRange, is_stale},
    storage::{Runs, SelectRequest, memory::MemoryStore},
    telemetry::{Figure, FigureValue, Telemetry},
};

/// The values of series `name`, oldest first.
async fn values(store: &dyn Storage, tenant: &TenantId, name: &str) -> Vec<f64> {
    let matcher = Matcher::equal(METRIC_NAME, name);
    let selected = store.select(tenant, SelectRequest::new(vec![matcher], TimeRange::ALL)).await.unwrap();
    let Runs::TimeMajor(mut runs) = selected.runs else { panic!("the memory store answers in time order") };
    let mut values = Vec::new();
    while let Some(some) = runs.recv().await {
        values.extend(some.unwrap().into_iter().flat_map(|run| run.samples.values));
    }
    values
}

fn scraper(text: &Arc<Mutex<String>>) -> (SelfScrape, Arc<MemoryStore>, Arc<HandClock>) {
    let clock = HandClock::at(Timestamp(1_000_000));
    let store = MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>, None);
    let text = Arc::clone(text);
    let scrape = SelfScrape::new(
        Arc::clone(&store) as Arc<dyn Storage>,
        Arc::clone(&clock) as Arc<dyn Clock>,
        Arc::new(move || text.lock().clone()),
        TenantId::anonymous(),
        "127.0.0.1:8080".to_owned(),
    );
    (scrape, store, clock)
}

#[tokio::test]
async fn a_scrape_leaves_the_series_every_scrape_leaves() {
    let text = Arc::new(Mutex::new("a 1\nb{x=\"y\"} 2\n# EOF\n".to_owned()));
    let (mut scrape, store, _) = scraper(&text);
    scrape.scrape().await.unwrap();
    let tenant = TenantId::anonymous();
    assert_eq!(values(&*store, &tenant, "up").await, [1.0]);
    assert_eq!(values(&*store, &tenant, "scrape_samples_scraped").await, [2.0]);
    assert_eq!(values(&*store, &tenant, "b").await, [2.0]);
}

#[tokio::test]
async fn what_the_comments_say_is_kept() {
    let text = Arc::new(Mutex::new("# HELP a What a is\n# TYPE a gauge\na 1\n# EOF\n".to_owned()));
    let (mut scrape, store, clock) = scraper(&text);
    for _ in 0..2 {
        scrape.scrape().await.unwrap();
        clock.advance(Duration::from_secs(15));
    }
    let known = store.metadata(&TenantId::anonymous(), None).await.unwrap();
    assert_eq!((known.len(), known[0].help.as_str()), (1, "What a is"));
}

#[tokio::test]
async fn a_series_that_vanishes_is_marked_stale_once() {
    let text = Arc::new(Mutex::new("a 1\nb 2\n".to_owned()));
    let (mut scrape, store, clock) = scraper(&text);
    for exposition in ["a 1\nb 2\n", "a 3\n", "a 4\n"] {
        *text.lock() = exposition.to_owned();
        scrape.scrape().await.unwrap();
        clock.advance(Duration::from_secs(15));
    }
    let tenant = TenantId::anonymous();
    assert_eq!(values(&*store, &tenant, "a").await, [1.0, 3.0, 4.0]);
    let b = values(&*store, &tenant, "b").await;
    assert_eq!((b.len(), b[0], is_stale(b[1])), (2, 2.0, true));
}

#[tokio::test]
async fn an_exposition_that_does_not_read_is_down() {
    let text = Arc::new(Mutex::new("a 1\n".to_owned()));
    let (mut scrape, store, clock) = scraper(&text);
    scrape.scrape().await.unwrap();
    clock.advance(Duration::from_secs(15));
    *text.lock() = "a one\n".to_owned();
    scrape.scrape().await.unwrap();
    let tenant = TenantId::anonymous();
    assert_eq!(values(&*store, &tenant, "up").await, [1.0, 0.0]);
    assert!(is_stale(values(&*store, &tenant, "a").await[1]));
}

#[tokio::test]
async fn the_first_scrape_is_at_once_and_the_end_marks_everything_stale() {
    let text = Arc::new(Mutex::new("a 1\n".to_owned()));
    let (scrape, store, clock) = scraper(&text);
    let later = async move { clock.advance(Duration::from_secs(1)) };
    scrape.run(Duration::from_secs(3600), later).await;
    let up = values(&*store, &TenantId::anonymous(), "up").await;
    assert_eq!((up.len(), up[0], is_stale(up[1])), (2, 1.0, true));
}

#[test]
fn what_we_render_reads_back() {
    let source: crate::telemetry::Source = Box::new(|| {
        let buckets = vec![(0.5, 1), (f64::MAX, 2)];
        let value = FigureValue::Histogram { buckets, sum: 3.0 };
        vec![
            Figure::counter("a", "A", 1.0).with("x", "q\"\\\n}"),
            Figure { name: "b", help: "B", labels: Vec::new(), value },
        ]
    });
    let Exposition { samples, metadata } =
        exposition::parse(&Telemetry::new(vec![source]).render(), &[]).unwrap();
    let families: Vec<String> =
        metadata.iter().map(|m| format!("{} {} {}", m.metric, m.kind, m.help)).collect();
    assert_eq!(families, ["a counter A", "b histogram B"]);
    let text: Vec<String> = samples.iter().map(|(labels, value)| format!("{labels} {value}")).collect();
    assert_eq!(
        text,
        [
            "{__name__=\"a_total\", x=\"q\\\"\\\\\\n}\"} 1",
            "{__name__=\"b_sum\"} 3",
            "{__name__=\"b_count\"} 3",
            "{__name__=\"b_bucket\", le=\"0.5\"} 1",
            "{__name__=\"b_bucket\", le=\"+Inf\"} 3",
        ]
    );
}
