//! What each row took when it was last worked on: what is slower by more than noise is a regression.

/// Noise, other machines of the kind, and what else they do.
const MARGIN: f64 = 1.3;

/// Ratios to the limit with SSE, AVX, AVX-512 and everything in use, measured
/// on an Intel server with AMX; why a group is above what is asked stands in
/// `docs/src/performance.md`.
const RATIOS: [(&str, &str, [f64; 4]); 18] = [
    // The scan for what is INIT, the tidied legacy region, header and directory
    // cost the same however little the plain copy takes.
    ("export", "0xe7", [2.93, 3.53, 4.36, 4.36]),
    ("export", "0x2e7", [2.93, 3.55, 4.41, 4.30]),
    ("export", "0x602e7", [2.96, 3.67, 4.45, 2.56]),
    // Sixty rules before the first byte is copied.
    ("import", "0xe7", [5.02, 5.43, 5.88, 5.85]),
    ("import", "0x2e7", [5.12, 5.50, 6.00, 5.60]),
    ("import", "0x602e7", [5.39, 5.73, 6.19, 3.57]),
    // One piece on AMD, a long copy that begins late; on Intel two pieces with
    // AVX-512, because of MPX's hole.
    ("compact", "0xe7", [1.45, 1.70, 1.95, 1.95]),
    ("compact", "0x2e7", [1.45, 1.70, 2.98, 2.80]),
    ("compact", "0x602e7", [1.45, 1.70, 2.98, 1.78]),
    ("expand", "0xe7", [1.45, 1.70, 1.95, 1.95]),
    ("expand", "0x2e7", [1.45, 1.70, 3.02, 2.80]),
    ("expand", "0x602e7", [1.45, 1.70, 3.02, 1.78]),
    // As export, and several clears where the limit has one.
    ("expand_zeroed", "0xe7", [1.36, 1.55, 2.26, 2.26]),
    ("expand_zeroed", "0x2e7", [1.36, 1.50, 2.25, 2.24]),
    ("expand_zeroed", "0x602e7", [1.30, 1.40, 1.85, 1.66]),
    // CET, which only one of the two layouts has, splits what lies behind it.
    ("relayout", "0xe7", [1.45, 1.72, 1.98, 1.98]),
    ("relayout", "0x2e7", [1.45, 1.72, 1.98, 1.95]),
    ("relayout", "0x602e7", [1.45, 1.72, 1.98, 1.70]),
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
