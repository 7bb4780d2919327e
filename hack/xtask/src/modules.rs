//! Which file of a crate uses which other: read from the paths that its modules name.
//!
//! What only tests see does not count, and a module that declares another one and passes its names on
//! does not use it by that. A name that a module passes on counts as of the file that it comes from.
//! Methods are not seen: an `impl` may call those of another file without naming it.

use crate::repository::File;
use crate::rust_text::{code_only, line, matching_brace, paths, words};
use std::collections::{BTreeMap, BTreeSet};

/// Names that are passed on through more modules than this are not followed.
const DEPTH_MAX: u32 = 8;

/// What one file names of another: the line, and the path as it stands there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    pub line: usize,
    pub path: String,
}

/// From file to file, with the first use of each.
pub type Uses = BTreeMap<String, BTreeMap<String, Use>>;

/// The uses between the files of all crates among `files`.
pub fn uses(files: &[File]) -> Uses {
    let mut uses = Uses::new();
    for file in files.iter().filter(|f| is_root(&f.path)) {
        Crate::read(file, files).add_uses(&mut uses);
    }
    uses
}

/// Whether a crate begins with this file: a library, a program, or one of several.
fn is_root(path: &str) -> bool {
    let bin = path.rsplit_once('/').is_some_and(|(folder, _)| folder.ends_with("/src/bin"));
    path.ends_with("/src/lib.rs")
        || path.ends_with("/src/main.rs")
        || (bin && path.ends_with(".rs"))
}

/// Names of modules from the root on; empty = the root.
type ModulePath = Vec<String>;

/// A `use` declaration: what it covers of the text, and whether it passes names on.
struct Declaration {
    from: usize,
    to: usize,
    public: bool,
}

/// A file of a crate.
struct Source {
    file: String,
    module: ModulePath,
    /// Without comments, literals and what only tests see.
    code: String,
    declarations: Vec<Declaration>,
    /// What its declarations name, by the name that it has here, `*` = all of a module.
    bound: Vec<(String, Vec<String>)>,
    /// Modules within the file: their names below `module`, and where they stand.
    inline: Vec<(ModulePath, usize, usize)>,
}

/// A crate: its files, and which of them each module is in.
struct Crate {
    sources: Vec<Source>,
    modules: BTreeMap<ModulePath, usize>,
}

impl Crate {
    fn read(root: &File, files: &[File]) -> Crate {
        let mut found = Crate { sources: Vec::new(), modules: BTreeMap::new() };
        let folder = root.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        found.add(root, folder, Vec::new(), files);
        found
    }

    /// Adds a file and the modules that it declares, whose files lie in `folder`.
    fn add(&mut self, file: &File, folder: &str, module: ModulePath, files: &[File]) {
        let Some(text) = file.text() else { return };
        let source = Source::new(&file.path, module.clone(), text);
        let declared = source.declared();
        let at = self.sources.len();
        self.modules.insert(module.clone(), at);
        for (names, ..) in &source.inline {
            self.modules.insert([&module[..], names].concat(), at);
        }
        self.sources.push(source);
        for names in declared {
            let below = format!("{folder}/{}", names.join("/"));
            let beside = format!("{below}.rs");
            let inside = format!("{below}/mod.rs");
            let Some(file) = files.iter().find(|f| f.path == beside || f.path == inside) else {
                continue;
            };
            self.add(file, &below, [&module[..], &names].concat(), files);
        }
    }

    fn add_uses(&self, uses: &mut Uses) {
        for source in &self.sources {
            let from = uses.entry(source.file.clone()).or_default();
            for (offset, path) in self.paths_of(source) {
                let Some(to) = self.resolve(&source.module_at(offset), &path, 0) else { continue };
                let passes_on = source.declarations.iter().any(|d| d.public && d.covers(offset));
                let target = &self.sources[to];
                if target.file == source.file
                    || (passes_on && target.module.starts_with(&source.module))
                {
                    continue;
                }
                let here = Use { line: line(&source.code, offset), path: path.join("::") };
                let first = from.entry(target.file.clone()).or_insert_with(|| here.clone());
                if here < *first {
                    *first = here;
                }
            }
        }
    }

