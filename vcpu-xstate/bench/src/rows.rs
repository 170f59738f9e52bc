//! What is measured and what is asked of it: the rows of the table.

use serde::Serialize;

use crate::kernel::{Operation, Scene};
use crate::measure::{Effort, Times, in_turns, measure};
use crate::recorded;
use crate::switch;

/// A layout that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Its user components.
    pub mask: u64,
    /// Its name in tables.
    pub name: &'static str,
}

/// AMD, Intel, and Intel with AMX.
pub const LAYOUTS: [Layout; 3] = [
    Layout {
        mask: 0xe7,
        name: "0xe7",
    },
    Layout {
        mask: 0x2e7,
        name: "0x2e7",
    },
    Layout {
        mask: 0x6_02e7,
        name: "0x602e7",
    },
];

/// How much of a layout a guest uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// x87 and SSE.
    Sse,
    /// And AVX.
    Avx,
    /// And AVX-512.
    Avx512,
    /// Everything.
    All,
}

impl InUse {
    /// From little to much.
    pub const ALL: [Self; 4] = [Self::Sse, Self::Avx, Self::Avx512, Self::All];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Avx => "avx",
            Self::Avx512 => "avx512",
            Self::All => "all",
        }
    }

    /// The components of `layout`.
    #[must_use]
    pub const fn components(self, layout: u64) -> u64 {
        match self {
            Self::Sse => layout & 0x3,
            Self::Avx => layout & 0x7,
            Self::Avx512 => layout & 0xe7,
            Self::All => layout,
        }
    }
}

