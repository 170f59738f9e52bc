//! What each row took when it was last worked on: what is slower by more than noise is a regression.

/// Noise, other machines of the kind, and what else they do.
const MARGIN: f64 = 1.3;

/// Ratios to the limit with SSE, AVX, AVX-512 and everything in use, measured
/// on an Intel server with AMX; why a group is above what is asked stands in
/// `docs/src/performance.md`.
const RATIOS: [(&str, &str, [f64; 4]); 18] = [
    // The scan for what is INIT, the tidied legacy region, header and directory
    // cost the same however little the plain copy takes.
    ("export", "0xe7", [2.83, 3.52, 4.00, 4.00]),
    ("export", "0x2e7", [2.86, 3.52, 3.98, 3.97]),
    ("export", "0x602e7", [2.92, 3.57, 4.08, 2.11]),
    // Sixty rules before the first byte is copied.
    ("import", "0xe7", [5.33, 6.19, 6.26, 6.22]),
    ("import", "0x2e7", [5.46, 6.22, 6.33, 6.09]),
    ("import", "0x602e7", [5.65, 6.46, 6.53, 3.90]),
    // One run on AMD; on Intel two with AVX-512, because of MPX's hole.
    ("compact", "0xe7", [1.65, 2.03, 2.31, 2.31]),
    ("compact", "0x2e7", [1.64, 2.02, 3.23, 3.03]),
    ("compact", "0x602e7", [1.63, 2.04, 3.24, 1.68]),
    ("expand", "0xe7", [1.69, 2.09, 2.33, 2.30]),
    ("expand", "0x2e7", [1.71, 2.05, 3.23, 3.05]),
    ("expand", "0x602e7", [1.67, 2.08, 3.20, 1.70]),
    // The same, and several clears where the limit has one.
    ("expand_zeroed", "0xe7", [1.32, 1.55, 1.96, 1.96]),
    ("expand_zeroed", "0x2e7", [1.32, 1.48, 2.14, 2.14]),
    ("expand_zeroed", "0x602e7", [1.30, 1.39, 1.83, 1.44]),
    // CET, which only one of the two layouts has, splits what lies behind it.
    ("relayout", "0xe7", [1.69, 2.14, 2.41, 2.41]),
    ("relayout", "0x2e7", [1.68, 2.17, 2.42, 2.45]),
    ("relayout", "0x602e7", [1.68, 2.18, 2.41, 1.47]),
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
const SWITCH: f64 = 1.3;
