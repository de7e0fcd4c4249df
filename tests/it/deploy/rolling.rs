//! A rolling restart while everybody writes and asks: no request fails, and what was acknowledged is there.
//!
//! The gateways have the configuration of the Kubernetes manifests and are replaced as the manifests say; see
//! [`Fleet`]. nginx has the configuration that is deployed. Clients send every request once. Waiting is a fifth
//! of the manifests', or as it is with `LUMINATE_TEST_ROLLING=full`; the order is the same.

use std::time::Duration;

use super::{fleet::Fleet, kept::Kept};
use crate::{
    clickhouse::{
        proxy::Mode,
        witness::{Witness, get_as},
    },
    nginx::{self, Nginx},
    patience::wait_for,
    token::token,
};

/// How long ClickHouse stands still.
const STANDSTILL: Duration = Duration::from_secs(2);

/// Lets writers and readers work through nginx while the story goes on; no request of theirs fails, and in the
/// end all that was acknowledged is there, each sample once.
fn behind_nginx(story: impl FnOnce(&mut Fleet, &mut Nginx)) {
    if !nginx::have() {
        return;
    }
    let Some(mut fleet) = Fleet::start() else { return };
    let mut nginx = Nginx::start(&fleet.ports());
    let base = nginx.base.clone();
    let witness = Witness::with_token(token("team-a", "read write"));
    witness.watch(std::slice::from_ref(&base), || {
        witness.wait_progress();
        story(&mut fleet, &mut nginx);
        witness.wait_progress();
    });
    println!("{} samples acknowledged", witness.samples());
    assert_eq!((witness.failed_writes(), witness.failed_reads()), (0, 0), "failed writes, and reads");
    witness.check(&base);
}

#[test]
fn a_rolling_restart_behind_nginx_fails_no_request() {
    behind_nginx(|fleet, nginx| {
        fleet.roll(|ports| nginx.turn_to(ports), |old, _| old.server.ask_to_stop());
    });
}

#[test]
fn a_rolling_restart_while_clickhouse_stands_still_fails_no_request() {
    behind_nginx(|fleet, nginx| {
        fleet.roll(
            |ports| nginx.turn_to(ports),
            |old, others| {
                // What was begun waits for ClickHouse everywhere, also where it is told to stop.
                let all = || others.iter().chain([old]);
                all().for_each(|gateway| gateway.proxy.set(Mode::Silent));
                old.server.ask_to_stop();
                std::thread::sleep(STANDSTILL);
                all().for_each(|gateway| gateway.proxy.set(Mode::Pass));
            },
        );
    });
}

#[test]
fn a_query_that_takes_long_is_answered_by_a_gateway_that_is_stopping() {
    behind_nginx(|fleet, nginx| {
        let token = &token("team-a", "read");
        fleet.roll(
            |ports| nginx.turn_to(ports),
            |old, _| {
                wait_for("nginx to ask others", || old.in_flight() == 0);
                old.proxy.set(Mode::Silent);
                std::thread::scope(|scope| {
                    let url = old.url();
                    let asked = scope.spawn(move || {
                        get_as(Some(token), &url, "/api/v1/query", &[("query", "fault"), ("nocache", "1")])
                    });
                    wait_for("the query to be begun", || old.in_flight() == 1);
                    old.server.ask_to_stop();
                    std::thread::sleep(STANDSTILL);
                    assert!(!asked.is_finished(), "ClickHouse has said nothing yet");
                    old.proxy.set(Mode::Pass);
                    let (status, _, text) = asked.join().unwrap().expect("an answer");
                    assert!(status == 200 && text.contains(r#""status":"success""#), "{status}: {text}");
                });
            },
        );
    });
}

#[test]
fn connections_that_are_kept_are_ended_between_requests() {
    let Some(mut fleet) = Fleet::start() else { return };
    let kept = Kept::new(token("team-a", "read write"), fleet.ports());
    kept.watch(|| fleet.roll(|ports| kept.turn_to(ports), |old, _| old.server.ask_to_stop()));
    kept.check(&fleet.gateways[0].url());
}
