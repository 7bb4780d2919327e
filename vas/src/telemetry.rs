//! Where logs go: standard error, one line per event, filtered by `VAS_LOG` (default `info`).
//!
//! Libraries are silent unless `VAS_LOG` names them: they log what cameras and clients send, addresses
//! with passwords in them included, as often and at any length that those choose. What they know comes
//! back as values, and is told by us.

use std::fmt;
use std::io;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

/// The variable that filters, in the syntax `info,ingest=debug`.
const FILTER: &str = "VAS_LOG";

/// The crates of ours that log.
const OURS: [&str; 6] = ["api", "ingest", "runner", "scheduler_driver", "store", "vas"];

/// Sets up the log of this process. Under `vas up` the process's name is left to it.
pub fn init(name: &'static str, under_up: bool) {
    let asked = std::env::var(FILTER).unwrap_or_default();
    let filter = EnvFilter::builder().parse_lossy(filter(&asked));
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

/// The whole filter for what `VAS_LOG` says: a level without a name is that of our crates alone.
fn filter(asked: &str) -> String {
    let (mut level, mut named) = (LevelFilter::INFO, String::new());
    for directive in asked.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        match directive.parse() {
            Ok(of_ours) => level = of_ours,
            Err(_) => {
                named.push(',');
                named.push_str(directive);
            }
        }
    }
    let ours = OURS.map(|name| format!(",{name}={level}")).concat();
    format!("off{ours}{named}")
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn a_level_is_that_of_our_crates_and_libraries_speak_when_they_are_named() {
        let ours = |level: &str| OURS.map(|name| format!(",{name}={level}")).concat();
        for (asked, filter_is) in [
            ("", format!("off{}", ours("info"))),
            ("debug", format!("off{}", ours("debug"))),
            ("warn,ingest=debug", format!("off{},ingest=debug", ours("warn"))),
            (" retina=info , error ", format!("off{},retina=info", ours("error"))),
            ("retina", format!("off{},retina", ours("info"))),
        ] {
            assert_eq!(filter(asked), filter_is);
            let parsed = EnvFilter::builder().parse(&filter_is);
            assert!(parsed.is_ok(), "{filter_is}");
        }
    }

    #[test]
    fn each_crate_of_ours_that_logs_is_among_ours_and_no_name_begins_like_one_of_them() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        let manifest = read("Cargo.toml");
        let members = manifest.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
        let members: Vec<_> = members.split('"').skip(1).step_by(2).collect();
        assert!(members.contains(&"ingest"));
        for member in members {
            let manifest = read(&format!("{member}/Cargo.toml"));
            let name = manifest.split_once("name = \"").unwrap().1.split_once('"').unwrap().0;
            let logs = manifest.contains("\ntracing") && member.split('/').next() != Some("hack");
            assert_eq!(OURS.contains(&&*name.replace('-', "_")), logs, "{name}");
        }
        // A directive is for every target that begins with its name.
        let lock = read("Cargo.lock");
        let names =
            lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        for name in names.filter(|name| !OURS.contains(&&*name.replace('-', "_"))) {
            assert!(!OURS.iter().any(|ours| name.starts_with(ours)), "{name} would be shown");
        }
    }
}
