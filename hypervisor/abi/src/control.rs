//! The control call: what the toolstack domain asks of the hypervisor.
//!
//! [`Control`] is what is copied in, [`Request`] what it means. Both sides use
//! [`Request::encode`] and [`Request::decode`], so they cannot differ.

use crate::buffer::Buffer;
use crate::error::{Errno, Failure, Reason};
use crate::right::RightAction;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Number of a domain, 0 for the toolstack, never used again while a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DomainId(pub u32);

impl DomainId {
    /// The toolstack.
    pub const TOOLSTACK: Self = Self(0);
    /// Stands for the host itself in [`Request::GetPolicy`].
    pub const HOST: Self = Self(u32::MAX);
}

/// The control call's argument, copied in whole before anything is looked at.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Control {
    /// [`crate::CONTROL_VERSION`].
    pub version: u32,
    /// Which request.
    pub operation: u32,
    /// Which domain.
    pub domain: u32,
    /// Which vCPU of it.
    pub vcpu: u32,
    /// What the request takes; zero where it takes nothing.
    pub arguments: [u64; 6],
}

const _: () = assert!(size_of::<Control>() == 64);

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $number:literal { $($field:ident),* };)*) => {
        /// A request of the toolstack. Unless said otherwise it returns 0.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Request {
            $($(#[$doc])* $name { $(#[doc = field_doc!($field)] $field: field_type!($field)),* },)*
        }

        impl Request {
            /// The form in which the request is passed.
            #[must_use]
            pub fn encode(&self) -> Control {
                let mut control = Control { version: crate::CONTROL_VERSION, ..Control::default() };
                let mut arguments = Arguments { control: &mut control, next: 0 };
                match *self {
                    $(Self::$name { $($field),* } => {
                        arguments.control.operation = $number;
                        $(arguments.$field($field);)*
                    })*
                }
                control
            }

            /// The request that was passed.
            ///
            /// # Errors
            /// The version is not [`crate::CONTROL_VERSION`], the operation is
            /// unknown (`ENOSYS`), or an argument that it does not take is not zero.
            pub fn decode(control: &Control) -> Result<Self, Failure> {
                if control.version != crate::CONTROL_VERSION {
                    return Err(rule::VERSION.failure(u64::from(control.version), u64::from(crate::CONTROL_VERSION)));
                }
                let mut arguments = Taken { control, next: 0, domain: false, vcpu: false };
                let request = match control.operation {
                    $($number => Self::$name { $($field: arguments.$field()?),* },)*
                    other => return Err(rule::OPERATION.failure(u64::from(other), 0)),
                };
                arguments.rest_is_zero()?;
                Ok(request)
            }
        }

        #[cfg(test)]
        const OPERATIONS: &[u32] = &[$($number),*];
    };
}

macro_rules! field_type {
    (domain) => {
        DomainId
    };
    (vcpu) => {
        u32
    };
    (buffer) => {
        Buffer
    };
    (action) => {
        RightAction
    };
    ($other:ident) => {
        u64
    };
}

macro_rules! field_doc {
    (domain) => {
        "Which domain."
    };
    (vcpu) => {
        "Which vCPU of it."
    };
    (buffer) => {
        "In the caller's memory."
    };
    (action) => {
        "What is said."
    };
    (address) => {
        "Guest-physical address in the domain."
    };
    (drop) => {
        "Component bits that are dropped if they are in use."
    };
    (limit_bytes) => {
        "Bytes."
    };
    (peer) => {
        "With a `…PeerStatus` action, the status code that the peer told; else 0."
    };
    (clock_ns) => {
        "Nanoseconds."
    };
}

