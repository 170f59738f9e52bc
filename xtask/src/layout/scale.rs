//! From bytes to places on the picture: linear, but for stretches in which no image has an edge.
//!
//! Tiles take 8 KiB and PKRU 8 bytes. A stretch that lies within one component
//! on every row tells nothing by its length; it is drawn short, with a mark.

/// Edges farther apart than this are drawn at [`BROKEN`].
const LONGEST_BYTES: usize = 1536;

/// How long a stretch without an edge is drawn, in bytes of the linear part.
const BROKEN: f64 = 200.0;

/// The legacy region is the same everywhere and is drawn this long.
const LEGACY: f64 = 200.0;
const LEGACY_END_BYTES: usize = 512;

/// A scale, by its corner points: byte, place in units of linear bytes.
#[derive(Clone, Debug)]
pub struct Scale {
    corners: Vec<(usize, f64)>,
    /// The stretches that are drawn short.
    pub broken: Vec<(usize, usize)>,
}

impl Scale {
    /// The scale for images with these edges, 0 among them.
    pub fn new(edges: impl Iterator<Item = usize>) -> Self {
        let mut edges: Vec<usize> = edges.chain([0, LEGACY_END_BYTES]).collect();
        edges.sort_unstable();
        edges.dedup();
        let mut scale = Self {
            corners: vec![(0, 0.0)],
            broken: Vec::new(),
        };
        let mut place = 0.0;
        for pair in edges.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            place += if to <= LEGACY_END_BYTES {
                LEGACY * (to - from) as f64 / LEGACY_END_BYTES as f64
            } else if to - from > LONGEST_BYTES {
                scale.broken.push((from, to));
                BROKEN
            } else {
                (to - from) as f64
            };
            scale.corners.push((to, place));
        }
        scale
    }

    /// The place of a byte, in units of linear bytes.
    pub fn place(&self, byte: usize) -> f64 {
        let after = self.corners.partition_point(|(corner, _)| *corner <= byte);
        let (from, at) = self.corners[after.saturating_sub(1)];
        match self.corners.get(after) {
            Some((to, then)) => at + (then - at) * (byte - from) as f64 / (to - from) as f64,
            None => at,
        }
    }

    /// The place of the last edge.
    pub fn length(&self) -> f64 {
        self.corners.last().map_or(0.0, |(_, place)| *place)
    }

    /// The last edge.
    pub fn last(&self) -> usize {
        self.corners.last().map_or(0, |(byte, _)| *byte)
    }

    /// Whether the byte lies within a stretch that is drawn short.
    pub fn is_broken_at(&self, byte: usize) -> bool {
        let within = |(from, to): &(usize, usize)| *from < byte && byte < *to;
        self.broken.iter().any(within) || (0 < byte && byte < LEGACY_END_BYTES)
    }
}
