//! Rules for source text, line by line.

use std::path::Path;

use super::Finding;

/// Lines in a file beyond which it has more than one reason to exist.
const LONGEST: usize = 400;

/// The same for tests, whose reasons are the rules that they go through.
const LONGEST_TESTS: usize = 600;

/// What no file may say. Written in pieces, or this file would.
const REFUSED: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "is unfinished work"),
    (concat!("/ho", "me/"), "is a path of one machine"),
    (concat!("/ro", "ot/"), "is a path of one machine"),
    (concat!("/Use", "rs/"), "is a path of one machine"),
];

/// What no Rust source may say.
const REFUSED_RUST: &[(&str, &str)] = &[
    (concat!("todo", "!("), "is unfinished work"),
    (concat!("unimplemented", "!("), "is unfinished work"),
    (concat!("dbg", "!("), "is for debugging"),
    (
        concat!("#[ign", "ore"),
        "hides a test: make it pass, or remove it",
    ),
];

/// Checks one text file.
pub fn check(path: &Path, text: &str) -> Vec<Finding> {
    let place = path.display().to_string();
    let mut findings = Vec::new();
    let rust = path.extension().is_some_and(|e| e == "rs");
    let assembly = path.extension().is_some_and(|e| e == "S");

    for (number, line) in text.lines().enumerate() {
        let words = REFUSED.iter().chain(if rust { REFUSED_RUST } else { &[] });
        for (word, why) in words {
            if line.contains(word) {
                findings.push(Finding::new(
                    format!("{place}:{}", number + 1),
                    format!("{word} {why}"),
                ));
            }
        }
    }
    let first = text.lines().next().unwrap_or_default();
    if rust && !first.starts_with("//! ") {
        findings.push(Finding::new(
            format!("{place}:1"),
            "the first line must be a //! that says what the file is for",
        ));
    }
    if assembly && !["//", "/*", "#"].iter().any(|c| first.starts_with(c)) {
        findings.push(Finding::new(
            format!("{place}:1"),
            "the first line must be a comment that says what the file is for",
        ));
    }
    let lines = text.lines().count();
    let longest = if is_tests(path) {
        LONGEST_TESTS
    } else {
        LONGEST
    };
    if (rust || assembly) && lines > longest {
        findings.push(Finding::new(
            &place,
            format!("{lines} lines, allowed {longest}"),
        ));
    }
    if rust {
        findings.extend(check_unsafe(&place, text));
    }
    findings
}

fn is_tests(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.ends_with("tests") || path.iter().any(|part| part == "tests")
}

/// Unsafe code: opted into with a reason, each block with the discharge of its
/// callee's preconditions, each function with its own.
fn check_unsafe(place: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (index, line) in lines.iter().enumerate() {
        let at = || format!("{place}:{}", index + 1);
        let code = line.split("//").next().unwrap_or_default();
        if code.contains(concat!("allow(unsafe", "_code)")) {
            let reason = line
                .split_once("//")
                .is_some_and(|(_, why)| !why.trim().is_empty());
            let above = index > 0
                && lines[index - 1].starts_with("//")
                && !lines[index - 1].starts_with("//!");
            if !reason && !above {
                findings.push(Finding::new(
                    at(),
                    "opting into unsafe code needs the reason in a comment beside it",
                ));
            }
        }
        if is_unsafe(code, "{") || is_unsafe(code, "impl") {
            if !comment_above(&lines, index).contains("SAFETY: ") && !line.contains("SAFETY: ") {
                findings.push(Finding::new(
                    at(),
                    "unsafe needs a // SAFETY: comment that discharges its preconditions",
                ));
            }
        } else if is_unsafe(code, "fn ") || is_unsafe(code, "extern \"C\" fn ") {
            // Who calls from elsewhere finds the preconditions in the
            // documentation; those of a private function may be said in passing.
            let above = comment_above(&lines, index);
            let enough = if code.starts_with("pub") {
                above.contains("# Safety")
            } else {
                !above.is_empty()
            };
            if !enough && !in_trait_impl(&lines, index) {
                findings.push(Finding::new(
                    at(),
                    "an unsafe fn needs a # Safety section that names its preconditions",
                ));
            }
        }
    }
    findings
}

