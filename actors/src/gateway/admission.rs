//! How many requests run at once, and how large they may be together until they are prompts. Beyond it they wait in a
//! bounded line, then are told to come back.

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
    /// Of [`UNIT`] bytes of bodies each.
    units: Arc<Semaphore>,
    most_units: u32,
    /// One for each core: prompts are made on threads of their own, and more at once would only hold more memory.
    makers: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    queue_depth: usize,
    queue_timeout: Duration,
}

/// Room for a body is given in units of so many bytes.
const UNIT: usize = 1024;

/// Room for a body and all that is made of it on the way to a prompt; given back when dropped.
#[derive(Debug)]
pub struct BodyRoom {
    _units: OwnedSemaphorePermit,
}

/// The turn to make a prompt; given back when dropped.
#[derive(Debug)]
pub struct MakerTurn {
    _permit: OwnedSemaphorePermit,
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
    /// An empty house, with room for bodies of `most_bytes` together.
    pub fn new(max_in_flight: usize, most_bytes: usize, queue_depth: usize, queue_timeout: Duration) -> Self {
        let max_in_flight = max_in_flight.max(1);
        let most_units = u32::try_from(most_bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX >> 3);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            places: Arc::new(Semaphore::new(max_in_flight)),
            max_in_flight,
            units: Arc::new(Semaphore::new(most_units as usize)),
            most_units,
            makers: Arc::new(Semaphore::new(cores)),
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
        let permit = self.take(&self.places, 1).await?;
        metrics::histogram!("openclaw_gateway_queue_wait_seconds").record(arrived.elapsed().as_secs_f64());
        metrics::gauge!("openclaw_gateway_in_flight_requests").increment(1.0);
        Ok(Admitted { _permit: permit, _count: InFlight })
    }

    /// Waits for room for a body of so many bytes, first come first served; one that is larger than all there is gets
    /// all of it.
    pub async fn admit_body(&self, bytes: usize) -> Result<BodyRoom, ApiError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.most_units);
        Ok(BodyRoom { _units: self.take(&self.units, units).await? })
    }

    /// Waits for the turn to make a prompt.
    pub async fn turn(&self) -> MakerTurn {
        let permit = self.makers.clone().acquire_owned().await.expect("the semaphore is never closed");
        MakerTurn { _permit: permit }
    }

    async fn take(&self, of: &Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, ApiError> {
        match of.clone().try_acquire_many_owned(count) {
            Ok(permit) => Ok(permit),
            Err(_) => self.wait_in_line(of, count).await,
        }
    }

    async fn wait_in_line(&self, of: &Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, ApiError> {
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
        match tokio::time::timeout(self.queue_timeout, of.clone().acquire_many_owned(count)).await {
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
        let door = Admission::new(1, 1 << 20, 1, Duration::from_secs(30));
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

    #[tokio::test(start_paused = true)]
    async fn bodies_wait_for_room_and_the_largest_gets_all_of_it() {
        let door = Admission::new(4, 4 * UNIT, 1, Duration::from_secs(30));
        let half = door.admit_body(2 * UNIT).await.expect("there is room");
        let huge = tokio::spawn({
            let door = door.clone();
            async move { door.admit_body(usize::MAX).await }
        });
        while door.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let error = door.admit_body(3 * UNIT).await.expect_err("the line is full");
        assert_eq!(error.status.as_u16(), 429);
        drop(half);
        let huge = huge.await.expect("no panic").expect("there is room now");
        let error = door.admit_body(1).await.expect_err("no room in time");
        assert_eq!(error.status.as_u16(), 429);
        drop(huge);
        door.admit_body(4 * UNIT).await.expect("all of it is free");
    }

    #[tokio::test]
    async fn a_client_that_leaves_the_line_frees_its_spot() {
        let door = Admission::new(1, 1 << 20, 1, Duration::from_secs(30));
        let _first = door.admit().await.expect("there is room");
        let leaving = tokio::time::timeout(Duration::ZERO, door.admit()).await;
        assert!(leaving.is_err());
        assert_eq!(door.waiting(), 0);
    }
}
