//! Why a guest came back, in no vendor's form.

use crate::mm::addr::GuestPhys;

/// An instruction whose exit names it but, without decode assists, neither its
/// length nor its operands: those are fetched and checked by `exits/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Intercepted {
    Cpuid,
    Rdmsr,
    Wrmsr,
    Hlt,
    Xsetbv,
    Hypercall,
    /// MOV to CRn (or CLTS, LMSW for CR0).
    WriteCr(u8),
    Invd,
    Wbinvd,
    /// Instructions that no guest is offered: RDPMC, MONITOR, MWAIT, RDPRU,
    /// VMRUN and its kin.
    NotOffered,
}

/// IN, OUT, INS, OUTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoExit {
    /// First port.
    pub port: u16,
    /// Bytes per access: 1, 2 or 4.
    pub width: u8,
    /// IN or INS.
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    /// With a REP prefix.
    pub repeat: bool,
    /// RIP after the instruction.
    pub next_rip: u64,
}

/// Why a guest came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An interrupt for the host.
    Interrupt,
    /// An NMI, INIT or SMI for the host.
    HostEvent,
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// An instruction that is intercepted.
    Instruction(Intercepted),
    /// An access to a port.
    Io(IoExit),
    /// An intercepted exception.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code, where it has one.
        error_code: Option<u32>,
    },
    /// An access that nested paging refused.
    NestedFault {
        /// Guest-physical address.
        address: GuestPhys,
        /// A write.
        write: bool,
        /// An instruction fetch.
        fetch: bool,
    },
    /// Triple fault.
    Shutdown,
    /// A task switch: no guest of ours needs one.
    TaskSwitch,
    /// The processor refused the guest's state.
    InvalidState,
    /// An exit that was not asked for.
    Unexpected {
        /// The vendor's code.
        code: u64,
        /// The vendor's detail.
        info: u64,
    },
}
