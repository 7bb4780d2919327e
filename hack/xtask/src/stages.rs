//! What `cargo xtask ci` runs, in order. Add a stage here and its minutes to hack/ci-budget.toml.

/// How a stage is run.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// A check of this program.
    Tidy,
    /// A check of this program.
    Codegen,
    /// Faults planted in the core, by this program.
    Mutate,
    /// cargo-deny, with the parts that this machine can do.
    Deny,
    /// cargo with these arguments.
    Cargo(&'static [&'static str]),
    /// A program of benches with these arguments.
    Bench(&'static [&'static str]),
    /// cargo with these arguments; its test results are counted.
    Test(&'static [&'static str]),
}

/// One stage.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// As in hack/ci-budget.toml.
    pub name: &'static str,
    /// What it does.
    pub work: Work,
}

/// Every run. Tests come last, so that their result lines close the output.
pub const STAGES: &[Stage] = &[
    Stage { name: "fmt", work: Work::Cargo(&["fmt", "--all", "--check"]) },
    Stage { name: "tidy", work: Work::Tidy },
    Stage { name: "codegen", work: Work::Codegen },
    Stage { name: "deny", work: Work::Deny },
    Stage {
        name: "clippy",
        work: Work::Cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]),
    },
    Stage { name: "doc", work: Work::Cargo(&["doc", "--workspace", "--no-deps", "--locked"]) },
    Stage {
        name: "test",
        work: Work::Test(&["test", "--workspace", "--no-fail-fast", "--locked"]),
    },
];

/// `--long` only: minutes of proof and measurement that not every change needs.
pub const LONG_STAGES: &[Stage] = &[
    Stage { name: "ring_torn_full", work: Work::Bench(&["ring_torn", "--full"]) },
    Stage { name: "ring_writer_cost", work: Work::Bench(&["ring_writer_cost"]) },
    Stage { name: "result_cost", work: Work::Bench(&["result_cost"]) },
    Stage {
        name: "worlds",
        work: Work::Cargo(&[
            "run",
            "--quiet",
            "--release",
            "--locked",
            "--package",
            "scheduler",
            "--example",
            "worlds",
        ]),
    },
    Stage { name: "mutate", work: Work::Mutate },
];
