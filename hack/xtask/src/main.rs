//! Checks and generators of this repository: `cargo xtask tidy | codegen [--check] | mutate |
//! ci [--long]`.
//!
//! Not part of the product. `hack/test` and so CI call `ci`; people call whichever they need.
#![forbid(unsafe_code)]

mod ci;
mod circles;
mod codegen;
mod layers;
mod modules;
mod mutate;
mod repository;
mod rust_text;
mod stages;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND
  tidy              dependency table, circles of files, banned files, names and words
  codegen [--check] run flatc over ipc/schema; --check compares with what is committed
  mutate [--worlds N] [--only NAME]
                    plant faults in the scheduling core; random worlds must notice each
  ci [--long]       everything that must hold before a change lands";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = repository::root();
    let result = match arguments[..] {
        ["tidy"] => tidy::run(&root),
        ["codegen"] => codegen::run(&root, codegen::Mode::Write),
        ["codegen", "--check"] => codegen::run(&root, codegen::Mode::Check),
        ["mutate", ref options @ ..] => {
            mutate::Options::parse(options).and_then(|o| mutate::run(&root, &o))
        }
        ["ci", ref options @ ..] => ci::Options::parse(options).and_then(|o| ci::run(&root, &o)),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
