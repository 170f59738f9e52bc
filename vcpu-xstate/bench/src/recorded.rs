//! What each row took when it was last worked on: what is slower by more than noise is a regression.

/// Noise, other machines of the kind, and what else they do.
const MARGIN: f64 = 1.3;

/// The best ratios to the limit with SSE, AVX, AVX-512 and everything in use, measured
/// on an Intel server with AVX-512; why a group is above what is asked stands in
/// `docs/src/performance.md`.
const RATIOS: [(&str, &str, [f64; 4]); 18] = [
    // Header and directory alone take what is allowed beside a long copy.
    ("export", "0xe7", [1.53, 1.85, 2.18, 2.19]),
    ("export", "0x2e7", [1.55, 1.89, 2.18, 2.40]),
    ("export", "0x602e7", [1.57, 1.92, 2.18, 1.70]),
    // All rules before the first byte is copied.
    ("import", "0xe7", [1.91, 2.14, 2.26, 2.24]),
    ("import", "0x2e7", [1.94, 2.20, 2.34, 2.12]),
    ("import", "0x602e7", [2.00, 2.25, 2.37, 1.66]),
    // One run on AMD; on Intel two with AVX-512, because of MPX's hole.
    ("compact", "0xe7", [0.97, 1.31, 1.47, 1.47]),
    ("compact", "0x2e7", [0.97, 1.30, 2.10, 1.85]),
    ("compact", "0x602e7", [0.96, 1.29, 2.11, 1.39]),
    ("expand", "0xe7", [0.98, 1.29, 1.53, 1.53]),
    ("expand", "0x2e7", [1.00, 1.30, 2.11, 1.88]),
    ("expand", "0x602e7", [1.00, 1.31, 2.10, 1.37]),
    // As expand; and what a long copy brought along is tidied behind it.
    ("expand_zeroed", "0xe7", [1.08, 1.18, 1.48, 1.49]),
    ("expand_zeroed", "0x2e7", [1.08, 1.20, 1.64, 1.60]),
    ("expand_zeroed", "0x602e7", [1.09, 1.15, 1.45, 1.31]),
    // One run: CET, which only one of the two layouts has, moves nothing.
    ("relayout", "0xe7", [1.02, 1.26, 1.52, 1.52]),
    ("relayout", "0x2e7", [1.02, 1.27, 1.55, 1.45]),
    ("relayout", "0x602e7", [1.02, 1.25, 1.56, 1.21]),
];

/// The largest ratio of a row that is no regression; infinite for a row that
/// nothing is recorded of.
#[must_use]
pub fn ceiling(name: &str, layout: &str, in_use: &str) -> f64 {
    let column = |in_use| match in_use {
        "sse" => Some(0),
        "avx" => Some(1),
        "avx512" => Some(2),
        "all" => Some(3),
        _ => None,
    };
    let recorded = match name {
        // Whatever the processor has: the layout is its own.
        "switch" => Some(SWITCH),
        _ => RATIOS
            .iter()
            .find(|row| (row.0, row.1) == (name, layout))
            .and_then(|row| row.2.get(column(in_use)?).copied()),
    };
    recorded.map_or(f64::INFINITY, |ratio| ratio * MARGIN)
}

/// A switch against the bare pair, the slowest of its rows: the pair takes most
/// of both.
const SWITCH: f64 = 1.1;
