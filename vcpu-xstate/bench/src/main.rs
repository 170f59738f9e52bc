//! Prints the table of all measurements, or the same as JSON; fails where a row misses what is asked.
//!
//! `--json` prints JSON on standard output, `--smoke` runs everything once and
//! asks nothing of the figures, `--program` prints where the measured code lies.

use std::process::ExitCode;

use xstate_bench::measure::Effort;
use xstate_bench::rows::{InUse, Row, measure_all};
use xstate_bench::switch::{Counted, Scene};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let known = ["--json", "--smoke", "--program"];
    if let Some(unknown) = arguments.iter().find(|a| !known.contains(&a.as_str())) {
        eprintln!("{unknown}: there are {}", known.join(", "));
        return ExitCode::FAILURE;
    }
    if has("--program") {
        println!("{}", xstate_bench::kernel::PROGRAM);
        return ExitCode::SUCCESS;
    }
    let smoke = has("--smoke");
    let effort = if smoke { Effort::SMOKE } else { Effort::FULL };
    let rows = match measure_all(effort) {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if has("--json") {
        match serde_json::to_string_pretty(&rows) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
        eprint!("{}", table(&rows));
    } else {
        print!("{}", table(&rows));
    }
    let few = match switch_instructions() {
        Ok(counted) => {
            eprintln!("{counted}");
            counted.met()
        }
        Err(why) => {
            eprintln!("skipped: instructions of a switch: {why}");
            true
        }
    };
    if !few {
        eprintln!("a switch takes more instructions than is asked");
        return ExitCode::FAILURE;
    }
    let missed = rows.iter().filter(|row| !row.met()).count();
    if missed > 0 && !smoke {
        eprintln!("{missed} of {} rows take longer than is asked", rows.len());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn switch_instructions() -> Result<Counted, String> {
    let scene = Scene::new(InUse::Avx.components(u64::MAX));
    scene.ok_or("no XSAVEC here")?.count()
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<14}{:>8}  {:<7}{:>8}{:>8}{:>7}{:>7}\n",
        "", "layout", "in use", "ns", "limit", "ratio", "asked"
    );
    for row in rows {
        let mark = if row.met() { "" } else { "  misses" };
        let asked = if row.asked.is_finite() {
            format!("{:.2}", row.asked)
        } else {
            "-".to_owned()
        };
        text += &format!(
            "{:<14}{:>8}  {:<7}{:>8.1}{:>8.1}{:>7.2}{asked:>7}{mark}\n",
            row.name, row.layout, row.in_use, row.ns, row.limit_ns, row.ratio
        );
    }
    text
}
