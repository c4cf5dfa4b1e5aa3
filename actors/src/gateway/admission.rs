//! How many requests run at once. Beyond it they wait in a bounded line, then are told to come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors::ApiError;

/// The door.
#[derive(Clone, Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    max_in_flight: usize,
    waiting: Arc<AtomicUsize>,
    queue_depth: usize,
    queue_timeout: Duration,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    _permit: OwnedSemaphorePermit,
    _count: InFlight,
}

#[derive(Debug)]
struct InFlight;

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("openclaw_gateway_in_flight_requests").decrement(1.0);
    }
}

struct InLine<'a>(&'a AtomicUsize);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        metrics::gauge!("openclaw_gateway_queued_requests").decrement(1.0);
    }
}

impl Admission {
    /// An empty house.
    pub fn new(max_in_flight: usize, queue_depth: usize, queue_timeout: Duration) -> Self {
        let max_in_flight = max_in_flight.max(1);
        Self {
            places: Arc::new(Semaphore::new(max_in_flight)),
            max_in_flight,
            waiting: Arc::default(),
            queue_depth,
            queue_timeout,
        }
    }

    /// Requests that hold a place.
    pub fn in_flight(&self) -> usize {
        self.max_in_flight - self.places.available_permits()
    }

    /// Requests in line.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Waits for a place, first come first served.
    pub async fn admit(&self) -> Result<Admitted, ApiError> {
        let arrived = Instant::now();
        let permit = match self.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait_in_line().await?,
        };
        metrics::histogram!("openclaw_gateway_queue_wait_seconds").record(arrived.elapsed().as_secs_f64());
        metrics::gauge!("openclaw_gateway_in_flight_requests").increment(1.0);
        Ok(Admitted { _permit: permit, _count: InFlight })
    }

    async fn wait_in_line(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        metrics::gauge!("openclaw_gateway_queued_requests").increment(1.0);
        let _in_line = InLine(&self.waiting);
        let retry_after_secs = self.queue_timeout.as_secs().clamp(1, 10);
        let rejected = |reason: &'static str| {
            metrics::counter!("openclaw_gateway_rejected_requests_total", "reason" => reason).increment(1);
            ApiError::busy(retry_after_secs)
        };
        if before >= self.queue_depth {
            return Err(rejected("queue_full"));
        }
        match tokio::time::timeout(self.queue_timeout, self.places.clone().acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(rejected("queue_timeout")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_runs_one_waits_and_one_is_told_to_come_back() {
        let door = Admission::new(1, 1, Duration::from_secs(30));
        let first = door.admit().await.expect("there is room");
        let second = tokio::spawn({
            let door = door.clone();
            async move { door.admit().await }
        });
        while door.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let error = door.admit().await.expect_err("the line is full");
        assert_eq!((error.status.as_u16(), error.retry_after_secs), (429, Some(10)));
        drop(first);
        let second = second.await.expect("no panic").expect("the place is free");
        assert_eq!((door.in_flight(), door.waiting()), (1, 0));
        let error = door.admit().await.expect_err("the place is never given back in time");
        assert_eq!(error.status.as_u16(), 429);
        drop(second);
        assert_eq!((door.in_flight(), door.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn a_client_that_leaves_the_line_frees_its_spot() {
        let door = Admission::new(1, 1, Duration::from_secs(30));
        let _first = door.admit().await.expect("there is room");
        let leaving = tokio::time::timeout(Duration::ZERO, door.admit()).await;
        assert!(leaving.is_err());
        assert_eq!(door.waiting(), 0);
    }
}
