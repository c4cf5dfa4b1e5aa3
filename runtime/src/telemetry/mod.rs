//! What an operator reads: log lines on stderr, metrics over HTTP.

mod exporter;
mod registry;
#[cfg(feature = "otel")]
mod traces;

use std::{
    io::{self, IsTerminal, Write},
    sync::OnceLock,
};

use indicatif::MultiProgress;
use tracing_subscriber::{EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

pub use exporter::{ExporterError, serve_metrics};
pub use registry::{Kind, METRICS, Metric};
#[cfg(feature = "otel")]
pub use traces::Traces;

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

impl LogFormat {
    /// As the command line says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Log lines and traces of a command. Dropped at its end, it sends the traces that were not sent yet.
#[must_use]
pub struct Logging {
    #[cfg(feature = "otel")]
    _last_spans: Option<traces::LastSpans>,
}

/// Sends log lines to stderr. `RUST_LOG` chooses which; without it, `info` and above. A build with the feature `otel`
/// sends traces, too, where OpenTelemetry's variables say. Calling it again changes nothing.
pub fn init_logging(format: LogFormat) -> Logging {
    init(format, "info")
}

/// [`init_logging`] for a command that tells a person at a terminal itself how it goes: there, and without `RUST_LOG`,
/// `warn` and above.
pub fn init_logging_beside_screen(format: LogFormat) -> Logging {
    init(format, if on_terminal() && format == LogFormat::Text { "warn" } else { "info" })
}

/// Writes these lines to stderr, above the bars: for a person, where one watches.
pub fn say(lines: &str) {
    drop(Line(lines.as_bytes().to_vec()));
}

fn init(format: LogFormat, default: &str) -> Logging {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt::layer().with_writer(Stderr);
    let lines = match format {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Text if on_terminal() => lines.compact().with_target(false).boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(not(feature = "otel"))]
    {
        // An error means that a subscriber is there already, such as a test's.
        let _ = subscriber.try_init();
        Logging {}
    }
    #[cfg(feature = "otel")]
    {
        let (traces, problem) = match Traces::from_env() {
            Ok(traces) => (traces, None),
            Err(error) => (None, Some(error)),
        };
        let _last_spans = traces.as_ref().map(Traces::last_spans);
        let _ = subscriber.with(traces.map(Traces::layer)).try_init();
        if let Some(error) = problem {
            tracing::error!(%error, "traces cannot be sent");
        }
        Logging { _last_spans }
    }
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
