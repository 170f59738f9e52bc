//! The feature table: every CPUID feature that this crate knows by name, and whether a guest may have it.
//!
//! Default-deny: a bit that is not marked `Offered` here never reaches a guest.
//! Offered is what a hypervisor can give that switches and migrates exactly
//! the extended state of the policy, the registers of the migration record,
//! PAT, TSC_AUX, the SYSCALL and SYSENTER MSRs, and nothing else. So whatever
//! needs a local APIC, machine-check or memory-type MSRs, a speculation-control
//! MSR, another hypervisor below, or state that nobody switches is known by
//! name, for messages, and marked `Never`.
//!
//! Names are those of Xen's `cpuid=` option, which toolstacks know; places are
//! those of SDM Vol. 2, CPUID, and APM Vol. 3, Appendix E. `needs` says on what
//! a feature is built: without `avx` there is no `fma`.

use super::place::{Location, Word};
use super::set::Bit;
use crate::component::{ComponentIndex, ComponentSet};

/// How a feature is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Offered where the host has it; the configuration may remove it.
    Offered,
    /// In every policy: the architecture or this crate assumes it.
    Required,
    /// Offered as the above, but only by a hypervisor that says so: its state
    /// is more than the image, or instructions at exits need it.
    Granted,
    /// Known by name and not offered.
    Never,
    /// Counts the other way round: set, it takes something away. In every
    /// policy, for a guest that was told the worst can run anywhere.
    Inverse,
    /// Follows a control register of the guest; clear in the policy itself.
    Live,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Xen's name of it.
    pub name: &'static str,
    /// How it is treated.
    pub rule: Rule,
    /// State components that it stands for: all are in a policy that has it,
    /// and none is in a policy where no feature stands for it.
    pub components: ComponentSet,
    /// Names of the features on which it is built.
    pub needs: &'static [&'static str],
    bit: Bit,
}

impl Feature {
    /// Its bit.
    pub const fn bit(&self) -> Bit {
        self.bit
    }

    /// Where CPUID reports it.
    pub const fn location(&self) -> Location {
        self.bit.location()
    }
}

impl core::fmt::Display for Feature {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({})", self.name, self.location())
    }
}

macro_rules! features {
    ($($word:ident { $(
        $bit:literal $name:literal $rule:ident
        $(needs $($need:literal)+)? $(holds $($component:ident)+)? ;
    )* })*) => {
        /// The features that have a name, by word and bit.
        pub const TABLE: &[Feature] = &[$($(Feature {
            name: $name,
            rule: Rule::$rule,
            components: ComponentSet::from_bits_retain(
                0 $($(| ComponentIndex::$component.bit())+)?
            ),
            needs: &[$($($need),+)?],
            bit: Bit::at(Word::$word, $bit),
        },)*)*];
    };
}

