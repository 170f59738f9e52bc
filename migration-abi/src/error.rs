//! The one error of all readers: which rule, where, what was seen, what was allowed.

use core::fmt;

/// What a rule would have allowed in place of what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// This value alone.
    Exactly(u64),
    /// This value or less.
    AtMost(u64),
    /// This value or more.
    AtLeast(u64),
    /// From the first to the second, both included.
    Between(u64, u64),
    /// Any of these bits and no other.
    Bits(u64),
    /// Said in words, because no single number says it.
    Words(&'static str),
}

impl Allowed {
    /// In decimal: of a rule about a length, an offset, a count or a version.
    #[must_use]
    pub const fn counted(&self) -> impl fmt::Display + '_ {
        Counted(self)
    }
}

struct Counted<'a>(&'a Allowed);

impl fmt::Display for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Allowed::Exactly(value) => write!(f, "{value}"),
            Allowed::AtMost(value) => write!(f, "at most {value}"),
            Allowed::AtLeast(value) => write!(f, "at least {value}"),
            Allowed::Between(low, high) => write!(f, "{low} to {high}"),
            other => other.fmt(f),
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => write!(f, "{value:#x}"),
            Self::AtMost(value) => write!(f, "at most {value:#x}"),
            Self::AtLeast(value) => write!(f, "at least {value:#x}"),
            Self::Between(low, high) => write!(f, "{low:#x} to {high:#x}"),
            Self::Bits(mask) => write!(f, "no bits but {mask:#x}"),
            Self::Words(words) => f.write_str(words),
        }
    }
}

/// A reader (or a writer that was given too little room) stopped here.
///
/// `offset` counts bytes from the start of what that reader was given;
/// [`ParseError::within`] moves it when that was a part of something larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseError {
    /// The rule that was broken.
    pub rule: Rule,
    /// Where the offending field begins, in bytes.
    pub offset: usize,
    /// The value found there (a length, where the rule is about a length).
    pub seen: u64,
    /// What the rule allows.
    pub allowed: Allowed,
}

impl ParseError {
    /// Shorthand for the readers.
    pub(crate) const fn new(rule: Rule, offset: usize, seen: u64, allowed: Allowed) -> Self {
        Self {
            rule,
            offset,
            seen,
            allowed,
        }
    }

    /// The rule's name, kebab-case and stable: what a log or a test greps for.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule.name()
    }

    /// The rule's number, stable for ever: what a hypercall returns as its reason.
    #[must_use]
    pub const fn code(&self) -> u32 {
        self.rule.code()
    }

    /// The same stop, seen from something that holds these bytes at `base`.
    #[must_use]
    pub const fn within(self, base: usize) -> Self {
        Self {
            offset: self.offset.saturating_add(base),
            ..self
        }
    }
}

/// The rule in a sentence, and the values: lengths, offsets and counts in decimal,
/// all else in hexadecimal.
impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, seen) = (self.rule, self.seen);
        write!(f, "{}: {} ", rule.name(), rule.text())?;
        write!(f, "(at byte {}: ", self.offset)?;
        if rule.counts() {
            write!(f, "{seen} seen, allowed: {})", self.allowed.counted())
        } else {
            write!(f, "{seen:#x} seen, allowed: {})", self.allowed)
        }
    }
}

impl core::error::Error for ParseError {}

