//! The records of the stream, by number and by name.

/// What a frame holds. Below 0x100: the state of the domain; above: the handover's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RecordType {
    /// What the stream is.
    Header = 1,
    /// What the domain is: all that a receiver refuses early by.
    Domain = 2,
    /// Pages with their bytes.
    Pages = 3,
    /// Pages that are zero.
    ZeroPages = 4,
    /// The UART and what nobody read of its output.
    Console = 5,
    /// One vCPU's registers.
    VcpuRegisters = 6,
    /// One vCPU's extended state.
    VcpuXstate = 7,
    /// The state is complete.
    End = 8,
    /// Who speaks, from which boot.
    Hello = 0x100,
    /// The receiver can take this domain; pages may come.
    Accept = 0x101,
    /// The receiver will not take it; the source runs on.
    Refuse = 0x102,
    /// The receiver has built it, paused.
    Ready = 0x103,
    /// The source gave up the right to run.
    Commit = 0x104,
    /// The receiver took it.
    Running = 0x105,
    /// The source destroyed its copy.
    Done = 0x106,
    /// The source keeps the right; the receiver drops what it has.
    Abort = 0x107,
    /// What became of this migration?
    Query = 0x108,
    /// This.
    Status = 0x109,
}

impl RecordType {
    /// The type with this number, as far as this version knows it.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::Header,
            2 => Self::Domain,
            3 => Self::Pages,
            4 => Self::ZeroPages,
            5 => Self::Console,
            6 => Self::VcpuRegisters,
            7 => Self::VcpuXstate,
            8 => Self::End,
            0x100 => Self::Hello,
            0x101 => Self::Accept,
            0x102 => Self::Refuse,
            0x103 => Self::Ready,
            0x104 => Self::Commit,
            0x105 => Self::Running,
            0x106 => Self::Done,
            0x107 => Self::Abort,
            0x108 => Self::Query,
            0x109 => Self::Status,
            _ => return None,
        })
    }

    /// Its number.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// Its name as the documents have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "HEADER",
            Self::Domain => "DOMAIN",
            Self::Pages => "PAGES",
            Self::ZeroPages => "ZERO_PAGES",
            Self::Console => "CONSOLE",
            Self::VcpuRegisters => "VCPU_REGISTERS",
            Self::VcpuXstate => "VCPU_XSTATE",
            Self::End => "END",
            Self::Hello => "HELLO",
            Self::Accept => "ACCEPT",
            Self::Refuse => "REFUSE",
            Self::Ready => "READY",
            Self::Commit => "COMMIT",
            Self::Running => "RUNNING",
            Self::Done => "DONE",
            Self::Abort => "ABORT",
            Self::Query => "QUERY",
            Self::Status => "STATUS",
        }
    }

    /// Whether it is one of the handover's messages.
    #[must_use]
    pub const fn is_handover(self) -> bool {
        self.code() >= 0x100
    }
}
