//! The book's samples, run: what a page shows of a command is what the command prints.
//!
//! A sample is a fenced block of `console` in which a line `$ cargo xtask …` asks one of
//! the commands that need only files and facts. All its lines are run by a shell, in a
//! directory where the repository's files are; `…` on a line of its own stands for any
//! lines, or none. Blocks without output, or with capital letters in the place of names
//! (`FILE`, `MACHINE`), are usage and not samples.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Commands that are answered anywhere.
const QUESTIONS: [&str; 4] = ["inspect", "layout", "machines", "policy"];

struct Sample {
    place: String,
    commands: Vec<String>,
    output: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn pages() -> Vec<PathBuf> {
    let pages = std::fs::read_dir(root().join("docs/src")).unwrap();
    let mut pages: Vec<PathBuf> = pages.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

/// Whether a line asks a question with real names in it.
fn is_question(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let asks = words.next() == Some("cargo")
        && words.next() == Some("xtask")
        && words.next().is_some_and(|word| QUESTIONS.contains(&word));
    let placeholder = |word: &str| {
        let letters = word.trim_end_matches('…');
        letters.len() > 2 && letters.chars().all(|letter| letter.is_ascii_uppercase())
    };
    asks && !words.any(placeholder)
}

fn samples(page: &Path) -> Vec<Sample> {
    let text = std::fs::read_to_string(page).unwrap();
    let name = page.file_name().unwrap().to_string_lossy().into_owned();
    let mut samples = Vec::new();
    let mut block: Option<Sample> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut block, line) {
            (None, "```console") => {
                block = Some(Sample {
                    place: format!("{name}:{}", number + 1),
                    commands: Vec::new(),
                    output: Vec::new(),
                });
            }
            (Some(_), "```") => samples.extend(block.take()),
            (Some(sample), line) => match line.strip_prefix("$ ") {
                Some(command) => sample.commands.push(command.to_owned()),
                None => sample.output.push(line.to_owned()),
            },
            (None, _) => {}
        }
    }
    samples.retain(|sample| {
        let asked = sample.commands.iter().any(|command| is_question(command));
        asked && !sample.output.is_empty()
    });
    samples
}

/// Whether the lines are those that are shown, `…` for any.
fn matches(shown: &[String], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line.trim() == "…" => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        Some((line, rest)) => {
            printed.first() == Some(&line.as_str()) && matches(rest, &printed[1..])
        }
    }
}

/// `policy check` gave another verdict than the one that the book showed.
#[test]
fn the_books_samples_are_what_the_commands_print() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("book");
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch).unwrap();
    std::os::unix::fs::symlink(
        root().canonicalize().unwrap().join("migration-abi"),
        scratch.join("migration-abi"),
    )
    .unwrap();
    let mut run = 0;
    for sample in pages().iter().flat_map(|page| samples(page)) {
        let mut script = String::from("exec 2>&1\n");
        for command in &sample.commands {
            let xtask = format!("'{}'", env!("CARGO_BIN_EXE_xtask"));
            script.push_str(&command.replacen("cargo xtask", &xtask, 1));
            script.push('\n');
        }
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(&scratch)
            .env_remove("XFERRY_CPUID_CSV")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let printed: Vec<&str> = text.lines().collect();
        let (place, shown) = (&sample.place, sample.output.join("\n"));
        assert!(
            matches(&sample.output, &printed),
            "{place} shows\n{shown}\n\nand this is printed:\n{text}"
        );
        run += 1;
    }
    assert!(run >= 5, "only {run} samples were found");
}

#[test]
fn usage_is_no_sample_and_dots_are_any_lines() {
    assert!(is_question("cargo xtask layout zen3 --mask avx"));
    assert!(!is_question("cargo xtask inspect FILE"));
    assert!(!is_question("cargo xtask policy level MACHINE…"));
    assert!(!is_question("cargo xtask migrate-test"));
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(matches(&shown("a\n  …\nd"), &["a", "b", "c", "d"]));
    assert!(matches(&shown("a\n…"), &["a"]));
    assert!(!matches(&shown("a\n…\nd"), &["a", "b"]));
    assert!(!matches(&shown("a"), &["a", "b"]));
}