    /// The paths of a file that may lead to another file of the crate, with their places.
    fn paths_of(&self, source: &Source) -> Vec<(usize, Vec<String>)> {
        let mut firsts = BTreeSet::from(["crate", "self", "super"]);
        // Modules below one of this file's, and what it took in from this crate.
        let below = self.modules.keys().filter(|m| m.len() > source.module.len());
        let below = below.filter(|m| m.starts_with(&source.module));
        firsts.extend(below.filter_map(|m| m.last().map(String::as_str)));
        let ours = source.bound.iter().filter(|(_, path)| firsts.contains(path[0].as_str()));
        let ours: Vec<&str> = ours.map(|(name, _)| name.as_str()).collect();
        firsts.extend(ours);
        let mut found: Vec<_> = firsts.iter().flat_map(|f| split_paths(&source.code, f)).collect();
        found.sort();
        found
    }

    /// The file that a path leads to which stands in module `from`; `None` = it is not of this crate.
    fn resolve(&self, from: &[String], path: &[String], depth: u32) -> Option<usize> {
        let mut at = from.to_vec();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            name => {
                let below = [from, &[name.to_owned()]].concat();
                if !self.modules.contains_key(&below) {
                    return self.passed_on(from, name, &rest[1..], depth);
                }
            }
        }
        while let Some(name) = rest.first() {
            let below = [&at[..], std::slice::from_ref(name)].concat();
            if !self.modules.contains_key(&below) {
                break;
            }
            (at, rest) = (below, &rest[1..]);
        }
        let here = self.modules.get(&at).copied();
        match rest.first().map(String::as_str) {
            None | Some("*" | "self") => here,
            Some(name) => self.passed_on(&at, name, &rest[1..], depth).or(here),
        }
    }

    /// The file that a name comes from which module `at` took in from elsewhere in the crate.
    fn passed_on(&self, at: &[String], name: &str, rest: &[String], depth: u32) -> Option<usize> {
        let source = &self.sources[*self.modules.get(at)?];
        if depth == DEPTH_MAX || source.module != at {
            return None;
        }
        if let Some((_, path)) = source.bound.iter().find(|(n, path)| n == name && path[0] != name)
        {
            let path = [&path[..], rest].concat();
            return self.resolve(at, &path, depth + 1);
        }
        if defines(&source.code, name) {
            return None;
        }
        // Taken in with all others.
        let mut globs = source.bound.iter().filter(|(n, _)| n == "*");
        globs.find_map(|(_, path)| {
            let to = self.resolve(at, &path[..path.len() - 1], depth + 1)?;
            let found = &self.sources[to];
            if defines(&found.code, name) {
                return Some(to);
            }
            self.passed_on(&found.module, name, rest, depth + 1)
        })
    }
}

impl Declaration {
    fn covers(&self, offset: usize) -> bool {
        (self.from..self.to).contains(&offset)
    }
}

impl Source {
    fn new(file: &str, module: ModulePath, text: &str) -> Source {
        let code = without_tests(&code_only(text));
        let declarations = declarations(&code);
        let (inline, bound) = (inline_modules(&code), bound(&code, &declarations));
        Source { file: file.to_owned(), module, code, declarations, bound, inline }
    }

    /// The module that a place of the file lies in.
    fn module_at(&self, offset: usize) -> ModulePath {
        let around = self.inline.iter().filter(|(_, from, to)| (*from..*to).contains(&offset));
        let names = around.max_by_key(|(names, ..)| names.len()).map(|(names, ..)| names.clone());
        [self.module.clone(), names.unwrap_or_default()].concat()
    }

    /// Modules with a file of their own, as they are named below this one.
    fn declared(&self) -> Vec<ModulePath> {
        let ends = |at: usize| self.code[at..].trim_start().starts_with(';');
        let files = named_modules(&self.code).filter(|(_, _, end)| ends(*end));
        files
            .map(|(at, name, _)| {
                let mut names = self.module_at(at).split_off(self.module.len());
                names.push(name);
                names
            })
            .collect()
    }
}

