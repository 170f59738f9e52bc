//! Everything that is filled and checked: one structure, and one table that
//! says which bytes of it are which register.

use core::fmt;
use core::mem::offset_of;
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
const GPR_NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const DEBUG_NAMES: [&str; 6] = ["dr0", "dr1", "dr2", "dr3", "dr6", "dr7"];

/// Registers of one kind: where they lie in [`Registers`] and in the component
/// of an XSAVE image.
pub struct Group {
    /// What they belong to.
    pub component: Component,
    /// How many.
    pub count: usize,
    /// Bytes of each.
    pub bytes: usize,
    /// Where the first lies in [`Registers`].
    pub offset: usize,
    /// From one to the next there.
    pub stride: usize,
    /// The same in the image, from the component's start (of the image for
    /// x87 and SSE); `None` where no image has it.
    pub image: Option<(usize, usize)>,
    /// An x87 pointer, which some machines do not keep.
    pub pointer: bool,
    names: Names,
}

enum Names {
    One(&'static str),
    List(&'static [&'static str]),
    /// Prefix, number of the first, suffix.
    Numbered(&'static str, usize, &'static str),
}

const fn one(component: Component, name: &'static str, bytes: usize, offset: usize) -> Group {
    group(component, Names::One(name), 1, bytes, (offset, 0), None)
}

const fn group(
    component: Component,
    names: Names,
    count: usize,
    bytes: usize,
    (offset, stride): (usize, usize),
    image: Option<(usize, usize)>,
) -> Group {
    Group {
        component,
        count,
        bytes,
        offset,
        stride,
        image,
        pointer: false,
        names,
    }
}

impl Group {
    /// Whether it belongs to one of the components in `which`.
    #[must_use]
    pub const fn is_of(&self, which: ComponentSet) -> bool {
        which & self.component.bit() != 0
    }

    const fn in_image(mut self, offset: usize) -> Self {
        self.image = Some((offset, 0));
        self
    }

    const fn pointer(mut self) -> Self {
        self.pointer = true;
        self
    }

    /// The bytes of register `index`, in [`Registers`].
    #[must_use]
    pub fn place(&self, index: usize) -> core::ops::Range<usize> {
        let start = self.offset + self.stride * index;
        start..start + self.bytes
    }

    /// The bytes of register `index` in an image whose component starts at
    /// `base`.
    #[must_use]
    pub fn image_place(&self, base: usize, index: usize) -> Option<core::ops::Range<usize>> {
        let (offset, stride) = self.image?;
        let start = base + offset + stride * index;
        Some(start..start + self.bytes)
    }

    /// The name of register `index`.
    #[must_use]
    pub const fn register(&self, index: usize) -> Name<'_> {
        Name { group: self, index }
    }
}

/// A register's name, as reports have it.
pub struct Name<'a> {
    group: &'a Group,
    index: usize,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.names {
            Names::One(name) => f.write_str(name),
            Names::List(names) => f.write_str(names.get(self.index).copied().unwrap_or("?")),
            Names::Numbered(prefix, first, suffix) => {
                write!(f, "{prefix}{}{suffix}", first + self.index)
            }
        }
    }
}

/// The table. Image offsets: SDM Vol. 1, 10.5.1 (FXSAVE area) and 13.5.
pub static GROUPS: [Group; 23] = {
    use Component as C;
    use Names::{List, Numbered};
    macro_rules! at {
        ($field:ident) => {
            offset_of!(Registers, $field)
        };
    }
    [
        group(C::Gpr, List(&GPR_NAMES), 16, 8, (at!(gpr), 8), None),
        one(C::X87, "fcw", 2, at!(fcw)).in_image(0),
        one(C::X87, "fsw", 2, at!(fsw)).in_image(2),
        one(C::X87, "ftw", 1, at!(ftw)).in_image(4),
        one(C::X87, "fop", 2, at!(fop)).in_image(6).pointer(),
        one(C::X87, "fip", 8, at!(fip)).in_image(8).pointer(),
        one(C::X87, "fdp", 8, at!(fdp)).in_image(16).pointer(),
        group(
            C::X87,
            Numbered("st", 0, ""),
            8,
            10,
            (at!(st), 10),
            Some((32, 16)),
        ),
        one(C::Mxcsr, "mxcsr", 4, at!(mxcsr)).in_image(24),
        group(
            C::Sse,
            Numbered("xmm", 0, ""),
            16,
            16,
            (at!(vectors), 64),
            Some((160, 16)),
        ),
        group(
            C::Avx,
            Numbered("ymm", 0, ".hi"),
            16,
            16,
            (at!(vectors) + 16, 64),
            Some((0, 16)),
        ),
        group(
            C::Bndregs,
            Numbered("bnd", 0, ""),
            4,
            16,
            (at!(bounds), 16),
            Some((0, 16)),
        ),
        one(C::Bndcsr, "bndcfgu", 8, at!(bndcfgu)).in_image(0),
        one(C::Bndcsr, "bndstatus", 8, at!(bndstatus)).in_image(8),
        group(
            C::Opmask,
            Numbered("k", 0, ""),
            8,
            8,
            (at!(opmask), 8),
            Some((0, 8)),
        ),
        group(
            C::ZmmHi256,
            Numbered("zmm", 0, ".hi"),
            16,
            32,
            (at!(vectors) + 32, 64),
            Some((0, 32)),
        ),
        group(
            C::Hi16Zmm,
            Numbered("zmm", 16, ""),
            16,
            64,
            (at!(vectors) + 1024, 64),
            Some((0, 64)),
        ),
        one(C::Pkru, "pkru", 4, at!(pkru)).in_image(0),
        one(C::TileCfg, "tilecfg", 64, at!(tilecfg)).in_image(0),
        group(
            C::TileData,
            Numbered("tmm", 0, ""),
            8,
            1024,
            (at!(tiles), 1024),
            Some((0, 1024)),
        ),
        group(C::Debug, List(&DEBUG_NAMES), 6, 8, (at!(debug), 8), None),
        group(
            C::System,
            List(&SYSTEM_NAMES),
            SYSTEM_NAMES.len(),
            8,
            (at!(system), 8),
            None,
        ),
        group(
            C::Control,
            List(&CONTROL_NAMES),
            CONTROL_NAMES.len(),
            8,
            (at!(control), 8),
            None,
        ),
    ]
};

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