/// Declares every rule once: variant, number, name and sentence cannot drift apart.
macro_rules! rules {
    ($($(#[$section:meta])* $variant:ident = $code:literal, $name:literal, $text:literal;)*) => {
        /// Every rule that a reader of this crate enforces.
        ///
        /// Numbers are grouped by format (`0x01xx` registers, `0x02xx` blob,
        /// `0x03xx` frames, `0x04xx` records, `0x05xx` order of records,
        /// `0x06xx` handover messages; `0x07xx` is [`Refused`](crate::handover::Refused)'s,
        /// `0x08xx` other hypervisors' forms) and are never re-used.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Rule { $($(#[$section])* #[doc = $text] $variant = $code,)* }

        impl Rule {
            /// All rules, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Kebab-case name, stable.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The rule in a sentence.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Number, stable and never re-used.
            #[must_use]
            pub const fn code(self) -> u32 {
                self as u32
            }

            /// The rule with this number, as a toolstack names what a hypercall returned.
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

rules! {
    RegistersLength = 0x0101, "registers-length", "a register record has exactly its version's length";
    RegistersReserved = 0x0102, "registers-reserved", "reserved fields of a register record are zero";
    SegmentAttributes = 0x0103, "segment-attributes", "segment attributes hold only the descriptor's bits and the unusable bit";
    TableLimit = 0x0104, "table-limit", "the limits of GDTR and IDTR have 16 bits";
    TaskPriority = 0x0105, "task-priority", "CR8 has four bits";
    EventKind = 0x0106, "event-kind", "the pending event is of a known kind";
    EventVector = 0x0107, "event-vector", "an NMI's vector is 2, an exception's at most 31";
    EventError = 0x0108, "event-error", "an error code goes with an exception, and the flag is 0 or 1";
    EventLength = 0x0109, "event-length", "only software events carry an instruction length, of 1 to 15 bytes";
    EventResidue = 0x010a, "event-residue", "where no event is pending its fields are zero";
    InterruptShadow = 0x010b, "interrupt-shadow", "the interrupt shadow is none, STI's or MOV SS's";
    NmiBlocked = 0x010c, "nmi-blocked", "the NMI-blocking flag is 0 or 1";
    Activity = 0x010d, "activity", "the activity state is running, halted, shutdown or wait-for-SIPI";
    ParavirtualVector = 0x010e, "paravirtual-vector", "a paravirtual event's vector is 0 (none) or 32 to 255";
    ParavirtualPending = 0x010f, "paravirtual-pending", "only the eight paravirtual events can be pending";

    BlobLength = 0x0201, "blob-length", "a blob fills the bytes it is given in exactly";
    BlobMagic = 0x0202, "blob-magic", "a blob begins with its magic";
    BlobVersion = 0x0203, "blob-version", "the blob's version is one that this reader knows";
    BlobIncompatible = 0x0204, "blob-incompatible", "an incompatible flag that this reader does not know is refused";
    BlobHeaderLength = 0x0205, "blob-header-length", "the header is as long as its version says, or longer by what may be skipped";
    BlobEntryLength = 0x0206, "blob-entry-length", "a directory entry is as long as its version says, or longer by what may be skipped";
    BlobImageLength = 0x0207, "blob-image-length", "an image has at least legacy region and header, and at most what 63 components can need";
    BlobTotal = 0x0208, "blob-total", "the total is the sum of header, directory, image and trailer";
    BlobReserved = 0x0209, "blob-reserved", "reserved fields of a blob are zero";
    BlobCrc = 0x020a, "blob-crc", "the trailer is the CRC-32C of all before it";
    BlobMask = 0x020b, "blob-mask", "bit 63 of xstate_mask is no component";
    BlobDirectory = 0x020c, "blob-directory", "the directory has each component of xstate_mask once, ascending";
    BlobEntryFlags = 0x020d, "blob-entry-flags", "a directory entry has only the flags supervisor, align64 and xfd";
    BlobLegacyEntry = 0x020e, "blob-legacy-entry", "x87 and SSE stand in the directory as 160 bytes at 0 and 256 bytes at 160";
    BlobSupervisorOffset = 0x020f, "blob-supervisor-offset", "a supervisor component has no place in the standard form";
    BlobXcompBv = 0x0210, "blob-xcomp-bv", "XCOMP_BV of the header and of the image agree";
    BlobRoom = 0x0211, "blob-room", "the buffer has room for the blob";

    FrameShort = 0x0301, "frame-short", "a frame is all there before it is read";
    FrameLength = 0x0302, "frame-length", "a payload has at most 1 MiB";
    FrameFlags = 0x0303, "frame-flags", "a frame has no flag but optional";
    FrameCrc = 0x0304, "frame-crc", "a frame's checksum is the CRC-32C of its header, without it, and payload";
    FrameRoom = 0x0305, "frame-room", "the buffer has room for the frame";

    RecordUnknown = 0x0401, "record-unknown", "a record of an unknown type is optional";
    RecordLength = 0x0402, "record-length", "a record's payload has the length that its fields say";
    RecordReserved = 0x0403, "record-reserved", "reserved fields of a record are zero";
    StreamMagic = 0x0404, "stream-magic", "a stream's HEADER begins with its magic";
    StreamVersion = 0x0405, "stream-version", "the stream's version is one that this reader knows";
    StreamIncompatible = 0x0406, "stream-incompatible", "an incompatible flag that this reader does not know is refused";
    StreamPageSize = 0x0407, "stream-page-size", "pages have 4096 bytes";
    MigrationIdZero = 0x0408, "migration-id-zero", "a migration id is not zero";
    DomainName = 0x0409, "domain-name", "a domain's name is printable ASCII padded with zeros";
    DomainMemory = 0x040a, "domain-memory", "a domain has memory, at most what 52 address bits reach";
    DomainVcpus = 0x040b, "domain-vcpus", "a domain has 1 to 4096 vCPUs";
    DomainTsc = 0x040c, "domain-tsc", "a domain's TSC has a frequency";
    DomainLeaves = 0x040d, "domain-leaves", "a CPUID policy has 1 to 256 leaves";
    PagesCount = 0x040e, "pages-count", "a record of pages has one page or more, PAGES at most 64";
    PagesRange = 0x040f, "pages-range", "the last page of a record is within 52 address bits";
    ConsoleOutput = 0x0410, "console-output", "at most 4096 bytes of console output are unread";
    RegistersVersion = 0x0411, "registers-version", "the register record's version is one that this reader knows";

    SequenceNumber = 0x0501, "sequence-number", "frames are numbered from 0 without a gap";
    RecordOrder = 0x0502, "record-order", "records come in the stream's order";
    PagesOrder = 0x0503, "pages-order", "pages come ascending from frame 0, without a gap, each once";
    PagesBeyond = 0x0504, "pages-beyond", "pages end where the domain's memory ends";
    PagesMissing = 0x0505, "pages-missing", "all of the domain's memory has come before its vCPUs and END";
    VcpuOrder = 0x0506, "vcpu-order", "vCPUs come ascending from 0, each once, registers before extended state";
    VcpuMissing = 0x0507, "vcpu-missing", "all of the domain's vCPUs have come before END";
    EndCounts = 0x0508, "end-counts", "END counts what came";
    MigrationIdOther = 0x0509, "migration-id-other", "one connection speaks of one migration";

    HandoverVersion = 0x0601, "handover-version", "the handover's version is one that this reader knows";
    HandoverRole = 0x0602, "handover-role", "a side is the source (1) or the receiver (2)";
    HandoverState = 0x0603, "handover-state", "a STATUS names a state of the handover";
    HandoverText = 0x0604, "handover-text", "a message's text is at most 512 bytes of UTF-8 without control characters";
    HandoverType = 0x0605, "handover-type", "a message of the handover has one of its types";

    LegacyImageLength = 0x0801, "legacy-image-length", "an image has at least its legacy region and header";
    LegacyImageForm = 0x0802, "legacy-image-form", "a form for standard images has no compacted one";
    LegacyXenLength = 0x0803, "legacy-xen-length", "a Xen record is all there";
    LegacyXenType = 0x0804, "legacy-xen-type", "a Xen record of extended state has its type code";
    LegacyXenReserved = 0x0805, "legacy-xen-reserved", "reserved fields of a Xen record are zero";
    LegacyXenEmpty = 0x0806, "legacy-xen-empty", "a Xen record has no image exactly where XCR0 and what was accumulated are 0";
    LegacyKvmLength = 0x0807, "legacy-kvm-length", "KVM's buffer has at least 4096 bytes";
    LegacyXcrsLength = 0x0808, "legacy-xcrs-length", "kvm_xcrs has 392 bytes";
    LegacyXcrsFlags = 0x0809, "legacy-xcrs-flags", "kvm_xcrs has no flags";
    LegacyXcrsCount = 0x080a, "legacy-xcrs-count", "kvm_xcrs has at most 16 XCRs";
    LegacyXcr = 0x080b, "legacy-xcr", "XCR0 is the only XCR";
    LegacyRoom = 0x080c, "legacy-room", "the buffer has room for what is written";
}

impl Rule {
    /// Whether the rule is about a length, an offset, a count or a version.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(
            self,
            Self::RegistersLength
                | Self::RegistersVersion
                | Self::EventLength
                | Self::BlobLength
                | Self::BlobVersion
                | Self::BlobHeaderLength
                | Self::BlobEntryLength
                | Self::BlobImageLength
                | Self::BlobTotal
                | Self::BlobDirectory
                | Self::BlobLegacyEntry
                | Self::BlobSupervisorOffset
                | Self::FrameShort
                | Self::FrameLength
                | Self::RecordLength
                | Self::StreamVersion
                | Self::StreamPageSize
                | Self::DomainVcpus
                | Self::DomainLeaves
                | Self::PagesCount
                | Self::ConsoleOutput
                | Self::SequenceNumber
                | Self::VcpuOrder
                | Self::VcpuMissing
                | Self::EndCounts
                | Self::HandoverVersion
                | Self::LegacyImageLength
                | Self::LegacyXenLength
                | Self::LegacyKvmLength
                | Self::LegacyXcrsLength
                | Self::LegacyXcrsCount
                | Self::LegacyXenEmpty
                | Self::LegacyRoom
                | Self::FrameRoom
                | Self::BlobRoom
        )
    }
}
