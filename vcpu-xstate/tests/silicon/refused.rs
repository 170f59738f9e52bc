//! Broken images: what the processor refuses, the model and `validate` refuse, and what they accept, it restores.

use vcpu_xstate::foreign::{self, Excess, ForeignImage, ForeignRegisters};
use vcpu_xstate::layout::Form;
use vcpu_xstate::model::Exception;
use vcpu_xstate::validate;
use xstate_capture::player::{Refused, Step};
use xstate_capture::restored::xcomp_bv;
use xstate_capture::states::Random;

use super::bench::{Bench, Tally};
use super::modelled::first_difference;

/// Images with several things wrong, or none.
const SEVERAL: usize = 3000;
const SEED: u64 = 0x5245_4655;
const GENERAL_PROTECTION: u64 = 13;
/// MXCSR, and the header: every bit is turned.
const BITS: [std::ops::Range<usize>; 2] = [24..28, 512..576];
const PKRU: u64 = 1 << 9;
const TILECFG: u64 = 1 << 17;

pub fn check(bench: &Bench, tally: &mut Tally) {
    let mut random = Random(SEED);
    let all = bench.xcr0();
    for form in [Form::Standard, Form::Compacted] {
        let image = image(bench, &mut random, form, all, all);
        for range in BITS {
            for bit in 8 * range.start..8 * range.end {
                let mut broken = image.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                one(bench, tally, &broken, all);
                one(bench, tally, &broken, random.next_u64() & all);
            }
        }
        // The other form's header.
        let mut other = image.clone();
        let xcomp_bv = if form == Form::Standard {
            1 << 63 | all
        } else {
            0
        };
        other[520..528].copy_from_slice(&xcomp_bv.to_le_bytes());
        other[512..520].copy_from_slice(&3_u64.to_le_bytes());
        one(bench, tally, &other, all);
        for _ in 0..SEVERAL {
            let layout = random.next_u64() & all;
            let used = random.next_u64() & all;
            let image = self::image(bench, &mut random, form, layout, used);
            let broken = several(&mut random, image);
            one(bench, tally, &broken, random_mask(&mut random, all));
        }
        if all & TILECFG != 0 {
            tiles(bench, tally, &mut random, form);
        }
    }
}

fn random_mask(random: &mut Random, all: u64) -> u64 {
    match random.below(3) {
        0 => all,
        1 => u64::MAX,
        _ => random.next_u64(),
    }
}

/// A legal image of this processor.
fn image(bench: &Bench, random: &mut Random, form: Form, layout: u64, used: u64) -> Vec<u8> {
    let all = bench.xcr0();
    let own_mxcsr = random.below(2) == 0;
    let state = bench.frame().state(random, used, own_mxcsr);
    let mut buffers = [(); 3].map(|()| bench.processor.buffer());
    buffers[0] = bench.init();
    buffers[1].load(&state.image);
    // A broken header may load what was not saved: that is legal then, too.
    // x87 changes what no program could have stored.
    buffers[2].load(&state.image[..416]);
    let save = match form {
        Form::Standard => Step::Xsave(2, layout),
        Form::Compacted => Step::Xsavec(2, layout),
    };
    let script = [Step::Xrstor(0, all), Step::Xrstor(1, all), save];
    let played = bench.processor.play(&mut buffers, &script);
    played.expect("a legal state");
    // As long as any: a broken header may make it longer.
    buffers[2].bytes().to_vec()
}

/// Turns bits, and writes words that are nearly right.
fn several(random: &mut Random, mut image: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.below(3) {
        let range = &BITS[random.below(2) as usize];
        let at = range.start + random.below(range.len() as u64) as usize;
        image[at] ^= 1 << random.below(8);
    }
    if random.below(2) == 0 {
        let at = 512 + 8 * random.below(2) as usize;
        let keep = random.next_u64() | 1 << 63;
        for (i, byte) in keep.to_le_bytes().iter().enumerate() {
            image[at + i] &= byte;
        }
    }
    image
}

