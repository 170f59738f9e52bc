//! An event on its way into a guest, in no vendor's form.

/// What kind of event, with the numbers of the register record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// External interrupt.
    Interrupt,
    /// Non-maskable interrupt.
    Nmi,
    /// Exception raised by the processor.
    Exception,
    /// INT n.
    SoftwareInterrupt,
    /// INT3 or INTO.
    SoftwareException,
}

/// An event to deliver, or one whose delivery an exit cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What kind.
    pub kind: EventKind,
    /// Vector, 0–255.
    pub vector: u8,
    /// Error code, where the vector pushes one.
    pub error_code: Option<u32>,
}

/// Exception vectors.
#[allow(missing_docs)]
pub mod vector {
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
}

impl Event {
    /// #UD.
    pub const INVALID_OPCODE: Self = Self::exception(vector::UD, None);
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self::exception(vector::GP, Some(0));

    /// An exception.
    #[must_use]
    pub const fn exception(vector: u8, error_code: Option<u32>) -> Self {
        Self {
            kind: EventKind::Exception,
            vector,
            error_code,
        }
    }

    /// An external interrupt.
    #[must_use]
    pub const fn interrupt(vector: u8) -> Self {
        Self {
            kind: EventKind::Interrupt,
            vector,
            error_code: None,
        }
    }
}

/// What follows when `second` is raised while `first` was being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collision {
    /// `second` is delivered, and `first` after it.
    BothInTurn,
    /// `second` alone: the instruction will raise `first` again.
    SecondOnly,
    /// A double fault.
    DoubleFault,
    /// The vCPU shuts down (a fault while a double fault was delivered).
    TripleFault,
}

/// SDM Vol. 3A, 7.15, Table "Conditions for Generating a Double Fault".
#[must_use]
pub const fn collide(first: Event, second: Event) -> Collision {
    const fn contributory(vector: u8) -> bool {
        // #DE, #TS, #NP, #SS, #GP (and #CP on machines that have it).
        matches!(vector, 0 | 10 | 11 | 12 | 13 | 21)
    }
    match first.kind {
        // Interrupts and NMIs are benign: nothing of them is lost.
        EventKind::Interrupt | EventKind::Nmi => return Collision::BothInTurn,
        EventKind::SoftwareInterrupt | EventKind::SoftwareException => {
            return Collision::SecondOnly;
        }
        EventKind::Exception => {}
    }
    let second_faults = contributory(second.vector) || second.vector == vector::PF;
    if first.vector == vector::DF {
        if second_faults {
            Collision::TripleFault
        } else {
            Collision::SecondOnly
        }
    } else if (contributory(first.vector) && contributory(second.vector))
        || (first.vector == vector::PF && second_faults)
    {
        Collision::DoubleFault
    } else {
        Collision::SecondOnly
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manuals_table() {
        let gp = Event::GENERAL_PROTECTION;
        let pf = Event::exception(vector::PF, Some(0));
        let ud = Event::INVALID_OPCODE;
        let df = Event::exception(vector::DF, Some(0));
        let irq = Event::interrupt(0x40);
        for (first, second, expected) in [
            (irq, gp, Collision::BothInTurn),
            (ud, gp, Collision::SecondOnly),
            (gp, gp, Collision::DoubleFault),
            (gp, pf, Collision::SecondOnly),
            (pf, pf, Collision::DoubleFault),
            (pf, gp, Collision::DoubleFault),
            (pf, ud, Collision::SecondOnly),
            (df, gp, Collision::TripleFault),
            (df, pf, Collision::TripleFault),
        ] {
            assert_eq!(collide(first, second), expected, "{first:?} {second:?}");
        }
    }
}
