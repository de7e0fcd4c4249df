//! What is read again while we run: files and documents that somebody changes under us.
//!
//! Each [part](Reload) is looked at from time to time, and all are read at once when somebody asks (SIGHUP,
//! `POST /-/reload`). What cannot be read leaves everything as it was: that is told once, and shown until it is over.
//! Each time goes to the audit log.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::audit::{Audit, Entry, Outcome};
use crate::{clock::Clock, model::Timestamp, task};

/// Something that is read again.
#[async_trait]
pub trait Reload: fmt::Debug + Send + Sync + 'static {
    /// What it is, for logs and metrics.
    fn name(&self) -> &'static str;

    /// How long until it is looked at the next time.
    fn every(&self) -> Duration;

    /// Reads it, changed or not.
    async fn reload(self: Arc<Self>) -> Result<(), String>;

    /// Looks whether it changed, and reads it then: how that went, or none if there is nothing to tell.
    async fn look(self: Arc<Self>) -> Option<Result<(), String>>;
}

/// How a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it could be read the last time.
    pub successful: bool,
    /// When it was read the last time it could be.
    pub at: Option<Timestamp>,
}

/// All that is read again.
#[derive(Debug)]
pub struct Reloads {
    parts: Vec<(Arc<dyn Reload>, Mutex<Standing>)>,
    audit: Arc<Audit>,
    clock: Arc<dyn Clock>,
}

impl Reloads {
    /// Parts, each of which was read just now or not yet.
    pub fn new(
        parts: Vec<(Arc<dyn Reload>, Option<Timestamp>)>,
        audit: Arc<Audit>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let standing = |at: Option<Timestamp>| Mutex::new(Standing { successful: at.is_some(), at });
        let parts = parts.into_iter().map(|(part, at)| (part, standing(at))).collect();
        Self { parts, audit, clock }
    }

    /// Reads all of it now, or tells what could not be read.
    pub async fn reload(&self) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        for (part, standing) in &self.parts {
            let outcome = Arc::clone(part).reload().await;
            self.note(part.name(), standing, &outcome);
            errors.extend(outcome.err());
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Reads what was not read yet; what cannot be is looked at again.
    pub async fn begin(&self) {
        for (part, standing) in &self.parts {
            if standing.lock().at.is_none() {
                let outcome = Arc::clone(part).reload().await;
                self.settle(part.name(), standing, &outcome);
            }
        }
    }

    /// Looks at each part from time to time, for ever.
    pub async fn run(self: Arc<Self>) {
        let looks = (0..self.parts.len()).map(|i| {
            let all = Arc::clone(&self);
            task::spawn("reload", async move {
                let (part, standing) = &all.parts[i];
                loop {
                    tokio::time::sleep(part.every()).await;
                    if let Some(outcome) = Arc::clone(part).look().await {
                        all.note(part.name(), standing, &outcome);
                    }
                }
            })
        });
        let looks = AbortAll(looks.collect());
        std::future::pending::<()>().await;
        drop(looks);
    }

    fn note(&self, name: &'static str, standing: &Mutex<Standing>, outcome: &Result<(), String>) {
        let (result, detail) = match outcome {
            Ok(()) => (Outcome::Done, ""),
            Err(error) => (Outcome::Failed, error.as_str()),
        };
        self.audit.record(&Entry { action: &format!("reload {name}"), result, detail, ..Entry::default() });
        self.settle(name, standing, outcome);
    }

    fn settle(&self, name: &'static str, standing: &Mutex<Standing>, outcome: &Result<(), String>) {
        let now = self.clock.now();
        let mut standing = standing.lock();
        match outcome {
            Ok(()) => {
                tracing::info!(event = "reloaded", part = name);
                *standing = Standing { successful: true, at: Some(now) };
            }
            Err(error) => {
                tracing::error!(event = "reload_failed", part = name, error, "what was before holds on");
                standing.successful = false;
            }
        }
    }

    /// How each part stands.
    pub fn standings(&self) -> Vec<(&'static str, Standing)> {
        self.parts.iter().map(|(part, standing)| (part.name(), *standing.lock())).collect()
    }
}

/// Ends tasks when dropped.
struct AbortAll(Vec<tokio::task::JoinHandle<()>>);

impl Drop for AbortAll {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::HandClock;

    /// A part that is as it is told to be.
    #[derive(Debug)]
    struct Told(&'static str, Mutex<Result<(), String>>);

    #[async_trait]
    impl Reload for Told {
        fn name(&self) -> &'static str {
            self.0
        }

        fn every(&self) -> Duration {
            Duration::from_millis(1)
        }

        async fn reload(self: Arc<Self>) -> Result<(), String> {
            self.1.lock().clone()
        }

        async fn look(self: Arc<Self>) -> Option<Result<(), String>> {
            Some(self.1.lock().clone())
        }
    }

    #[tokio::test]
    async fn what_fails_is_told_and_shown_until_it_is_over() {
        let clock = HandClock::at(Timestamp(1000));
        let parts = ["a", "b"].map(|name| Arc::new(Told(name, Mutex::new(Ok(())))));
        let all = parts.iter().zip([Some(Timestamp(1)), None]);
        let all = all.map(|(part, at)| (Arc::clone(part) as Arc<dyn Reload>, at)).collect();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        let audit = Arc::new(Audit::to_file(&log, 1 << 20, Arc::clone(&clock) as Arc<dyn Clock>).unwrap());
        let reloads = Arc::new(Reloads::new(all, audit, Arc::clone(&clock) as Arc<dyn Clock>));
        let standing = |successful, at: Option<i64>| Standing { successful, at: at.map(Timestamp) };
        assert_eq!(reloads.standings(), [("a", standing(true, Some(1))), ("b", standing(false, None))]);
        *parts[0].1.lock() = Err("no".to_owned());
        assert_eq!(reloads.reload().await, Err(vec!["no".to_owned()]));
        assert_eq!(
            reloads.standings(),
            [("a", standing(false, Some(1))), ("b", standing(true, Some(1000)))],
            "one does not keep the other"
        );
        let kept = std::fs::read_to_string(&log).unwrap();
        let kept: Vec<&str> = kept.lines().map(|line| &line[line.find("\"action\"").unwrap()..]).collect();
        let failed = r#""action":"reload a","result":"failed","detail":"no"}"#;
        assert_eq!(kept, [failed, r#""action":"reload b","result":"done"}"#]);
        reloads.begin().await;
        assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 2, "all were read before");
        *parts[0].1.lock() = Ok(());
        clock.advance(Duration::from_secs(1));
        let running = task::spawn("test", Arc::clone(&reloads).run());
        while reloads.standings()[0].1 != standing(true, Some(2000)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.abort();
        assert_eq!(reloads.reload().await, Ok(()));
    }
}
