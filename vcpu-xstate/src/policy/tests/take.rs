//! Which host can take a state: every pair of machines, with the policy and without, and the words of each refusal.

use super::super::{Arrival, Bit, CannotTake};
use super::*;
use crate::component::ComponentIndex;
use crate::header::{COMPACTED, XsaveHeader};
use crate::image::payload;
use crate::layout::Form;
use crate::legacy::LegacyRegion;
use crate::validate::{Claims, Rejection};
use crate::xcr0::Xcr0Error;
use crate::xss::XssError;
use zerocopy::IntoBytes;

/// A state in which all of a policy is enabled and in use.
struct State {
    policy: CpuPolicy,
    claims: Claims,
    image: Vec<u8>,
}

impl State {
    fn of(policy: CpuPolicy) -> Self {
        let mask = policy.xstate().mask;
        let geometry = policy.geometry().clone();
        let mut image = vec![0; geometry.image_size(Form::Compacted, mask)];
        image[..512].copy_from_slice(LegacyRegion::INIT.as_bytes());
        image[512..576].copy_from_slice(XsaveHeader::compacted(mask, mask).as_bytes());
        for place in geometry.placements(Form::Compacted, mask) {
            crate::selftest::pattern(place.component, 7, &mut image[payload(place)]);
        }
        let claims = Claims {
            xstate_mask: mask.bits(),
            xcr0: mask.difference(geometry.supervisor()).bits(),
            xss: mask.intersection(geometry.supervisor()).bits(),
            xfd: 0,
            xfd_err: 0,
            accum: mask.bits(),
            xcomp_bv: mask.bits() | COMPACTED,
            xsave: policy.xstate().xsave,
        };
        Self {
            policy,
            claims,
            image,
        }
    }

    fn arrival(&self, with_policy: bool) -> Arrival<'_> {
        Arrival {
            claims: &self.claims,
            geometry: self.policy.geometry(),
            image: &self.image,
            policy: with_policy.then_some(&self.policy),
        }
    }
}

fn verdict(arrival: Arrival<'_>, machine: &Machine) -> Result<ComponentSet, CannotTake> {
    let taken = arrival.fits(&machine.host(), &machine.policy())?;
    Ok(taken.image().xstate_bv())
}

#[test]
fn every_pair_of_machines() {
    let mut counts = [0; 2];
    for (from, there) in machines() {
        let state = State::of(there.policy());
        for (to, here) in machines() {
            let fits = there.policy().fits(&here.policy());
            let taken = verdict(state.arrival(true), &here);
            match fits {
                Err(misfit) => assert_eq!(taken, Err(CannotTake::Policy(misfit)), "{from} {to}"),
                Ok(()) => assert_eq!(taken, Ok(there.policy().xstate().mask), "{from} {to}"),
            }
            counts[usize::from(taken.is_ok())] += 1;

            // The state alone knows of components, and of nothing else.
            let (mask, offered) = (there.policy().xstate().mask, here.policy().xstate().mask);
            let host = here.host();
            let same = host
                .geometry()
                .first_difference(there.policy().geometry(), mask);
            let taken = verdict(state.arrival(false), &here);
            assert_eq!(
                taken.is_ok(),
                offered.contains(mask) && same.is_none(),
                "{from} {to}"
            );

            // What both can have, both can take, without a policy or with it.
            let level = State::of(there.policy().level(&here.policy()));
            for with_policy in [false, true] {
                for machine in [&there, &here] {
                    let taken = verdict(level.arrival(with_policy), machine);
                    assert_eq!(taken, Ok(level.policy.xstate().mask), "{from} {to}");
                }
            }
        }
    }
    assert!(counts[0] > 20 && counts[1] > 15, "{counts:?}");
}

#[test]
fn a_state_without_xsave_goes_anywhere() {
    let plain = skylake().policy().with_config("host:xsave=0").unwrap();
    let state = State::of(plain);
    let mut claims = state.claims;
    (claims.xcr0, claims.xsave) = (1, false);
    for (name, machine) in machines() {
        let arrival = Arrival {
            claims: &claims,
            ..state.arrival(false)
        };
        assert_eq!(
            verdict(arrival, &machine),
            Ok(ComponentSet::LEGACY),
            "{name}"
        );
    }
}

/// What a machine could restore is not what it offers: no policy there has CET.
#[test]
fn components_that_no_policy_has_are_not_taken() {
    let machine = zen3();
    let host = machine.host();
    assert!(host.offered().contains(ComponentSet::CET));
    let granted = super::super::FeatureSet::EMPTY.with(const { Bit::of("cet-ss") });
    let cpuid = |l, s| machine.cpuid(l, s);
    let mut state = State::of(CpuPolicy::host_granting(&cpuid, &host, &granted));
    // Shadow stacks on, and nothing of branch tracking, which Zen 3 lacks.
    state.image[840..848].copy_from_slice(&1u64.to_le_bytes());
    let error = verdict(state.arrival(false), &machine).unwrap_err();
    assert_eq!(
        error.to_string(),
        "xstate-mask-host: cet_u cet_s not offered here"
    );
    let granting = CpuPolicy::host_granting(&cpuid, &host, &granted);
    assert!(state.arrival(false).fits(&host, &granting).is_ok());
}

