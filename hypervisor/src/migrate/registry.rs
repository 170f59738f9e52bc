//! The migrations of this host: those under way, and the tombstones of those
//! that ended. The steps themselves are `migration_abi::handover`'s.

use alloc::vec::Vec;
use migration_abi::handover::{Action, Refused, Status, Tombstones, receiver, source};
use migration_abi::stream::MigrationId;
use spin::mutex::SpinMutex;
use xferry_abi::DomainId;

/// How many ended migrations are remembered.
const TOMBSTONES: usize = 256;

/// The one registry. Steps and their effects are made under its lock, so that
/// nobody sees one without the other.
pub static REGISTRY: SpinMutex<Registry> = SpinMutex::new(Registry::new());

/// A migration under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: MigrationId,
    /// The domain here.
    pub domain: DomainId,
    /// Where this side stands.
    pub status: Status,
}

/// An event of either side's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The source's.
    Source(source::Event),
    /// The receiver's.
    Receiver(receiver::Event),
}

/// Why an event changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The machine's reason.
    Machine(Refused),
    /// No such migration is under way here. What is known of it.
    NotHere(Status),
    /// An id is used once.
    Known(Status),
    /// The event is for the other side.
    OtherSide(Status),
    /// No memory for one more.
    OutOfMemory,
}

/// All migrations that this host knows of.
pub struct Registry {
    active: Vec<Entry>,
    ended: Tombstones<TOMBSTONES>,
}

impl Registry {
    /// Knows of none.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            active: Vec::new(),
            ended: Tombstones::new(),
        }
    }

    /// What is known of a migration.
    #[must_use]
    pub fn status(&self, id: MigrationId) -> Status {
        match self.active.iter().find(|entry| entry.id == id) {
            Some(entry) => entry.status,
            None => self.ended.find(id),
        }
    }

    /// The migration that a domain is part of.
    #[must_use]
    pub fn of_domain(&self, domain: DomainId) -> Option<Entry> {
        self.active
            .iter()
            .find(|entry| entry.domain == domain)
            .copied()
    }

    /// Begins one: on the source by its first event, on the receiver in its
    /// first state.
    ///
    /// # Errors
    /// The id is known, or there is no memory.
    pub fn begin(
        &mut self,
        id: MigrationId,
        domain: DomainId,
        status: Status,
    ) -> Result<(), Refusal> {
        match self.status(id) {
            Status::Unknown => {}
            known => return Err(Refusal::Known(known)),
        }
        self.active
            .try_reserve(1)
            .map_err(|_| Refusal::OutOfMemory)?;
        self.active.push(Entry { id, domain, status });
        Ok(())
    }

    /// Forgets one that never came to anything.
    pub fn forget(&mut self, id: MigrationId) {
        self.active.retain(|entry| entry.id != id);
    }

    /// Makes a step. The domain, the new status, and what is to be done.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing was changed.
    pub fn step(
        &mut self,
        id: MigrationId,
        event: Event,
    ) -> Result<(DomainId, Status, Action), Refusal> {
        let Some(at) = self.active.iter().position(|entry| entry.id == id) else {
            return self.step_ended(id, event);
        };
        let entry = &mut self.active[at];
        let (status, action) = apply(entry.status, event)?;
        entry.status = status;
        let domain = entry.domain;
        if has_ended(status) {
            self.ended.bury(id, status);
            self.active.swap_remove(at);
        }
        Ok((domain, status, action))
    }

    /// A late event about a migration that has ended: the machine answers it
    /// from the tombstone's state, so that a peer that missed the last word is
    /// told again. No domain is concerned any more.
    fn step_ended(
        &self,
        id: MigrationId,
        event: Event,
    ) -> Result<(DomainId, Status, Action), Refusal> {
        let known = self.ended.find(id);
        if known == Status::Unknown {
            return Err(Refusal::NotHere(known));
        }
        let (status, action) = apply(known, event)?;
        if status != known {
            return Err(Refusal::NotHere(known));
        }
        Ok((DomainId::HOST, status, action))
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

fn apply(status: Status, event: Event) -> Result<(Status, Action), Refusal> {
    match (status, event) {
        (Status::Source(state), Event::Source(event)) => source::next(state, event)
            .map(|(state, action)| (Status::Source(state), action))
            .map_err(Refusal::Machine),
        (Status::Receiver(state), Event::Receiver(event)) => receiver::next(state, event)
            .map(|(state, action)| (Status::Receiver(state), action))
            .map_err(Refusal::Machine),
        (other, _) => Err(Refusal::OtherSide(other)),
    }
}

const fn has_ended(status: Status) -> bool {
    match status {
        Status::Unknown => false,
        Status::Source(state) => state.has_ended(),
        Status::Receiver(state) => state.has_ended(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migration_abi::handover::Effect;

    const ID: u8 = 7;
    const DOMAIN: DomainId = DomainId(3);

    fn id(byte: u8) -> MigrationId {
        MigrationId::new([byte; 16]).unwrap()
    }

    fn source(registry: &mut Registry, event: source::Event) -> Result<Effect, Refusal> {
        registry
            .step(id(ID), Event::Source(event))
            .map(|(_, _, action)| action.effect)
    }

    #[test]
    fn a_source_keeps_a_tombstone_and_its_id_is_never_used_again() {
        let mut registry = Registry::new();
        registry
            .begin(id(ID), DOMAIN, Status::Source(source::State::Running))
            .unwrap();
        use source::Event as E;
        assert_eq!(source(&mut registry, E::Begin), Ok(Effect::Pause));
        for event in [E::Accept, E::Ready, E::Release] {
            assert_eq!(source(&mut registry, event), Ok(Effect::None));
        }
        assert_eq!(registry.of_domain(DOMAIN).unwrap().id, id(ID));
        // After the right was given up nothing but the receiver's word helps.
        assert!(source(&mut registry, E::Abort).is_err());
        assert!(source(&mut registry, E::PeerStatus(None)).is_err());
        assert_eq!(source(&mut registry, E::Confirm), Ok(Effect::Free));
        assert_eq!(registry.of_domain(DOMAIN), None);
        assert_eq!(registry.status(id(ID)), Status::Source(source::State::Done));
        let again = registry.begin(id(ID), DOMAIN, Status::Source(source::State::Running));
        assert!(matches!(again, Err(Refusal::Known(_))));
        // A RUNNING that comes twice is answered again, and frees nothing twice.
        assert_eq!(source(&mut registry, E::Confirm), Ok(Effect::None));
    }

    #[test]
    fn an_unknown_id_changes_nothing() {
        let mut registry = Registry::new();
        assert_eq!(
            source(&mut registry, source::Event::Abort),
            Err(Refusal::NotHere(Status::Unknown))
        );
    }

    #[test]
    fn an_event_of_the_other_side_is_refused() {
        let mut registry = Registry::new();
        registry
            .begin(id(ID), DOMAIN, Status::Receiver(receiver::State::INITIAL))
            .unwrap();
        assert!(matches!(
            source(&mut registry, source::Event::Release),
            Err(Refusal::OtherSide(_))
        ));
    }
}
