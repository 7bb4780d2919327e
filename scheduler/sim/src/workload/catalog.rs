//! The workloads that come with the program.

use super::{Workload, WorkloadError};

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../workloads/", $name, ".toml")))),*]
    };
}

/// Name and text of each.
pub const BUILT_IN: [(&str, &str); 26] = built_in![
    "demo",
    "uniform",
    "sync",
    "share",
    "overload",
    "overload3",
    "faulty",
    "isolation",
    "s1",
    "s2",
    "s3",
    "s4",
    "s5",
    "s6",
    "s7",
    "s8",
    "s9",
    "mixed",
    "jitter",
    "churn",
    "large",
    "dropouts",
    "nexus",
    "proteus",
    "bursts",
    "several",
];

/// Other names: those of the plan by which the simulator was tested.
pub const ALIASES: [(&str, &str); 13] = [
    ("w1", "uniform"),
    ("w2", "sync"),
    ("w3", "s3"),
    ("w4", "overload"),
    ("w5", "mixed"),
    ("w6", "jitter"),
    ("w7", "churn"),
    ("w8", "isolation"),
    ("w9", "large"),
    ("w10", "dropouts"),
    ("w11", "nexus"),
    ("w12", "proteus"),
    ("w13", "bursts"),
];

/// Variants that every workload has.
const VARIANTS: &str = include_str!("../../workloads/variants.toml");

/// Names of all built-in workloads, each followed by those of its variants; without aliases.
pub fn names() -> Vec<String> {
    let mut names = Vec::new();
    for (name, text) in BUILT_IN {
        names.push(name.to_owned());
        let variants = Workload::parse(text).map(|w| w.variants).unwrap_or_default();
        names.extend(variants.into_iter().map(|variant| format!("{name}+{variant}")));
    }
    names
}

impl Workload {
    /// The built-in workload of that name, `None` when there is none. `name+variant` replaces what
    /// the variant says; several are applied from left to right. A variant is one of the file's own
    /// or one that every workload has: `noisy` (execution noise 5 %, 1 % of batches take twice as
    /// long, captures late by up to 2 ms) and `sync` (aligned start).
    pub fn built_in(name: &str) -> Option<Result<Workload, WorkloadError>> {
        let (name, variants) = split(name);
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| *name);
        let (_, text) = BUILT_IN.iter().find(|(n, _)| *n == name)?;
        Some(Workload::with_variants(text, &variants))
    }

    /// Parses a workload file and applies variants to it.
    ///
    /// # Errors
    /// When the file or a variant is wrong.
    pub fn with_variants(text: &str, variants: &[&str]) -> Result<Workload, WorkloadError> {
        let base = Workload::parse(text)?;
        if variants.is_empty() {
            return Ok(base);
        }
        super::variant::apply(&base, text, VARIANTS, variants)
    }
}

/// `name+a+b` as name and variants.
pub fn split(name: &str) -> (&str, Vec<&str>) {
    let mut parts = name.split('+');
    let name = parts.next().unwrap_or_default();
    (name, parts.collect())
}
