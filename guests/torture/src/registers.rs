//! Everything that is filled and checked, as components and as one structure
//! in memory.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a failure is reported under, and `break=` names. Those of the extended
/// state have XCR0's numbers and names; the rest comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // they are the manuals' names
pub enum Component {
    X87 = 0,
    Sse = 1,
    Avx = 2,
    Bndregs = 3,
    Bndcsr = 4,
    Opmask = 5,
    ZmmHi256 = 6,
    Hi16Zmm = 7,
    Pkru = 9,
    TileCfg = 17,
    TileData = 18,
    /// Part of SSE's and AVX's state both.
    Mxcsr = 32,
    Gpr,
    /// DR0–3, DR6, DR7.
    Debug,
    /// MSRs that a guest owns, CR2 and CR8.
    System,
    /// Control registers and the like, which are not filled but must stay.
    Control,
}

impl Component {
    /// All of them, in the order in which they are hashed and compared.
    pub const ALL: [Self; 16] = [
        Self::Gpr,
        Self::X87,
        Self::Mxcsr,
        Self::Sse,
        Self::Avx,
        Self::Bndregs,
        Self::Bndcsr,
        Self::Opmask,
        Self::ZmmHi256,
        Self::Hi16Zmm,
        Self::Pkru,
        Self::TileCfg,
        Self::TileData,
        Self::Debug,
        Self::System,
        Self::Control,
    ];

    /// As it stands in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X87 => "x87",
            Self::Sse => "sse",
            Self::Avx => "avx",
            Self::Bndregs => "bndregs",
            Self::Bndcsr => "bndcsr",
            Self::Opmask => "opmask",
            Self::ZmmHi256 => "zmm_hi256",
            Self::Hi16Zmm => "hi16_zmm",
            Self::Pkru => "pkru",
            Self::TileCfg => "tilecfg",
            Self::TileData => "tiledata",
            Self::Mxcsr => "mxcsr",
            Self::Gpr => "gpr",
            Self::Debug => "debug",
            Self::System => "system",
            Self::Control => "control",
        }
    }

    /// The component of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }

    /// Its bit in a [`ComponentSet`].
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Its bit in XCR0, or 0 where it is not of the extended state. MXCSR goes
    /// with SSE.
    #[must_use]
    pub const fn xcr0_bit(self) -> u64 {
        match self {
            Self::Mxcsr => Self::Sse.bit(),
            Self::Gpr | Self::Debug | Self::System | Self::Control => 0,
            other => other.bit(),
        }
    }
}

/// Which components; bits as [`Component::bit`].
pub type ComponentSet = u64;

/// The registers, as memory.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Registers {
    /// ZMM0–31; XMM and YMM are their lower parts.
    pub vectors: [[u8; 64]; 32],
    /// TMM0–7, 16 rows of 64 bytes.
    pub tiles: [[u8; 1024]; 8],
    /// As LDTILECFG takes it.
    pub tilecfg: [u8; 64],
    /// BND0–3 as XSAVE writes them.
    pub bounds: [[u64; 2]; 4],
    /// BNDCFGU.
    pub bndcfgu: u64,
    /// BNDSTATUS.
    pub bndstatus: u64,
    /// k0–k7.
    pub opmask: [u64; 8],
    /// In the order of their encoding; RSP's place stays 0.
    pub gpr: [u64; 16],
    /// DR0–3, DR6, DR7.
    pub debug: [u64; 6],
    /// In the order of [`SYSTEM_NAMES`].
    pub system: [u64; SYSTEM_NAMES.len()],
    /// In the order of [`CONTROL_NAMES`].
    pub control: [u64; CONTROL_NAMES.len()],
    /// x87 instruction pointer.
    pub fip: u64,
    /// x87 data pointer.
    pub fdp: u64,
    /// ST0–7 from the top of the stack.
    pub st: [[u8; 10]; 8],
    /// x87 control word.
    pub fcw: u16,
    /// x87 status word.
    pub fsw: u16,
    /// x87 opcode.
    pub fop: u16,
    /// Abridged tag word: bit n set where *physical* register n is not empty.
    pub ftw: u8,
    padding: u8,
    /// MXCSR.
    pub mxcsr: u32,
    /// PKRU.
    pub pkru: u32,
    tail: [u8; 56],
}

/// Which MSRs are filled, and CR2 and CR8.
pub const SYSTEM_NAMES: [&str; 13] = [
    "fs_base",
    "gs_base",
    "kernel_gs_base",
    "star",
    "lstar",
    "cstar",
    "sfmask",
    "sysenter_cs",
    "sysenter_esp",
    "sysenter_eip",
    "tsc_aux",
    "cr2",
    "cr8",
];
/// What must stay as it is.
pub const CONTROL_NAMES: [&str; 6] = ["cr0", "cr3", "cr4", "efer", "xcr0", "pat"];

impl Registers {
    /// All zero.
    pub const ZERO: Self = Self {
        vectors: [[0; 64]; 32],
        tiles: [[0; 1024]; 8],
        tilecfg: [0; 64],
        bounds: [[0; 2]; 4],
        bndcfgu: 0,
        bndstatus: 0,
        opmask: [0; 8],
        gpr: [0; 16],
        debug: [0; 6],
        system: [0; SYSTEM_NAMES.len()],
        control: [0; CONTROL_NAMES.len()],
        fip: 0,
        fdp: 0,
        st: [[0; 10]; 8],
        fcw: 0,
        fsw: 0,
        fop: 0,
        ftw: 0,
        padding: 0,
        mxcsr: 0,
        pkru: 0,
        tail: [0; 56],
    };

    /// Sets all of it to zero, and sees to it that the compiler cannot know
    /// that nobody reads it: no copy of a pattern stays in memory.
    pub fn clear(&mut self) {
        *self = Self::ZERO;
        core::hint::black_box(self);
    }

    /// The extended state's INIT values (SDM Vol. 1, 13.6).
    pub fn set_init(&mut self) {
        *self = Self::ZERO;
        self.fcw = 0x037f;
        self.mxcsr = 0x1f80;
    }
}