requests! {
    /// Fills a [`crate::info::PhysicalInfo`].
    PhysicalInfo = 1 { buffer };
    /// Copies out why the last control call failed, as text. Returns its length.
    Explain = 2 { buffer };
    /// Takes a [`crate::info::CreateParameters`]; returns the new domain's
    /// number. It is paused, with zeroed memory, vCPUs after INIT and the
    /// host's default policy.
    Create = 3 { buffer };
    /// Ends a domain. One whose right was given up cannot be ended until its
    /// migration is settled.
    Destroy = 4 { domain };
    /// Stops its vCPUs; returns when they stand.
    Pause = 5 { domain };
    /// Lets them run, if this host has the right to.
    Unpause = 6 { domain };
    /// Fills a [`crate::info::DomainInfo`].
    DomainInfo = 7 { domain, buffer };
    /// Returns the smallest number ≥ `domain` that a domain has; `ENOENT`
    /// where there is none.
    NextDomain = 8 { domain };
    /// Copies from a domain's memory.
    MemoryRead = 9 { domain, address, buffer };
    /// Copies into a paused domain's memory.
    MemoryWrite = 10 { domain, address, buffer };
    /// Copies out the register record of a paused domain's vCPU.
    GetRegisters = 11 { domain, vcpu, buffer };
    /// Sets them, all or none.
    SetRegisters = 12 { domain, vcpu, buffer };
    /// Copies out a policy: [`crate::policy::PolicyHeader`] and its leaves;
    /// of [`DomainId::HOST`] what a guest gets by default.
    GetPolicy = 13 { domain, buffer };
    /// Sets a paused domain's policy and re-sizes every vCPU's area, or
    /// changes nothing.
    SetPolicy = 14 { domain, drop, buffer };
    /// Copies out the extended-state blob of a paused domain's vCPU. Returns
    /// its length; a null buffer asks it.
    GetXstate = 15 { domain, vcpu, buffer };
    /// Takes such a blob, or changes nothing.
    SetXstate = 16 { domain, vcpu, buffer };
    /// Copies out a [`crate::info::XstateSummary`] and its rows.
    XstateStatus = 17 { domain, vcpu, buffer };
    /// Gives back what of a paused domain's areas can be; returns the bytes.
    Reclaim = 18 { domain };
    /// Sets how many bytes the areas may take; a vCPU that waits for memory
    /// tries again.
    SetXstateLimit = 19 { domain, limit_bytes };
    /// Acts on the right to run. The buffer holds the migration's id. `domain`
    /// counts with [`RightAction::SourceBegin`] alone. Returns a
    /// [`crate::RightAnswer`].
    Right = 20 { domain, action, peer, buffer };
    /// Takes unread output from a domain's console. Returns the bytes.
    ConsoleRead = 21 { domain, buffer };
    /// Puts input to a domain's console. Returns the bytes that had room.
    ConsoleWrite = 22 { domain, buffer };
    /// Copies out the console record of a paused domain.
    GetConsole = 23 { domain, buffer };
    /// Sets it.
    SetConsole = 24 { domain, buffer };
    /// Sets a paused domain's system time.
    SetClock = 25 { domain, clock_ns };
}

/// Rules of the control call itself.
mod rule {
    use super::{Errno, Failure, Reason};

    pub(super) struct Rule(Errno, u32);

    impl Rule {
        pub(super) const fn failure(self, seen: u64, allowed: u64) -> Failure {
            Failure {
                errno: self.0,
                reason: Reason::new(Reason::CLASS_CALL, self.1),
                seen,
                allowed,
            }
        }
    }

    pub(super) const VERSION: Rule = Rule(Errno::EINVAL, 1);
    pub(super) const OPERATION: Rule = Rule(Errno::ENOSYS, 2);
    pub(super) const ARGUMENT: Rule = Rule(Errno::EINVAL, 3);
}

struct Arguments<'a> {
    control: &'a mut Control,
    next: usize,
}

impl Arguments<'_> {
    fn word(&mut self, value: u64) {
        // Every request has at most six words; the tests encode them all.
        if let Some(slot) = self.control.arguments.get_mut(self.next) {
            *slot = value;
        }
        self.next += 1;
    }
    fn domain(&mut self, value: DomainId) {
        self.control.domain = value.0;
    }
    fn vcpu(&mut self, value: u32) {
        self.control.vcpu = value;
    }
    fn buffer(&mut self, value: Buffer) {
        self.word(value.address);
        self.word(value.bytes);
    }
    fn action(&mut self, value: RightAction) {
        self.word(value as u64);
    }
    fn address(&mut self, value: u64) {
        self.word(value);
    }
    fn drop(&mut self, value: u64) {
        self.word(value);
    }
    fn limit_bytes(&mut self, value: u64) {
        self.word(value);
    }
    fn clock_ns(&mut self, value: u64) {
        self.word(value);
    }
    fn peer(&mut self, value: u64) {
        self.word(value);
    }
}

