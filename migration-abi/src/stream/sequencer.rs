//! The order of records: a stream that passes is a whole domain, each page and
//! each vCPU once.
//!
//! ```text
//!  HEADER ─▶ DOMAIN ─▶ PAGES | ZERO_PAGES, gfn 0 … memory_pages, no gap
//!                  ─▶ (VCPU_REGISTERS ─▶ VCPU_XSTATE) for each vCPU from 0 ─▶ END
//!            CONSOLE once at most, anywhere between DOMAIN and END
//! ```
//!
//! Messages of the handover may stand anywhere; whether they make sense is the
//! handover's to say, here only that they speak of this migration.

use super::RecordType;
use super::frame::{FRAME_HEADER_BYTES, Frame};
use super::records::Record;
use super::{MigrationId, StreamError};
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;

/// How far the stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Header,
    Memory,
    /// Registers of `vcpu` came, its extended state is due.
    Xstate,
    Ended,
    /// A direction that carries messages alone.
    Messages,
}

/// Checks one direction of one connection, frame by frame.
#[derive(Debug, Clone)]
pub struct Sequencer {
    phase: Phase,
    sequence: u32,
    migration_id: Option<MigrationId>,
    memory_pages: u64,
    vcpus: u32,
    next_gfn: u64,
    next_vcpu: u32,
    data_pages: u64,
    console: bool,
}

