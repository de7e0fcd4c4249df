//! What is read again while we run: files and documents that somebody changes under us.
//!
//! Each [part](Reload) is looked at from time to time, and all are read at once when somebody asks (SIGHUP,
//! `POST /-/reload`). What cannot be read leaves everything as it was: that is logged once, and shown until it is over.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;

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

    /// Looks whether it changed, and reads it then: how that went, or none if there is nothing new to tell.
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

/// A part, and when it was read; none if it was not yet.
pub type Part = (Arc<dyn Reload>, Option<Timestamp>);

/// All that is read again.
#[derive(Debug)]
pub struct Reloads {
    parts: Vec<(Arc<dyn Reload>, Mutex<State>)>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    /// What was last logged about it, while it holds.
    wrong: Option<String>,
}

impl Reloads {
    /// Of these parts.
    pub fn new(parts: Vec<Part>, clock: Arc<dyn Clock>) -> Self {
        let state = |at: Option<Timestamp>| {
            Mutex::new(State { standing: Standing { successful: at.is_some(), at }, wrong: None })
        };
        let parts = parts.into_iter().map(|(part, at)| (part, state(at))).collect();
        Self { parts, clock }
    }

    /// Reads all of it now, or tells what could not be read.
    pub async fn reload(&self) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        for (part, state) in &self.parts {
            let outcome = Arc::clone(part).reload().await;
            state.lock().wrong = None;
            self.note(part.name(), state, &outcome);
            errors.extend(outcome.err());
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Reads what was not read yet; what cannot be is logged, and looked at again in its time.
    pub async fn read_first(&self) {
        for (part, state) in &self.parts {
            if state.lock().standing.at.is_none() {
                let outcome = Arc::clone(part).reload().await;
                self.note(part.name(), state, &outcome);
            }
        }
    }

    /// Looks at each part from time to time, for ever.
    pub async fn run(self: Arc<Self>) {
        let looks = (0..self.parts.len()).map(|i| {
            let all = Arc::clone(&self);
            task::spawn("reload", async move {
                let (part, state) = &all.parts[i];
                loop {
                    tokio::time::sleep(part.every()).await;
                    if let Some(outcome) = Arc::clone(part).look().await {
                        all.note(part.name(), state, &outcome);
                    }
                }
            })
        });
        let looks = AbortAll(looks.collect());
        std::future::pending::<()>().await;
        drop(looks);
    }

    fn note(&self, name: &'static str, state: &Mutex<State>, outcome: &Result<(), String>) {
        let now = self.clock.now();
        let mut state = state.lock();
        match outcome {
            Ok(()) => {
                tracing::info!(event = "reloaded", part = name);
                *state = State { standing: Standing { successful: true, at: Some(now) }, wrong: None };
            }
            Err(error) => {
                state.standing.successful = false;
                if state.wrong.as_ref() != Some(error) {
                    tracing::error!(event = "reload_failed", part = name, error, "what was before holds on");
                    state.wrong = Some(error.clone());
                }
            }
        }
    }

    /// How each part stands.
    pub fn standings(&self) -> Vec<(&'static str, Standing)> {
        self.parts.iter().map(|(part, state)| (part.name(), state.lock().standing)).collect()
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
        let reloads = Arc::new(Reloads::new(all, Arc::clone(&clock) as Arc<dyn Clock>));
        let standing = |successful, at: Option<i64>| Standing { successful, at: at.map(Timestamp) };
        assert_eq!(reloads.standings(), [("a", standing(true, Some(1))), ("b", standing(false, None))]);
        reloads.read_first().await;
        assert_eq!(reloads.standings(), [("a", standing(true, Some(1))), ("b", standing(true, Some(1000)))]);
        *parts[0].1.lock() = Err("no".to_owned());
        assert_eq!(reloads.reload().await, Err(vec!["no".to_owned()]));
        assert_eq!(
            reloads.standings(),
            [("a", standing(false, Some(1))), ("b", standing(true, Some(1000)))],
            "one does not keep the other"
        );
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
