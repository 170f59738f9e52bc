//! The calls that every guest has.

/// Number of a hypercall, in RAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Call {
    /// No arguments; returns [`crate::CALLS_VERSION`].
    Version = 0,
    /// RDI = [`ConsoleDirection`], RSI = bytes (at most 4096), RDX = buffer.
    /// Returns the number of bytes moved.
    Console = 1,
    /// RDI = address of a [`crate::ClockPage`], 8-byte aligned, inside one
    /// page; `u64::MAX` takes it back. The page is rewritten whenever its
    /// content changes, a move to another host included.
    ClockPage = 2,
    /// RDI = guest system time in ns at which [`Event::Timer`] is due;
    /// `u64::MAX` cancels it. One shot.
    SetTimer = 3,
    /// RDI = [`Event`], RSI = interrupt vector 32–255, or 0 for none. The event
    /// arrives as that interrupt when RFLAGS.IF allows; there is no
    /// acknowledgement.
    SetVector = 4,
    /// No arguments; another vCPU runs if one can.
    Yield = 5,
    /// RDI = [`ShutdownReason`]. Does not return.
    Shutdown = 6,
    /// RDI = address, RSI = bytes of a [`crate::Control`]. Privileged.
    Control = 16,
}

impl Call {
    /// The call with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Version,
            1 => Self::Console,
            2 => Self::ClockPage,
            3 => Self::SetTimer,
            4 => Self::SetVector,
            5 => Self::Yield,
            6 => Self::Shutdown,
            16 => Self::Control,
            _ => return None,
        })
    }
}

/// Which way [`Call::Console`] moves bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum ConsoleDirection {
    /// From the buffer to the console.
    Write = 0,
    /// From the console's input to the buffer; returns 0 where none waits.
    Read = 1,
}

impl ConsoleDirection {
    /// The direction with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Write),
            1 => Some(Self::Read),
            _ => None,
        }
    }
}

/// What a guest can be told of by an interrupt. The number is the bit in
/// the vCPU's pending events and the index of its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Event {
    /// The time set by [`Call::SetTimer`] has come.
    Timer = 0,
    /// Console input waits.
    Console = 1,
}

/// How many kinds of [`Event`] the interface has room for.
pub const EVENT_SLOTS: usize = 8;

impl Event {
    /// All events, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Timer, Self::Console];

    /// The event with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Timer),
            1 => Some(Self::Console),
            _ => None,
        }
    }
}

/// Why a guest stopped of its own will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum ShutdownReason {
    /// It is done. From the toolstack: the machine is switched off.
    PowerOff = 0,
    /// It asks to be started anew.
    Reboot = 1,
    /// It found itself broken.
    Crash = 3,
}

impl ShutdownReason {
    /// The reason with this number (those of Xen's `SHUTDOWN_*`).
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::PowerOff),
            1 => Some(Self::Reboot),
            3 => Some(Self::Crash),
            _ => None,
        }
    }
}
