//! The rules that an image breaks by itself and its layout, and bytes that nobody accounts for.

use vcpu_xstate::foreign::drop_fp_selectors;
use vcpu_xstate::header::COMPACTED;
use vcpu_xstate::layout::MIN_IMAGE_BYTES;
use vcpu_xstate::{ComponentIndex, ComponentSet, Form};
use zerocopy::IntoBytes;

use super::{Explained, Image, Interface, Read};
use crate::inspect::finding::{Finding, Seen};

/// Bytes of KVM_GET_XSAVE's buffer, which ends there whatever the state needs.
const KVM_GET_XSAVE_BYTES: usize = 4096;

/// Where the words of the header stand.
const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;
const RESERVED: usize = 528;

impl Image<'_> {
    /// What is wrong with it, and what is odd.
    pub(super) fn judge(&self, read: &Read<'_>) -> Explained {
        // In a receiver's order.
        let mut broken = Vec::from_iter(self.form_rule(read));
        broken.extend(self.length(read));
        broken.extend(self.header_rules(read));
        broken.extend(self.places(read));
        let selectors = self.fp_selectors(read).then(|| {
            "FIP and FDP are 32 bits with a selector behind each, which Xen's byte 511 says: every \
             machine refuses them, by foreign-fp-selectors; drop_fp_selectors makes addresses of them"
                .to_owned()
        });
        let warnings = selectors.into_iter().chain(self.stray(read)).collect();
        Explained { broken, warnings }
    }

    /// Whether x87's pointers have selectors in them, as Xen's can.
    pub(super) fn fp_selectors(&self, read: &Read<'_>) -> bool {
        let held = read.header.xstate_bv().has(ComponentIndex::X87);
        let mut legacy = read.legacy.as_bytes().to_vec();
        self.interface == Interface::Xen && held && drop_fp_selectors(&mut legacy)
    }

    /// The form has to be known before anything has a length.
    fn form_rule(&self, read: &Read<'_>) -> Option<Finding> {
        let xcomp_bv = read.header.xcomp_bv();
        // A blob's own XCOMP_BV has its own rules, in `claims`.
        (read.form == Form::Standard && xcomp_bv != 0).then(|| {
            Finding::new(
                "xcomp-bv-bit-63",
                XCOMP_BV,
                Seen::Bits(xcomp_bv),
                "0, or bit 63 set".into(),
                "XCOMP_BV of a standard image is zero",
            )
        })
    }

    fn header_rules(&self, read: &Read<'_>) -> Vec<Finding> {
        let (header, mut broken) = (read.header, Vec::new());
        let (held, layout) = (header.xstate_bv(), header.layout());
        if let Some(word) = header.first_reserved() {
            broken.push(Finding::new(
                "header-reserved",
                RESERVED,
                Seen::Bits(word),
                "0x0".into(),
                "bytes 16 to 63 of the header are zero",
            ));
        }
        if read.form == Form::Compacted && !layout.contains(held) {
            broken.push(Finding::new(
                "xstate-bv-xcomp-bv",
                XSTATE_BV,
                Seen::Bits(held.bits()),
                format!("no bits but {:#x}", layout.bits()),
                "XSTATE_BV of a compacted image is within its XCOMP_BV",
            ));
        }
        broken
    }

    /// What is held has a place. A directory that breaks a rule has said so.
    fn places(&self, read: &Read<'_>) -> Vec<Finding> {
        let (held, known) = (read.header.xstate_bv(), self.layout.geometry.known());
        let bits = Seen::Bits(held.bits());
        let mut broken = Vec::new();
        let supervisor = held.intersection(self.layout.geometry.supervisor());
        if read.form == Form::Standard && !supervisor.is_empty() {
            broken.push(Finding::new(
                "foreign-supervisor",
                XSTATE_BV,
                bits,
                format!("no bits but {:#x}", held.difference(supervisor).bits()),
                &format!("a standard image has no place for {supervisor}, supervisor state"),
            ));
        }
        let unplaced = match read.form {
            Form::Standard => held.difference(known),
            // Behind one of unknown size nothing has a place.
            Form::Compacted => held
                .intersection(read.header.layout())
                .iter()
                .filter(|component| self.place(read, *component).is_none())
                .fold(ComponentSet::EMPTY, |all, component| {
                    all.union(ComponentSet::only(component))
                }),
        };
        if self.interface != Interface::Blob && !unplaced.is_empty() {
            broken.push(Finding::new(
                "foreign-unplaced",
                XSTATE_BV,
                bits,
                format!("no bits but {:#x}", held.difference(unplaced).bits()),
                &format!(
                    "what is held has a place, and {unplaced} has none in {}",
                    self.layout.name()
                ),
            ));
        }
        broken
    }

    /// The image is as long as its components make it, as far as those are known.
    fn length(&self, read: &Read<'_>) -> Option<Finding> {
        let (length, geometry) = (self.bytes.len(), &self.layout.geometry);
        let seen = Seen::length(length);
        if read.form == Form::Compacted {
            let layout = read.header.layout();
            let exact = geometry.image_size(Form::Compacted, layout);
            let right = match self.interface {
                Interface::Kvm => length >= exact,
                Interface::Blob | Interface::Xen | Interface::File => length == exact,
            };
            return (geometry.known().contains(layout) && !right).then(|| {
                Finding::new(
                    "image-length",
                    0,
                    seen,
                    exact.to_string(),
                    "an image is as long as its components reach",
                )
            });
        }
        let held = geometry.placements(Form::Standard, read.header.xstate_bv());
        let last = held.max_by_key(|place| place.range().end)?;
        let (component, end) = (last.component, last.range().end);
        let hint = if length == KVM_GET_XSAVE_BYTES {
            ": KVM_GET_XSAVE gives no more, KVM_GET_XSAVE2 does"
        } else {
            ""
        };
        (length < end).then(|| {
            Finding::new(
                "foreign-truncated",
                0,
                seen,
                format!("at least {end}"),
                &format!("{component} ends at {end}, the bytes at {length}{hint}"),
            )
        })
    }

    /// Bytes of a standard image that are not zero, in no component that it holds:
    /// it may have another layout than the one by which it is read.
    fn stray(&self, read: &Read<'_>) -> Option<String> {
        if read.form != Form::Standard || read.header.xcomp_bv() & COMPACTED != 0 {
            return None;
        }
        let held = read.header.xstate_bv();
        let places: Vec<_> = self
            .layout
            .geometry
            .placements(Form::Standard, held)
            .map(|place| place.range())
            .collect();
        let rest = self.bytes.get(MIN_IMAGE_BYTES..)?;
        let stray = |at: &usize| !places.iter().any(|place| place.contains(at));
        let mut bytes = rest
            .iter()
            .zip(MIN_IMAGE_BYTES..)
            .filter(|(byte, _)| **byte != 0)
            .map(|(_, at)| at)
            .filter(stray);
        let first = bytes.next()?;
        let (count, last) = bytes.fold((1, first), |(count, _), at| (count + 1, at));
        let span = if count == 1 {
            format!("byte {first} is not zero")
        } else {
            format!("{count} bytes between {first} and {last} are not zero")
        };
        let hint = if self.layout.assumed {
            "if the image is another machine's, --layout names it"
        } else {
            "is this the machine that made the image?"
        };
        Some(format!(
            "{span}, where nothing that is held lies by {}: {hint}",
            self.layout.name()
        ))
    }
}
