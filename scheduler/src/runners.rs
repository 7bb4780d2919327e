//! The runners that are connected, by place and by connection.

use crate::RunnerKey;
use crate::place::RunnerIx;
use crate::runner::Runner;
use std::collections::BTreeMap;

/// A place is used again once its runner is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Runners {
    places: Vec<Option<Runner>>,
    keys: BTreeMap<RunnerKey, RunnerIx>,
    /// Whose message is being handled.
    sender: Option<RunnerIx>,
}

impl Runners {
    /// Gives a runner a place.
    pub fn insert(&mut self, runner: Runner) -> RunnerIx {
        let ix = match self.places.iter().position(Option::is_none) {
            Some(free) => RunnerIx(free),
            None => {
                self.places.push(None);
                RunnerIx(self.places.len() - 1)
            }
        };
        self.keys.insert(runner.key, ix);
        self.places[ix.0] = Some(runner);
        ix
    }

    /// Forgets a runner.
    pub fn remove(&mut self, ix: RunnerIx) -> Option<Runner> {
        let runner = self.places[ix.0].take()?;
        self.keys.remove(&runner.key);
        Some(runner)
    }

    pub fn get(&self, ix: RunnerIx) -> Option<&Runner> {
        self.places.get(ix.0)?.as_ref()
    }

    pub fn get_mut(&mut self, ix: RunnerIx) -> Option<&mut Runner> {
        self.places.get_mut(ix.0)?.as_mut()
    }

    /// Looks a sender up once: handling its message asks for it again and again.
    pub fn hear(&mut self, key: RunnerKey) {
        self.sender = self.ix(key).or(self.sender);
    }

    /// The place of a connection.
    pub fn ix(&self, key: RunnerKey) -> Option<RunnerIx> {
        if let Some(sender) = self.sender
            && self.get(sender).is_some_and(|r| r.key == key)
        {
            return Some(sender);
        }
        self.keys.get(&key).copied()
    }

    /// The runner of a connection.
    pub fn of_mut(&mut self, key: RunnerKey) -> Option<&mut Runner> {
        let ix = self.ix(key)?;
        self.get_mut(ix)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Runner> {
        self.places.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Runner> {
        self.places.iter_mut().flatten()
    }

    /// Places, free ones too.
    #[cfg(test)]
    pub fn places(&self) -> usize {
        self.places.len()
    }
}
