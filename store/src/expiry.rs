//! When the days past retention are deleted: not while UTC is in doubt.

use crate::database::sync_directory_of;
use crate::day::Day;
use crate::error::StoreError;
use crate::event::EventId;
use crate::pool::Pool;
use crate::tables::EVENTS;
use base::UtcNanos;
use base::clock_trust::{ClockTrust, Clocks, MEMORY_NAME, Memory};
use redb::ReadableTable;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Deletes what is too old, as far as the clock can be trusted.
#[derive(Debug)]
pub(crate) struct Expiry {
    trust: ClockTrust,
    memory: PathBuf,
}

impl Expiry {
    /// Begins with what the last run remembered, else with the newest event that there is.
    pub(crate) fn open(pool: &Pool) -> Expiry {
        let path = pool.dir().join(MEMORY_NAME);
        let memory = fs::read_to_string(&path).ok().as_deref().and_then(Memory::parse);
        let newest = if memory.is_none() { newest(pool) } else { None };
        Expiry { trust: ClockTrust::new(memory, newest), memory: path }
    }

    /// Looks at the clocks; deletes the days that are past retention if they can be trusted.
    pub(crate) fn run(&mut self, pool: &Pool, now: Clocks) -> Result<Vec<Day>, StoreError> {
        let was = pool.rest().is_some();
        let rest = self.trust.look(now, (pool.options().accepted)());
        if let Some(memory) = self.trust.memory() {
            // Looks are hours apart: what can't be written now, the next one writes.
            let _ = put(&self.memory, &memory.to_string());
        }
        pool.set_rest(rest);
        match rest {
            Some(rest) => {
                if !was {
                    tracing::warn!("events: {rest}");
                }
                Ok(vec![])
            }
            None => {
                if was {
                    tracing::info!("events: the clock is trusted again");
                }
                pool.expire(now.utc)
            }
        }
    }
}

/// The moment of the newest event. A file that can't be read stands for the beginning of its day:
/// better too much is kept.
fn newest(pool: &Pool) -> Option<UtcNanos> {
    let day = pool.days(Day(0), Day(u32::MAX)).first().copied()?;
    let last = pool.get(day)?.read("reading the last event", |read| {
        Ok(read.open_table(EVENTS)?.last()?.and_then(|(id, _)| EventId::from_u128(id.value())))
    });
    Some(last.ok().flatten().map_or(day.start(), EventId::timestamp))
}

/// Puts a text in place of a file: whole or not at all.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    let mut file: File =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_data())?;
    fs::rename(&temporary, path)?;
    sync_directory_of(path)
}