features! {
    L1Edx {
        0 "fpu" Required;
        1 "vme" Offered;
        2 "de" Offered;
        3 "pse" Offered;
        4 "tsc" Offered;
        5 "msr" Offered;
        6 "pae" Offered;
        7 "mce" Never;
        8 "cx8" Offered;
        9 "apic" Never;
        11 "sep" Offered;
        12 "mtrr" Never;
        13 "pge" Offered;
        14 "mca" Never;
        15 "cmov" Offered;
        16 "pat" Offered;
        17 "pse36" Offered needs "pse";
        19 "clflush" Offered;
        21 "ds" Never;
        22 "acpi" Never;
        23 "mmx" Offered needs "fpu";
        24 "fxsr" Required needs "fpu";
        25 "sse" Required needs "fxsr";
        26 "sse2" Offered needs "sse";
        27 "ss" Never;
        28 "htt" Never;
        29 "tm1" Never;
        31 "pbe" Never;
    }
    L1Ecx {
        0 "sse3" Offered needs "sse2";
        1 "pclmulqdq" Offered needs "sse2";
        2 "dtes64" Never;
        3 "monitor" Never;
        4 "dscpl" Never;
        5 "vmx" Never;
        6 "smx" Never;
        7 "eist" Never;
        8 "tm2" Never;
        9 "ssse3" Offered needs "sse3";
        12 "fma" Offered needs "avx";
        13 "cx16" Offered needs "lm";
        14 "xtpr" Never;
        15 "pdcm" Never;
        // CR3 bit 63 and INVPCID would have to be handled; nothing here does.
        17 "pcid" Never;
        18 "dca" Never;
        19 "sse4-1" Offered needs "ssse3";
        20 "sse4-2" Offered needs "sse4-1";
        21 "x2apic" Never;
        22 "movbe" Offered;
        23 "popcnt" Offered;
        24 "tsc-deadline" Never;
        25 "aesni" Offered needs "sse2";
        26 "xsave" Offered needs "sse";
        27 "osxsave" Live;
        28 "avx" Offered needs "xsave" "sse2" holds AVX;
        29 "f16c" Offered needs "avx";
        30 "rdrand" Offered;
        31 "hypervisor" Required;
    }
    L7Ebx {
        0 "fsgsbase" Offered needs "lm";
        1 "tsc-adjust" Never;
        2 "sgx" Never;
        3 "bmi1" Offered;
        4 "hle" Never;
        5 "avx2" Offered needs "avx";
        6 "fdp-excp-only" Inverse;
        7 "smep" Offered;
        8 "bmi2" Offered;
        9 "erms" Offered;
        10 "invpcid" Never;
        11 "rtm" Never;
        12 "pqm" Never;
        13 "no-fpu-sel" Inverse;
        14 "mpx" Offered needs "xsave" holds BNDREGS BNDCSR;
        15 "pqe" Never;
        16 "avx512f" Offered needs "avx2" holds OPMASK ZMM_HI256 HI16_ZMM;
        17 "avx512dq" Offered needs "avx512f";
        18 "rdseed" Offered;
        19 "adx" Offered;
        20 "smap" Offered;
        21 "avx512-ifma" Offered needs "avx512f";
        23 "clflushopt" Offered needs "clflush";
        24 "clwb" Offered needs "clflush";
        25 "proc-trace" Never holds PT;
        26 "avx512pf" Offered needs "avx512f";
        27 "avx512er" Offered needs "avx512f";
        28 "avx512cd" Offered needs "avx512f";
        29 "sha" Offered needs "sse2";
        30 "avx512bw" Offered needs "avx512f";
        31 "avx512vl" Offered needs "avx512f";
    }
    L7Ecx {
        0 "prefetchwt1" Offered;
        1 "avx512-vbmi" Offered needs "avx512bw";
        2 "umip" Offered;
        // RDPKRU works whatever XCR0 says, so the register would live without
        // XSAVE; but a policy without XSAVE has no room for it.
        3 "pku" Offered needs "xsave" "lm" holds PKRU;
        4 "ospke" Live;
        5 "waitpkg" Never;
        6 "avx512-vbmi2" Offered needs "avx512bw";
        // IA32_S_CET, SSP and ISST_ADDR are to be switched beside the image.
        7 "cet-ss" Granted needs "xsaves" holds CET_U CET_S;
        8 "gfni" Offered needs "sse2";
        9 "vaes" Offered needs "avx2" "aesni";
        10 "vpclmulqdq" Offered needs "avx2" "pclmulqdq";
        11 "avx512-vnni" Offered needs "avx512f";
        12 "avx512-bitalg" Offered needs "avx512bw";
        13 "tme" Never;
        14 "avx512-vpopcntdq" Offered needs "avx512f";
        16 "la57" Never needs "lm";
        22 "rdpid" Offered needs "rdtscp";
        23 "kl" Never;
        24 "bus-lock-detect" Never;
        25 "cldemote" Offered;
        27 "movdiri" Offered;
        28 "movdir64b" Offered;
        29 "enqcmd" Granted needs "xsaves" holds PASID;
        30 "sgx-lc" Never;
        31 "pks" Never needs "lm";
    }
    L7Edx {
        2 "avx512-4vnniw" Offered needs "avx512f";
        3 "avx512-4fmaps" Offered needs "avx512f";
        4 "fsrm" Offered;
        // SENDUIPI sends physical interrupts.
        5 "uintr" Granted needs "xsaves" holds UINTR;
        8 "avx512-vp2intersect" Offered needs "avx512f";
        9 "srbds-ctrl" Never;
        10 "md-clear" Never;
        11 "rtm-always-abort" Never;
        13 "tsx-force-abort" Never;
        14 "serialize" Offered;
        15 "hybrid" Never;
        16 "tsxldtrk" Never;
        18 "pconfig" Never;
        // Its depths are in leaf 0x1C, which no policy has.
        19 "arch-lbr" Never needs "xsaves" holds LBR;
        20 "cet-ibt" Granted needs "xsaves" holds CET_U CET_S;
        22 "amx-bf16" Offered needs "amx-tile";
        23 "avx512-fp16" Offered needs "avx512bw";
        24 "amx-tile" Offered needs "xsave" "lm" holds TILECFG TILEDATA;
        25 "amx-int8" Offered needs "amx-tile";
        26 "ibrsb" Never;
        27 "stibp" Never;
        28 "l1d-flush" Never;
        29 "arch-caps" Never;
        30 "core-caps" Never;
        31 "ssbd" Never;
    }
    L71Eax {
        0 "sha512" Offered needs "avx2";
        1 "sm3" Offered needs "avx";
        2 "sm4" Offered needs "avx2";
        3 "rao-int" Offered needs "lm";
        4 "avx-vnni" Offered needs "avx2";
        5 "avx512-bf16" Offered needs "avx512bw";
        6 "lass" Never;
        7 "cmpccxadd" Offered needs "lm";
        8 "arch-perfmon-ext" Never;
        10 "fzrm" Offered;
        11 "fsrs" Offered;
        12 "fsrcs" Offered;
        17 "fred" Never;
        18 "lkgs" Never;
        19 "wrmsrns" Never;
        20 "nmi-src" Never;
        21 "amx-fp16" Offered needs "amx-tile";
        22 "hreset" Never;
        23 "avx-ifma" Offered needs "avx2";
        26 "lam" Never;
        27 "msrlist" Never;
    }
    L71Edx {
        4 "avx-vnni-int8" Offered needs "avx2";
        5 "avx-ne-convert" Offered needs "avx2";
        8 "amx-complex" Offered needs "amx-tile";
        10 "avx-vnni-int16" Offered needs "avx2";
        14 "prefetchi" Offered;
        17 "uiret-uif" Granted needs "uintr";
        18 "cet-sss" Granted needs "cet-ss";
        19 "avx10" Never needs "avx512f";
        // R16 to R31 are to be decoded at exits.
        21 "apx-f" Granted needs "xsave" "lm" holds APX;
    }
    LD1Eax {
        0 "xsaveopt" Offered needs "xsave";
        1 "xsavec" Offered needs "xsave";
        2 "xgetbv1" Offered needs "xsave";
        3 "xsaves" Offered needs "xsavec";
        4 "xfd" Offered needs "amx-tile";
    }
    E1Ecx {
        0 "lahf-lm" Offered needs "lm";
        1 "cmp-legacy" Never;
        2 "svm" Never;
        3 "extapic" Never;
        4 "cr8-legacy" Never;
        5 "abm" Offered;
        6 "sse4a" Offered needs "sse3";
        // Sets MXCSR bit 17, which faults where this is missing.
        7 "misalignsse" Offered needs "sse";
        8 "3dnowprefetch" Offered;
        9 "osvw" Never;
        10 "ibs" Never;
        11 "xop" Offered needs "avx";
        12 "skinit" Never;
        13 "wdt" Never;
        15 "lwp" Never needs "xsave" holds LWP;
        16 "fma4" Offered needs "avx";
        19 "nodeid-msr" Never;
        21 "tbm" Offered;
        22 "topoext" Never;
        23 "perfctr-core" Never;
        26 "dbext" Never;
        29 "monitorx" Never;
    }
    E1Edx {
        11 "syscall" Offered;
        20 "nx" Offered needs "pae";
        22 "mmxext" Offered needs "mmx";
        25 "ffxsr" Never;
        26 "page1gb" Offered needs "lm";
        27 "rdtscp" Offered needs "tsc";
        29 "lm" Offered needs "pae" "sse2";
        30 "3dnowext" Offered needs "3dnow";
        31 "3dnow" Offered needs "mmx";
    }
    E7Edx {
        // A TSC of another frequency may be waiting on the other side.
        8 "itsc" Never needs "tsc";
        10 "efro" Never;
    }
    E8Ebx {
        0 "clzero" Offered;
        // The guest relies on it instead of clearing FIP and FDP itself.
        2 "rstr-fp-err-ptrs" Offered needs "fpu";
        4 "rdpru" Never;
        9 "wbnoinvd" Never;
        12 "ibpb" Never;
        14 "ibrs" Never;
        15 "amd-stibp" Never;
        24 "amd-ssbd" Never;
        25 "virt-ssbd" Never;
    }
    E21Eax {
        0 "no-nest-bp" Never;
        2 "lfence+" Offered;
        6 "nscb" Offered;
        8 "auto-ibrs" Never;
    }
}
