//! What an operator reads: log lines on stderr, metrics over HTTP.

mod exporter;
mod registry;

use std::{
    io::{self, IsTerminal, Write},
    sync::OnceLock,
};

use indicatif::MultiProgress;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

pub use exporter::{ExporterError, serve_metrics};
pub use registry::{Kind, METRICS, Metric};

static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// The bars at the bottom of the terminal, which log lines make room for.
pub fn bars() -> &'static MultiProgress {
    BARS.get_or_init(MultiProgress::new)
}

/// Whether someone watches stderr.
pub fn on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Short and coloured on a terminal, whole and plain elsewhere.
    #[default]
    Text,
    /// One JSON object a line: `timestamp`, `level`, `target`, `message`, and the fields beside them.
    Json,
}

/// Sends log lines to stderr. `RUST_LOG` chooses which; without it, `info` and above. Calling it again changes
/// nothing.
pub fn init_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Stderr);
    // An error means that a subscriber is there already, such as a test's.
    let _ = match format {
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            lines.with_current_span(false).with_span_list(false).try_init()
        }
        LogFormat::Text if on_terminal() => lines.compact().with_target(false).try_init(),
        LogFormat::Text => lines.with_ansi(false).try_init(),
    };
}

/// Writes whole lines above the bars.
#[derive(Clone, Copy)]
struct Stderr;

struct Line(Vec<u8>);

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Nowhere is left to report that stderr cannot be written.
        bars().suspend(|| {
            let _ = io::stderr().write_all(&self.0);
        });
    }
}
