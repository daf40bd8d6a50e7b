//! Where decisions go on that take longer than a tick: to threads of their own, which the system lets run behind all others.
//!
//! A decision begins on the thread that serves its connection, for most of them end there, within microseconds. One that spins
//! would come back to that thread again and again, between the streams of everybody else.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::Poll;

use tokio::runtime::{Builder, Runtime};

use crate::policy::Failure;
use crate::wasm::cpu_budget::CpuBudget;

/// Nice enough that a thread that serves goes first whenever it has something to do.
const NICENESS: i32 = 10;

/// As many threads as cores; made when first needed. An error is kept: then there is no slow lane, and what needs it fails.
static LANE: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .thread_name("policy-slow")
        .enable_time()
        // Whoever comes anew goes before those who have had a turn: an honest decision is here because a tick came while it ran, and
        // has little left to do. By default it would wait for 61 turns of those who spin.
        .global_queue_interval(1)
        .on_thread_start(|| {
            // Where that is forbidden they run as all others do.
            let _ = rustix::process::nice(NICENESS);
        })
        .build()
});

/// Runs a call here until it is a slow one, and there from then on, where its CPU time is counted; only there if it is slow by now.
pub async fn run<F>(future: F, pace: Arc<CpuBudget>) -> Result<F::Output, Failure>
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut future = Box::pin(future);
    let quick = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if pace.is_slow() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    if !pace.is_slow()
        && let Some(output) = pin!(quick).await
    {
        return Ok(output);
    }
    // Should the client go away, the decision goes too.
    let task = AbortOnDrop(lane()?.spawn(poll_fn(move |cx| pace.poll(future.as_mut(), cx))));
    task.await.map_err(|error| no_thread(&error))
}

/// Runs a future there from the beginning.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Result<(), Failure> {
    lane()?.spawn(future);
    Ok(())
}

fn lane() -> Result<&'static Runtime, Failure> {
    LANE.as_ref().map_err(|error| no_thread(error))
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
