//! The book has every rule: each name that the libraries can give stands in a table, beside its number.
//!
//! `migration-abi` lists its rules. Those of `vcpu-xstate` are read out of its source,
//! where each is a name and a number side by side.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use migration_abi::error::Rule;
use migration_abi::handover::Refused;
use vcpu_xstate::area::OutOfMemory;

type Named = (String, u32);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files below `dir` that end so.
fn files(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
}

fn number(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x")?;
    let end = digits.find(|c: char| !c.is_ascii_hexdigit());
    u32::from_str_radix(&digits[..end.unwrap_or(digits.len())], 16).ok()
}

fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(letter)
}

/// Each `("name", 0x…` of a source text.
fn rules_of(source: &str) -> impl Iterator<Item = Named> {
    source.split('(').filter_map(|rest| {
        let (name, rest) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        let code = number(rest.strip_prefix(',')?.trim_start())?;
        is_name(name).then(|| (name.to_owned(), code))
    })
}

/// All rules that the two libraries can give.
fn rules() -> BTreeSet<Named> {
    let mut sources = Vec::new();
    files(&root().join("vcpu-xstate/src"), ".rs", &mut sources);
    let tests = |path: &PathBuf| {
        let below = path.strip_prefix(root()).unwrap();
        below.to_string_lossy().contains("test")
    };
    sources.retain(|path| !tests(path));
    let mut rules: BTreeSet<Named> = sources
        .iter()
        .flat_map(|path| rules_of(&std::fs::read_to_string(path).unwrap()).collect::<Vec<_>>())
        .collect();
    assert!(rules.len() >= 110, "{} rules in the source", rules.len());
    rules.insert((OutOfMemory::RULE.into(), OutOfMemory::CODE));
    rules.extend(Rule::ALL.iter().map(|r| (r.name().into(), r.code())));
    rules.extend(Refused::ALL.map(|r| (r.rule().into(), r.code())));
    rules
}

/// `0x301, 0x30e` and `0x403 … 0x40a`, spelled out.
fn numbers(cell: &str) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut range = false;
    for word in cell.split([' ', ',']).filter(|word| !word.is_empty()) {
        match (word, number(word), numbers.last()) {
            ("…" | "–", _, _) => range = true,
            (_, Some(end), Some(start)) if range => {
                numbers.extend(start + 1..=end);
                range = false;
            }
            (_, Some(one), _) => numbers.push(one),
            (_, None, _) => return Vec::new(),
        }
    }
    numbers
}

/// Names and numbers of a table's row: the first cell has numbers, the second as
/// many names.
fn row(line: &str) -> Vec<Named> {
    let mut cells = line.split('|').skip(1);
    let numbers = numbers(cells.next().unwrap_or_default());
    let cell = cells.next().unwrap_or_default();
    let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    if names.len() != numbers.len() {
        return Vec::new();
    }
    let names = names.into_iter().map(str::to_owned);
    names.zip(numbers).collect()
}

#[test]
fn rules_are_in_the_book() {
    let mut pages = Vec::new();
    files(&root().join("docs/src"), ".md", &mut pages);
    let mut book = BTreeSet::new();
    for page in pages {
        let text = std::fs::read_to_string(page).unwrap();
        book.extend(text.lines().flat_map(row));
    }
    let rules = rules();
    let lacking: Vec<_> = rules.difference(&book).collect();
    assert!(lacking.is_empty(), "not in the book: {lacking:x?}");
    let known: BTreeSet<&String> = rules.iter().map(|(name, _)| name).collect();
    let wrong = book.difference(&rules).filter(|one| known.contains(&one.0));
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "under another number: {wrong:x?}");
}

#[test]
fn what_counts_as_a_rule() {
    let source =
        "A => (\"a-b\", 0x1f, x), B => (\n \"c\",\n 0x20\n), C => (\"D\", 0x1), f(\"e\", 2)";
    let named = |name: &str, code| (name.to_owned(), code);
    let found: Vec<Named> = rules_of(source).collect();
    assert_eq!(found, [named("a-b", 0x1f), named("c", 0x20)]);
    assert_eq!(
        row("| 0x1, 0x3 … 0x4 | `a` `b` `c` | 0x9 `d` |"),
        [named("a", 1), named("b", 3), named("c", 4)]
    );
    assert_eq!(row("| 0x1 | `a` `b` |"), []);
    assert_eq!(row("| 8 | `a` | |"), []);
}
