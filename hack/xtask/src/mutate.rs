//! `cargo xtask mutate`: plants faults in the core, one at a time, and sees whether the random
//! worlds notice.
//!
//! The faults stand in `scheduler/mutations.toml`: a text that occurs exactly once in a file, what
//! replaces it, and the invariant that should break. Each is planted in a copy of the core and its
//! simulator, built, and given a number of worlds. The copy lies in the target directory, so a
//! second run builds less. The core as it is must pass all the worlds, and no fault may.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The list of faults.
const LIST: &str = "scheduler/mutations.toml";
/// What is copied: the core, what it depends on, and the world around it.
const FOLDERS: &[&str] = &["base", "latency", "plan", "scheduler"];
/// Packages of the copy.
const MEMBERS: &[&str] = &["base", "latency", "plan", "scheduler", "scheduler/sim"];
/// Needs more than is copied.
const LEFT_OUT: &str = "scheduler/driver";
/// Virtual seconds of a world.
const SECONDS: u64 = 60;
/// A mutated core that runs longer has lost its way in a loop (chosen: fifty worlds take seconds).
const PATIENCE: Duration = Duration::from_secs(300);

/// Arguments of `mutate`.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    worlds: u64,
    /// Only mutations whose name contains this.
    only: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options { worlds: 50, only: None }
    }
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// What is not known.
    pub fn parse(arguments: &[&str]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match *argument {
                "--worlds" => {
                    let worlds = rest.next().and_then(|n| n.parse().ok());
                    options.worlds = worlds.ok_or("--worlds needs a whole number")?;
                }
                "--only" => {
                    let name = rest.next().ok_or("--only needs a part of a mutation's name")?;
                    options.only = Some((*name).to_owned());
                }
                other => {
                    return Err(format!("`{other}` is not known; options are: --worlds, --only"));
                }
            }
        }
        Ok(options)
    }
}

/// One planted fault.
#[derive(Debug, PartialEq, Eq)]
struct Mutation {
    name: String,
    file: String,
    find: String,
    replace: String,
    expect: String,
}

/// How a mutated core fared.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// The invariant, and the world in which it broke.
    Caught(String, String),
    Escaped,
}