/// What the declarations name, by the name that it has here.
fn bound(code: &str, declarations: &[Declaration]) -> Vec<(String, Vec<String>)> {
    let mut bound = Vec::new();
    for d in declarations {
        let tree = code[d.from..d.to]["use".len()..].trim_start();
        let first = &tree[..word_length(tree)];
        for (at, mut path) in split_paths(tree, first) {
            if path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let Some(name) = path.last().cloned() else { continue };
            let after = &tree[at..];
            let renamed = after[word_length(after)..].trim_start().strip_prefix("as ");
            let name = renamed.map_or(name, |to| {
                let to = to.trim_start();
                to[..word_length(to)].to_owned()
            });
            bound.push((name, path));
        }
    }
    bound
}

fn word_length(text: &str) -> usize {
    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
}

/// The paths of `code` with at least two parts that start with `first`; the place is that of the last
/// part.
fn split_paths(code: &str, first: &str) -> Vec<(usize, Vec<String>)> {
    if first.is_empty() {
        return Vec::new();
    }
    let split = |path: String| -> Vec<String> {
        path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let found = paths(code, first).into_iter().map(|(at, path)| (at, split(path)));
    found.filter(|(_, path)| path.len() > 1).collect()
}

/// Whether an item of this name stands in the code.
fn defines(code: &str, name: &str) -> bool {
    const KINDS: [&str; 9] =
        ["struct", "enum", "trait", "type", "fn", "const", "static", "union", "macro_rules!"];
    words(code, name).any(|at| {
        let before = code[..at].trim_end();
        KINDS.iter().any(|kind| before.ends_with(kind))
    })
}

/// Every `mod NAME`: where it stands, the name, and where that ends.
fn named_modules(code: &str) -> impl Iterator<Item = (usize, String, usize)> {
    words(code, "mod").filter_map(|at| {
        let after = &code[at + 3..];
        let name = after.trim_start();
        let length = word_length(name);
        let end = at + 3 + (after.len() - name.len()) + length;
        (length > 0).then(|| (at, name[..length].to_owned(), end))
    })
}

fn inline_modules(code: &str) -> Vec<(ModulePath, usize, usize)> {
    let mut found: Vec<(ModulePath, usize, usize)> = Vec::new();
    for (at, name, end) in named_modules(code) {
        let Some(open) = code[end..].find(|c: char| !c.is_whitespace()).map(|n| end + n) else {
            continue;
        };
        if code.as_bytes()[open] == b'{' {
            let around = found.iter().filter(|(_, from, to)| (*from..*to).contains(&at));
            let around = around.max_by_key(|(names, ..)| names.len());
            let mut names = around.map_or_else(Vec::new, |(names, ..)| names.clone());
            names.push(name);
            found.push((names, open, matching_brace(code, open)));
        }
    }
    found
}

/// The `use` declarations of the code.
fn declarations(code: &str) -> Vec<Declaration> {
    let mut found = Vec::new();
    for at in words(code, "use") {
        let before = code[..at].trim_end();
        // `impl Trait + use<'a>` declares nothing.
        if code[at + 3..].trim_start().starts_with('<') {
            continue;
        }
        let statement = before.rfind([';', '}', '{', ']']).map_or(0, |n| n + 1);
        let public = words(&before[statement..], "pub").next().is_some();
        let to = code[at..].find(';').map_or(code.len(), |n| at + n);
        found.push(Declaration { from: at, to, public });
    }
    found
}

/// The code with what only tests see blanked out.
fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for marker in ["#[cfg(test)]", "#[cfg(all(test", "#[cfg(loom)]"] {
        for (at, _) in code.match_indices(marker) {
            for b in &mut bytes[at..item_end(code, at)] {
                if *b != b'\n' {
                    *b = b' ';
                }
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where the item ends whose attribute begins at `at`.
fn item_end(code: &str, at: usize) -> usize {
    let mut next = at;
    // Attributes.
    while code[next..].trim_start().starts_with("#[") {
        let Some(close) = code[next..].find(']') else { return code.len() };
        next += close + 1;
    }
    let Some(end) = code[next..].find([';', '{']).map(|n| next + n) else { return code.len() };
    if code.as_bytes()[end] == b';' || words(&code[next..end], "use").next().is_some() {
        return code[next..].find(';').map_or(code.len(), |n| next + n + 1);
    }
    matching_brace(code, end)
}