/// Whether `code` has `unsafe` followed by `what` outside a string.
fn is_unsafe(code: &str, what: &str) -> bool {
    let before = code.split('"').next().unwrap_or_default();
    before
        .match_indices(concat!("uns", "afe"))
        .any(|(at, word)| {
            let start = code[..at].chars().next_back();
            let separate = start.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '(');
            separate && code[at + word.len()..].trim_start().starts_with(what)
        })
}

/// The comments, attributes and unfinished expression directly above a line.
fn comment_above(lines: &[&str], index: usize) -> String {
    let mut above = String::new();
    let mut comment_seen = false;
    for line in lines[..index].iter().rev() {
        let comment = line.starts_with("//");
        // Between a comment and its block may stand the rest of the statement
        // (`let x =`), attributes, and blocks that the same comment covers.
        let passes = line.starts_with('#')
            || (!comment_seen && !line.is_empty() && !line.ends_with([';', '}']));
        if !comment && !passes {
            break;
        }
        comment_seen |= comment;
        above.push_str(line);
        above.push('\n');
    }
    above
}

/// Whether the line is in an `impl Trait for` block, where the trait has the
/// documentation.
fn in_trait_impl(lines: &[&str], index: usize) -> bool {
    lines[..index]
        .iter()
        .rev()
        .find(|line| {
            line.contains("impl") && line.ends_with('{')
                || line.starts_with("pub trait")
                || line.starts_with("trait")
        })
        .is_some_and(|line| line.contains(" for "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(text: &str) -> Vec<String> {
        check(Path::new("a.rs"), text)
            .into_iter()
            .map(|f| f.what)
            .collect()
    }

    #[test]
    fn a_clean_file_has_no_findings() {
        assert_eq!(
            whats("//! Says what it is for.\n\nfn f() {}\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_rule_finds_its_breach() {
        let long = format!("//! x\n{}", "\n".repeat(LONGEST));
        for (text, part) in [
            ("fn f() {}\n", "first line"),
            (long.as_str(), "401 lines, allowed 400"),
            (concat!("//! x\nfn f() { todo", "!() }\n"), "unfinished"),
            (concat!("//! x\n// FIX", "ME later\n"), "unfinished"),
            (
                concat!("//! x\nconst P: &str = \"/ho", "me/me/x\";\n"),
                "one machine",
            ),
            (concat!("//! x\n#[ign", "ore = \"slow\"]\n"), "hides a test"),
            (concat!("//! x\n#![allow(unsafe", "_code)]\n"), "reason"),
            (concat!("//! x\nlet x = uns", "afe { f() };\n"), "SAFETY"),
            (concat!("//! x\nuns", "afe impl Sync for X {}\n"), "SAFETY"),
            (concat!("//! x\npub uns", "afe fn f() {}\n"), "# Safety"),
        ] {
            let found = whats(text);
            assert!(
                found.len() == 1 && found[0].contains(part),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn discharged_unsafe_is_accepted() {
        for text in [
            concat!(
                "//! x\n#![allow(unsafe",
                "_code)] // writes registers of the processor\n"
            ),
            concat!(
                "//! x\n// SAFETY: f wants a stack, and this is one.\nlet x = uns",
                "afe { f() };\n"
            ),
            concat!(
                "//! x\n// SAFETY: as f wants\n// it.\nlet x =\n    uns",
                "afe { f() };\n"
            ),
            concat!(
                "//! x\n/// Does it.\n///\n/// # Safety\n/// The page is mapped.\n#[inline]\npub uns",
                "afe fn f() {}\n"
            ),
            concat!("//! x\nimpl A for B {\n    uns", "afe fn f() {}\n}\n"),
            concat!("//! x\ntype F = uns", "afe fn(u8);\n"),
            concat!("//! x\nlet s = \"uns", "afe {\";\n"),
        ] {
            assert_eq!(whats(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn only_rust_must_follow_the_rules_of_rust() {
        assert!(check(Path::new("a.md"), concat!("A todo", "!() in prose\n")).is_empty());
        assert_eq!(check(Path::new("a.S"), "mov eax, 1\n").len(), 1);
    }
}
