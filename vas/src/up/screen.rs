//! Where people look: lines of log, and on a terminal a table below them that is drawn in place.

use crate::output;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by the threads that pass logs on.
#[derive(Debug, Clone)]
pub struct Screen(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Draw in place: standard output is a terminal, and a table was asked for.
    terminal: bool,
    table: Mutex<String>,
}

impl Screen {
    /// A screen with or without a table.
    pub fn new(table: bool) -> Screen {
        let terminal = table && io::stdout().is_terminal();
        Screen(Arc::new(Inner { terminal, table: Mutex::default() }))
    }

    /// Whether the table is drawn in place.
    pub fn is_terminal(&self) -> bool {
        self.0.terminal
    }

    /// A line of a child's log.
    pub fn log(&self, line: &str) {
        self.above(|| output::complain(line));
    }

    /// A line of `vas up` itself.
    pub fn note(&self, line: &str) {
        self.log(&format!("vas up: {line}"));
    }

    /// Shows a new table, in place of the last one where that is possible.
    pub fn table(&self, table: &str) {
        let mut shown = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = io::stdout().lock();
        // A closed output is the reader's choice, and no reason to stop the node.
        let _ = match self.0.terminal {
            true => write!(out, "{}{}", erase(&shown), unwrapped(table)),
            false => write!(out, "{table}"),
        };
        let _ = out.flush();
        if self.0.terminal {
            table.clone_into(&mut shown);
        }
    }

    /// Leaves the last table where it stands; what comes next goes below it.
    pub fn end_table(&self) {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn above(&self, print: impl FnOnce()) {
        let shown = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.is_empty() {
            return print();
        }
        let mut out = io::stdout().lock();
        // As above.
        let _ = write!(out, "{}", erase(&shown));
        let _ = out.flush();
        print();
        let _ = write!(out, "{}", unwrapped(&shown));
        let _ = out.flush();
    }
}

/// Lines longer than the terminal is wide are cut off there: were they wrapped, the number of lines to
/// erase would be another.
fn unwrapped(table: &str) -> String {
    format!("\x1b[?7l{table}\x1b[?7h")
}

/// Moves to the first line of what was drawn and clears from there.
fn erase(shown: &str) -> String {
    match shown.lines().count() {
        0 => String::new(),
        lines => format!("\x1b[{lines}F\x1b[J"),
    }
}