/// Plants each fault and plays worlds until one breaks.
///
/// # Errors
/// The faults that no world noticed, or why there is nothing to say.
pub fn run(root: &Path, options: &Options) -> Result<(), String> {
    let text = read(&root.join(LIST))?;
    let mut mutations = parse(&text)?;
    if let Some(only) = &options.only {
        mutations.retain(|m| m.name.contains(only));
    }
    for m in &mutations {
        planted(&read(&root.join(&m.file))?, m)?;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let copy = Copy { tree: target.join("mutate/tree"), build: target.join("mutate/build") };
    copy.make(root)?;
    copy.build("the core as it is")?;
    if let Fate::Caught(invariant, world) = copy.play(options.worlds)? {
        return Err(format!("the core as it is breaks `{invariant}` in {world}"));
    }
    println!("{:<46} {:<44} in", "mutation", "caught by");
    println!("{:<46} {:<44} {} worlds", "none", "-", options.worlds);
    let mut escaped = Vec::new();
    for m in &mutations {
        let file = copy.tree.join(&m.file);
        let sound = read(&file)?;
        write(&file, &planted(&sound, m)?)?;
        let fate = copy.build(&m.name).and_then(|()| copy.play(options.worlds));
        write(&file, &sound)?;
        match fate? {
            Fate::Caught(invariant, world) => {
                let other = if invariant == m.expect { "" } else { "  (another one was expected)" };
                println!("{:<46} {invariant:<44} {world}{other}", m.name);
            }
            Fate::Escaped => {
                println!("{:<46} {:<44} not in {} worlds", m.name, "ESCAPED", options.worlds);
                escaped.push(m.name.as_str());
            }
        }
    }
    if escaped.is_empty() {
        println!("mutate: {} faults are caught", mutations.len());
        return Ok(());
    }
    Err(format!("mutate: not caught: {}", escaped.join(", ")))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{} can't be read: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{} can't be written: {e}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Mutation>, String> {
    let table: toml::Table = text.parse().map_err(|e| format!("{LIST}: {e}"))?;
    let list = table.get("mutation").and_then(toml::Value::as_array);
    let list = list.ok_or(format!("{LIST}: there is no [[mutation]]"))?;
    let one = |value: &toml::Value| {
        let field = |key: &str| {
            let text = value.get(key).and_then(toml::Value::as_str);
            text.map(str::to_owned).ok_or(format!("{LIST}: a mutation has no text `{key}`"))
        };
        Ok(Mutation {
            name: field("name")?,
            file: field("file")?,
            find: field("find")?,
            replace: field("replace")?,
            expect: field("expect")?,
        })
    };
    list.iter().map(one).collect()
}

/// The file's text with the fault.
fn planted(text: &str, m: &Mutation) -> Result<String, String> {
    match text.matches(&m.find).count() {
        1 => Ok(text.replacen(&m.find, &m.replace, 1)),
        n => Err(format!(
            "{LIST}: `{}` looks for a text that occurs {n} times in {}; make it occur once",
            m.name, m.file
        )),
    }
}

/// The copy of the core that is changed.
struct Copy {
    tree: PathBuf,
    build: PathBuf,
}

impl Copy {
    fn make(&self, root: &Path) -> Result<(), String> {
        for folder in FOLDERS {
            copy_folder(root, Path::new(folder), &self.tree)?;
        }
        let lock = read(&root.join("Cargo.lock"))?;
        write(&self.tree.join("Cargo.lock"), &lock)?;
        let workspace = workspace(&read(&root.join("Cargo.toml"))?)?;
        write(&self.tree.join("Cargo.toml"), &workspace)
    }

    fn build(&self, what: &str) -> Result<(), String> {
        let mut command = Command::new("cargo");
        command.args(["build", "--quiet", "--release", "--offline"]);
        command.args(["--package", "scheduler", "--example", "worlds"]);
        command
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.build)
            .env("CARGO_INCREMENTAL", "1");
        // A fault changes little, and what a fault leaves behind unused is no news.
        command.env("RUSTFLAGS", "-A warnings");
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(format!("`{what}` does not build; see above")),
            Err(error) => Err(format!("cargo can't be run: {error}")),
        }
    }

    /// Plays worlds until one breaks.
    fn play(&self, worlds: u64) -> Result<Fate, String> {
        let mut command = Command::new(self.build.join("release/examples/worlds"));
        command.args(["--count", &worlds.to_string(), "--seconds", &SECONDS.to_string()]);
        command.arg("--until-broken").stdout(Stdio::piped());
        let failed = |e| format!("the worlds can't be played: {e}");
        let mut child = command.spawn().map_err(failed)?;
        let started = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break Some(status);
            }
            if started.elapsed() > PATIENCE {
                // It may have ended meanwhile.
                let _ = child.kill();
                child.wait().map_err(failed)?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut text = String::new();
        let output = child.stdout.as_mut();
        output.map_or(Ok(0), |o| o.read_to_string(&mut text)).map_err(failed)?;
        fate(&text, ended.map(|status| status.success()))
    }
}

/// What the example said. `ended`: whether it was content, `None` = it did not end.
fn fate(text: &str, ended: Option<bool>) -> Result<Fate, String> {
    let first = text.lines().find_map(|line| {
        let (world, rest) = line.strip_prefix("world ")?.split_once(": ")?;
        let (invariant, _) = rest.split_once(" broken at ")?;
        Some(Fate::Caught(invariant.to_owned(), format!("world {world}")))
    });
    match (first, ended) {
        (Some(caught), _) => Ok(caught),
        (None, Some(true)) => Ok(Fate::Escaped),
        (None, None) => Ok(Fate::Caught("it comes to an end".to_owned(), "-".to_owned())),
        (None, Some(false)) => Err(format!("the worlds ended without a result:\n{text}")),
    }
}

