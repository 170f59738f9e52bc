//! Numbers by which copies of one geometry are told from all others.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Form, Geometry};

/// The number of a geometry, which its copies share, and nothing else ever has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(u64);

impl Number {
    /// No number.
    pub(super) const NONE: Self = Self(0);

    /// One that nobody has had.
    fn next() -> Self {
        // Hosts are read, one at a time, by processors that come up: 2^62 of
        // them, which `Geometry::label` has room for, never will.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// 0 for none.
    #[inline(always)]
    const fn get(self) -> u64 {
        self.0
    }
}

impl Geometry {
    /// Gives it a number: from now on its copies are known to be the same.
    pub(crate) fn number(&mut self) {
        self.number = Number::next();
    }

    /// A name of the layout of images of `form`, never 0: what has the same one
    /// as a geometry with a number has the same layout, for certain. A switch
    /// compares it instead of sixty components. Without a number there is one
    /// name for all, which no geometry with a number has.
    #[inline(always)]
    pub(crate) const fn label(&self, form: Form) -> u64 {
        self.number.get() << 2 | (form as u64) << 1 | 1
    }
}

impl PartialEq for Geometry {
    fn eq(&self, other: &Self) -> bool {
        // All else follows from the facts, but for the number, which is a name.
        self.facts == other.facts
    }
}

impl Eq for Geometry {}