#[test]
fn refusals_name_both_sides() {
    let mut moved = sapphire_rapids();
    moved.put(0xd, 5, [64, 832, 0, 0]);
    let state = State::of(moved.policy());
    let here = sapphire_rapids();
    let without = verdict(state.arrival(false), &here).unwrap_err();
    assert_eq!(
        without.to_string(),
        "component-layout: opmask at 832 there, 1088 here"
    );
    let with = verdict(state.arrival(true), &here).unwrap_err();
    assert_eq!(
        with.to_string(),
        "fits-layout: opmask at 832 there, 1088 here (CPUID 0xD.5)"
    );

    let state = State::of(sapphire_rapids().policy());
    let error = verdict(state.arrival(false), &skylake()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "xstate-mask-host: tilecfg tiledata not offered here"
    );
    let mut amd = State::of(zen3().policy().with_config("host:pku=0").unwrap());
    amd.image[24..28].copy_from_slice(&0x2_1f80u32.to_le_bytes());
    let error = verdict(amd.arrival(false), &skylake()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "mxcsr: MXCSR 0x21f80, of which 0x20000 cannot be set here"
    );
    assert!(verdict(amd.arrival(false), &zen3()).is_ok());
}

/// Each rejection in words.
#[test]
fn words() {
    use Rejection as R;
    let c = ComponentIndex::CET_U;
    let table = [
        (R::TooShort(9, 576), "9 bytes, 576 are the least"),
        (
            R::Xsave(1, 0),
            "its guest has XSAVE, the vCPU's policy has not",
        ),
        (
            R::Xsave(0, 1),
            "its guest has no XSAVE, the vCPU's policy has",
        ),
        (R::MaskLegacy(0x205), "its policy lacks sse"),
        (
            R::MaskGroup(0x2_0007, 0x7),
            "its policy has tilecfg without the rest of the group",
        ),
        (R::MaskPolicy(0x207, 0x7), "pkru not in the vCPU's policy"),
        (
            R::MaskHost(0x6_0207, 0x207),
            "tilecfg tiledata not offered here",
        ),
        (
            R::MaskDirectory(0xf, 0x7),
            "its directory does not describe bndregs",
        ),
        (
            R::Xcr0(Xcr0Error::Policy(0x207, 7)),
            "XCR0 0x207, of which 0x200 cannot be set here",
        ),
        (R::Xcr0(Xcr0Error::AvxNeedsSse(5)), "XCR0 0x5 lacks 0x2"),
        (
            R::Xss(XssError::Policy(0x100, 0)),
            "IA32_XSS 0x100, of which 0x100 cannot be set here",
        ),
        (
            R::AccumPolicy(0xf, 7),
            "bndregs may hold state and is not in its policy",
        ),
        (
            R::AccumEnabled(3, 7),
            "avx is enabled and said to hold no state",
        ),
        (
            R::XcompBvClaim(3, 7),
            "XCOMP_BV 0x3 in the image, 0x7 beside it",
        ),
        (
            R::XcompBvBit63(7),
            "XCOMP_BV 0x7: the image is not compacted",
        ),
        (
            R::XcompBvPolicy(0x8, 0x7),
            "room for bndregs, which its policy lacks",
        ),
        (R::Length(833, 832), "833 bytes, its layout makes it 832"),
        (R::HeaderReserved(1), "0x1 in reserved bytes of the header"),
        (
            R::XstateBvXcompBv(7, 3),
            "XSTATE_BV has avx, XCOMP_BV has not",
        ),
        (
            R::XstateBvAccum(7, 3),
            "XSTATE_BV has avx, which was said to hold no state",
        ),
        (
            R::XstateBvXfd(1 << 18, 7),
            "XSTATE_BV has tiledata, which IA32_XFD disables",
        ),
        (
            R::Address(c, 1 << 48, 0),
            "cet_u holds 0x1000000000000, which is not canonical here",
        ),
        (
            R::Reserved(c, 0x41, 1),
            "cet_u holds 0x41, of which 0x40 is reserved here",
        ),
        (
            R::CetTracker(0xc00, 0x800),
            "IA32_U_CET 0xc00 both tracks and suppresses",
        ),
        (
            R::LbrDepth(12, 64),
            "12 branch records; multiples of 8 up to 64 are",
        ),
        (
            R::TileConfig(3, 1),
            "a field of the tile configuration is 3, at most 1",
        ),
    ];
    for (rejection, words) in table {
        assert_eq!(rejection.words().to_string(), words, "{rejection}");
    }
}
