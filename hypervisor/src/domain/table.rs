//! The domains of this host, by number.

use super::Domain;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use spin::mutex::SpinMutex;
use xferry_abi::DomainId;

/// All domains. Numbers are never used again, so that a late call about a dead
/// domain cannot reach another one.
pub struct Table {
    domains: BTreeMap<u32, Arc<Domain>>,
    next: u32,
}

/// The one table.
pub static DOMAINS: SpinMutex<Table> = SpinMutex::new(Table::new());

impl Table {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            domains: BTreeMap::new(),
            next: 0,
        }
    }

    /// A number for a new domain; `None` when all have been used.
    pub fn reserve(&mut self) -> Option<DomainId> {
        let id = self.next;
        // The last number stands for the host itself.
        self.next = id.checked_add(1)?;
        (id != DomainId::HOST.0).then_some(DomainId(id))
    }

    /// Adds a domain.
    pub fn insert(&mut self, domain: Arc<Domain>) {
        self.domains.insert(domain.id.0, domain);
    }

    /// Takes a domain out.
    pub fn remove(&mut self, id: DomainId) -> Option<Arc<Domain>> {
        self.domains.remove(&id.0)
    }

    /// The domain with this number.
    #[must_use]
    pub fn get(&self, id: DomainId) -> Option<Arc<Domain>> {
        self.domains.get(&id.0).cloned()
    }

    /// The first domain with this number or a higher one.
    #[must_use]
    pub fn next_from(&self, id: DomainId) -> Option<DomainId> {
        self.domains
            .range(id.0..)
            .next()
            .map(|(id, _)| DomainId(*id))
    }

    /// All, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Domain>> {
        self.domains.values()
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_used_again() {
        let mut table = Table::new();
        assert_eq!(table.reserve(), Some(DomainId(0)));
        assert_eq!(table.reserve(), Some(DomainId(1)));
        table.next = u32::MAX;
        assert_eq!(table.reserve(), None);
    }
}
