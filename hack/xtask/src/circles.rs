//! No circles between the files of a crate: each can be read, tested and changed with only those that
//! it uses.
//!
//! Those that are left from before stand in a list, which may only shrink.

use crate::modules::{Use, Uses, uses};
use crate::repository::File;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The circles that are left, by their files.
const LIST: &str = "hack/circles.toml";

/// Files that use each other.
type Circle = BTreeSet<String>;

/// Checks the crates among `files`, and the list.
pub fn check(files: &[File], problems: &mut Vec<String>) {
    let listed = match listed(files) {
        Ok(listed) => listed,
        Err(problem) => return problems.push(problem),
    };
    let uses = uses(files);
    let found = circles(&uses);
    for circle in found.iter().filter(|c| !listed.contains(c)) {
        if listed.iter().any(|entry| circle.is_subset(entry)) {
            let left = names(circle);
            problems.push(format!("{LIST}: a circle became smaller; what is left of it is {left}"));
        } else {
            problems.push(format!("{}: {}", names(circle), closed_by(&uses, circle)));
        }
    }
    for entry in listed.iter().filter(|entry| !found.contains(entry)) {
        if !found.iter().any(|circle| circle.is_subset(entry)) {
            problems.push(format!("{LIST}: no circle any more, remove it: {}", names(entry)));
        }
    }
}

fn names(circle: &Circle) -> String {
    circle.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn listed(files: &[File]) -> Result<Vec<Circle>, String> {
    let Some(text) = files.iter().find(|f| f.path == LIST).and_then(File::text) else {
        return Ok(Vec::new());
    };
    let table: toml::Table = text.parse().map_err(|e| format!("{LIST}: {e}"))?;
    let circles = table.get("circles").and_then(toml::Value::as_array);
    let circles = circles.ok_or(format!("{LIST}: there is no list `circles`"))?;
    let circle = |value: &toml::Value| {
        let files = value.as_array().into_iter().flatten().map(|f| f.as_str().map(str::to_owned));
        files.collect::<Option<Circle>>().ok_or(format!("{LIST}: a circle is a list of files"))
    };
    circles.iter().map(circle).collect()
}

/// The sets of files each of which can be reached from each other one of its set.
fn circles(uses: &Uses) -> Vec<Circle> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        uses.keys().map(|file| (file.as_str(), reached(uses, file))).collect();
    let mut found = BTreeSet::new();
    for (file, others) in &reached {
        let back = |other: &&&str| reached.get(**other).is_some_and(|r| r.contains(file));
        let circle: Circle = others.iter().filter(back).map(|o| (*o).to_owned()).collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// The files that a file uses, directly or not.
fn reached<'u>(uses: &'u Uses, from: &str) -> BTreeSet<&'u str> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(file) = next.pop() {
        for to in uses.get(file).into_iter().flat_map(|to| to.keys()) {
            if found.insert(to.as_str()) {
                next.push(to);
            }
        }
    }
    found
}

/// The uses of a shortest way round in a circle.
fn closed_by(uses: &Uses, circle: &Circle) -> String {
    let ways = circle.iter().filter_map(|file| way_round(uses, file));
    let shortest = ways.min_by_key(Vec::len).unwrap_or_default();
    let step =
        |(from, to, by): &(&str, &str, &Use)| format!("{from}:{} uses {to} ({})", by.line, by.path);
    let steps: Vec<String> = shortest.iter().map(step).collect();
    format!("a circle of files: {}", steps.join(", "))
}

/// A step from one file to another.
type Step<'u> = (&'u str, &'u str, &'u Use);