struct Taken<'a> {
    control: &'a Control,
    next: usize,
    domain: bool,
    vcpu: bool,
}

impl Taken<'_> {
    fn word(&mut self) -> Result<u64, Failure> {
        let word = self.control.arguments.get(self.next).copied();
        self.next += 1;
        word.ok_or(rule::ARGUMENT.failure(self.next as u64, 6))
    }
    fn domain(&mut self) -> Result<DomainId, Failure> {
        self.domain = true;
        Ok(DomainId(self.control.domain))
    }
    fn vcpu(&mut self) -> Result<u32, Failure> {
        self.vcpu = true;
        Ok(self.control.vcpu)
    }
    fn buffer(&mut self) -> Result<Buffer, Failure> {
        Ok(Buffer {
            address: self.word()?,
            bytes: self.word()?,
        })
    }
    fn action(&mut self) -> Result<RightAction, Failure> {
        let number = self.word()?;
        RightAction::from_number(number).ok_or(rule::ARGUMENT.failure(number, 0x209))
    }
    fn address(&mut self) -> Result<u64, Failure> {
        self.word()
    }
    fn drop(&mut self) -> Result<u64, Failure> {
        self.word()
    }
    fn limit_bytes(&mut self) -> Result<u64, Failure> {
        self.word()
    }
    fn clock_ns(&mut self) -> Result<u64, Failure> {
        self.word()
    }
    fn peer(&mut self) -> Result<u64, Failure> {
        self.word()
    }

    fn rest_is_zero(&self) -> Result<(), Failure> {
        let words = self.control.arguments.iter().skip(self.next).copied();
        let domain = (!self.domain).then_some(u64::from(self.control.domain));
        let vcpu = (!self.vcpu).then_some(u64::from(self.control.vcpu));
        match words.chain(domain).chain(vcpu).find(|word| *word != 0) {
            Some(word) => Err(rule::ARGUMENT.failure(word, 0)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_operation_round_trips_and_has_its_own_number() {
        for (i, operation) in OPERATIONS.iter().enumerate() {
            assert!(!OPERATIONS[..i].contains(operation));
            let control = Control {
                version: crate::CONTROL_VERSION,
                operation: *operation,
                // RightAction::SourceBegin where an action is taken; a word elsewhere.
                arguments: [0x101, 0, 0, 0, 0, 0],
                ..Control::default()
            };
            match Request::decode(&control) {
                Ok(request) => assert_eq!(request.encode(), control),
                Err(failure) => assert_eq!(failure.errno, Errno::EINVAL, "operation {operation}"),
            }
        }
    }

    #[test]
    fn another_version_is_refused_with_both_numbers() {
        let mut control = Request::Pause {
            domain: DomainId(3),
        }
        .encode();
        control.version = 2;
        let failure = Request::decode(&control).unwrap_err();
        assert_eq!((failure.seen, failure.allowed), (2, 1));
    }

    #[test]
    fn an_argument_that_is_not_taken_must_be_zero() {
        let mut control = Request::Pause {
            domain: DomainId(3),
        }
        .encode();
        control.vcpu = 1;
        assert_eq!(Request::decode(&control).unwrap_err().errno, Errno::EINVAL);
        control.vcpu = 0;
        control.arguments[5] = 9;
        assert_eq!(Request::decode(&control).unwrap_err().seen, 9);
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same(operation in 0u32..32, domain: u32, vcpu: u32,
                                            arguments: [u64; 6]) {
            let control = Control { version: crate::CONTROL_VERSION, operation, domain, vcpu, arguments };
            if let Ok(request) = Request::decode(&control) {
                prop_assert_eq!(request.encode(), control);
            }
        }
    }
}