/// Tile configurations that LDTILECFG refuses: XRSTOR takes them and makes
/// them INIT, so a state that no program made is refused here alone.
fn tiles(bench: &Bench, tally: &mut Tally, random: &mut Random, form: Form) {
    let all = bench.xcr0();
    let image = image(bench, random, form, all, all);
    let components = bench.processor.components();
    let place = match form {
        Form::Standard => components.iter().find(|c| c.bit() == TILECFG),
        Form::Compacted => None,
    };
    let start = match place {
        Some(component) => component.offset as usize,
        None => {
            let (places, _) = xstate_capture::restored::compacted_places(components, all);
            let place = places.iter().find(|(index, _)| *index == 17);
            place.expect("TILECFG is in XCR0").1
        }
    };
    for at in 0..64 {
        for value in [1, 2, 17, 65, 0xff] {
            let mut broken = image.clone();
            broken[start + at] ^= value;
            one(bench, tally, &broken, all);
        }
    }
}

/// One image, by everybody.
fn one(bench: &Bench, tally: &mut Tally, image: &[u8], rfbm: u64) {
    let what = || {
        format!(
            "header {:x?}, MXCSR {:x?}, RFBM {rfbm:#x}",
            &image[512..576],
            &image[24..28]
        )
    };
    // What may not be loaded is not asked for. Nor is PKRU: a broken layout
    // has other bytes there, which might close this program's memory.
    let rfbm = rfbm & bench.xcr0() & !PKRU;
    let registers = bench.restored(image, rfbm);
    if let Err(Refused { exception, .. }) = registers {
        assert_eq!(exception, GENERAL_PROTECTION, "{}", what());
    }

    // The model takes it as the processor does, and with the same result.
    let mut cpu = bench.model();
    let all = bench.xcr0();
    let init = bench.init();
    cpu.xrstor(0x1000, init.bytes(), all).expect("INIT");
    let modelled = cpu.xrstor(0x8000, image, rfbm);
    match (&registers, modelled) {
        (Ok(registers), Ok(())) => {
            let mut ours = vec![0; registers.len()];
            cpu.xsave(0x1000, &mut ours, all).expect("a legal save");
            xstate_capture::restored::settle_xstate_bv(&mut ours, bench.processor.components());
            let differ = first_difference(registers, &ours);
            assert_eq!(differ, None, "(processor, model): {}", what());
            tally.images += 1;
        }
        (Err(_), Err(fault)) => {
            assert_eq!(fault.exception, Exception::GeneralProtection, "{}", what());
            tally.refused += 1;
        }
        (Ok(_), Err(fault)) => panic!("only the model refuses, {fault}: {}", what()),
        (Err(_), Ok(())) => panic!("the model restores it: {}", what()),
    }
    untrusted(bench, tally, image, &what);
}

/// As it would come from elsewhere, for a restore of everything: nothing is
/// accepted that this processor refuses.
fn untrusted(bench: &Bench, tally: &mut Tally, image: &[u8], what: &dyn Fn() -> String) {
    let all = bench.policy.mask.bits();
    let xcomp_bv = xcomp_bv(image);
    let rule = if xcomp_bv >> 63 == 1 {
        let layout = xcomp_bv << 1 >> 1;
        let len = bench.size(Form::Compacted, layout & all).min(image.len());
        let claims = bench.claims(xcomp_bv);
        let image = &image[..len];
        validate(&claims, bench.geometry(), image, &bench.host, &bench.policy)
            .map(|_| ())
            .map_err(|rejection| rejection.rule())
    } else {
        let image = &image[..bench.size(Form::Standard, all)];
        let raw = ForeignImage::raw(image, ForeignRegisters::xcr0(all));
        let (geometry, host) = (bench.geometry(), &bench.host);
        foreign::read(&raw, geometry, host, &bench.policy, Excess::Refuse)
            .map(|_| ())
            .map_err(|error| error.rule())
    };
    match (rule, bench.restored(image, bench.xcr0() & !PKRU)) {
        (Ok(()), Err(refused)) => panic!("accepted, and raises {refused:?}: {}", what()),
        (Err(rule), Err(_)) => tally.note(format!("both refuse, by {rule}")),
        (Err(rule), Ok(_)) => tally.note(format!("only the rule {rule} refuses")),
        (Ok(()), Ok(_)) => tally.note("both accept"),
    }
}
