//! What the configuration asks of the disk that the state directory is on, and that disk can't give.

use super::Config;
use api::disk::{self, Demands, Space};
use std::io;
use std::path::Path;

impl Config {
    /// What can't be had together on this machine. Not an error of the file: on another disk it can.
    pub fn contradictions(&self) -> Vec<String> {
        self.contradictions_on(|path| disk::Disk::default().space(path))
    }

    fn contradictions_on(&self, space: impl Fn(&Path) -> io::Result<Space>) -> Vec<String> {
        let state = &self.directories.state;
        let together = disk::same(state, &self.recording.dir);
        let demands = Demands {
            keep_free: self.keep_free,
            high_percent: together.then_some(self.recording.disk_high_percent),
        };
        // A disk that can't be asked is a matter of those who use it.
        let Ok(Space { size, .. }) = space(state) else { return vec![] };
        let told = demands.contradiction(size);
        told.map(|told| format!("the disk of {}: {told}", state.display())).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn contradictions(text: &str, gib: u64) -> Vec<String> {
        let file = Path::new("/nosuch/vas.toml");
        let config = Config::parse(text, file, &Environment::default()).unwrap();
        config.contradictions_on(|path| {
            assert_eq!(path, Path::new("/nosuch/vas-data"));
            Ok(Space { size: gib << 30, free: 0 })
        })
    }

    #[test]
    fn events_and_recordings_that_exclude_each_other_are_told_with_both_numbers_and_the_disk() {
        let [told] = &contradictions("", 8)[..] else { panic!("one") };
        for part in ["/nosuch/vas-data", "1024 MiB", "90 %", "8192 MiB", "lower one of them"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert_eq!(contradictions("", 11), <[String; 0]>::default());
        assert_eq!(contradictions("[events]\nkeep_free = \"2 GiB\"", 11).len(), 1);
        assert_eq!(contradictions("[events]\nkeep_free = \"0\"", 1).len(), 0);
        assert_eq!(contradictions("[recording]\ndisk_high_percent = 80", 8).len(), 0);
        // Recordings on a disk of their own leave this one alone.
        let apart = "[recording]\ndir = \"/proc/recordings\"";
        assert_eq!(contradictions(apart, 8).len(), 0);
        assert_eq!(contradictions(apart, 1).len(), 1);
    }
}
