//! Images and registers from strangers, on any machine: `validate` and the processor judge the same.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use vcpu_xstate::convert::{Target, transfer};
use vcpu_xstate::model::{Cpu, Fault, InitTracking, Reason};
use vcpu_xstate::{
    Claims, ComponentIndex, ComponentSet, Form, Image, Rejection, TrustedImage, XstatePolicy,
    validate,
};

use crate::machine::{Host, host, runner};

const COMPACTED: u64 = 1 << 63;
const CASES: u32 = 12_000;

/// Values that registers take or do not take.
const WORDS: [u64; 14] = [
    0,
    1,
    2,
    12,
    0x40,
    0xc00,
    0x1000,
    0xffff_8000_0000_1000,
    1 << 47,
    1 << 56,
    1 << 20,
    1 << 40,
    1 << 63,
    u64::MAX,
];

/// Values that XCR0 does not take, on some machine or on any.
const XCR0: [u64; 10] = [
    0,
    6,
    0x5,
    0xf,
    0x17,
    0x27,
    0xe3,
    0x2_0007,
    0x4_0007,
    1 << 63 | 7,
];

/// The rules by which `validate` may refuse what the processor faults on. The
/// policy is narrower than the machine, and what exceeds it is told first.
fn rules(reason: Reason) -> &'static [&'static str] {
    use Reason as R;
    match reason {
        R::Xcr0X87(_) => &["xcr0-x87"],
        R::Xcr0Reserved(_) => &["xcr0-policy"],
        R::Xcr0AvxWithoutSse(_) => &["xcr0-avx-needs-sse", "xcr0-policy"],
        R::Xcr0Mpx(_) => &["xcr0-mpx-group", "xcr0-policy"],
        R::Xcr0Avx512(_) => &["xcr0-avx512-group", "xcr0-policy"],
        R::Xcr0Amx(_) => &["xcr0-amx-group", "xcr0-policy"],
        R::Xcr0ApxWithMpx(_) => &["xcr0-apx-or-mpx", "xcr0-policy"],
        R::XssReserved(_) => &["xss-policy"],
        R::XfdReserved(_) => &["xfd-policy", "xfd-err-policy"],
        // The machine has no such register: nothing but 0 can be in it.
        R::NoMsr(0xda0) => &["xss-policy"],
        R::NoMsr(_) => &["xfd-policy", "xfd-err-policy"],
        R::XfdRestore(_) => &["xstate-bv-xfd"],
        R::NotCompacted(_) => &["xcomp-bv-bit-63"],
        R::XcompBvEnabled(_) => &["xcomp-bv-policy"],
        R::XstateBvXcompBv(_) => &["xstate-bv-xcomp-bv"],
        R::HeaderReserved => &["header-reserved"],
        R::Mxcsr(_) => &["mxcsr"],
        R::NonCanonical(..) => &["component-address"],
        R::ReservedValue(..) => &["component-reserved", "cet-tracker", "lbr-depth"],
        R::ReservedPortion(..) => &["component-reserved"],
        R::Outside(_) => &["image-too-short", "image-length"],
        // What only a broken host could meet.
        _ => &[],
    }
}

/// The component whose contents `validate` refuses.
fn contents(rejection: &Rejection) -> Option<ComponentIndex> {
    match rejection {
        Rejection::Address(component, ..) | Rejection::Reserved(component, ..) => Some(*component),
        Rejection::CetTracker(..) => Some(ComponentIndex::CET_U),
        Rejection::LbrDepth(..) => Some(ComponentIndex::LBR),
        Rejection::TileConfig(..) => Some(ComponentIndex::TILECFG),
        Rejection::Mxcsr(..) => Some(ComponentIndex::SSE),
        _ => None,
    }
}

/// And those by which it may refuse an image whose XCOMP_BV was changed: the
/// field is compared with what came with it and with the length before any
/// byte is read at the places that it gives.
const LAYOUT_RULES: [&str; 4] = [
    "xcomp-bv-claim",
    "xcomp-bv-policy",
    "xcomp-bv-bit-63",
    "image-length",
];

