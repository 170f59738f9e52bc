//! An image cut into its pieces: legacy region, header, components, and the holes between.

use serde_json::{Value, json};
use vcpu_xstate::layout::{LEGACY_BYTES, MIN_IMAGE_BYTES};
use vcpu_xstate::withheld::Withheld;
use vcpu_xstate::{ComponentIndex, ComponentSet, Form, Geometry};

use crate::machines::unbelieved_json;
use crate::output::hex;

/// What a stretch of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// x87, MXCSR and XMM.
    Legacy,
    /// XSTATE_BV, XCOMP_BV and zeros.
    Header,
    /// A component; whether IA32_XSS enables it.
    Component(ComponentIndex, bool),
    /// Nothing.
    Hole,
}

/// A stretch of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

impl Piece {
    pub const fn bytes(&self) -> usize {
        self.end - self.start
    }

    pub fn name(&self) -> String {
        match self.kind {
            Kind::Legacy => "legacy".to_owned(),
            Kind::Header => "header".to_owned(),
            Kind::Component(component, _) => match component.name() {
                Some(name) => name.to_owned(),
                None => format!("#{}", component.get()),
            },
            Kind::Hole => "hole".to_owned(),
        }
    }
}

/// An image: its pieces from the first byte to the last, without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    pub mask: ComponentSet,
    pub pieces: Vec<Piece>,
}

impl Pieces {
    pub fn bytes(&self) -> usize {
        self.pieces.last().map_or(0, |piece| piece.end)
    }

    /// Bytes that hold nothing.
    pub fn hole_bytes(&self) -> usize {
        let holes = self.pieces.iter().filter(|piece| piece.kind == Kind::Hole);
        holes.map(Piece::bytes).sum()
    }
}

/// A machine's two images.
#[derive(Clone, Debug)]
pub struct Picture {
    pub name: String,
    pub model: String,
    /// What the machine lists and its dump does not describe.
    pub undescribed: ComponentSet,
    /// What it lists and describes as no machine can have it.
    pub unbelieved: Vec<(ComponentIndex, Withheld)>,
    /// What was asked for and the machine does not list.
    pub lacks: ComponentSet,
    pub standard: Pieces,
    /// `None` where the machine has no instruction that writes one.
    pub compacted: Option<Pieces>,
}

impl Pieces {
    /// For programs.
    fn json(&self) -> Value {
        let piece = |piece: &Piece| {
            let (kind, index, supervisor) = match piece.kind {
                Kind::Legacy => ("legacy", None, false),
                Kind::Header => ("header", None, false),
                Kind::Hole => ("hole", None, false),
                Kind::Component(component, supervisor) => {
                    ("component", Some(component.get()), supervisor)
                }
            };
            json!({
                "kind": kind,
                "name": piece.name(),
                "index": index,
                "supervisor": supervisor,
                "offset": piece.start,
                "bytes": piece.bytes(),
            })
        };
        json!({
            "mask": hex(self.mask.bits()),
            "bytes": self.bytes(),
            "hole_bytes": self.hole_bytes(),
            "pieces": self.pieces.iter().map(piece).collect::<Vec<_>>(),
        })
    }
}

impl Picture {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "machine": self.name,
            "model": self.model,
            "undescribed": hex(self.undescribed.bits()),
            "unbelieved": unbelieved_json(&self.unbelieved),
            "lacks": hex(self.lacks.bits()),
            "standard": self.standard.json(),
            "compacted": self.compacted.as_ref().map(Pieces::json),
        })
    }
}

/// The image of `mask`, cut up.
pub fn image(geometry: &Geometry, form: Form, mask: ComponentSet) -> Pieces {
    let piece = |kind, start, end| Piece { kind, start, end };
    let mut placed: Vec<Piece> = geometry
        .placements(form, mask)
        .map(|place| {
            let supervisor = geometry.supervisor().has(place.component);
            let kind = Kind::Component(place.component, supervisor);
            piece(kind, place.range().start, place.range().end)
        })
        .collect();
    placed.sort_by_key(|piece| piece.start);
    let mut pieces = vec![
        piece(Kind::Legacy, 0, LEGACY_BYTES),
        piece(Kind::Header, LEGACY_BYTES, MIN_IMAGE_BYTES),
    ];
    let mut end = MIN_IMAGE_BYTES;
    for next in placed {
        if next.start > end {
            pieces.push(piece(Kind::Hole, end, next.start));
        }
        end = next.end;
        pieces.push(next);
    }
    Pieces { mask, pieces }
}