impl Sequencer {
    /// For the direction that carries the domain.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            phase: Phase::Start,
            sequence: 0,
            migration_id: None,
            memory_pages: 0,
            vcpus: 0,
            next_gfn: 0,
            next_vcpu: 0,
            data_pages: 0,
            console: false,
        }
    }

    /// For a direction that carries the handover's messages alone: answers,
    /// and both directions of a reconnect.
    #[must_use]
    pub const fn messages() -> Self {
        let mut this = Self::new();
        this.phase = Phase::Messages;
        this
    }

    /// Whether END has come, and so all of the domain.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// The migration that the stream's HEADER, or the first message, named.
    #[must_use]
    pub const fn migration_id(&self) -> Option<MigrationId> {
        self.migration_id
    }

    /// Reads the next frame. `None`: an optional record to be skipped. After an
    /// error the sequencer stands where it stood, and the stream is worth no more.
    pub fn accept<'a>(&mut self, frame: &Frame<'a>) -> Result<Option<Record<'a>>, StreamError> {
        if rule!("sequence-number") && frame.header.sequence != self.sequence {
            let (seen, allowed) = (
                u64::from(frame.header.sequence),
                Allowed::Exactly(u64::from(self.sequence)),
            );
            return Err(ParseError::new(
                Rule::SequenceNumber,
                frame.offset.saturating_add(8),
                seen,
                allowed,
            ));
        }
        let record = Record::parse(frame)?;
        if let Some(record) = &record {
            self.order(record)
                .map_err(|error| error.within(frame.offset))?;
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(record)
    }

    /// The rules of order, one arm for each record.
    fn order(&mut self, record: &Record<'_>) -> Result<(), StreamError> {
        match (self.phase, record) {
            (_, Record::Handover(message)) => self.same_migration(message.migration_id()),
            (Phase::Start, Record::Header(header)) => {
                self.same_migration(header.migration_id)?;
                self.phase = Phase::Header;
                Ok(())
            }
            (Phase::Header, Record::Domain(domain)) => {
                self.memory_pages = domain.memory_pages;
                self.vcpus = domain.vcpus;
                self.phase = Phase::Memory;
                Ok(())
            }
            (Phase::Memory, Record::Pages(pages)) => {
                self.pages(pages.first_gfn, pages.count())?;
                // At most memory_pages, which `pages` has checked.
                self.data_pages = self.data_pages.saturating_add(pages.count());
                Ok(())
            }
            (Phase::Memory, Record::ZeroPages(pages)) => self.pages(pages.first_gfn, pages.count),
            (Phase::Memory | Phase::Xstate, Record::Console(_)) if !self.console => {
                self.console = true;
                Ok(())
            }
            (Phase::Memory, Record::VcpuRegisters(record)) => {
                self.memory_complete()?;
                self.this_vcpu(record.vcpu)?;
                self.phase = Phase::Xstate;
                Ok(())
            }
            (Phase::Xstate, Record::VcpuXstate(record)) => {
                self.this_vcpu(record.vcpu)?;
                self.next_vcpu = self.next_vcpu.saturating_add(1);
                self.phase = Phase::Memory;
                Ok(())
            }
            (Phase::Memory, Record::End(end)) => {
                self.memory_complete()?;
                let zero_pages = self.memory_pages.saturating_sub(self.data_pages);
                let counts = [
                    (
                        Rule::VcpuMissing,
                        16,
                        u64::from(self.next_vcpu),
                        u64::from(self.vcpus),
                    ),
                    (Rule::EndCounts, 0, end.data_pages, self.data_pages),
                    (Rule::EndCounts, 8, end.zero_pages, zero_pages),
                    (
                        Rule::EndCounts,
                        16,
                        u64::from(end.vcpus),
                        u64::from(self.vcpus),
                    ),
                ];
                for (rule, offset, seen, value) in counts {
                    if rule!(rule.name()) && seen != value {
                        let offset = FRAME_HEADER_BYTES + offset;
                        return Err(ParseError::new(rule, offset, seen, Allowed::Exactly(value)));
                    }
                }
                self.phase = Phase::Ended;
                Ok(())
            }
            (_, record) if rule!("record-order") => Err(self.out_of_order(record.record_type())),
            _ => Ok(()),
        }
    }

    /// Each frame once, ascending: a page that is missing or comes twice is
    /// seen without remembering which came.
    fn pages(&mut self, first_gfn: u64, count: u64) -> Result<(), StreamError> {
        if self.next_vcpu != 0 {
            return Err(self.out_of_order(RecordType::Pages));
        }
        if rule!("pages-order") && first_gfn != self.next_gfn {
            let allowed = Allowed::Exactly(self.next_gfn);
            return Err(ParseError::new(
                Rule::PagesOrder,
                FRAME_HEADER_BYTES,
                first_gfn,
                allowed,
            ));
        }
        let left = self.memory_pages.saturating_sub(self.next_gfn);
        if rule!("pages-beyond") && count > left {
            return Err(ParseError::new(
                Rule::PagesBeyond,
                FRAME_HEADER_BYTES + 8,
                count,
                Allowed::AtMost(left),
            ));
        }
        self.next_gfn = self.next_gfn.saturating_add(count);
        Ok(())
    }

    fn memory_complete(&self) -> Result<(), StreamError> {
        if !rule!("pages-missing") || self.next_gfn == self.memory_pages {
            return Ok(());
        }
        Err(ParseError::new(
            Rule::PagesMissing,
            0,
            self.next_gfn,
            Allowed::Exactly(self.memory_pages),
        ))
    }

    fn this_vcpu(&self, vcpu: u32) -> Result<(), StreamError> {
        if !rule!("vcpu-order") || vcpu == self.next_vcpu && vcpu < self.vcpus {
            return Ok(());
        }
        let allowed = if self.next_vcpu < self.vcpus {
            Allowed::Exactly(u64::from(self.next_vcpu))
        } else {
            Allowed::Words("none: all vCPUs of the domain have come")
        };
        Err(ParseError::new(
            Rule::VcpuOrder,
            FRAME_HEADER_BYTES,
            u64::from(vcpu),
            allowed,
        ))
    }

    fn same_migration(&mut self, id: MigrationId) -> Result<(), StreamError> {
        let known = *self.migration_id.get_or_insert(id);
        if !rule!("migration-id-other") || known == id {
            return Ok(());
        }
        let seen = u64::from_le_bytes(*id.bytes().first_chunk().unwrap_or(&[0; 8]));
        let allowed = Allowed::Words("the migration id that this connection began with");
        Err(ParseError::new(
            Rule::MigrationIdOther,
            FRAME_HEADER_BYTES,
            seen,
            allowed,
        ))
    }

    fn out_of_order(&self, record: RecordType) -> ParseError {
        let due = match self.phase {
            Phase::Start => "HEADER",
            Phase::Header => "DOMAIN",
            Phase::Memory if self.next_vcpu == 0 && self.next_gfn < self.memory_pages => {
                "PAGES, ZERO_PAGES, or CONSOLE if none came"
            }
            Phase::Memory if self.next_vcpu < self.vcpus => {
                "VCPU_REGISTERS, or CONSOLE if none came"
            }
            Phase::Memory => "END, or CONSOLE if none came",
            Phase::Xstate => "VCPU_XSTATE, or CONSOLE if none came",
            Phase::Ended | Phase::Messages => "messages of the handover alone",
        };
        ParseError::new(
            Rule::RecordOrder,
            4,
            u64::from(record.code()),
            Allowed::Words(due),
        )
    }
}

impl Default for Sequencer {
    fn default() -> Self {
        Self::new()
    }
}
