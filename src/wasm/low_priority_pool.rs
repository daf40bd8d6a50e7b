//! Threads of low priority, for decisions that use much CPU time.
//!
//! A decision starts on the thread that serves its connection, because most decisions end within microseconds. A guest that uses much CPU
//! time would delay the streams on that thread, so its decision moves to this pool.

use std::fmt::Display;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::Poll;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::policy::Failure;
use crate::util::scheduling;
use crate::wasm::cpu_budget::CpuBudget;

/// High enough that a thread that serves connections runs first whenever it has work.
const NICENESS: i32 = 10;

/// One thread per core, created on first use. An error is permanent: without the pool, decisions that need it fail.
static POOL: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    // Poll the global queue on every tick so that newly moved tasks run first. A well-behaved decision that lands here is almost done; with
    // tokio's default interval (61) it would wait for CPU-bound guests.
    runtime("policy-slow", NICENESS).global_queue_interval(1).build()
});

/// Threads that give memory back to the system run after those that serve connections, and before policies that use much CPU time: decisions
/// wait for what an instance holds.
const HEAVY_TEARDOWN_NICENESS: i32 = 5;
/// The same for amounts of memory whose system call takes milliseconds. Linux lets a thread of nearly the same priority complete its time
/// slice before one that wakes up: with 5, each such call delayed those that serve connections by up to 3 ms.
const HUGE_TEARDOWN_NICENESS: i32 = 15;

/// The threads for [`Teardown::Heavy`] and for [`Teardown::Huge`].
static HEAVY_TEARDOWNS: LazyLock<io::Result<Runtime>> =
    LazyLock::new(|| runtime("policy-teardown", HEAVY_TEARDOWN_NICENESS).build());
static HUGE_TEARDOWNS: LazyLock<io::Result<Runtime>> =
    LazyLock::new(|| runtime("policy-unmap", HUGE_TEARDOWN_NICENESS).build());

/// How long it takes to give memory back to the system, and so where that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teardown {
    /// On a thread of lower priority than those that serve connections.
    Heavy,
    /// On a thread of much lower priority.
    Huge,
}

/// Drops a value whose memory takes long to give back.
pub fn tear_down(value: impl Send + 'static, teardown: Teardown) {
    let threads = match teardown {
        Teardown::Heavy => &HEAVY_TEARDOWNS,
        Teardown::Huge => &HUGE_TEARDOWNS,
    };
    match threads.as_ref() {
        Ok(threads) => drop(threads.spawn(async move { drop(value) })),
        Err(_) => drop(tokio::task::spawn_blocking(move || drop(value))),
    }
}

/// A runtime whose threads have this name and niceness.
pub fn runtime(thread_name: &str, niceness: i32) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.thread_name(thread_name).enable_time().on_thread_start(move || scheduling::lower_priority(niceness));
    builder
}

/// Runs a call on the current thread until it is slow, and in the pool from then on, where its CPU time is measured. A call that is
/// slow already runs in the pool from the start.
pub async fn run<F>(mut future: Pin<Box<F>>, cpu_budget: Arc<CpuBudget>) -> Result<F::Output, Failure>
where
    F: Future<Output: Send> + Send + 'static,
{
    let while_fast = poll_fn(|cx| match cpu_budget.poll_fast(|| future.as_mut().poll(cx)) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if cpu_budget.is_slow() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    if !cpu_budget.is_slow()
        && let Some(output) = while_fast.await
    {
        return Ok(output);
    }
    // A set aborts its task when it is dropped: if the client disconnects, the decision is dropped as well.
    let mut tasks = JoinSet::new();
    tasks.spawn_on(async move { cpu_budget.measure(future).await }, pool()?.handle());
    let output = tasks.join_next().await.ok_or_else(|| no_thread(&"the task is gone"))?;
    output.map_err(|error| no_thread(&error))
}

/// Runs a future in the pool from the start.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Result<(), Failure> {
    pool()?.spawn(future);
    Ok(())
}

fn pool() -> Result<&'static Runtime, Failure> {
    POOL.as_ref().map_err(|error| no_thread(error))
}

fn no_thread(error: &dyn Display) -> Failure {
    Failure::Host(format!("no thread for slow decisions: {error}"))
}
