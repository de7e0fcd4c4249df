//! Reads, and what changes something but is no insert.

use super::*;
use crate::storage::{Fault, StorageError};

#[tokio::test]
async fn rows_come_in_however_they_are_cut() {
    let bytes = numbers(0..50);
    for size in [1, 3, 8, 100, 400] {
        let pieces: Vec<_> = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        let server = Server::start(move |_, _| Answer::Pieces(pieces.clone(), None));
        assert_eq!(ask(&client(&[server.url()])).await.unwrap(), (0..50).collect::<Vec<_>>());
    }
    let server = Server::start(|_, _| Answer::Whole(Vec::new()));
    assert_eq!(ask(&client(&[server.url()])).await.unwrap(), [0_u64; 0]);
}

#[tokio::test]
async fn a_statement_carries_who_asks_and_what_it_may_take() {
    let server = Server::start(|_, _| Answer::Whole(Vec::new()));
    let servers = client_with(&[server.url()], still(), |config| {
        config.password = Some(crate::storage::clickhouse::config::Secret("sesame".to_owned()));
        config.query_timeout = Duration::from_secs(100);
    });
    let plain = Statement::new("SELECT {tenant:String}").param("tenant", "ac me").setting("max_threads", 2);
    servers.rows(&plain).await.unwrap();
    servers.run(&Statement::new("CREATE x")).await.unwrap();
    let [read, run] = &server.seen()[..] else { panic!("two statements were sent") };
    for (name, value) in [
        ("database", "luminate"),
        ("default_format", "RowBinary"),
        ("max_execution_time", "90"),
        ("max_memory_usage", "4294967296"),
        ("max_threads", "2"),
        ("cancel_http_readonly_queries_on_client_close", "1"),
        ("log_comment", "luminate tenant=ac me"),
    ] {
        assert_eq!(read.setting(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(read.target.matches("max_threads").count(), 1);
    assert!(read.headers.contains("x-clickhouse-user: default"), "{}", read.headers);
    assert!(read.headers.contains("x-clickhouse-key: sesame"));
    assert!(read.headers.contains("user-agent: luminate/"));
    assert!(read.text().contains("ac me") && !read.target.contains("SELECT"));
    assert_eq!(run.setting("max_memory_usage"), None);
    let ids = [read, run].map(|request| request.setting("query_id").unwrap());
    assert!(ids[0].starts_with("luminate-") && ids[0] != ids[1], "{ids:?}");
}

#[tokio::test]
async fn a_read_goes_on_to_a_server_that_answers() {
    for bad in [Answer::Drop, Answer::Fail(202), Answer::Fail(210), Answer::Status("502 Bad Gateway", "")] {
        let said = bad.clone();
        let servers = [
            Server::start(healthy(move |_, _| bad.clone())),
            Server::start(|_, _| Answer::Whole(numbers([7]))),
        ];
        let client = client(&[servers[0].url(), servers[1].url()]);
        for _ in 0..4 {
            assert_eq!(ask(&client).await.unwrap(), [7], "{said:?}");
        }
        assert!(!servers[0].seen().is_empty());
        assert_eq!(servers[1].seen().len(), 4);
    }
    let server = Server::start(|_, _| Answer::Whole(numbers([7])));
    let client = client(&[nobody(), server.url()]);
    for _ in 0..4 {
        assert_eq!(ask(&client).await.unwrap(), [7]);
    }
}

#[tokio::test]
async fn a_single_server_is_asked_twice() {
    let server = Server::start(|_, before| match before {
        0 => Answer::Drop,
        _ => Answer::Whole(numbers([7])),
    });
    assert_eq!(ask(&client(&[server.url()])).await.unwrap(), [7]);
    let server = Server::start(|_, _| Answer::Fail(202));
    let failure = ask(&client(&[server.url()])).await.unwrap_err();
    assert_eq!((failure.class, server.seen().len()), (Class::Overloaded, 2));
    let StorageError::Overloaded { retry_after, .. } = failure.into() else { panic!("it is overloaded") };
    assert!((5..=30).contains(&retry_after.as_secs()));
}

#[tokio::test]
async fn what_no_server_will_do_is_asked_once() {
    for (code, class, fault) in [
        (60, Class::Schema, Fault::Ours),
        (516, Class::Denied, Fault::Ours),
        (62, Class::Broken, Fault::Ours),
        (159, Class::Exhausted, Fault::Caller),
    ] {
        let servers = [(); 2].map(|()| Server::start(move |_, _| Answer::Fail(code)));
        let client = client(&[servers[0].url(), servers[1].url()]);
        let failure = ask(&client).await.unwrap_err();
        assert_eq!((failure.class, failure.code), (class, Some(code)));
        assert_eq!(StorageError::from(failure).fault(), fault);
        assert_eq!(servers[0].seen().len() + servers[1].seen().len(), 1);
    }
}

#[tokio::test]
async fn a_caller_is_told_the_bound_it_hit() {
    let server = Server::start(|_, _| Answer::Fail(241));
    let failure = ask(&client(&[server.url()])).await.unwrap_err();
    assert_eq!(
        StorageError::from(failure).to_string(),
        "the query takes more memory in ClickHouse than it may (max_memory_usage = 4294967296)"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_is_not_asked_for_again() {
    for cut in [3, 8, 20] {
        let servers = [(); 2].map(|()| Server::start(move |_, _| Answer::Cut(numbers(0..9)[..cut].to_vec())));
        let client = client(&[servers[0].url(), servers[1].url()]);
        let mut rows = client.rows(&Statement::new("SELECT n")).await.unwrap();
        for n in 0..cut as u64 / 8 {
            assert_eq!(rows.next(number).await.unwrap(), Some(n));
        }
        let failure = rows.next(number).await.unwrap_err();
        assert_eq!(failure.class, Class::Unreachable);
        assert!(rows.next(number).await.is_err(), "it stays broken");
        assert_eq!(servers[0].seen().len() + servers[1].seen().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_ends_within_a_row_is_an_error() {
    let server = Server::start(|_, _| Answer::Whole(numbers(0..2)[..11].to_vec()));
    let failure = ask(&client(&[server.url()])).await.unwrap_err();
    assert_eq!(failure.class, Class::Unreachable);
    assert!(failure.message.contains("3 bytes"), "{failure}");
}

#[tokio::test]
async fn an_exception_among_the_rows_is_found() {
    let message = "Code: 241. DB::Exception: no (MEMORY_LIMIT_EXCEEDED) (version 26.9)\n";
    let new = format!("\r\n__exception__\r\nabcd\r\n{message}{} abcd\r\n__exception__\r\n", message.len());
    let old = "Code: 241. DB::Exception: no (version 24.8 (official build))\n".to_owned();
    for (text, tag) in [(new, Some("abcd")), (old, None)] {
        for cut in [0, 1, 20, 40, text.len() - 2] {
            let (first, second) = text.split_at(cut);
            let mut pieces = vec![numbers(0..4), first.into(), second.into()];
            pieces.retain(|piece| !piece.is_empty());
            let server = Server::start(healthy(move |_, _| Answer::Pieces(pieces.clone(), tag)));
            let failure = ask(&client(&[server.url()])).await.unwrap_err();
            assert_eq!((failure.code, failure.class), (Some(241), Class::Exhausted), "{tag:?} {cut}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_silent_is_given_up_and_told() {
    let server = Server::start(|request, _| {
        if request.is_kill() || request.is_probe() {
            Answer::Whole(Vec::new())
        } else {
            Answer::Hang(Vec::new())
        }
    });
    let servers = client(&[server.url()]);
    let statement = Statement::new("SELECT n").timeout(Duration::from_millis(300));
    let failure = servers.rows(&statement).await.unwrap_err();
    assert_eq!((failure.class, server.seen().len()), (Class::Unreachable, 1));
    until(|| !server.kills().is_empty() && server.left() == 1).await;
    let id = server.seen()[0].setting("query_id").unwrap();
    assert!(server.kills()[0].text().contains(&id));
}

#[tokio::test]
async fn an_answer_that_stops_coming_is_given_up() {
    let server = Server::start(healthy(|_, _| Answer::Hang(numbers([1]))));
    let servers = client(&[server.url()]);
    let statement = Statement::new("SELECT n").timeout(Duration::from_millis(500));
    let mut rows = servers.rows(&statement).await.unwrap();
    assert_eq!(rows.next(number).await.unwrap(), Some(1));
    assert_eq!(rows.next(number).await.unwrap_err().class, Class::Unreachable);
    until(|| !server.kills().is_empty()).await;
}

#[tokio::test]
async fn what_nobody_waits_for_is_ended_on_the_server() {
    let server = Server::start(healthy(|_, before| {
        if before == 0 { Answer::Hang(numbers([1])) } else { Answer::Hang(Vec::new()) }
    }));
    let servers = client(&[server.url()]);
    let mut rows = servers.rows(&Statement::new("SELECT n")).await.unwrap();
    assert_eq!(rows.next(number).await.unwrap(), Some(1));
    assert_eq!(servers.endpoints()[0].in_flight, 1);
    drop(rows);
    assert_eq!(servers.endpoints()[0].in_flight, 0);
    until(|| server.left() == 1 && server.kills().len() == 1).await;
    // Also before anything has come in.
    tokio::select! {
        _ = ask(&servers) => panic!("nothing comes"),
        () = until(|| server.seen().len() == 2) => {}
    }
    until(|| server.left() == 2 && server.kills().len() == 2).await;
    assert_eq!(servers.endpoints()[0].last_failure, None, "a caller that goes away is no failure");
}

#[tokio::test]
async fn what_was_read_to_its_end_is_not_ended_again() {
    let server = Server::start(healthy(|_, _| Answer::Whole(numbers([1]))));
    let servers = client(&[server.url()]);
    ask(&servers).await.unwrap();
    let kills = servers.counters().all().into_iter().find(|(name, _)| *name == "kills").unwrap();
    assert_eq!(kills.1, 0);
}

#[tokio::test]
async fn statements_go_where_the_least_is_under_way() {
    let servers = [(); 2].map(|()| {
        Server::start(healthy(|request, _| {
            if request.text() == "SELECT slow" {
                Answer::Hang(numbers([1]))
            } else {
                Answer::Whole(numbers([7]))
            }
        }))
    });
    let client = client(&[servers[0].url(), servers[1].url()]);
    let slow = client.rows(&Statement::new("SELECT slow")).await.unwrap();
    let busy = usize::from(servers[0].seen().is_empty());
    for _ in 0..6 {
        ask(&client).await.unwrap();
    }
    assert_eq!((servers[busy].seen().len(), servers[1 - busy].seen().len()), (1, 6));
    drop(slow);
}

#[tokio::test]
async fn what_changes_something_is_not_sent_twice() {
    for bad in [Answer::Drop, Answer::Fail(210), Answer::Fail(202)] {
        let servers = [(); 2].map(|()| {
            let bad = bad.clone();
            Server::start(move |_, _| bad.clone())
        });
        let client = client(&[servers[0].url(), servers[1].url()]);
        assert!(client.run(&Statement::new("ALTER x")).await.unwrap_err().class.may_pass());
        assert_eq!(servers[0].seen().len() + servers[1].seen().len(), 1);
    }
    let server = Server::start(|_, _| Answer::Whole(Vec::new()));
    let client = client(&[nobody(), server.url()]);
    for _ in 0..3 {
        client.run(&Statement::new("ALTER x")).await.unwrap();
    }
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_change_that_takes_too_long_is_left_alone() {
    let server = Server::start(healthy(|_, _| Answer::Hang(Vec::new())));
    let servers = client(&[server.url()]);
    let statement = Statement::new("ALTER x").timeout(Duration::from_millis(200));
    assert_eq!(servers.run(&statement).await.unwrap_err().class, Class::Unreachable);
    assert!(server.kills().is_empty());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_statement_that_no_server_reads_is_not_sent() {
    let server = Server::start(|_, _| Answer::Whole(Vec::new()));
    let servers = client(&[server.url()]);
    let statement = Statement::new("SELECT {x:String}").param("x", "x".repeat(MAX_FIELD_BYTES + 1));
    assert_eq!(servers.rows(&statement).await.unwrap_err().class, Class::Broken);
    assert_eq!(servers.run(&statement).await.unwrap_err().class, Class::Broken);
    assert!(server.seen().is_empty());
}
