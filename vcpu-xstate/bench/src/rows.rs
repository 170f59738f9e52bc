//! What is measured and what is asked of it: the rows of the table.

use serde::Serialize;

use crate::kernel::{Operation, Scene};
use crate::measure::{Effort, Times, measure};
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
    /// The largest ratio that is asked for.
    #[serde(skip)]
    pub asked: f64,
}

impl Row {
    /// Whether it does what is asked.
    #[must_use]
    pub fn met(&self) -> bool {
        self.ratio <= self.asked
    }
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

/// Measures every row.
///
/// # Errors
/// An operation that fails is a fault of the bench, and is named.
pub fn measure_all(effort: Effort) -> Result<Vec<Row>, String> {
    let mut cases = cases()?;
    let mut rows = Vec::new();
    for operation in Operation::ALL {
        for case in &mut cases {
            let (layout, in_use) = (case.layout, case.in_use);
            let times = measure(&mut case.scene, operation, effort).ok_or_else(|| {
                format!(
                    "{} {} {} failed",
                    operation.name(),
                    layout.name,
                    in_use.name()
                )
            })?;
            rows.push(row(operation, layout, in_use, times));
        }
    }
    rows.extend(measure_switch(effort)?);
    Ok(rows)
}

/// Measures a switch on this processor, as far as it goes in ring 3; the limit
/// is the bare XSAVEC + XRSTOR pair. Nothing is asked of its time, but of its
/// instructions. No rows where the processor has no XSAVEC.
///
/// # Errors
/// A switch that fails is a fault of the bench.
pub fn measure_switch(effort: Effort) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for in_use in InUse::ALL {
        let Some(mut scene) = switch::Scene::new(in_use.components(u64::MAX)) else {
            eprintln!("skipped: switch: no XSAVEC here");
            return Ok(rows);
        };
        let times = scene.measure(effort).ok_or("a switch failed")?;
        // A handful of rows, made once.
        let layout: &'static str = format!("{:#x}", scene.mask()).leak();
        rows.push(figures("switch", layout, in_use, times, f64::INFINITY));
    }
    Ok(rows)
}

fn row(operation: Operation, layout: Layout, in_use: InUse, times: Times) -> Row {
    let asked = asked(operation, in_use);
    figures(operation.name(), layout.name, in_use, times, asked)
}

fn figures(
    name: &'static str,
    layout: &'static str,
    in_use: InUse,
    times: Times,
    asked: f64,
) -> Row {
    let hundredths = |value: f64| (value * 100.0).round() / 100.0;
    Row {
        name,
        layout,
        in_use: in_use.name(),
        ns: hundredths(times.ns),
        limit_ns: hundredths(times.limit_ns),
        ratio: hundredths(times.ratio()),
        asked,
    }
}
