//! Nobody sees what is not theirs: thousands of requests put together by chance, for every kind of caller, and no
//! answer has a word in it that belongs to somebody else.
//!
//! What an answer only repeats of its request does not count; so requests ask for what others have by patterns, too.
//! The seed is printed; `LUMINATE_TEST_LEAK_SEED` takes another.

mod data;
mod requests;
mod target;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use luminate::{
    gateway::{ROUTES, access::Access},
    storage::memory::MemoryStore,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::{
    data::{FORGED, Owner, TEAMS, TENANTS},
    requests::{Dice, Maker, READS, percent, seconds},
    target::{Ask, Target},
};
use crate::{
    clickhouse::{front::Front, schema},
    server::{Options, Server, now_ms},
    token::{self, claims, sign, with},
};

/// Requests at a time.
const THREADS: u64 = 4;

/// One who asks.
struct Caller {
    name: &'static str,
    token: Option<String>,
    /// Whom they say they ask for.
    header: Option<String>,
    /// Whose data they may see.
    sees: Vec<Owner>,
    /// Whether they see all of it.
    all_of_it: bool,
}

fn team(of: usize, name: &str) -> Owner {
    Owner { tenant: of, team: TEAMS.iter().position(|team| *team == name).unwrap() }
}

fn callers() -> Vec<Caller> {
    let of = |tenants: &[usize], filters: &[String]| {
        let names: Vec<&str> = tenants.iter().map(|tenant| TENANTS[*tenant]).collect();
        let mut all = with(claims("", "read"), json!({"tenant": names}));
        if !filters.is_empty() {
            all = with(all, json!({"luminate": {"filters": filters}}));
        }
        (Some(sign(&all)), (tenants.len() > 1).then(|| names.join("|")))
    };
    let caller = |name, tenants: &[usize], filters: &[String], sees: &[Owner]| {
        let (token, header) = of(tenants, filters);
        Caller { name, token, header, sees: sees.to_vec(), all_of_it: true }
    };
    let red = r#"{team="red"}"#.to_owned();
    let (a, b, c) = (0, 1, 2);
    let both = |tenant| TEAMS.map(|name| team(tenant, name));
    let mark = team(c, "red").mark();
    let mut all = vec![
        caller("all of one tenant", &[a], &[], &both(a)),
        caller("all of another", &[b], &[], &both(b)),
        caller("all of a third", &[c], &[], &both(c)),
        caller("one team", &[a], std::slice::from_ref(&red), &[team(a, "red")]),
        caller("one team by a pattern", &[a], &[r#"{team=~"bl.e"}"#.to_owned()], &[team(a, "blue")]),
        caller("all but a team", &[b], &[r#"{__name__=~".+",team!="red"}"#.to_owned()], &[team(b, "blue")]),
        caller(
            "what one of two filters matches",
            &[c],
            &[
                format!(r#"{{team="red",zone="{mark}"}}"#),
                r#"{team="red",__name__!~"dup|native"}"#.to_owned(),
            ],
            &[team(c, "red")],
        ),
        caller("two tenants", &[a, b], &[], &[both(a), both(b)].concat()),
        caller("a team of two tenants", &[a, c], &[red], &[team(a, "red"), team(c, "red")]),
        caller(
            "three tenants by a pattern",
            &[a, b, c],
            &[r#"{team=~"red|nobody"}"#.to_owned()],
            &[team(a, "red"), team(b, "red"), team(c, "red")],
        ),
    ];
    let mut others = [
        caller("nobody's friend", &[a], &[r#"{team="green"}"#.to_owned()], &[]),
        caller("who names others", &[a], &[], &[]),
        caller("who adds others", &[b], &[], &[]),
        caller("a stranger", &[], &[], &[]),
    ];
    others[1].header = Some(TENANTS[b].to_owned());
    others[2].header = Some(format!("{}|{}", TENANTS[b], TENANTS[c]));
    others[3].token = None;
    for mut other in others {
        other.all_of_it = other.name == "nobody's friend";
        all.push(other);
    }
    let elsewhere = Some(sign(&claims("zq-elsewhere", "read")));
    all.push(Caller { name: "elsewhere", token: elsewhere, header: None, sees: vec![], all_of_it: true });
    all
}

impl Caller {
    /// Words that none of their answers may have.
    fn foreign(&self) -> Vec<String> {
        let marks = Owner::all().filter(|owner| !self.sees.contains(owner)).map(Owner::mark);
        let theirs = |tenant: &usize| {
            let named = self.header.as_deref().unwrap_or(TENANTS[0]).contains(TENANTS[*tenant]);
            named || self.sees.iter().any(|owner| owner.tenant == *tenant)
        };
        let tenants = (0..TENANTS.len()).filter(|tenant| !theirs(tenant)).map(|t| TENANTS[t].to_owned());
        marks.chain(tenants).chain([FORGED.to_owned()]).collect()
    }

    fn sign(&self, ask: &mut Ask) {
        ask.headers.extend(self.token.as_ref().map(|token| ("Authorization", format!("Bearer {token}"))));
        ask.headers.extend(self.header.as_ref().map(|header| ("X-Scope-OrgID", header.clone())));
    }

    fn get(&self, target: &Target, path: String) -> Value {
        let mut ask = Ask { method: "GET", path, headers: Vec::new(), body: Vec::new() };
        self.sign(&mut ask);
        let answer = target.send(&ask);
        assert_eq!(answer.status, 200, "{}: {ask:?}: {}", self.name, answer.text());
        answer.json()["data"].clone()
    }
}

fn seed() -> u64 {
    let seed = std::env::var("LUMINATE_TEST_LEAK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    eprintln!("seed {seed}");
    seed
}

/// Asks `count` requests.
fn ask(target: &Target, end: i64, count: usize) {
    let callers = callers();
    let foreign: Vec<Vec<String>> = callers.iter().map(Caller::foreign).collect();
    let seed = seed();
    let (answered, useful) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let seen: Mutex<BTreeSet<(&str, String)>> = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (callers, foreign, seen) = (&callers, &foreign, &seen);
            let (answered, useful) = (&answered, &useful);
            scope.spawn(move || {
                let mut maker = Maker { dice: Dice(seed.wrapping_add(thread << 32)), end };
                let mut found = BTreeSet::new();
                for _ in 0..count.div_ceil(THREADS as usize) {
                    let mut made = maker.make();
                    let place = maker.dice.below(callers.len());
                    let (caller, foreign) = (&callers[place], &foreign[place]);
                    caller.sign(&mut made.ask);
                    if maker.dice.one_in(20) {
                        let name =
                            maker.dice.pick(&["x-scope-orgid", "X-Tenant", "THANOS-TENANT", "AccountID"]);
                        let value =
                            maker.dice.pick(&["zq-gamma", "zq-alpha|zq-gamma", "*", "zq-beta,zq-gamma", "|"]);
                        made.said.push_str(value);
                        made.ask.headers.push((name, value.to_owned()));
                    }
                    let answer = target.send(&made.ask);
                    let text = format!("{}\n{}", answer.head, answer.text());
                    // What was refused is told as it came.
                    let came = |word: &str| match made.route {
                        "/api/v1/status/rejections" => word == FORGED,
                        // Queries are told as others wrote them who may see the same.
                        "/api/v1/status/active_queries" | "/api/v1/status/top_queries" => true,
                        _ => false,
                    };
                    for word in foreign.iter().filter(|word| text.contains(*word) && !came(word)) {
                        assert!(
                            made.said.contains(word),
                            "seed {seed}: {} is told of {word}: {:?}\n{} {text}",
                            caller.name,
                            made.ask,
                            answer.status
                        );
                    }
                    assert!(answer.status < 500 || answer.status == 503, "{:?}: {text}", made.ask);
                    answered.fetch_add(usize::from(answer.status == 200), Ordering::Relaxed);
                    let mut own = caller.sees.iter().map(|owner| owner.mark());
                    let mut is_useful = false;
                    for mark in own.by_ref().filter(|mark| text.contains(mark) && !made.said.contains(mark)) {
                        is_useful = true;
                        found.insert((made.route, mark));
                    }
                    useful.fetch_add(usize::from(is_useful), Ordering::Relaxed);
                }
                seen.lock().extend(found);
            });
        }
    });
    let (answered, useful) = (answered.into_inner(), useful.into_inner());
    eprintln!("{count} requests: {answered} answered, {useful} with what the caller may see");
    // The test can see: what may be told is told, of everybody and on every route that has it.
    assert!(answered > count / 3 && useful > count / 10, "{answered} {useful}");
    let seen = seen.into_inner();
    for route in &READS[..8] {
        for owner in Owner::all() {
            assert!(
                count < 5_000 || seen.contains(&(*route, owner.mark())),
                "{route} never told of {owner:?}"
            );
        }
    }
}

/// Compares what each caller is told with what they may see, to the last series.
fn check(target: &Target, end: i64) {
    for caller in
        callers().iter().filter(|caller| caller.all_of_it && caller.name != "what one of two filters matches")
    {
        let name = caller.name;
        let query = |text: &str| {
            let path = format!("/api/v1/query?query={}&time={}", percent(text), seconds(end));
            let data = caller.get(target, path);
            data["result"][0]["value"][1].as_str().map(str::to_owned)
        };
        let series: usize = caller.sees.iter().map(|owner| owner.series()).sum();
        let sum: u64 = caller.sees.iter().map(|owner| owner.value()).sum();
        let shown = |number: u64| (!caller.sees.is_empty()).then(|| number.to_string());
        assert_eq!(query(r#"count({__name__!=""})"#), shown(series as u64), "{name}");
        assert_eq!(query(r#"count({team!~"x",job!="y",__name__=~".+"})"#), shown(series as u64), "{name}");
        assert_eq!(
            query(r#"count({nothing="",__name__=~".+"} or {team="",__name__=~".+"})"#),
            shown(series as u64),
            "{name}"
        );
        // Who asks for less is told less, and who asks for what others have is told nothing of it.
        for asked in [&["red"][..], &["blue"], &["red", "blue"], &["nobody"]] {
            let theirs = caller.sees.iter().filter(|owner| asked.contains(&TEAMS[owner.team]));
            let expected: usize = theirs.map(|owner| owner.series()).sum();
            let filters = asked
                .iter()
                .map(|team| format!("&extra_filters[]={}", percent(&format!("{{team=\"{team}\"}}"))));
            let filters: String = filters.collect();
            let by_label = format!("&extra_label=team={}", asked[0]);
            for narrowing in [filters].into_iter().chain((asked.len() == 1).then_some(by_label)) {
                let path = "/api/v1/series?match[]=%7B__name__%21%3D%22%22%7D".to_owned() + &narrowing;
                let told = caller.get(target, path);
                assert_eq!(told.as_array().unwrap().len(), expected, "{name} {narrowing}");
                let path = format!(
                    "/api/v1/query/estimate?query={}&time={}{narrowing}",
                    percent(r#"{__name__!=""}"#),
                    seconds(end)
                );
                assert_eq!(caller.get(target, path)["series"], json!(expected), "{name} {narrowing}");
            }
        }
        assert_eq!(query("sum(shared_total)"), shown(sum), "{name}");
        assert_eq!(query("sum(avg_over_time(shared_total[1m]))"), shown(sum), "{name}");
        let mut zones: Vec<String> = caller.sees.iter().map(|owner| owner.mark()).collect();
        zones.push("z".to_owned());
        zones.sort();
        let zones = if caller.sees.is_empty() { json!([]) } else { json!(zones) };
        assert_eq!(caller.get(target, "/api/v1/label/zone/values".to_owned()), zones, "{name}");
        let told = caller.get(target, "/api/v1/series?match[]=%7B__name__%21%3D%22%22%7D".to_owned());
        assert_eq!(told.as_array().unwrap().len(), series, "{name}");
        let told = caller.get(target, "/api/v1/status/tsdb".to_owned());
        assert_eq!(told["headStats"]["numSeries"], json!(series), "{name}");
        let told = caller.get(target, "/api/v1/metadata".to_owned());
        let gauges = told.as_object().unwrap().keys().filter(|metric| metric.ends_with("_gauge")).count();
        assert_eq!(gauges, caller.sees.len(), "{name}");
    }
}

/// What is exported of one tenant, slice by slice, tells nothing of when others have samples.
fn check_plans(target: &Target, end: i64) {
    let plan = |caller: &Caller| {
        let paths = ["15s", "1h", "1d", "7d"].map(|slice| {
            caller.get(target, format!("/api/v1/export/plan?match[]=shared_total&slice={slice}"))
        });
        Value::from(paths.to_vec())
    };
    let callers = callers();
    let before: Vec<Value> = callers[..10].iter().map(&plan).collect();
    let stranger = with(claims("zq-later", "write"), json!({}));
    for at in [end - 40 * 86_400_000, end - 86_400_000 + 1, end + 200_000] {
        let line = json!({"metric": {"__name__": "shared_total"}, "values": [1], "timestamps": [at]});
        let answer = target.send(&Ask {
            method: "POST",
            path: "/api/v1/import".to_owned(),
            headers: vec![("Authorization", format!("Bearer {}", sign(&stranger)))],
            body: format!("{line}\n").into_bytes(),
        });
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    for (caller, before) in callers.iter().zip(before) {
        assert_eq!(plan(caller), before, "{}", caller.name);
    }
}

#[test]
fn every_route_that_reads_is_asked() {
    let reads = |access| matches!(access, Access::Read | Access::Known);
    let routes: BTreeSet<&str> =
        ROUTES.iter().filter(|route| reads(route.access)).map(|route| route.path).collect();
    assert_eq!(routes, READS.into_iter().collect());
}

#[test]
fn nobody_is_told_what_is_not_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let server = token::start(dir.path());
    let (target, end) = (Target::server(&server), now_ms());
    data::write(&target, end);
    check(&target, end);
    check_plans(&target, end);
    ask(&target, end, 10_000);
}

#[test]
fn nobody_is_told_what_is_not_theirs_by_a_store_in_memory() {
    let (target, end) = (Target::router(|clock| MemoryStore::new(clock, None)), now_ms());
    data::write(&target, end);
    check(&target, end);
    check_plans(&target, end);
    ask(&target, end, 10_000);
}

#[test]
fn nobody_is_told_what_is_not_theirs_by_clickhouse() {
    let Some(front) = Front::start() else { return };
    schema::apply(&front);
    let options = Options { quiet: true, ..token::options() }
        .env("LUMINATE_STORAGE__BACKEND", "clickhouse")
        .env("LUMINATE_STORAGE__CLICKHOUSE__ADDRESSES", &front.url)
        .env("LUMINATE_STORAGE__CLICKHOUSE__DATABASE", &front.database)
        .env("LUMINATE_STORAGE__CLICKHOUSE__PUSHDOWN", "force");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &options);
    let (target, end) = (Target::server(&server), now_ms());
    data::write(&target, end);
    check(&target, end);
    ask(&target, end, 120);
}
