//! The world of a lease, on a thread of its own: worlds block, and some end with the thread that made them.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use openclaw_environments::world::{Environment, Interrupt};
use tokio::sync::watch;

use crate::{leases::Denied, server::Fault, stage::Stage};

/// Requests that wait for the one that runs.
const WAITING: usize = 16;
/// Above what a world allows itself.
const MARGIN: Duration = Duration::from_secs(30);

/// What a world is to do. Dropped, it is not done.
pub type Job = Box<dyn FnOnce(&mut Stage) + Send>;

/// The handle of a world's thread.
#[derive(Clone)]
pub struct Worker {
    shared: Arc<Shared>,
}

struct Shared {
    /// None once no more is to come.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    waiting: AtomicUsize,
    interrupt: Mutex<Option<Interrupt>>,
    /// Until when what runs may run.
    until: Mutex<Option<Instant>>,
    /// What runs is to end, and so is the world.
    stopped: AtomicBool,
    gone: watch::Sender<bool>,
}

/// What a world's thread sees of its handle.
pub struct Seat {
    shared: Arc<Shared>,
}

impl Worker {
    /// Starts a thread for a world of `environment`; `gone` comes when nothing is left of it.
    pub fn start(
        environment: Arc<dyn Environment>,
        stage: impl FnOnce(Arc<dyn Environment>, Seat) -> Stage + Send + 'static,
        gone: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let shared = Arc::new(Shared {
            jobs: Mutex::new(Some(jobs)),
            waiting: AtomicUsize::new(0),
            interrupt: Mutex::default(),
            until: Mutex::default(),
            stopped: AtomicBool::new(false),
            gone: watch::Sender::default(),
        });
        let (mine, seat) = (shared.clone(), Seat { shared: shared.clone() });
        let patience = environment.spec().patience + MARGIN;
        thread::Builder::new().name("world".to_owned()).spawn(move || {
            // Dropped last, and by a panic, too.
            let _gone = Gone { shared: mine.clone(), told: Some(gone) };
            let mut stage = stage(environment, seat);
            while let Ok(job) = inbox.recv() {
                mine.waiting.fetch_sub(1, Ordering::Relaxed);
                if mine.stopped.load(Ordering::SeqCst) {
                    break;
                }
                *lock(&mine.until) = Some(Instant::now() + patience);
                job(&mut stage);
                *lock(&mine.until) = None;
            }
            stage.close();
        })?;
        Ok(Self { shared })
    }

    /// Has it done behind what waits already.
    pub fn ask(&self, job: Job) -> Result<(), Fault> {
        let jobs = lock(&self.shared.jobs);
        if self.shared.waiting.load(Ordering::Relaxed) > WAITING {
            return Err(Fault::Busy);
        }
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        match jobs.as_ref().map(|jobs| jobs.send(job)) {
            Some(Ok(())) => Ok(()),
            _ => Err(Denied::Gone.into()),
        }
    }

    /// Ends what runs; the world goes on.
    pub fn interrupt(&self) {
        let interrupt = lock(&self.shared.interrupt).clone();
        if let Some(interrupt) = interrupt {
            interrupt();
        }
    }

    /// Ends what runs, and the world. It has to be said until the world is gone: what begins at this moment forgets what
    /// came before it.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        *lock(&self.shared.jobs) = None;
        self.interrupt();
    }

    /// How long what runs has been running too long, if it has.
    pub fn overdue(&self, now: Instant) -> Option<Duration> {
        let until = (*lock(&self.shared.until))?;
        now.checked_duration_since(until)
    }

    /// Returns once nothing is left of the world.
    pub async fn gone(&self) {
        let mut gone = self.shared.gone.subscribe();
        // The handle keeps its sender.
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

impl Seat {
    /// Whoever ends what the world does, from now on.
    pub fn interrupted_by(&self, interrupt: Interrupt) {
        *lock(&self.shared.interrupt) = Some(interrupt);
    }

    /// What runs now ends after this, if not before.
    pub fn at_most(&self, time: Duration) {
        let mut until = lock(&self.shared.until);
        let limit = Instant::now() + time;
        *until = Some(until.map_or(limit, |until| until.min(limit)));
    }

    /// The lease is over.
    pub fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::SeqCst)
    }
}

struct Gone<F: FnOnce()> {
    shared: Arc<Shared>,
    told: Option<F>,
}

impl<F: FnOnce()> Drop for Gone<F> {
    fn drop(&mut self) {
        *lock(&self.shared.jobs) = None;
        if let Some(told) = self.told.take() {
            told();
        }
        self.shared.gone.send_replace(true);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
