//! Threads of low priority, for decisions that run longer than an epoch tick.
//!
//! A decision starts on the thread that serves its connection, because most decisions end within microseconds. A guest that spins
//! would return to that thread again and again and delay the streams on it; so it moves here.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::Poll;

use tokio::runtime::{Builder, Runtime};

use crate::policy::Failure;
use crate::wasm::cpu_budget::CpuBudget;

/// High enough that a thread that serves connections runs first whenever it has work.
const NICENESS: i32 = 10;

/// One thread per core, created on first use. An error is kept: without the pool, decisions that need it fail.
static POOL: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .thread_name("policy-slow")
        .enable_time()
        // Poll the global queue on every tick so that newly moved tasks run first. A well-behaved decision lands here only because an
        // epoch tick interrupted it and is almost done; with tokio's default interval (61) it would wait behind CPU-bound guests.
        .global_queue_interval(1)
        .on_thread_start(|| {
            // Where this is forbidden, the threads run with normal priority.
            let _ = rustix::process::nice(NICENESS);
        })
        .build()
});

/// Runs a call on the current thread until it is slow, and in the pool from then on, where its CPU time is measured. A call that is
/// slow already runs in the pool from the start.
pub async fn run<F>(future: F, cpu_budget: Arc<CpuBudget>) -> Result<F::Output, Failure>
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut future = Box::pin(future);
    let while_fast = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if cpu_budget.is_slow() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    if !cpu_budget.is_slow()
        && let Some(output) = pin!(while_fast).await
    {
        return Ok(output);
    }
    // If the client disconnects, the decision is dropped as well.
    let task = AbortOnDrop(pool()?.spawn(poll_fn(move |cx| cpu_budget.poll(future.as_mut(), cx))));
    task.await.map_err(|error| no_thread(&error))
}

/// Runs a future in the pool from the start.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Result<(), Failure> {
    pool()?.spawn(future);
    Ok(())
}

fn pool() -> Result<&'static Runtime, Failure> {
    POOL.as_ref().map_err(|error| no_thread(error))
}

fn no_thread(error: &dyn std::fmt::Display) -> Failure {
    Failure::Host(format!("no thread for slow decisions: {error}"))
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
