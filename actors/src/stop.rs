//! One flag that says "finish and end", raised by a signal, by the code, or by a test.

use std::sync::Arc;

use tokio::sync::watch;

/// Raises the flag.
#[derive(Clone, Debug)]
pub struct StopHandle(Arc<watch::Sender<bool>>);

/// Sees the flag.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<bool>);

/// A flag that is down.
pub fn stop_flag() -> (StopHandle, StopSignal) {
    let (sender, receiver) = watch::channel(false);
    (StopHandle(Arc::new(sender)), StopSignal(receiver))
}

impl StopHandle {
    /// Raises the flag, for good.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether the flag is up.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }
}

impl StopSignal {
    /// Whether the flag is up.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the flag is up, or can no longer be raised.
    pub async fn wait(&mut self) {
        // An error means that the last handle is gone: nobody is left to run for.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_sees_the_flag() {
        let (handle, signal) = stop_flag();
        assert!(!signal.is_set());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let mut signal = signal.clone();
                tokio::spawn(async move { signal.wait().await })
            })
            .collect();
        handle.stop();
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert!(signal.is_set());
    }
}
