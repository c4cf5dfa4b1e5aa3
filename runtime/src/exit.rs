//! How a process of this binary ends: its exit codes, and what a signal does.

use openclaw_actors::stop::StopHandle;

/// It failed while it ran.
pub const EXIT_FAILED: u8 = 1;
/// Wrong usage, or a topology that cannot be used.
pub const EXIT_USAGE: u8 = 2;
/// No node is running, or it cannot be reached.
pub const EXIT_NO_NODE: u8 = 3;
/// The node has no actor, role, turn or version of that name.
pub const EXIT_UNKNOWN: u8 = 4;
/// Not possible in the node's present state, or for that role.
pub const EXIT_NOT_POSSIBLE: u8 = 5;
/// A second signal ended it: 128 + SIGINT.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Raises the flag when the standard input ends.
pub fn stop_with_input(handle: StopHandle) {
    // A thread of its own: a read of it cannot be given up, and would keep the runtime from ending.
    std::thread::spawn(move || {
        // Nothing of it is of use, and an error is an end.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tracing::info!("stopping: the standard input has ended");
        handle.stop();
    });
}

/// Turns SIGINT and SIGTERM into the flag. The second one ends the process at once.
pub fn stop_on_signals(handle: StopHandle) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for nth in 1.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if nth > 1 {
                std::process::exit(EXIT_INTERRUPTED.into());
            }
            tracing::info!("stopping; a second signal ends at once");
            handle.stop();
        }
    });
    Ok(())
}