/// One change to what was acceptable.
#[derive(Clone, Debug)]
enum Change {
    Byte(usize, u8),
    /// A word of a component that the image has room for.
    Word(usize, usize, usize),
    /// BNDCFGU, which few machines have and a processor mends where it is not legal.
    Bounds(usize),
    /// A bit of XSTATE_BV and XCOMP_BV; of the latter in the claims too.
    HeaderBit(usize, bool),
    Reserved(usize, u8),
    Mxcsr(u32),
    ClaimBit(usize, u32),
    Claim(usize, u64),
    Xcr0(usize),
    /// XFD and accum as they must be, the image as it may not be.
    Disable,
    Cut(usize),
    Append(usize),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        12 => (any::<usize>(), any::<usize>(), 0..WORDS.len())
            .prop_map(|(c, at, word)| Change::Word(c, at, word)),
        4 => (0..WORDS.len()).prop_map(Change::Bounds),
        4 => (0..128usize, any::<bool>()).prop_map(|(bit, both)| Change::HeaderBit(bit, both)),
        2 => (0..48usize, any::<u8>()).prop_map(|(at, byte)| Change::Reserved(at, byte)),
        2 => (0..32u32).prop_map(Change::Mxcsr),
        6 => (0..7usize, 0..64u32).prop_map(|(which, bit)| Change::ClaimBit(which, bit)),
        2 => (0..7usize, any::<u64>()).prop_map(|(which, value)| Change::Claim(which, value)),
        3 => (0..XCR0.len()).prop_map(Change::Xcr0),
        4 => Just(Change::Disable),
        1 => (1..700usize).prop_map(Change::Cut),
        1 => (1..70usize).prop_map(Change::Append),
    ]
}

#[derive(Clone, Debug)]
struct Case {
    host: usize,
    policy: u64,
    in_use: u64,
    room: u64,
    seed: u8,
    changes: Vec<Change>,
}

fn any_case() -> impl Strategy<Value = Case> {
    let mask = || prop_oneof![1 => Just(u64::MAX), 2 => any::<u64>()];
    let changes = prop_oneof![
        1 => Just(Vec::new()),
        6 => proptest::collection::vec(any_change(), 1),
        2 => proptest::collection::vec(any_change(), 2..5),
    ];
    (any::<usize>(), mask(), mask(), mask(), any::<u8>(), changes).prop_map(
        |(host, policy, in_use, room, seed, changes)| Case {
            host,
            policy,
            in_use,
            room,
            seed,
            changes,
        },
    )
}

/// An image and what came with it.
struct Sample {
    host: &'static Host,
    policy: XstatePolicy,
    claims: Claims,
    image: Vec<u8>,
}

impl Sample {
    /// What the machine's own processor saves of a guest with that policy.
    fn new(case: &Case) -> Self {
        let host = host(case.host);
        let policy = host.policy(case.policy);
        let mask = policy.mask;
        let mut cpu = host.cpu(InitTracking::ByContent);
        for component in mask.intersection(ComponentSet::from_bits_retain(case.in_use)) {
            cpu.put_pattern(component, case.seed);
        }
        let layout = mask.bits() & (case.in_use | case.room) | 2;
        let (has, machine) = (host.host.instructions(), cpu.machine());
        let mut image = vec![0; machine.compacted_bytes(layout) as usize];
        if has.xsaves {
            cpu.xsaves(0, &mut image, layout).expect("a legal save");
        } else if has.xsavec {
            cpu.xsavec(0, &mut image, layout).expect("a legal save");
        } else {
            // No compacted form here; the image comes from elsewhere.
            let mut standard = vec![0; machine.standard_bytes(layout) as usize];
            cpu.xsave(0, &mut standard, layout).expect("a legal save");
            let geometry = host.host.geometry();
            let from = Image::new(&standard, geometry, Form::Standard);
            let target = Target {
                geometry,
                form: Form::Compacted,
                layout: ComponentSet::from_bits_retain(layout),
            };
            let written = transfer(&from.expect("saved"), mask, target, &mut image);
            written.expect("large enough");
        }
        let xcomp_bv = u64::from_le_bytes(image[520..528].try_into().expect("8 bytes"));
        let claims = Claims {
            xstate_mask: mask.bits(),
            xcr0: mask.intersection(host.host.user()).bits(),
            xss: mask.intersection(host.host.supervisor()).bits(),
            xfd: 0,
            xfd_err: 0,
            accum: mask.bits(),
            xcomp_bv,
            xsave: true,
        };
        Self {
            host,
            policy,
            claims,
            image,
        }
    }

