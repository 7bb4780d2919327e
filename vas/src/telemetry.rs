//! Where logs go: standard error, one line per event, filtered by `VAS_LOG` (default `info`).

use std::fmt;
use std::io;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

/// The variable that filters, in the syntax `info,ingest=debug`.
const FILTER: &str = "VAS_LOG";

/// Sets up the log of this process. Under `vas up` the process's name is left to it.
pub fn init(name: &'static str, under_up: bool) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var(FILTER)
        .from_env_lossy();
    let line = Line { name: if under_up { "" } else { name } };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        // It would tell of a closed standard error there, and panic.
        .log_internal_errors(false)
        .event_format(line)
        .init();
}

/// `2026-01-31T12:00:00.000000Z  WARN scheduler: text field=value`
struct Line {
    name: &'static str,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        write!(writer, " {:>5} ", event.metadata().level())?;
        if !self.name.is_empty() {
            write!(writer, "{}: ", self.name)?;
        }
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                let extensions = span.extensions();
                let fields = extensions.get::<tracing_subscriber::fmt::FormattedFields<N>>();
                write!(writer, "{}", span.name())?;
                if let Some(fields) = fields.filter(|fields| !fields.is_empty()) {
                    write!(writer, "{{{fields}}}")?;
                }
                write!(writer, ": ")?;
            }
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
