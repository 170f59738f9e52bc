//! Which bytes of [`Registers`], and of an XSAVE image, are which register: the
//! one table that filling, saving, comparing and hashing go by.

use crate::registers::{CONTROL_NAMES, Component, ComponentSet, Registers, SYSTEM_NAMES};
use core::fmt;
use core::mem::offset_of;

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
