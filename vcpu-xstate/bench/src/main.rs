//! Prints the table of all measurements, or the same as JSON; fails where a row got slower.
//!
//! It fails where a row takes longer than is asked *and* longer than it did
//! when its figure was recorded; with `--strict`, wherever one takes longer than
//! is asked. `--json` prints JSON on standard output, `--smoke` runs everything
//! once and asks nothing of the figures, `--program` prints where the measured
//! code lies.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use xstate_bench::measure::Effort;
use xstate_bench::rows::{InUse, Row, measure_all, measure_checksum};
use xstate_bench::switch::Scene;

const OPTIONS: [&str; 4] = ["--json", "--smoke", "--strict", "--program"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if let Some(unknown) = arguments.iter().find(|a| !OPTIONS.contains(&a.as_str())) {
        eprintln!("{unknown}: there are {}", OPTIONS.join(", "));
        return ExitCode::FAILURE;
    }
    if has("--program") {
        println!("{}", xstate_bench::kernel::PROGRAM);
        return ExitCode::SUCCESS;
    }
    let smoke = has("--smoke");
    let effort = if smoke { Effort::SMOKE } else { Effort::FULL };
    match report(effort, has("--json"), has("--strict")) {
        Ok(verdict) if verdict.few && (smoke || verdict.fast) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is as it should be.
struct Verdict {
    /// The time that the rows take.
    fast: bool,
    /// The instructions that a switch takes.
    few: bool,
}

/// Measures and prints everything.
fn report(effort: Effort, json: bool, strict: bool) -> Result<Verdict, String> {
    let mut rows = measure_all(effort)?;
    if json {
        // The checksum is no row there: it has no layout.
        let text = serde_json::to_string_pretty(&rows).map_err(|error| error.to_string())?;
        print_out(&(text + "\n"))?;
    }
    rows.extend(measure_checksum(effort));
    let counted = Scene::new(InUse::Avx.components(u64::MAX))
        .ok_or("no XSAVEC here".to_owned())
        .and_then(|mut scene| scene.count());

    let mut text = table(&rows);
    let few = match &counted {
        Ok(counted) => {
            text += &format!(
                "{counted}  {}\n",
                if counted.met() { "ok" } else { "above" }
            );
            counted.met()
        }
        Err(why) => {
            text += &format!("skipped: instructions of a switch: {why}\n");
            true
        }
    };
    let above = rows.iter().filter(|row| !row.met()).count();
    text += &format!(
        "{} rows, {} as asked, {above} above (docs/src/performance.md says why)\n",
        rows.len(),
        rows.len() - above,
    );
    if json {
        eprint!("{text}");
    } else {
        print_out(&text)?;
    }
    let regressed = rows.iter().any(Row::regressed);
    let fast = !(regressed || strict && above > 0);
    Ok(Verdict { fast, few })
}

/// Prints it, unless the reader closes the pipe before the end (`--json | head`
/// panicked): the verdict is in the exit code all the same.
fn print_out(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}"))
        }
        _ => Ok(()),
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<14}{:>8}  {:<7}{:>8}{:>8}{:>7}{:>7}\n",
        "", "layout", "in use", "ns", "limit", "ratio", "asked"
    );
    for row in rows {
        let asked = if row.asked.is_finite() {
            format!("{:.2}", row.asked)
        } else {
            "-".to_owned()
        };
        let mark = if row.met() { "ok" } else { "above" };
        text += &format!(
            "{:<14}{:>8}  {:<7}{:>8.1}{:>8.1}{:>7.2}{asked:>7}  {mark}",
            row.name, row.layout, row.in_use, row.ns, row.limit_ns, row.ratio
        );
        if row.passes > 1 {
            text += &format!(", measured {} times", row.passes);
        }
        if row.regressed() {
            text += &format!(", and above {:.2}, what it was and a margin", row.ceiling);
        }
        text += "\n";
    }
    text
}
