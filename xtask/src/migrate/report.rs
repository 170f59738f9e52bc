//! Results: the table for people and the JSON for programs.

use std::time::Duration;

use serde::Serialize;

use crate::qemu::MachineSpec;

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was as it must be.
    Pass,
    /// Something was not.
    Fail,
    /// It could not be played.
    Skip,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// What was measured while a scenario was played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Bytes over the link, both directions.
    pub stream_bytes: u64,
    /// The last extended-state blob that was sent.
    pub blob_bytes: u64,
    /// The longest time that a guest stood still in a move that succeeded.
    pub pause: Duration,
}

/// One scenario's result.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub name: String,
    /// Machine A.
    pub from: String,
    /// Machine B.
    pub to: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was shown, or what went wrong.
    pub detail: String,
    /// See [`Measured::stream_bytes`].
    pub stream_bytes: u64,
    /// See [`Measured::blob_bytes`].
    pub blob_bytes: u64,
    /// See [`Measured::pause`], in milliseconds.
    pub pause_ms: u64,
}

impl Outcome {
    /// Of a scenario that was not played yet.
    pub fn new(name: &str, from: &MachineSpec, to: &MachineSpec) -> Self {
        Self {
            name: name.to_owned(),
            from: from.to_string(),
            to: to.to_string(),
            verdict: Verdict::Skip,
            detail: String::new(),
            stream_bytes: 0,
            blob_bytes: 0,
            pause_ms: 0,
        }
    }

    /// Says how it ended.
    pub fn end(&mut self, verdict: Verdict, detail: String, measured: Measured) {
        self.verdict = verdict;
        self.detail = detail;
        self.stream_bytes = measured.stream_bytes;
        self.blob_bytes = measured.blob_bytes;
        self.pause_ms = u64::try_from(measured.pause.as_millis()).unwrap_or(u64::MAX);
    }
}

/// The document that `--json` prints.
pub fn json(outcomes: &[Outcome]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        scenarios: &'a [Outcome],
    }
    serde_json::to_string(&Document {
        scenarios: outcomes,
    })
}

/// The table for people. Details are lines of their own below it.
pub fn table(outcomes: &[Outcome]) -> String {
    let head = [
        "scenario",
        "from",
        "to",
        "verdict",
        "stream bytes",
        "blob bytes",
        "pause ms",
    ]
    .map(str::to_owned);
    let mut rows = vec![head];
    for outcome in outcomes {
        rows.push([
            outcome.name.clone(),
            outcome.from.clone(),
            outcome.to.clone(),
            outcome.verdict.name().to_owned(),
            outcome.stream_bytes.to_string(),
            outcome.blob_bytes.to_string(),
            outcome.pause_ms.to_string(),
        ]);
    }
    let widths: [usize; 7] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Numbers are read from their end.
            let cell = if column < 4 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            };
            line.push_str(&cell);
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for outcome in outcomes.iter().filter(|outcome| !outcome.detail.is_empty()) {
        text.push_str(&format!("{}: {}\n", outcome.name, outcome.detail));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let qemu = MachineSpec::default();
        let mut outcome = Outcome::new("canonical", &qemu, &qemu);
        let pause = Duration::from_micros(12_900);
        let measured = Measured {
            stream_bytes: 5000,
            blob_bytes: 1164,
            pause,
        };
        outcome.end(Verdict::Pass, "equal".into(), measured);
        outcome
    }

    #[test]
    fn the_json_has_the_documented_fields_in_their_order() {
        assert_eq!(
            json(&[outcome()]).unwrap(),
            r#"{"scenarios":[{"name":"canonical","from":"qemu","to":"qemu","verdict":"pass","detail":"equal","stream_bytes":5000,"blob_bytes":1164,"pause_ms":12}]}"#
        );
    }

    #[test]
    fn the_table_is_aligned() {
        assert_eq!(
            table(&[outcome()]),
            "scenario   from  to    verdict  stream bytes  blob bytes  pause ms\n\
             canonical  qemu  qemu  pass             5000        1164        12\n\
             canonical: equal\n"
        );
    }
}
