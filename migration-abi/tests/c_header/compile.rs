//! Compiles C where there is a compiler, and says so where there is none.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the house asks of C: nothing that a compiler would warn of.
const STRICT: [&str; 5] = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"];
/// The compiler's own watch over memory and arithmetic, where it is installed.
const WATCHED: &str = "-fsanitize=address,undefined";

/// A compiled program.
pub struct Program(PathBuf);

impl Program {
    /// Runs it on a file.
    pub fn run(&self, file: &Path) -> Output {
        Command::new(&self.0)
            .arg(file)
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", self.0.display()))
    }
}

/// A file of this test's own.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The directory of the header and the examples.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("c")
}

/// Compiles a file of `c/`, or one whose path is absolute, into the program
/// `name`. `None` where no compiler is.
pub fn compile(name: &str, source: impl AsRef<Path>) -> Option<Program> {
    if Command::new("cc").arg("--version").output().is_err() {
        return None;
    }
    let program = scratch(name);
    let compile = |watched: &[&str]| {
        Command::new("cc")
            .args(STRICT)
            .args(["-O1", "-g"])
            .args(watched)
            .arg("-I")
            .arg(sources())
            .arg("-o")
            .arg(&program)
            .arg(sources().join(source.as_ref()))
            .output()
            .expect("cc was there a moment ago")
    };
    if !compile(&[WATCHED, "-fno-sanitize-recover=all"])
        .status
        .success()
    {
        // Without the sanitizers' libraries; what else is wrong is said now.
        let output = compile(&[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: {said}",
            source.as_ref().display()
        );
    }
    Some(Program(program))
}

/// Whether the header is C++ too; `None` where no such compiler is.
pub fn header_is_cpp() -> Option<Output> {
    Command::new("c++")
        .args([
            "-std=c++17",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-fsyntax-only",
            "-x",
            "c++",
        ])
        .arg(sources().join("xferry_migration.h"))
        .output()
        .ok()
}

/// Says why a test could not run.
pub fn skipped() {
    writeln!(
        std::io::stdout().lock(),
        "skipped: no C compiler (cc) is here"
    )
    .expect("standard output");
}
