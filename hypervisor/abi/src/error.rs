//! What a call that could not be done answers.

/// Xen's errno names and numbers, as far as Xferry uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(clippy::upper_case_acronyms)]
pub enum Errno {
    /// Not permitted.
    EPERM = 1,
    /// No such domain, vCPU or migration.
    ENOENT = 2,
    /// Out of memory.
    ENOMEM = 12,
    /// Bad guest-physical address.
    EFAULT = 14,
    /// In use.
    EBUSY = 16,
    /// There already.
    EEXIST = 17,
    /// Invalid argument or content.
    EINVAL = 22,
    /// The buffer is too small.
    ENOBUFS = 105,
    /// Not supported by this machine.
    EOPNOTSUPP = 95,
    /// No such call.
    ENOSYS = 38,
    /// The object is in the wrong state.
    EILSEQ = 84,
}

impl Errno {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::EPERM,
        Self::ENOENT,
        Self::ENOMEM,
        Self::EFAULT,
        Self::EBUSY,
        Self::EEXIST,
        Self::EINVAL,
        Self::ENOBUFS,
        Self::EOPNOTSUPP,
        Self::ENOSYS,
        Self::EILSEQ,
    ];

    /// The errno with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|e| *e as u32 == number)
    }
}

/// Which rule was broken: a class, and the rule's number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reason(pub u32);

impl Reason {
    /// No reason beyond the errno.
    pub const NONE: Self = Self(0);
    /// The call itself: its number, version, buffer or argument.
    pub const CLASS_CALL: u32 = 1;
    /// The domain's state.
    pub const CLASS_DOMAIN: u32 = 2;
    /// The CPUID policy.
    pub const CLASS_POLICY: u32 = 3;
    /// The extended state's content (`vcpu-xstate`'s rules).
    pub const CLASS_XSTATE: u32 = 4;
    /// The register record.
    pub const CLASS_REGISTERS: u32 = 5;
    /// The blob's form (`migration-abi`'s rules).
    pub const CLASS_BLOB: u32 = 6;
    /// The right to run.
    pub const CLASS_RIGHT: u32 = 7;

    /// The reason `code` of `class`.
    #[must_use]
    pub const fn new(class: u32, code: u32) -> Self {
        Self(class << 24 | (code & 0x00ff_ffff))
    }

    /// One of the `CLASS_…` constants, or 0.
    #[must_use]
    pub const fn class(self) -> u32 {
        self.0 >> 24
    }

    /// The rule's number within its class.
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0 & 0x00ff_ffff
    }
}

/// A refused call as its registers carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of refusal.
    pub errno: Errno,
    /// Which rule.
    pub reason: Reason,
    /// The value that broke it.
    pub seen: u64,
    /// What the rule allows.
    pub allowed: u64,
}

impl Failure {
    /// A refusal whose errno says all.
    #[must_use]
    pub const fn of(errno: Errno) -> Self {
        Self {
            errno,
            reason: Reason::NONE,
            seen: 0,
            allowed: 0,
        }
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{:?} (reason {:#x}): saw {:#x}, allowed {:#x}",
            self.errno, self.reason.0, self.seen, self.allowed
        )
    }
}
