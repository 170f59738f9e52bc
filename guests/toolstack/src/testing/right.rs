//! The right to run in the hypervisor's stand-in: the real machines, and their
//! effects on its domains.

use super::host::Host;
use migration_abi::handover::{Action, Effect, Status, receiver, source};
use migration_abi::stream::RecordType;
use std::string::ToString;
use xferry_abi::RightAction;
use xferry_abi::RightAnswer;
use xferry_abi::error::{Errno, Failure};

impl Host {
    pub fn status(&self, id: &[u8; 16]) -> Status {
        let active = self.domains.values().filter_map(|d| d.migration);
        let mut active = active
            .filter(|(other, _)| other == id)
            .map(|(_, status)| status);
        active
            .next_back()
            .or(self.ended.get(id).copied())
            .unwrap_or(Status::Unknown)
    }

    pub fn right(
        &mut self,
        domain: u32,
        action: RightAction,
        peer: u64,
        id: [u8; 16],
    ) -> Result<u64, Failure> {
        use RightAction as A;
        let peer = Status::from_code(peer as u32).unwrap();
        let mut here = self.status(&id);
        if action == A::Query {
            return Ok(u64::from(here.code()));
        }
        if action == A::SourceBegin {
            assert_eq!(here, Status::Unknown);
            let domain = self.domain(domain)?;
            if domain.migration.is_some() {
                return Err(self.refuse(Errno::EBUSY, "it is part of a migration"));
            }
            here = Status::Source(source::State::Running);
            domain.migration = Some((id, here));
        }
        let step: Result<(Status, Action), _> = match here {
            Status::Source(state) => {
                use source::Event as E;
                let event = match action {
                    A::SourceBegin => E::Begin,
                    A::SourceAccept => E::Accept,
                    A::SourceReady => E::Ready,
                    A::SourceRelease => E::Release,
                    A::SourceConfirm => E::Confirm,
                    A::SourceAbort => E::Abort,
                    A::SourcePeerStatus => E::PeerStatus(peer.of_receiver()),
                    _ => return Err(self.refuse(Errno::EINVAL, "the other side's action")),
                };
                source::next(state, event).map(|(state, action)| (Status::Source(state), action))
            }
            Status::Receiver(state) => {
                use receiver::Event as E;
                let event = match action {
                    A::ReceiverAccept => E::Accept,
                    A::ReceiverReady => E::Ready,
                    A::ReceiverTake => E::Take,
                    A::ReceiverConfirm => E::Confirm,
                    A::ReceiverAbort => E::Abort,
                    A::ReceiverPeerStatus => E::PeerStatus(peer.of_source()),
                    _ => return Err(self.refuse(Errno::EINVAL, "the other side's action")),
                };
                receiver::next(state, event)
                    .map(|(state, action)| (Status::Receiver(state), action))
            }
            Status::Unknown => return Err(self.refuse(Errno::ENOENT, "no such migration")),
        };
        let (status, action) = step.map_err(|r| self.refuse(Errno::EILSEQ, &r.to_string()))?;
        let ended = match status {
            Status::Source(state) => state.has_ended(),
            Status::Receiver(state) => state.has_ended(),
            Status::Unknown => false,
        };
        let number = self.domains.iter().find_map(|(n, d)| {
            d.migration
                .is_some_and(|(other, _)| other == id)
                .then_some(*n)
        });
        if let Some(number) = number {
            let domain = self.domains.get_mut(&number).unwrap();
            domain.migration = (!ended).then_some((id, status));
            match action.effect {
                Effect::None | Effect::Freeze => {}
                Effect::Pause => domain.may_run = false,
                Effect::Run => {
                    domain.may_run = true;
                    domain.paused &= matches!(status, Status::Source(_)) || domain.stays_paused;
                }
                Effect::Free => drop(self.domains.remove(&number)),
            }
        }
        if ended {
            self.ended.insert(id, status);
        }
        self.publish();
        Ok(RightAnswer {
            status: status.code(),
            say: action.say.map_or(0, RecordType::code),
        }
        .encode())
    }
}
