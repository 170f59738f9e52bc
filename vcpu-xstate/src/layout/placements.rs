//! The walk itself: from one component's place to the next one's.

use super::{Form, Geometry, Placement};
use crate::component::Components;
use crate::mutants::rule;

/// Iterator over the places of an image's components.
#[derive(Clone, Debug)]
pub struct Placements<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) form: Form,
    pub(super) remaining: Components,
    pub(super) next_bytes: usize,
}

impl Iterator for Placements<'_> {
    type Item = Placement;

    fn next(&mut self) -> Option<Placement> {
        // `placements` left only components that are known.
        let component = self.remaining.next()?;
        let facts = self.geometry.get(component)?;
        let size_bytes = facts.size_bytes as usize;
        let offset_bytes = match self.form {
            Form::Standard => facts.standard_offset as usize,
            Form::Compacted if facts.aligned64 && rule!("compacted-align64") => {
                self.next_bytes.next_multiple_of(64)
            }
            Form::Compacted => self.next_bytes,
        };
        self.next_bytes = offset_bytes + size_bytes;
        Some(Placement {
            component,
            offset_bytes,
            size_bytes,
        })
    }
}
