//! The threads that queries are evaluated on.
//!
//! A query has a thread of its own, and rayon's for helpers. Which of two queries' threads the processor is given to is
//! the system's business, as beside those that take connections and samples. So a thread that works for a tenant who has
//! computed much of late, while others want something, too, [lowers](lower) its priority: whoever has little to do is then
//! served first, however many of the others there are.
//!
//! ```text
//! Normal   serves ──▶ serves ──▶ lowers itself
//!                                     │  there is no way back
//! Low                                 └──▶ serves ──▶ serves ──▶ ends, idle for a while
//! ```

use std::{
    any::Any,
    cell::Cell,
    collections::VecDeque,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::{Condvar, Mutex};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use super::parse::STACK_BYTES;
use crate::task::priority;

/// How long a thread waits for something to do before it ends.
const IDLE: Duration = Duration::from_secs(10);

thread_local! {
    /// Which priority this thread has; none if it is not one of these.
    static PRIORITY: Cell<Option<Priority>> = const { Cell::new(None) };
}

/// Which threads the system prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// As any other.
    Normal,
    /// After all others.
    Low,
}

/// All threads that evaluate.
pub struct Threads {
    own: Arc<Own>,
    normal: ThreadPool,
    low: ThreadPool,
}

/// Threads that have a query of their own.
#[derive(Default)]
struct Own {
    normal: Lane,
    low: Lane,
}

#[derive(Default)]
struct Lane {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job and have not been given one.
    idle: usize,
}

type Job = Box<dyn FnOnce() + Send>;

/// What a job came to, or what it panicked with.
type Outcome<T> = Result<T, Box<dyn Any + Send>>;

impl Threads {
    /// As many helpers at a time as there are places, and as many threads as there are queries.
    pub fn new(places: usize) -> io::Result<Self> {
        let helpers = |priority, name: &'static str| {
            ThreadPoolBuilder::new()
                // For a moment there are helpers who begin, and as many who have not yet left.
                .num_threads(2 * places)
                .thread_name(move |i| format!("{name}-{i}"))
                .stack_size(STACK_BYTES)
                .start_handler(move |_| begin(priority))
                .build()
                .map_err(io::Error::other)
        };
        Ok(Self {
            own: Arc::default(),
            normal: helpers(Priority::Normal, "promql")?,
            low: helpers(Priority::Low, "promql-low")?,
        })
    }

    /// Where helpers of a priority are.
    pub fn helpers(&self, priority: Priority) -> &ThreadPool {
        match priority {
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }

    /// Does something on a thread of its own. An error is what it panicked with, or that it could not be begun.
    ///
    /// It is done whether anybody waits for it or not.
    pub fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, String>> {
        let (send, done) = oneshot::channel::<Outcome<T>>();
        let job = Box::new(move || {
            // Who does not wait any more does not need it.
            drop(send.send(catch_unwind(AssertUnwindSafe(work))));
        });
        let begun = Own::give(&self.own, priority, job);
        Box::pin(async move {
            begun.map_err(|error| format!("no thread can be started: {error}"))?;
            match done.await {
                Ok(Ok(done)) => Ok(done),
                Ok(Err(panic)) => Err(said(&*panic)),
                Err(_) => Err("the thread is gone".to_owned()),
            }
        })
    }
}

/// What a panic said.
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("of something"))
}

impl Own {
    fn lane(&self, priority: Priority) -> &Lane {
        match priority {
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }

    fn give(own: &Arc<Self>, priority: Priority, job: Job) -> io::Result<()> {
        let lane = own.lane(priority);
        let mut waiting = lane.waiting.lock();
        if waiting.idle > 0 {
            waiting.idle -= 1;
            waiting.jobs.push_back(job);
            lane.bell.notify_one();
            return Ok(());
        }
        drop(waiting);
        let shared = Arc::clone(own);
        let thread = thread::Builder::new().name("promql".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || shared.serve(priority, job)).map(drop)
    }

    /// The life of a thread.
    fn serve(&self, priority: Priority, first: Job) {
        begin(priority);
        let mut job = Some(first);
        while let Some(next) = job {
            next();
            job = self.lane(PRIORITY.get().unwrap_or(priority)).next();
        }
    }
}

impl Lane {
    /// Waits for something to do; none if there is nothing for long.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        waiting.idle += 1;
        while waiting.jobs.is_empty() {
            // Who is called as its time is over takes its job.
            if self.bell.wait_for(&mut waiting, IDLE).timed_out() && waiting.jobs.is_empty() {
                waiting.idle -= 1;
                break;
            }
        }
        waiting.jobs.pop_front()
    }
}

