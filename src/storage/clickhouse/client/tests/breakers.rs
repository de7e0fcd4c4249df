//! Servers that go away and come back.

use super::*;
use crate::storage::StorageError;

#[tokio::test]
async fn a_server_that_does_not_answer_is_left_alone_and_found_again() {
    let (address, port) = {
        let address = nobody();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        (address, port)
    };
    let clock = still();
    let servers = client_with(&[address], Arc::<HandClock>::clone(&clock), |_| {});
    for _ in 0..3 {
        assert_eq!(ask(&servers).await.unwrap_err().class, Class::Unreachable);
    }
    assert_eq!(servers.endpoints()[0].breaker, BreakerState::Open);
    assert_eq!(servers.endpoints()[0].last_failure.unwrap().class, Class::Unreachable);

    // It is back, but the time to look has not come.
    let server = Server::start_at(port, None, |_, _| Answer::Whole(numbers([7])));
    for _ in 0..3 {
        let failure = ask(&servers).await.unwrap_err();
        assert!((5..=30).contains(&failure.retry_after.unwrap().as_secs()));
        let StorageError::Unavailable { retry_after: Some(_), detail } = failure.into() else {
            panic!("it is out of reach")
        };
        assert_eq!(detail, "ClickHouse is out of reach");
    }
    assert!(server.seen().is_empty());
    clock.advance(Duration::from_secs(2));
    until(|| servers.endpoints()[0].breaker == BreakerState::Closed).await;
    assert_eq!(ask(&servers).await.unwrap(), [7]);
}

#[tokio::test]
async fn it_stays_away_as_long_as_probes_fail() {
    let server = Server::start(|_, _| Answer::Drop);
    let clock = still();
    let servers = client_with(&[server.url()], Arc::<HandClock>::clone(&clock), |_| {});
    for _ in 0..3 {
        assert!(ask(&servers).await.is_err());
    }
    let count = |name| servers.counters().all().into_iter().find(|(n, _)| *n == name).unwrap().1;
    for round in 1..4 {
        assert_eq!(count("probe_failures"), round - 1);
        clock.advance(Duration::from_secs(2));
        until(|| count("probe_failures") == round).await;
        until(|| servers.endpoints()[0].breaker == BreakerState::Open).await;
    }
    assert_eq!((count("breaker_opens"), server.seen().len()), (1, 5));
}

#[tokio::test]
async fn a_server_that_says_no_is_there() {
    // Also if it has lost its keeper, its storage or another server, none of which reads may need.
    for code in [241, 159, 158, 396, 202, 252, 60, 516, 999, 242, 319, 499, 210] {
        let server = Server::start(move |_, _| Answer::Fail(code));
        let servers = client(&[server.url()]);
        for _ in 0..6 {
            assert!(ask(&servers).await.is_err());
        }
        assert_eq!(servers.endpoints()[0].breaker, BreakerState::Closed, "{code}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_and_another_answers() {
    let servers = [
        Server::start(|_, _| Answer::Hang(Vec::new())),
        Server::start(healthy(|_, _| Answer::Whole(numbers([7])))),
    ];
    let client = client(&[servers[0].url(), servers[1].url()]);
    for _ in 0..4 {
        assert_eq!(ask(&client).await.unwrap(), [7]);
    }
    assert_eq!(servers[0].seen().len(), 1);
    assert_ne!(client.endpoints()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_while_the_server_answers_others() {
    let server = Server::start(healthy(|_, _| Answer::Hang(Vec::new())));
    let servers = client(&[server.url()]);
    let count = |name| servers.counters().all().into_iter().find(|(n, _)| *n == name).unwrap().1;
    tokio::select! {
        _ = ask(&servers) => panic!("nothing comes"),
        () = until(|| count("probes") >= 3) => {}
    }
    assert_eq!(servers.endpoints()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn probing_ends_with_the_client() {
    let servers = client(&[nobody()]);
    for _ in 0..3 {
        assert!(ask(&servers).await.is_err());
    }
    assert_eq!(servers.endpoints()[0].breaker, BreakerState::Open);
    let endpoint = Arc::downgrade(&servers.endpoints[0]);
    drop(servers);
    until(|| endpoint.strong_count() == 0).await;
}