    /// XCOMP_BV of the image, `None` where it is too short.
    fn xcomp_bv(&self) -> Option<u64> {
        let field = self.image.get(520..)?.first_chunk()?;
        Some(u64::from_le_bytes(*field))
    }

    fn validate(&self) -> Result<TrustedImage<'_>, Rejection> {
        let (host, geometry) = (&self.host.host, self.host.host.geometry());
        validate(&self.claims, geometry, &self.image, host, &self.policy)
    }

    /// What a host does with it that believes everything.
    fn believe(&self) -> Result<Cpu, Fault> {
        let has = self.host.host.instructions();
        let mut cpu = self.host.cpu(InitTracking::ByContent);
        let (xcr0, xss) = (cpu.xcr0(), cpu.xss());
        let claims = &self.claims;
        cpu.xsetbv(0, claims.xcr0)?;
        for (msr, value) in [
            (0xda0, claims.xss),
            (0x1c4, claims.xfd),
            (0x1c5, claims.xfd_err),
        ] {
            if value != 0 {
                cpu.wrmsr(msr, value)?;
            }
        }
        // State is restored under the host's own values, XFD but not.
        cpu.xsetbv(0, xcr0)?;
        if has.xsaves {
            cpu.wrmsr(0xda0, xss)?;
            cpu.xrstors(0, &self.image, u64::MAX)?;
        } else if has.xsavec {
            cpu.xrstor(0, &self.image, u64::MAX)?;
        }
        Ok(cpu)
    }

    fn apply(&mut self, change: &Change) {
        let len = self.image.len();
        let claims = &mut self.claims;
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(to) = self.image.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        match *change {
            Change::Byte(at, byte) if len > 0 => put(at % len, &[byte]),
            Change::Byte(..) => {}
            Change::Word(component, at, word) => {
                let layout = laid_out(claims);
                let there: Vec<ComponentIndex> = layout.iter().collect();
                let cpu = self.host.cpu(InitTracking::ByContent);
                let machine = cpu.machine();
                if !there.is_empty() {
                    let component = there[component % there.len()];
                    let start = machine.compacted_offset(component, layout.bits());
                    let words = machine.size(component).unwrap_or(8) as usize / 8;
                    let at = start.unwrap_or(0) as usize + 8 * (at % words.clamp(1, 8));
                    put(at, &WORDS[word].to_le_bytes());
                }
            }
            Change::Bounds(word) => {
                let layout = laid_out(claims);
                let cpu = self.host.cpu(InitTracking::ByContent);
                let start = cpu
                    .machine()
                    .compacted_offset(ComponentIndex::BNDCSR, layout.bits());
                if let Some(start) = start {
                    put(start as usize, &WORDS[word].to_le_bytes());
                }
            }
            Change::HeaderBit(bit, both) => {
                if let Some(byte) = self.image.get_mut(512 + bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                if both && bit >= 64 {
                    claims.xcomp_bv ^= 1 << (bit - 64);
                }
            }
            Change::Reserved(at, byte) => put(528 + at, &[byte]),
            Change::Mxcsr(bit) => put(24, &(0x1f80 ^ 1u32 << bit).to_le_bytes()),
            Change::ClaimBit(which, bit) => *claim(claims, which) ^= 1 << bit,
            Change::Claim(which, value) => *claim(claims, which) = value,
            Change::Xcr0(which) => claims.xcr0 = XCR0[which],
            Change::Disable => {
                let capable = self.host.host.geometry().xfd_capable();
                claims.xfd = capable.intersection(self.policy.mask).bits();
            }
            Change::Cut(by) => self.image.truncate(len.saturating_sub(by)),
            Change::Append(by) => self.image.resize(len + by, 0),
        }
    }
}

/// The components of the extended region that XCOMP_BV gives room.
fn laid_out(claims: &Claims) -> ComponentSet {
    ComponentSet::from_bits_retain(claims.xcomp_bv & !COMPACTED & !3)
}