/// Copies a folder; files that are the same stay as they are, so that they are not built again.
fn copy_folder(root: &Path, folder: &Path, to: &Path) -> Result<(), String> {
    let failed = |e| format!("{} can't be copied: {e}", folder.display());
    fs::create_dir_all(to.join(folder)).map_err(failed)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(folder)).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let path = folder.join(&name);
        names.push(name);
        if path == Path::new(LEFT_OUT) {
            continue;
        }
        if root.join(&path).is_dir() {
            copy_folder(root, &path, to)?;
        } else {
            let bytes = fs::read(root.join(&path)).map_err(failed)?;
            if fs::read(to.join(&path)).ok().as_ref() != Some(&bytes) {
                fs::write(to.join(&path), bytes).map_err(failed)?;
            }
        }
    }
    // What was there in an earlier run and is no more.
    for entry in fs::read_dir(to.join(folder)).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !names.contains(&entry.file_name()) {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
                .map_err(failed)?;
        }
    }
    Ok(())
}

/// The workspace with the members of the copy only.
fn workspace(text: &str) -> Result<String, String> {
    let mut table: toml::Table = text.parse().map_err(|e| format!("Cargo.toml: {e}"))?;
    let workspace = table.get_mut("workspace").and_then(toml::Value::as_table_mut);
    let workspace = workspace.ok_or("Cargo.toml: there is no [workspace]")?;
    let members = MEMBERS.iter().map(|m| toml::Value::from(*m)).collect();
    workspace.insert("members".to_owned(), toml::Value::Array(members));
    if let Some(all) = workspace.get_mut("dependencies").and_then(toml::Value::as_table_mut) {
        all.retain(|_, dependency| {
            let path = dependency.get("path").and_then(toml::Value::as_str);
            path.is_none_or(|path| MEMBERS.contains(&path))
        });
    }
    toml::to_string(&table).map_err(|e| format!("Cargo.toml: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_planted_where_its_text_occurs_once() {
        let list = "[[mutation]]\nname = 'n'\nfile = 'f'\nfind = 'a'\nreplace = 'b'\nexpect = 'x'";
        let m = parse(list).unwrap().remove(0);
        assert_eq!(planted("cac", &m).unwrap(), "cbc");
        assert!(planted("aa", &m).unwrap_err().contains("occurs 2 times in f"));
        assert!(planted("c", &m).unwrap_err().contains("occurs 0 times in f"));
        assert!(parse("[[mutation]]\nname = 'n'").unwrap_err().contains("`file`"));
    }

    #[test]
    fn the_committed_list_fits_the_core() {
        let root = crate::repository::root();
        let mutations = parse(&read(&root.join(LIST)).unwrap()).unwrap();
        assert!(mutations.len() >= 10, "{} mutations", mutations.len());
        for m in &mutations {
            planted(&read(&root.join(&m.file)).unwrap(), m).unwrap();
        }
    }

    #[test]
    fn the_copy_has_only_its_own_members() {
        let text = "[workspace]\nmembers = ['base', 'vas']\n[workspace.dependencies]\n\
                    base = { path = 'base' }\nvas = { path = 'vas' }\ntoml = '1'\n";
        let table: toml::Table = workspace(text).unwrap().parse().unwrap();
        let dependencies = table["workspace"]["dependencies"].as_table().unwrap();
        assert!(dependencies.contains_key("base") && dependencies.contains_key("toml"));
        assert!(!dependencies.contains_key("vas"), "{dependencies:?}");
        assert_eq!(table["workspace"]["members"].as_array().unwrap().len(), MEMBERS.len());
    }

    #[test]
    fn the_first_broken_world_tells() {
        let text = "100 worlds, 0 broken, 1.0 s\nworld 7: ceiling broken at 1.5 s: s1: 3 frames";
        let caught = Fate::Caught("ceiling".to_owned(), "world 7".to_owned());
        assert_eq!(fate(text, Some(false)), Ok(caught));
        assert_eq!(fate("fine", Some(true)), Ok(Fate::Escaped));
        assert!(fate("", Some(false)).is_err());
        assert!(matches!(fate("", None), Ok(Fate::Caught(..))));
    }
}