/// The largest ratio that is asked for. What is between "SSE" and "everything"
/// has the first's allowance with AVX, where the fixed part still rules, and
/// the second's with AVX-512, where the copy does.
#[must_use]
pub const fn asked(operation: Operation, in_use: InUse) -> f64 {
    let little = matches!(in_use, InUse::Sse | InUse::Avx);
    match (operation, little) {
        (Operation::Export, true) => 1.4,
        (Operation::Export, false) => 1.15,
        (Operation::Import, true) => 2.0,
        (Operation::Compact | Operation::Expand | Operation::Relayout, true) => 1.6,
        (Operation::Compact | Operation::Expand | Operation::Relayout, false) => 1.25,
        (Operation::Import, false) | (Operation::ExpandZeroed, _) => 1.3,
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub name: &'static str,
    /// The layout: its user components.
    pub layout: &'static str,
    /// `sse`, `avx`, `avx512` or `all`.
    pub in_use: &'static str,
    /// Nanoseconds that it takes.
    pub ns: f64,
    /// Nanoseconds that the plain copy takes.
    pub limit_ns: f64,
    /// The one by the other.
    pub ratio: f64,
    /// The largest ratio that is asked for; infinite where none is.
    #[serde(skip)]
    pub asked: f64,
    /// The largest ratio that is no regression.
    #[serde(skip)]
    pub ceiling: f64,
    /// How often it was measured.
    #[serde(skip)]
    pub passes: usize,
}

impl Row {
    fn new(
        name: &'static str,
        layout: &'static str,
        in_use: &'static str,
        times: Times,
        asked: f64,
    ) -> Self {
        Self {
            name,
            layout,
            in_use,
            ns: hundredths(times.ns),
            limit_ns: hundredths(times.limit_ns),
            ratio: hundredths(times.ratio()),
            asked,
            ceiling: recorded::ceiling(name, layout, in_use),
            passes: 1,
        }
    }

    /// Takes what it was when it was measured again: the best of each counts.
    fn add(&mut self, again: &Self) {
        self.ns = self.ns.min(again.ns);
        self.limit_ns = self.limit_ns.min(again.limit_ns);
        self.ratio = hundredths(self.ns / self.limit_ns);
        self.passes += again.passes;
    }

    /// Whether it does what is asked. Where nothing is asked, it is not to be
    /// slower than it was.
    #[must_use]
    pub fn met(&self) -> bool {
        if self.asked.is_finite() {
            self.ratio <= self.asked
        } else {
            self.ratio <= self.ceiling
        }
    }

    /// Whether it takes longer than is asked, and longer than it did when its
    /// figure was recorded.
    #[must_use]
    pub fn regressed(&self) -> bool {
        !self.met() && self.ratio > self.ceiling
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A layout, what is in use of it, and the scene of both.
pub struct Case {
    /// The layout.
    pub layout: Layout,
    /// What is in use.
    pub in_use: InUse,
    /// The scene.
    pub scene: Scene,
}

/// Every layout with every use. Scenes live for ever: make them once.
///
/// # Errors
/// A scene that cannot be made is a fault of the bench, and is named.
pub fn cases() -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for layout in LAYOUTS {
        for in_use in InUse::ALL {
            let scene = Scene::new(layout.mask, in_use.components(layout.mask))
                .ok_or_else(|| format!("{} {}: no such scene", layout.name, in_use.name()))?;
            cases.push(Case {
                layout,
                in_use,
                scene,
            });
        }
    }
    Ok(cases)
}

/// Measures every row; those that would be a regression again, as often as
/// `effort` says.
///
/// # Errors
/// An operation that fails is a fault of the bench, and is named.
pub fn measure_all(effort: Effort) -> Result<Vec<Row>, String> {
    let mut subjects = Subjects {
        cases: cases()?,
        switches: switches(),
    };
    let mut rows = Vec::new();
    for subject in subjects.all() {
        rows.push((subject, subjects.measure(subject, effort)?));
    }
    for _ in 0..effort.again {
        for (subject, row) in &mut rows {
            if row.regressed() {
                row.add(&subjects.measure(*subject, effort)?);
            }
        }
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// What is measured.
struct Subjects {
    cases: Vec<Case>,
    switches: Vec<(InUse, switch::Scene)>,
}

/// What a row is of: by its place among the cases, or among the switches.
#[derive(Clone, Copy)]
enum Subject {
    Operation(Operation, usize),
    Switch(usize),
}

impl Subjects {
    /// In the order of the table.
    fn all(&self) -> Vec<Subject> {
        let operation =
            |operation| (0..self.cases.len()).map(move |case| Subject::Operation(operation, case));
        let operations = Operation::ALL.into_iter().flat_map(operation);
        operations
            .chain((0..self.switches.len()).map(Subject::Switch))
            .collect()
    }

    fn measure(&mut self, subject: Subject, effort: Effort) -> Result<Row, String> {
        match subject {
            Subject::Operation(operation, case) => {
                let case = &mut self.cases[case];
                let (name, layout, in_use) = (operation.name(), case.layout.name, case.in_use);
                let times = measure(&mut case.scene, operation, effort)
                    .ok_or_else(|| format!("{name} {layout} {} failed", in_use.name()))?;
                let asked = asked(operation, in_use);
                Ok(Row::new(name, layout, in_use.name(), times, asked))
            }
            // Nothing is asked of its time, but of its instructions.
            Subject::Switch(at) => {
                let (in_use, scene) = &mut self.switches[at];
                let times = scene.measure(effort).ok_or("a switch failed")?;
                // A handful of rows, made once.
                let layout = format!("{:#x}", scene.mask()).leak();
                Ok(Row::new(
                    "switch",
                    layout,
                    in_use.name(),
                    times,
                    f64::INFINITY,
                ))
            }
        }
    }
}

/// A scene for each row of a switch on this processor, as far as it goes in ring
/// 3, where the limit is the bare XSAVEC + XRSTOR pair; none where it has no XSAVEC.
fn switches() -> Vec<(InUse, switch::Scene)> {
    let scene = |in_use: InUse| {
        let scene = switch::Scene::new(in_use.components(u64::MAX))?;
        Some((in_use, scene))
    };
    let scenes: Vec<_> = InUse::ALL.into_iter().filter_map(scene).collect();
    if scenes.is_empty() {
        eprintln!("skipped: switch: no XSAVEC here");
    }
    scenes
}

/// Measures the checksum; the limit is what 8 bytes a nanosecond take. No row
/// where the processor has no CRC32 instruction.
#[must_use]
pub fn measure_checksum(effort: Effort) -> Option<Row> {
    // A frame of a stream: 64 KiB with its head.
    const BYTES: usize = 65_552;
    if !xferry_crc32c::by_instruction() {
        eprintln!("skipped: crc32c: no CRC32 instruction here");
        return None;
    }
    let mut bytes: Vec<u8> = (0..BYTES).map(|index| (index * 31) as u8).collect();
    let effort = Effort {
        calls: effort.calls.min(8),
        ..effort
    };
    let sum = |bytes: &mut Vec<u8>| {
        std::hint::black_box(xferry_crc32c::crc32c(std::hint::black_box(bytes)));
        bytes.len()
    };
    let times = in_turns(&mut bytes, effort, sum, |_| 0)?;
    let times = Times {
        limit_ns: BYTES as f64 / 8.0,
        ..times
    };
    Some(Row::new("crc32c", "65552", "bytes", times, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ratio: f64, asked: f64, ceiling: f64) -> Row {
        Row {
            name: "export",
            layout: "0xe7",
            in_use: "sse",
            ns: ratio,
            limit_ns: 1.0,
            ratio,
            asked,
            ceiling,
            passes: 1,
        }
    }

    /// A disturbed machine made regressions of rows that had none: the time of
    /// the operation and that of its limit are each what they were at best.
    #[test]
    fn a_disturbed_row_is_what_it_is_at_best() {
        let disturbed = |ns, limit_ns| Row {
            ns,
            limit_ns,
            ..row(ns / limit_ns, 1.4, 2.0)
        };
        let mut measured = disturbed(52.0, 24.0);
        assert!(measured.regressed());
        measured.add(&disturbed(28.0, 25.0));
        assert_eq!((measured.ratio, measured.passes), (1.17, 2));
        assert!(measured.met());
        // A quieter limit makes a slow row no faster.
        let mut slow = disturbed(52.0, 24.0);
        slow.add(&disturbed(52.0, 20.0));
        assert_eq!(slow.ratio, 2.6);
        assert!(slow.regressed());
    }

    #[test]
    fn a_regression_is_above_what_is_asked_and_above_what_it_was() {
        let verdict = |row: Row| (row.met(), row.regressed());
        assert_eq!(verdict(row(1.4, 1.4, 1.0)), (true, false));
        assert_eq!(verdict(row(2.0, 1.4, 2.0)), (false, false));
        assert_eq!(verdict(row(2.1, 1.4, 2.0)), (false, true));
        assert_eq!(verdict(row(1.5, 1.4, 1.0)), (false, true));
        assert_eq!(verdict(row(1.5, f64::INFINITY, 2.0)), (true, false));
        assert_eq!(verdict(row(2.5, f64::INFINITY, 2.0)), (false, true));
    }

    /// Where nothing were recorded, nothing could regress.
    #[test]
    fn every_row_has_a_ceiling() {
        for operation in Operation::ALL {
            for layout in LAYOUTS {
                for in_use in InUse::ALL {
                    let ceiling = recorded::ceiling(operation.name(), layout.name, in_use.name());
                    assert!((1.0..10.0).contains(&ceiling), "{ceiling}");
                }
            }
        }
        for in_use in InUse::ALL {
            assert!(recorded::ceiling("switch", "0x7", in_use.name()).is_finite());
        }
    }
}
