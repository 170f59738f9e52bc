//! What waits to be delivered to a vCPU: an event that goes before its next
//! instruction, and the paravirtual events that wait for RFLAGS.IF.

use crate::virt::Event;
use crate::virt::event::{Collision, EventKind, collide, vector};
use xferry_abi::call::EVENT_SLOTS;

/// A fault while a double fault was delivered: the vCPU is at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TripleFault;

/// What to do at the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing waits.
    Nothing,
    /// Deliver this, and ask for an exit when interrupts are allowed if
    /// `more` wait.
    Inject {
        /// What.
        event: Event,
        /// Whether others wait.
        more: bool,
    },
    /// Something waits for interrupts to be allowed.
    Window,
}

/// Events of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    /// Goes before the next instruction: an exception that a handler raised,
    /// or an event whose delivery an exit cut short.
    first: Option<Event>,
    /// An interrupt that an exception overtook; it has been taken from its
    /// source and must not be lost.
    overtaken: Option<Event>,
    /// Bit n: paravirtual event n is due.
    pub pending: u64,
    /// Vector of each, 0 for none.
    pub vectors: [u8; EVENT_SLOTS],
    /// Guest system time at which the timer event is due; `u64::MAX` for never.
    pub timer_deadline_ns: u64,
}

impl Events {
    /// After INIT.
    pub const NONE: Self = Self {
        first: None,
        overtaken: None,
        pending: 0,
        vectors: [0; EVENT_SLOTS],
        timer_deadline_ns: u64::MAX,
    };

    /// Raises an exception, or whatever it makes together with one that is
    /// already on its way.
    ///
    /// # Errors
    /// Together they are a triple fault.
    pub fn raise(&mut self, event: Event) -> Result<(), TripleFault> {
        let Some(first) = self.first else {
            self.first = Some(event);
            return Ok(());
        };
        match collide(first, event) {
            Collision::BothInTurn => {
                self.overtaken = Some(first);
                self.first = Some(event);
            }
            Collision::SecondOnly => self.first = Some(event),
            Collision::DoubleFault => self.first = Some(Event::exception(vector::DF, Some(0))),
            Collision::TripleFault => return Err(TripleFault),
        }
        Ok(())
    }

    /// Takes back an event whose delivery an exit cut short. INT n and its like
    /// are not kept: RIP still stands at the instruction.
    pub fn redeliver(&mut self, event: Event) {
        if !matches!(
            event.kind,
            EventKind::SoftwareInterrupt | EventKind::SoftwareException
        ) {
            self.first = Some(event);
        }
    }

    /// Marks the timer event as due where its time has come.
    pub fn expire(&mut self, guest_now_ns: u64) {
        if self.timer_deadline_ns <= guest_now_ns {
            self.timer_deadline_ns = u64::MAX;
            self.pending |= 1 << xferry_abi::Event::Timer as u64;
        }
    }

    /// The paravirtual event that goes next: its number and vector.
    fn next_pending(&self) -> Option<(u32, u8)> {
        let mut left = self.pending;
        while left != 0 {
            let number = left.trailing_zeros();
            match self.vectors.get(number as usize) {
                Some(0) | None => left &= left - 1,
                Some(vector) => return Some((number, *vector)),
            }
        }
        None
    }

    /// Whether anything waits that ends HLT: an interrupt does only where
    /// RFLAGS.IF is set.
    #[must_use]
    pub fn wakes(&self, interrupts: bool) -> bool {
        self.first.is_some()
            || interrupts && (self.overtaken.is_some() || self.next_pending().is_some())
    }

    /// What goes before the next instruction, without taking it.
    #[must_use]
    pub const fn first(&self) -> Option<Event> {
        self.first
    }

    /// Takes what is to be delivered at this entry. `interruptible`: RFLAGS.IF
    /// is set and no shadow holds interrupts off.
    pub fn take(&mut self, interruptible: bool) -> Delivery {
        if let Some(event) = self.first.take() {
            let more = self.overtaken.is_some() || self.next_pending().is_some();
            return Delivery::Inject { event, more };
        }
        if self.overtaken.is_none() && self.pending == 0 {
            return Delivery::Nothing;
        }
        if !interruptible {
            return if self.wakes(true) {
                Delivery::Window
            } else {
                Delivery::Nothing
            };
        }
        if let Some(event) = self.overtaken.take() {
            let more = self.next_pending().is_some();
            return Delivery::Inject { event, more };
        }
        match self.next_pending() {
            Some((number, vector)) => {
                self.pending &= !(1 << number);
                Delivery::Inject {
                    event: Event::interrupt(vector),
                    more: self.next_pending().is_some(),
                }
            }
            None => Delivery::Nothing,
        }
    }

    /// All that goes before the next instruction, as the register record holds
    /// it: one event. An overtaken interrupt beside an exception becomes
    /// pending in the record by being the event, and the exception is raised
    /// again by its instruction, which has not completed.
    #[must_use]
    pub fn recorded(&self) -> Option<Event> {
        self.overtaken.or(self.first)
    }

    /// Sets what goes before the next instruction.
    pub fn set_recorded(&mut self, event: Option<Event>) {
        self.first = event;
        self.overtaken = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_that_an_exception_overtook_comes_after_it() {
        let mut events = Events::NONE;
        events.redeliver(Event::interrupt(0x51));
        events.raise(Event::exception(17, Some(0))).unwrap();
        let first = events.take(false);
        assert_eq!(
            first,
            Delivery::Inject {
                event: Event::exception(17, Some(0)),
                more: true
            }
        );
        assert_eq!(events.take(false), Delivery::Window);
        assert_eq!(
            events.take(true),
            Delivery::Inject {
                event: Event::interrupt(0x51),
                more: false
            }
        );
        assert_eq!(events.take(true), Delivery::Nothing);
    }

    #[test]
    fn events_without_a_vector_wait_and_wake_nobody() {
        let mut events = Events::NONE;
        events.pending = 0b11;
        assert!(!events.wakes(true));
        assert_eq!(events.take(true), Delivery::Nothing);
        events.vectors[1] = 0x41;
        assert!(events.wakes(true));
        assert!(!events.wakes(false));
        assert_eq!(
            events.take(true),
            Delivery::Inject {
                event: Event::interrupt(0x41),
                more: false
            }
        );
        assert_eq!(events.pending, 0b01);
    }

    #[test]
    fn the_timer_fires_once() {
        let mut events = Events::NONE;
        events.vectors[0] = 0x40;
        events.timer_deadline_ns = 1000;
        events.expire(999);
        assert!(!events.wakes(true));
        events.expire(1000);
        assert!(events.wakes(true));
        assert!(!events.wakes(false));
        assert_eq!(events.timer_deadline_ns, u64::MAX);
    }

    #[test]
    fn a_software_interrupt_cut_short_is_left_to_its_instruction() {
        let mut events = Events::NONE;
        events.redeliver(Event {
            kind: EventKind::SoftwareInterrupt,
            vector: 0x80,
            error_code: None,
        });
        assert_eq!(events.take(true), Delivery::Nothing);
    }

    #[test]
    fn two_page_faults_are_a_double_fault_and_three_the_end() {
        let mut events = Events::NONE;
        let fault = Event::exception(vector::PF, Some(2));
        events.redeliver(fault);
        events.raise(fault).unwrap();
        assert_eq!(events.first(), Some(Event::exception(vector::DF, Some(0))));
        assert_eq!(events.raise(fault), Err(TripleFault));
    }
}
