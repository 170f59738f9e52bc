//! What is said to a command line that asks for nothing that can be done.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_xstate-capture");
    let output = Command::new(program).args(arguments).output();
    output.expect("the program runs")
}

/// Of two directories the last was written, without a word.
#[test]
fn two_directories_are_refused_before_either_is_written() {
    let scratch = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let names = ["first", "second"].map(|name| scratch.join(name));
    let arguments = names.each_ref().map(|name| name.to_str().expect("UTF-8"));
    let output = run(&arguments);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("second\" is another"), "{said}");
    assert!(names.iter().all(|name| !name.exists()), "{said}");
}

#[test]
fn no_directory_and_an_unknown_flag_get_the_usage() {
    for arguments in [&[][..], &["--large", "out"]] {
        let output = run(arguments);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("usage: "), "{arguments:?}: {said}");
    }
}
