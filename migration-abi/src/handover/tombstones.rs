//! What remains of migrations that ended: their ids, and how.

use super::Status;
use crate::mutants::rule;
use crate::stream::MigrationId;

/// The last `N` migrations that ended on this host. Where an older one is
/// asked for, the answer is [`Status::Unknown`], which wakes nobody.
#[derive(Debug, Clone)]
pub struct Tombstones<const N: usize> {
    graves: [Option<(MigrationId, Status)>; N],
    oldest: usize,
}

impl<const N: usize> Tombstones<N> {
    /// Nothing ended yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            graves: [None; N],
            oldest: 0,
        }
    }

    /// Remembers how a migration ended; forgets the oldest where there is no
    /// room. States that are no end are not remembered (`false`), nor is a
    /// second end of the same id: the first one may have been told already.
    pub fn bury(&mut self, id: MigrationId, status: Status) -> bool {
        let ended = match status {
            Status::Unknown => false,
            Status::Source(state) => state.has_ended(),
            Status::Receiver(state) => state.has_ended(),
        };
        let again = rule!("handover-tombstone-once") && self.find(id) != Status::Unknown;
        if rule!("handover-tombstone-of-ends") && !ended || again {
            return false;
        }
        let Some(grave) = self.graves.get_mut(self.oldest) else {
            return false; // N = 0 remembers nothing
        };
        *grave = Some((id, status));
        self.oldest = self.oldest.wrapping_add(1) % N.max(1);
        true
    }

    /// How the migration ended, or [`Status::Unknown`].
    #[must_use]
    pub fn find(&self, id: MigrationId) -> Status {
        let found = self.graves.iter().flatten().find(|(other, _)| *other == id);
        found.map_or(Status::Unknown, |(_, status)| *status)
    }
}

impl<const N: usize> Default for Tombstones<N> {
    fn default() -> Self {
        Self::new()
    }
}
