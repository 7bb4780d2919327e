//! Which crate may depend on which: the complete table. Anything else is an error of
//! `cargo xtask tidy`.
//!
//! Checked on the manifests, over normal, build and dev dependencies alike.

use crate::repository::File;
use std::collections::{BTreeMap, BTreeSet};

/// Where this table stands, for messages.
const HERE: &str = "hack/xtask/src/layers.rs";

/// One row: a crate and the crates of ours that it may depend on.
type Row = (&'static str, &'static [&'static str]);

/// The table. Arrows point one way: a crate may only name crates of rows above its own.
const LAYERS: &[Row] = &[
    // Vocabulary.
    ("base", &[]),
    // What a runner says of its speed: the same in the runner and in virtual time.
    ("latency", &["base"]),
    // Batch sizes, shares of devices, placement: the same in the core and in `vas plan`.
    ("plan", &["base"]),
    // The pure core and the world around it in virtual time.
    ("scheduler", &["base", "plan"]),
    ("scheduler-sim", &["base", "latency", "scheduler"]),
    // Mechanism.
    ("ipc", &["base"]),
    ("kernels", &["base"]),
    ("store", &["base"]),
    // Edges.
    ("scheduler-driver", &["base", "ipc", "scheduler"]),
    ("ingest", &["base", "ipc", "kernels"]),
    ("runner", &["base", "ipc", "kernels", "latency"]),
    ("api", &["base", "ipc", "kernels", "store"]),
    // The binary, the only crate that knows all.
    (
        "vas",
        &[
            "api",
            "base",
            "ingest",
            "ipc",
            "plan",
            "runner",
            "scheduler",
            "scheduler-driver",
            "scheduler-sim",
            "store",
        ],
    ),
    // Beside the product.
    (
        "benches",
        &[
            "api",
            "base",
            "ingest",
            "ipc",
            "kernels",
            "runner",
            "scheduler",
            "scheduler-driver",
            "scheduler-sim",
            "store",
        ],
    ),
    ("fake-camera", &[]),
    ("xtask", &[]),
];

/// Edges that only tests and benches may have; Cargo keeps them out of the product.
const TEST_EDGES: &[Row] = &[
    // A camera with faults.
    ("api", &["fake-camera"]),
    ("ingest", &["fake-camera"]),
    ("vas", &["fake-camera"]),
    // The golden test decodes its clip with the decoder of the product.
    ("runner", &["ingest"]),
    // The world in virtual time is the test bench of the core.
    ("scheduler", &["scheduler-sim"]),
];

/// Crates of others that only some of ours may name: each is the home of one mechanism.
const HOMES: &[Row] = &[
    ("cudarc", &["kernels", "runner"]),
    ("ffmpeg-next", &["ingest"]),
    ("flatbuffers", &["ipc"]),
    ("hyper", &["api"]),
    ("jsonschema", &["api"]),
    ("memmap2", &["ipc"]),
    ("ort", &["runner"]),
    ("redb", &["store"]),
    ("tide", &["api"]),
    ("tokio", &["api", "ingest"]),
    ("tracing-subscriber", &["vas"]),
];

/// Crates of ours that depend on nobody else's at all.
const PURE: &[&str] = &["base", "latency", "plan", "scheduler"];

/// A package as its manifest describes it.
struct Package {
    path: String,
    name: String,
    /// Of every kind, by the name of the package.
    dependencies: BTreeSet<String>,
    /// Only those that the product is built with.
    normal: BTreeSet<String>,
    workspace_lints: bool,
}

/// Checks every manifest among `files`.
pub fn check(files: &[File], problems: &mut Vec<String>) {
    let mut packages = Vec::new();
    for file in files.iter().filter(|f| f.path.ends_with("Cargo.toml")) {
        match file.text().map(str::parse::<toml::Table>) {
            Some(Ok(manifest)) => packages.extend(package(&file.path, &manifest)),
            Some(Err(error)) => problems.push(format!("{}: {}", file.path, error.message())),
            None => problems.push(format!("{}: not a text", file.path)),
        }
    }
    let rows: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let ours: BTreeSet<_> = packages.iter().map(|p| p.name.as_str()).collect();
    for package in &packages {
        let Package { path, name, .. } = package;
        let Some(allowed) = rows.get(name.as_str()) else {
            problems.push(format!("{path}: crate {name} has no row in the table of {HERE}"));
            continue;
        };
        for dependency in &package.dependencies {
            let ours = ours.contains(dependency.as_str()) || rows.contains_key(dependency.as_str());
            let in_tests = !package.normal.contains(dependency)
                && TEST_EDGES.iter().any(|(n, d)| n == name && d.contains(&dependency.as_str()));
            if ours && !in_tests && !allowed.contains(&dependency.as_str()) {
                problems.push(format!(
                    "{path}: {name} may not depend on {dependency}; the allowed edges are the table of \
                     {HERE}"
                ));
            }
        }
        for (foreign, homes) in HOMES {
            if package.dependencies.contains(*foreign) && !homes.contains(&name.as_str()) {
                let homes = homes.join(" and ");
                problems.push(format!(
                    "{path}: {name} may not depend on {foreign}, whose home is {homes}; see HOMES of {HERE}"
                ));
            }
        }
        if PURE.contains(&name.as_str())
            && let Some(foreign) = package.normal.iter().find(|d| !rows.contains_key(d.as_str()))
        {
            problems.push(format!(
                "{path}: {name} may not depend on {foreign}: it depends on no crate of others; see PURE of {HERE}"
            ));
        }
        if !package.workspace_lints {
            problems.push(format!("{path}: lacks `[lints] workspace = true`"));
        }
    }
    for (name, _) in LAYERS {
        if !ours.contains(name) {
            problems.push(format!("{HERE}: row {name} is of no crate"));
        }
    }
}

fn package(path: &str, manifest: &toml::Table) -> Option<Package> {
    let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
    let mut dependencies = BTreeSet::new();
    let mut normal = BTreeSet::new();
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let tables = std::iter::once(manifest)
        .chain(targets.into_iter().flat_map(|t| t.values().filter_map(toml::Value::as_table)));
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let entries = table.get(kind).and_then(toml::Value::as_table);
            for (key, entry) in entries.into_iter().flatten() {
                let renamed = entry.get("package").and_then(toml::Value::as_str);
                let name = renamed.unwrap_or(key).to_owned();
                if kind == "dependencies" {
                    normal.insert(name.clone());
                }
                dependencies.insert(name);
            }
        }
    }
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    let workspace_lints = lints.and_then(toml::Value::as_bool).unwrap_or(false);
    Some(Package { path: path.to_owned(), name, dependencies, normal, workspace_lints })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of a workspace whose crates are all fine, but for `changed`.
    fn problems_with(changed: &str, dependencies: &str) -> Vec<String> {
        let files: Vec<_> = LAYERS
            .iter()
            .map(|(name, allowed)| {
                let mut text = format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n");
                text += "[dependencies]\n";
                text.extend(allowed.iter().map(|d| format!("{d}.workspace = true\n")));
                if *name == changed {
                    text += dependencies;
                }
                File { path: format!("{name}/Cargo.toml"), bytes: text.into_bytes() }
            })
            .collect();
        let mut problems = Vec::new();
        check(&files, &mut problems);
        problems
    }

    #[test]
    fn the_allowed_edges_are_allowed() {
        assert_eq!(problems_with("", ""), [""; 0]);
    }

    #[test]
    fn arrows_point_upwards_in_the_table() {
        for (i, (name, allowed)) in LAYERS.iter().enumerate() {
            for dependency in *allowed {
                let above = LAYERS[..i].iter().any(|(row, _)| row == dependency);
                assert!(above, "{name} -> {dependency}");
            }
        }
    }

    #[test]
    fn an_edge_outside_the_table_is_named_with_both_crates_and_the_table() {
        let edge = "scheduler/Cargo.toml: scheduler may not depend on ipc; the allowed edges are the table of \
                    hack/xtask/src/layers.rs";
        assert_eq!(problems_with("scheduler", "ipc.workspace = true\n"), [edge]);
        assert_eq!(problems_with("scheduler", "[dev-dependencies]\nipc = \"1\"\n"), [edge]);
        let renamed =
            "[target.'cfg(unix)'.build-dependencies]\nx = { package = \"ipc\", path = \"..\" }\n";
        assert_eq!(problems_with("scheduler", renamed), [edge]);
    }

    #[test]
    fn edges_of_tests_are_no_edges_of_the_product() {
        let edge = "ingest.workspace = true\n";
        assert_eq!(problems_with("runner", &format!("[dev-dependencies]\n{edge}")), [""; 0]);
        let problems = problems_with("runner", edge);
        assert!(problems[0].contains("runner may not depend on ingest"), "{problems:?}");
    }

    #[test]
    fn mechanisms_stay_at_home_and_the_core_is_pure() {
        let problems = problems_with("store", "tide.workspace = true\n");
        assert!(
            problems[0].contains("store may not depend on tide, whose home is api"),
            "{problems:?}"
        );
        let problems = problems_with("scheduler", "serde = \"1\"\n");
        assert!(problems[0].contains("scheduler may not depend on serde"), "{problems:?}");
        assert_eq!(problems_with("scheduler", "[dev-dependencies]\nproptest = \"1\"\n"), [""; 0]);
    }

    #[test]
    fn crates_without_a_row_and_rows_without_a_crate_are_told() {
        let manifest = "[package]\nname = \"extra\"\n";
        let files = [File { path: "extra/Cargo.toml".into(), bytes: manifest.into() }];
        let mut problems = Vec::new();
        check(&files, &mut problems);
        assert!(problems[0].contains("crate extra has no row"), "{problems:?}");
        assert!(problems.contains(&format!("{HERE}: row base is of no crate")), "{problems:?}");
    }
}
