//! Inserts that are sent again.

use bytes::Bytes;

use super::*;
use crate::storage::{Fault, StorageError};

fn insert() -> Insert {
    Insert { into: "samples (n)", rows: Bytes::from(numbers(0..1000)), token: "token-1".to_owned() }
}

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_insert_is_one_frame_and_asks_to_be_taken_once() {
    let server = Server::start(|_, _| Answer::Whole(Vec::new()));
    let servers = client(&[server.url()]);
    servers.insert(&insert()).await.unwrap();
    let [sent] = &server.seen()[..] else { panic!("one insert was sent") };
    for (name, value) in [
        ("query", "INSERT INTO samples (n) FORMAT RowBinary"),
        ("decompress", "1"),
        ("insert_deduplicate", "1"),
        ("insert_deduplication_token", "token-1"),
        ("deduplicate_blocks_in_dependent_materialized_views", "1"),
        ("async_insert", "0"),
        ("max_insert_block_size", "1048449"),
        ("min_insert_block_size_rows", "1048449"),
        ("min_insert_block_size_bytes", "0"),
        ("log_comment", "luminate insert into samples"),
    ] {
        assert_eq!(sent.setting(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(sent.chunks, 1);
    // After 16 bytes of checksum: LZ4, the frame's size from here on, the rows' size.
    let size = |at: usize| u32::from_le_bytes(sent.body[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((sent.body[16], size(17) + 16, size(21)), (0x82, sent.body.len(), 8000));
}

#[tokio::test]
async fn replicas_are_waited_for_if_asked() {
    for (quorum, sent) in [("1", None), ("auto", Some("auto")), ("2", Some("2"))] {
        let server = Server::start(|_, _| Answer::Whole(Vec::new()));
        let ask = |config: &mut ClickHouseConfig| config.insert_quorum = quorum.to_owned();
        let servers = client_with(&[server.url()], SystemClock::start(), ask);
        servers.insert(&insert()).await.unwrap();
        assert_eq!(server.seen()[0].setting("insert_quorum").as_deref(), sent);
    }
}

#[tokio::test]
async fn every_attempt_carries_the_same_on_every_server() {
    let failing = |request: &Request, before: usize| match before {
        _ if request.is_probe() => Answer::Whole(Vec::new()),
        0 => Answer::Drop,
        1 => Answer::Fail(242),
        _ => Answer::Whole(Vec::new()),
    };
    let servers = [Server::start(failing), Server::start(failing)];
    let client = client(&[servers[0].url(), servers[1].url()]);
    client.insert_within(&insert(), LIMIT).await.unwrap();
    let seen: Vec<_> = servers.iter().flat_map(Server::seen).collect();
    assert_eq!(seen.len(), 5);
    assert!(servers.iter().all(|server| server.seen().len() >= 2), "they take turns");
    for request in &seen {
        assert_eq!(request.setting("insert_deduplication_token").as_deref(), Some("token-1"));
        assert_eq!(request.body, seen[0].body);
    }
}

#[tokio::test]
async fn a_body_that_is_not_read_to_its_end_is_sent_again() {
    // Large enough that it does not fit into the buffers of a connection that nobody reads.
    let rows: Vec<u8> =
        (0..8_000_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]).collect();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 1000]);
        }
    });
    let server = Server::start(|_, _| Answer::Whole(Vec::new()));
    let client = client(&[deaf, server.url()]);
    for _ in 0..3 {
        client.insert_within(&Insert { rows: rows.clone().into(), ..insert() }, LIMIT).await.unwrap();
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|request| request.body == seen[0].body));
}

#[tokio::test]
async fn what_cannot_pass_fails_at_once() {
    for (code, class) in
        [(60, Class::Schema), (516, Class::Denied), (497, Class::Denied), (62, Class::Broken)]
    {
        let servers = [(); 2].map(|()| Server::start(move |_, _| Answer::Fail(code)));
        let client = client(&[servers[0].url(), servers[1].url()]);
        let failure = client.insert_within(&insert(), LIMIT).await.unwrap_err();
        assert_eq!(failure.class, class);
        assert_eq!(StorageError::from(failure).fault(), Fault::Ours);
        assert_eq!(servers[0].seen().len() + servers[1].seen().len(), 1);
    }
}

#[tokio::test]
async fn a_sender_is_never_to_blame_for_a_server() {
    for code in [159, 241, 252, 202, 242, 164, 210, 999, 319] {
        let server = Server::start(healthy(move |_, _| Answer::Fail(code)));
        let servers = client(&[server.url()]);
        let failure = servers.insert_within(&insert(), Duration::from_millis(20)).await.unwrap_err();
        let retry_after = failure.retry_after.unwrap();
        assert!((5..=30).contains(&retry_after.as_secs()));
        assert_eq!(StorageError::from(failure).fault(), Fault::Passing, "{code}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_does_not_take_the_time_of_another() {
    let servers = [
        Server::start(healthy(|_, _| Answer::Hang(Vec::new()))),
        Server::start(|_, _| Answer::Whole(Vec::new())),
    ];
    let client = client(&[servers[0].url(), servers[1].url()]);
    for _ in 0..2 {
        client.insert_within(&insert(), Duration::from_secs(4)).await.unwrap();
    }
    assert_eq!(servers[1].seen().len(), 2);
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_long_before_the_time_is_over() {
    let servers =
        [Server::start(|_, _| Answer::Hang(Vec::new())), Server::start(|_, _| Answer::Whole(Vec::new()))];
    let client = client(&[servers[0].url(), servers[1].url()]);
    for _ in 0..3 {
        // Half of this is more than a test may take.
        client.insert_within(&insert(), Duration::from_secs(86_400)).await.unwrap();
    }
    assert_eq!((servers[0].seen().len(), servers[1].seen().len()), (1, 3));
    assert_ne!(client.endpoints()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn an_insert_gives_up_when_its_time_is_over_though_the_clock_stands_still() {
    let server = Server::start(healthy(|_, _| Answer::Fail(252)));
    let servers = client_with(&[server.url()], still(), |_| {});
    let failure = servers.insert_within(&insert(), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Overloaded, Some(252)));
}

#[tokio::test]
async fn when_no_server_answers_nothing_is_sent() {
    let servers = client(&[nobody()]);
    for _ in 0..3 {
        assert_eq!(servers.insert_within(&insert(), LIMIT).await.unwrap_err().class, Class::Unreachable);
    }
    assert_eq!(servers.endpoints()[0].breaker, BreakerState::Open);
    let count = |name| servers.counters().all().into_iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!((count("requests"), count("inserted_bytes"), count("refused")), (5, 0, 2));
}

#[tokio::test]
async fn nothing_is_inserted_without_asking() {
    let servers = client(&[nobody()]);
    servers.insert(&Insert { rows: Bytes::new(), ..insert() }).await.unwrap();
}