/// The fewest uses that lead from a file back to it.
fn way_round<'u>(uses: &'u Uses, start: &'u str) -> Option<Vec<Step<'u>>> {
    let mut came_by: BTreeMap<&str, Step<'u>> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(from) = next.pop_front() {
        for (to, by) in uses.get(from)? {
            if came_by.contains_key(to.as_str()) {
                continue;
            }
            came_by.insert(to, (from, to, by));
            if to == start {
                let mut way = vec![came_by[start]];
                while way[way.len() - 1].0 != start {
                    way.push(came_by[way[way.len() - 1].0]);
                }
                way.reverse();
                return Some(way);
            }
            next.push_back(to);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(sources: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = sources
            .iter()
            .map(|(path, text)| File { path: (*path).to_owned(), bytes: text.as_bytes().to_vec() })
            .collect();
        let mut problems = Vec::new();
        check(&files, &mut problems);
        problems
    }

    const ROOT: (&str, &str) = ("c/src/lib.rs", "mod a;\nmod b;\npub use a::A;\n");
    const A: (&str, &str) = ("c/src/a.rs", "use crate::b::B;\npub struct A(B);\n");
    const B: (&str, &str) = ("c/src/b.rs", "\npub struct B;\nfn f(a: crate::a::A) {}\n");
    const LISTED: &str = "circles = [\n    [\"c/src/a.rs\", \"c/src/b.rs\"],\n]\n";

    #[test]
    fn a_new_circle_is_refused_with_the_uses_that_close_it() {
        let told = "c/src/a.rs, c/src/b.rs: a circle of files: c/src/a.rs:1 uses c/src/b.rs \
                    (crate::b::B), c/src/b.rs:3 uses c/src/a.rs (crate::a::A)";
        assert_eq!(problems(&[ROOT, A, B]), [told]);
        // A name that the root passes on is of the file that it comes from.
        let b = ("c/src/b.rs", "pub struct B;\nuse super::A;\n");
        assert!(problems(&[ROOT, A, b])[0].contains("c/src/b.rs:2 uses c/src/a.rs (super::A)"));
        let b = ("c/src/b.rs", "pub struct B;\nuse crate::a;\nfn f() { a::g() }\n");
        assert_eq!(problems(&[ROOT, A, b]).len(), 1);
    }

    #[test]
    fn arrows_that_point_one_way_are_fine() {
        let b = ("c/src/b.rs", "pub struct B; // crate::a::A\nconst S: &str = \"crate::a::A\";\n");
        assert_eq!(problems(&[ROOT, A, b]), [""; 0]);
        let tests = "pub struct B;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n";
        assert_eq!(problems(&[ROOT, A, ("c/src/b.rs", tests)]), [""; 0]);
        let tests = "pub struct B;\n#[cfg(test)]\nmod tests;\n";
        let apart = ("c/src/b/tests.rs", "use crate::a::A;\nuse super::B;\n");
        assert_eq!(problems(&[ROOT, A, ("c/src/b.rs", tests), apart]), [""; 0]);
        let other = ("d/src/lib.rs", "mod a;\nmod b;\n");
        let of_other = ("d/src/a.rs", "use crate::b::B;\n");
        let to = ("d/src/b.rs", "pub struct B;\n");
        assert_eq!(problems(&[ROOT, A, b, other, of_other, to]), [""; 0]);
    }

    #[test]
    fn a_parent_declares_and_passes_on_and_does_not_use() {
        let child = ("c/src/a/child.rs", "use super::A;\npub struct Child(A);\n");
        let passes = "mod child;\npub use child::Child;\npub struct A;\n";
        let root = ("c/src/lib.rs", "mod a;\n");
        assert_eq!(problems(&[root, ("c/src/a.rs", passes), child]), [""; 0]);
        for uses in ["use child::Child;", "use self::child::Child;", "fn f(c: child::Child) {}"] {
            let parent = format!("mod child;\npub struct A;\n{uses}\n");
            let told = problems(&[root, ("c/src/a.rs", &parent), child]);
            assert_eq!(told.len(), 1, "{uses}: {told:?}");
            assert!(told[0].contains("c/src/a.rs:3 uses c/src/a/child.rs"), "{told:?}");
        }
    }

    #[test]
    fn a_module_within_a_file_is_of_that_file() {
        let inline =
            "use crate::b::B;\nmod inner {\n    use super::super::b::B;\n    pub struct I;\n}\n";
        let b = ("c/src/b.rs", "pub struct B;\n");
        assert_eq!(problems(&[ROOT, ("c/src/a.rs", inline), b]), [""; 0]);
        let b = ("c/src/b.rs", "pub struct B;\nuse crate::a::inner::I;\n");
        let told = problems(&[ROOT, ("c/src/a.rs", inline), b]);
        assert!(told[0].contains("c/src/b.rs:2 uses c/src/a.rs"), "{told:?}");
    }

    #[test]
    fn a_listed_circle_is_accepted_and_a_larger_one_is_not() {
        let list = (LIST, LISTED);
        assert_eq!(problems(&[ROOT, A, B, list]), [""; 0]);
        let root = ("c/src/lib.rs", "mod a;\nmod b;\nmod d;\n");
        let a = ("c/src/a.rs", "use crate::b::B;\nuse crate::d::D;\npub struct A(B);\n");
        let d = ("c/src/d.rs", "use crate::a::A;\npub struct D;\n");
        let told = problems(&[root, a, B, d, list]);
        assert!(told[0].starts_with("c/src/a.rs, c/src/b.rs, c/src/d.rs: a circle"), "{told:?}");
    }

    #[test]
    fn a_stale_entry_is_refused() {
        let list = (LIST, LISTED);
        let b = ("c/src/b.rs", "pub struct B;\n");
        let told = "hack/circles.toml: no circle any more, remove it: c/src/a.rs, c/src/b.rs";
        assert_eq!(problems(&[ROOT, A, b, list]), [told]);
        let larger = "circles = [[\"c/src/a.rs\", \"c/src/b.rs\", \"c/src/d.rs\"]]";
        let told = "hack/circles.toml: a circle became smaller; what is left of it is c/src/a.rs, \
                    c/src/b.rs";
        assert_eq!(problems(&[ROOT, A, B, (LIST, larger)]), [told]);
        assert!(problems(&[(LIST, "circles = 1")])[0].contains("no list `circles`"));
        assert!(problems(&[(LIST, "circles = [1, [2]]")])[0].contains("a list of files"));
    }
}
