//! Asks a running child again and again whether it is well, one question at a time.

use std::any::Any;

use futures::FutureExt;
use ractor::ActorCell;
use tokio::{
    task::{AbortHandle, JoinError},
    time::{sleep, timeout},
};

use super::spec::ChildSpec;

/// Asks `cell` until the handle is aborted, and reports each answer, and that there is none.
pub fn start(
    spec: &ChildSpec,
    cell: ActorCell,
    report: impl Fn(Result<(), String>) + Send + Sync + 'static,
) -> Option<AbortHandle> {
    let probe = spec.probe.clone()?;
    let (period, limit) = (spec.probe_period, spec.probe_timeout);
    let asking = tokio::spawn(async move {
        loop {
            sleep(period).await;
            let asked = std::panic::AssertUnwindSafe(probe(cell.clone())).catch_unwind();
            tokio::pin!(asked);
            let answered = match timeout(limit, &mut asked).await {
                Ok(answered) => answered,
                Err(_) => {
                    report(Err(format!("does not answer for {} s", limit.as_secs_f64())));
                    // Not asked again meanwhile: questions must not pile up before a child that reads none.
                    asked.await
                }
            };
            report(
                answered
                    .unwrap_or_else(|panic| Err(text(&*panic).unwrap_or("its probe panicked").to_owned())),
            );
        }
    });
    Some(asking.abort_handle())
}

/// Why a task gave no result.
pub fn panic_text(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => text(&*panic).unwrap_or("its start panicked").to_owned(),
        Err(_) => "its start was cut short".to_owned(),
    }
}

fn text(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str))
}
