//! The mutants there are: every mark in the sources, and every rule that an error names.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};

/// Where marks and rules are looked for.
pub(super) const SOURCES: [&str; 2] = ["migration-abi/src", "vcpu-xstate/src"];

/// Rules that no code can do without, and why: what is refused is not there.
const INHERENT: &[(&str, &str)] = &[
    (
        "blob-room",
        "a slice that is too short cannot be written to",
    ),
    (
        "frame-room",
        "a slice that is too short cannot be written to",
    ),
    (
        "legacy-room",
        "a slice that is too short cannot be written to",
    ),
    (
        "export-buffer",
        "a slice that is too short cannot be written to",
    ),
    (
        "unholdable-buffer",
        "a slice that is too short cannot be written to",
    ),
    ("area-memory", "memory that is not there cannot be used"),
    (
        "legacy-image-length",
        "bytes that are not there cannot be read",
    ),
    (
        "legacy-xcrs-length",
        "bytes that are not there cannot be read",
    ),
    (
        "legacy-xcrs-count",
        "XCRs that are not there cannot be read",
    ),
    (
        "legacy-xen-length",
        "bytes that are not there cannot be read",
    ),
    ("image-too-short", "bytes that are not there cannot be read"),
    (
        "update-image",
        "an image that cannot be read cannot be updated",
    ),
    (
        "registers-length",
        "bytes that are not there cannot be read",
    ),
    (
        "config-no-value",
        "a setting without a value has none to be taken",
    ),
    (
        "config-unknown-feature",
        "a feature nobody knows has no bit to be set",
    ),
    (
        "config-unknown-carriage",
        "a component nobody can number has no bit to be set",
    ),
];

/// A rule or a mended bug that can be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// What `XFERRY_MUTANT` is set to.
    pub name: String,
    /// Where it is marked, or else named: `file:line`.
    pub places: Vec<String>,
}

/// All mutants, by name.
///
/// # Errors
/// The sources cannot be read, or hold no mark.
pub fn read(root: &Path) -> Result<Vec<Mutant>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in SOURCES {
        walk(&root.join(source), &mut |path, text| {
            let place = path
                .strip_prefix(root)
                .unwrap_or(path)
                .display()
                .to_string();
            for (number, name) in marks(text).into_iter().chain(rules(text)) {
                let places = all.entry(name).or_default();
                places.push(format!("{place}:{number}"));
            }
        })?;
    }
    for (name, _) in INHERENT {
        all.remove(*name);
    }
    ensure!(!all.is_empty(), "the sources have no marks");
    Ok(all
        .into_iter()
        .map(|(name, places)| Mutant { name, places })
        .collect())
}

fn walk(dir: &Path, found: &mut impl FnMut(&Path, &str)) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") && !is_tests(&path) {
            found(&path, &std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// Whether a file is tests, or what they share.
pub(super) fn is_tests(path: &Path) -> bool {
    let path = path.with_extension("");
    path.iter().any(|part| {
        let part = part.to_string_lossy();
        part == "tests" || part.ends_with("_tests") || part == "testing"
    })
}

/// The names in `rule!(…)`, each with its line.
fn marks(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(concat!("rule", "!(")) {
        let line = text[..at].matches('\n').count() + 1;
        // To the parenthesis that closes it; names hold none.
        let mut depth = 0;
        let inside = text[at..].find(|c| {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            c == ')' && depth == 0
        });
        let inside = &text[at..at + inside.unwrap_or(0)];
        if text[..at]
            .lines()
            .next_back()
            .is_some_and(|l| l.trim_start().starts_with("//"))
        {
            continue;
        }
        found.extend(quoted(inside).map(|name| (line, name)));
    }
    found
}

/// The names in tables of rules: a name in kebab case beside a number.
fn rules(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // `Variant = 0x0201, "blob-length", "…";` or `… => ("mxcsr", 0x313, …),`.
        let name = match (line.split_once(" = 0x"), line.split_once("(\"")) {
            (Some((_, rest)), _) => rest.split_once(", \"").map(|(_, rest)| rest),
            (None, Some((_, rest))) if rest.contains("\", 0x") => Some(rest),
            _ => None,
        };
        let name = name.and_then(|rest| rest.split('"').next());
        if let Some(name) = name.filter(|name| is_name(name)) {
            found.push((number + 1, name.to_owned()));
        }
    }
    found
}

fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('"')
        .skip(1)
        .step_by(2)
        .filter(|name| is_name(name))
        .map(str::to_owned)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each bug of the book's table has a mark that there is, or says why not.
    #[test]
    fn marks_of_the_bugs_in_the_book() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let all: Vec<String> = read(&root)
            .unwrap()
            .into_iter()
            .map(|mutant| mutant.name)
            .collect();
        let book = std::fs::read_to_string(root.join("docs/src/proof.md")).unwrap();
        let (_, table) = book
            .split_once("| Bug | Test | Marks |\n|---|---|---|\n")
            .unwrap();
        let mut bugs = 0;
        for row in table.lines().take_while(|line| line.starts_with('|')) {
            let [_, bug, _, marks, _] = row.split('|').collect::<Vec<_>>()[..] else {
                panic!("three columns: {row}");
            };
            let names: Vec<&str> = marks.split('`').skip(1).step_by(2).collect();
            for name in &names {
                assert!(all.iter().any(|one| one == name), "{bug}: no mark {name}");
            }
            assert!(!names.is_empty() || !marks.trim().is_empty(), "{bug}");
            bugs += 1;
        }
        assert!(bugs >= 30, "{bugs}");
    }

    #[test]
    fn files_of_tests() {
        for (path, tests) in [
            ("vcpu-xstate/src/owner.rs", false),
            ("vcpu-xstate/src/owner_tests.rs", true),
            ("vcpu-xstate/src/world_tests/world.rs", true),
            ("vcpu-xstate/src/policy/tests/fits.rs", true),
            ("vcpu-xstate/src/convert/tests.rs", true),
            ("vcpu-xstate/src/testing.rs", true),
            ("vcpu-xstate/src/selftest.rs", false),
            ("vcpu-xstate/src/percpu/self_test.rs", false),
        ] {
            assert_eq!(is_tests(Path::new(path)), tests, "{path}");
        }
    }

    #[test]
    fn marks_and_tables_name_the_mutants() {
        let text = concat!(
            "//! `rule",
            "!(\"name\")`\n",
            "if rule",
            "!(\"first\") && f(a) {}\n",
            "if rule",
            "!(if x(1) { \"second\" } else { \"third\" }) {}\n",
            "if rule",
            "!(rule.name()) {}\n",
        );
        let names: Vec<String> = marks(text).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["first", "second", "third"]);
        let table = "    BlobLength = 0x0201, \"blob-length\", \"a blob fills\";\n\
            \x20   Self::Mxcsr(seen, allowed) => (\"mxcsr\", 0x313, seen, allowed),\n\
            const A: u64 = 0x3;\n";
        let names: Vec<String> = rules(table).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["blob-length", "mxcsr"]);
    }
}