fn claim(claims: &mut Claims, which: usize) -> &mut u64 {
    match which {
        0 => &mut claims.xstate_mask,
        1 => &mut claims.xcr0,
        2 => &mut claims.xss,
        3 => &mut claims.xfd,
        4 => &mut claims.xfd_err,
        5 => &mut claims.accum,
        _ => &mut claims.xcomp_bv,
    }
}

/// An accepted image goes into any area of the host: it is restored from there
/// too.
fn restored_from_an_area(sample: &Sample, trusted: &TrustedImage<'_>) {
    let host = &sample.host.host;
    let target = Target {
        geometry: host.geometry(),
        form: host.format(),
        layout: sample.policy.mask,
    };
    let mut out = vec![0xee; target.size_bytes()];
    let written = transfer(trusted.image(), ComponentSet::ALL, target, &mut out);
    written.expect("large enough");
    let mut cpu = sample.host.cpu(InitTracking::ByContent);
    let restored = if host.instructions().xsaves {
        cpu.xrstors(0, &out, u64::MAX)
    } else {
        cpu.xrstor(0, &out, u64::MAX)
    };
    restored.unwrap_or_else(|fault| panic!("{}: {fault}", sample.host.name));
}

#[test]
fn validate_and_the_processor_judge_the_same() {
    let counts = RefCell::new(BTreeMap::<String, usize>::new());
    let count = |what: &str| {
        *counts.borrow_mut().entry(what.to_owned()).or_default() += 1;
    };
    let judged = runner(CASES).run(&any_case(), |case| {
        let mut sample = Sample::new(&case);
        prop_assert!(sample.validate().is_ok(), "{:?}", sample.validate());
        let layout = sample.xcomp_bv();
        case.changes.iter().for_each(|change| sample.apply(change));
        let verdict = sample.validate();
        let processor = sample.believe();
        match (&verdict, processor) {
            (Ok(trusted), Ok(_)) => {
                count("accepted");
                restored_from_an_area(&sample, trusted);
            }
            (Ok(_), Err(fault)) => {
                return Err(TestCaseError::fail(format!("accepted, then {fault}")));
            }
            (Err(rejection), Ok(_)) => {
                count("refused, would not have faulted");
                // Contents come last. What a processor would have mended is refused
                // by rules of our own; whatever else is refused faults.
                if let Some(component) = contents(rejection)
                    && sample.host.host.instructions().xsavec
                {
                    let ours = [
                        ComponentIndex::BNDCSR,
                        ComponentIndex::LBR,
                        ComponentIndex::TILECFG,
                    ];
                    prop_assert!(ours.contains(&component), "{rejection}");
                    count(&format!("mended {component}"));
                }
            }
            (Err(rejection), Err(fault)) => {
                count("refused, would have faulted");
                if case.changes.len() == 1 {
                    let rule = rejection.rule();
                    let moved = sample.xcomp_bv() != layout;
                    let named = rules(fault.reason).contains(&rule)
                        || moved && LAYOUT_RULES.contains(&rule);
                    prop_assert!(named, "{fault} is {rule}");
                    let reason = format!("{:?}", fault.reason);
                    count(reason.split('(').next().unwrap_or(&reason));
                }
            }
        }
        Ok(())
    });
    judged.unwrap_or_else(|error| panic!("{error}"));
    let counts = counts.into_inner();
    println!("{counts:#?}");
    for (what, least) in [
        ("accepted", CASES / 10),
        ("refused, would have faulted", CASES / 5),
        ("refused, would not have faulted", CASES / 50),
        ("mended bndcsr", 1),
        ("Xcr0Reserved", 20),
        ("Xcr0X87", 10),
        ("Xcr0AvxWithoutSse", 5),
        ("Xcr0Mpx", 1),
        ("Xcr0Avx512", 5),
        ("Xcr0Amx", 1),
        ("XfdRestore", 1),
        ("XssReserved", 20),
        ("XcompBvEnabled", 20),
        ("XstateBvXcompBv", 20),
        ("HeaderReserved", 20),
        ("Mxcsr", 20),
        ("NonCanonical", 5),
        ("ReservedValue", 5),
        ("Outside", 20),
    ] {
        let seen = counts.get(what).copied().unwrap_or(0);
        assert!(seen >= least as usize, "{what}: {seen} of {least}");
    }
}
