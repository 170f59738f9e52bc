//! What each row took when it was last worked on: what is slower by more than noise is a regression.

/// Noise, other machines of the kind, and what else they do.
const MARGIN: f64 = 1.3;

/// Ratios to the limit with SSE, AVX, AVX-512 and everything in use, measured
/// on an Intel server with AMX; why a group is above what is asked stands in
/// `docs/src/performance.md`.
const RATIOS: [(&str, &str, [f64; 4]); 18] = [
    // The scan for what is INIT, the tidied legacy region, header and directory
    // cost the same however little the plain copy takes.
    ("export", "0xe7", [2.92, 3.45, 3.83, 3.98]),
    ("export", "0x2e7", [2.92, 3.48, 4.02, 3.87]),
    ("export", "0x602e7", [3.00, 3.53, 4.08, 2.46]),
    // Sixty rules before the first byte is copied.
    ("import", "0xe7", [4.53, 4.86, 4.89, 5.08]),
    ("import", "0x2e7", [4.68, 4.99, 5.21, 4.82]),
    ("import", "0x602e7", [4.87, 5.17, 5.38, 3.34]),
    // One piece on AMD, a long copy that begins late; on Intel two pieces with
    // AVX-512, because of MPX's hole.
    ("compact", "0xe7", [1.39, 1.67, 1.85, 1.95]),
    ("compact", "0x2e7", [1.38, 1.65, 3.04, 2.75]),
    ("compact", "0x602e7", [1.37, 1.67, 3.04, 1.75]),
    ("expand", "0xe7", [1.44, 1.68, 1.87, 1.94]),
    ("expand", "0x2e7", [1.43, 1.66, 3.04, 2.73]),
    ("expand", "0x602e7", [1.44, 1.68, 3.03, 1.76]),
    // As export, and several clears where the limit has one.
    ("expand_zeroed", "0xe7", [1.33, 1.48, 1.92, 1.92]),
    ("expand_zeroed", "0x2e7", [1.34, 1.46, 2.21, 2.24]),
    ("expand_zeroed", "0x602e7", [1.28, 1.34, 1.87, 1.66]),
    // CET, which only one of the two layouts has, splits what lies behind it.
    ("relayout", "0xe7", [1.40, 1.70, 1.90, 1.99]),
    ("relayout", "0x2e7", [1.41, 1.71, 1.98, 1.87]),
    ("relayout", "0x602e7", [1.40, 1.70, 1.98, 1.69]),
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