fn begin(priority: Priority) {
    PRIORITY.set(Some(Priority::Normal));
    if priority == Priority::Low {
        lower();
    }
}

/// Lowers the priority of this thread for good, if it is one that evaluates.
pub fn lower() {
    if PRIORITY.get() != Some(Priority::Normal) {
        return;
    }
    PRIORITY.set(Some(Priority::Low));
    if let Err(error) = priority::lower() {
        tracing::debug!(%error, "the priority of a thread cannot be lowered");
    }
}

/// Lets others have this thread's processor if its priority is low.
///
/// Systems that preempt lazily take it from a thread that computes only with their next tick, milliseconds later.
#[inline]
pub fn give_way() {
    if PRIORITY.get() == Some(Priority::Low) {
        thread::yield_now();
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle = |lane: &Lane| lane.waiting.lock().idle;
        let mut text = f.debug_struct("Threads");
        text.field("idle", &idle(&self.own.normal)).field("idle_low", &idle(&self.own.low));
        text.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread::ThreadId;

    use super::*;
    #[cfg(target_os = "linux")]
    use crate::task::priority::NICER;

    fn idle(threads: &Threads, priority: Priority) -> usize {
        threads.own.lane(priority).waiting.lock().idle
    }

    /// Does something, and waits until its thread has nothing to do.
    async fn done<T: Send + 'static>(
        threads: &Threads,
        priority: Priority,
        ends: Priority,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let done = threads.run(priority, work).await;
        while idle(threads, ends) == 0 {
            tokio::task::yield_now().await;
        }
        done
    }

    #[cfg(target_os = "linux")]
    fn nice() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[tokio::test]
    async fn a_thread_serves_one_after_the_other() {
        let threads = Threads::new(1).unwrap();
        let here = || thread::current().id();
        let first = done(&threads, Priority::Normal, Priority::Normal, here).await.unwrap();
        let second = done(&threads, Priority::Normal, Priority::Normal, here).await.unwrap();
        assert_eq!((first, idle(&threads, Priority::Normal)), (second, 1));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_thread_that_lowered_itself_serves_the_low_from_then_on() {
        let threads = Threads::new(1).unwrap();
        let before = nice();
        let lowered = || {
            lower();
            lower();
            (thread::current().id(), nice())
        };
        let (first, lowered): (ThreadId, i32) =
            done(&threads, Priority::Normal, Priority::Low, lowered).await.unwrap();
        assert_eq!((lowered, idle(&threads, Priority::Normal)), (before + NICER, 0));
        let here = || (thread::current().id(), nice());
        let (low, nice_of_low) = done(&threads, Priority::Low, Priority::Low, here).await.unwrap();
        assert_eq!((low, nice_of_low), (first, lowered));
        let (other, normal) = done(&threads, Priority::Normal, Priority::Normal, here).await.unwrap();
        assert!(other != first && normal == before);
        assert_eq!(threads.helpers(Priority::Low).install(nice), lowered);
        assert_eq!((threads.helpers(Priority::Normal).install(nice), nice()), (before, before));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_of_somebody_else_keeps_its_priority() {
        let before = nice();
        lower();
        assert_eq!(nice(), before);
    }

    #[tokio::test]
    async fn who_panics_tells_why_and_the_thread_goes_on() {
        let threads = Threads::new(1).unwrap();
        let failed = done::<()>(&threads, Priority::Normal, Priority::Normal, || panic!("no {}", 7)).await;
        assert_eq!(failed.unwrap_err(), "panicked: no 7");
        assert_eq!(done(&threads, Priority::Normal, Priority::Normal, || 7).await, Ok(7));
        assert_eq!(idle(&threads, Priority::Normal), 1);
    }
}
