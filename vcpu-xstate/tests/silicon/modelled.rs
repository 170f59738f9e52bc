//! The CPU in software plays the same script: every byte of every buffer is the processor's, written or not.
//!
//! The manual leaves it to the processor whether a component that is INIT is
//! tracked as in use. Where this one does it otherwise than the model, the
//! script is played again with images that say INIT as this processor does;
//! then every byte must agree.

use vcpu_xstate::layout::Form;
use vcpu_xstate::model::{Cpu, Fault};
use xstate_capture::player::{Buffer, Step};
use xstate_capture::restored::{self, settle_xstate_bv};
use xstate_capture::states::Random;

use super::bench::{Bench, Tally};

/// States under each RFBM.
const STATES: usize = 3;
const SEED: u64 = 0x4d4f_4445;

/// The buffers of the script.
const INIT: usize = 0;
const BEFORE: usize = 1;
const LOADED: usize = 2;
const STANDARD: usize = 3;
const COMPACTED: usize = 4;
const OPTIMISED: usize = 5;
const ALL: usize = 6;
const BUFFERS: usize = 7;

pub fn check(bench: &Bench, tally: &mut Tally) {
    let mut random = Random(SEED);
    let masks = bench.masks();
    for saves in &masks {
        for round in 0..STATES {
            let restores = match round {
                0 => *saves,
                _ => random.next_u64() & bench.xcr0(),
            };
            let buffers = prepare(bench, &mut random, round);
            tally.states += 2;
            one(bench, tally, buffers, restores, *saves);
        }
    }
}

/// Buffers with two register states to load, the second of them compacted in
/// every other round, and others full of random bytes, header too.
fn prepare(bench: &Bench, random: &mut Random, round: usize) -> Vec<Buffer> {
    let mut buffers = vec![bench.processor.buffer(); BUFFERS];
    buffers[INIT] = bench.init();
    let frame = bench.frame();
    buffers[BEFORE].load(&frame.any(random).image);
    let loaded = frame.any(random).image;
    buffers[LOADED].load(&loaded);
    if round % 2 == 1 {
        let all = bench.xcr0();
        let layout = random.next_u64() & all;
        let script = [
            Step::Xrstor(INIT, all),
            Step::Xrstor(LOADED, all),
            Step::Xsavec(COMPACTED, layout),
        ];
        let played = bench.processor.play(&mut buffers, &script);
        played.expect("a legal state");
        let compacted = buffers[COMPACTED].clone();
        buffers[LOADED] = compacted;
    }
    for buffer in &mut buffers[STANDARD..ALL] {
        for byte in buffer.bytes_mut() {
            *byte = random.next_u64() as u8;
        }
    }
    buffers
}

fn one(bench: &Bench, tally: &mut Tally, mut buffers: Vec<Buffer>, restores: u64, saves: u64) {
    let all = bench.xcr0();
    let mut script = vec![
        Step::Xrstor(INIT, all),
        Step::Xrstor(BEFORE, all),
        Step::Xrstor(LOADED, restores),
        Step::Xsave(ALL, all),
        Step::Xsave(STANDARD, saves),
        Step::Xsavec(COMPACTED, saves),
    ];
    if bench.processor.has_xsaveopt() {
        script.push(Step::Xsaveopt(OPTIMISED, saves));
    }
    if bench.processor.has_xgetbv1() {
        script.push(Step::Xinuse);
    }
    let what = format!("restored {restores:#x}, saved {saves:#x}");
    let mut modelled: Vec<Vec<u8>> = buffers.iter().map(|b| b.bytes().to_vec()).collect();
    let read = bench.processor.play(&mut buffers, &script).expect(&what);

    let mut ours = modelled.clone();
    let mut cpu = play(bench, &mut ours, &script).expect(&what);
    let (there, here) = (
        restored::xstate_bv(buffers[ALL].bytes()),
        restored::xstate_bv(&ours[ALL]),
    );
    if there != here {
        // It may differ only in what is INIT by content.
        let mut by_content = buffers[ALL].bytes().to_vec();
        settle_xstate_bv(&mut by_content, bench.processor.components());
        let used = restored::xstate_bv(&by_content);
        assert_eq!(there & used, used, "{what}: in use, and not tracked so");
        for i in (0..63).filter(|i| (there ^ here) & 1 << i != 0) {
            let how = if there & 1 << i == 0 {
                "INIT"
            } else {
                "in use"
            };
            tally.note(format!(
                "component {i} with INIT contents is tracked as {how}"
            ));
        }
        for (buffer, mask) in [(BEFORE, all & !restores), (LOADED, restores)] {
            say_init(&mut modelled[buffer], here & !there & mask);
        }
        ours = modelled;
        cpu = play(bench, &mut ours, &script).expect(&what);
        assert_eq!(restored::xstate_bv(&ours[ALL]), there, "{what}: XINUSE");
    }
    if let Some(at) = script.iter().position(|step| *step == Step::Xinuse) {
        // Tiles may be in XCR0 without being ours to move.
        let modelled = cpu.xgetbv(1).map(|bits| bits & all);
        assert_eq!(modelled, Ok(read[at] & all), "{what}: XGETBV 1");
    }
    for buffer in STANDARD..BUFFERS {
        let differ = first_difference(buffers[buffer].bytes(), &ours[buffer]);
        assert_eq!(differ, None, "{what}: {} (processor, model)", name(buffer));
        tally.images += 1;
    }
}

/// Clears bits of XSTATE_BV.
fn say_init(image: &mut [u8], bits: u64) {
    let bv = restored::xstate_bv(image) & !bits;
    image[512..520].copy_from_slice(&bv.to_le_bytes());
}

/// Plays a script on the model.
fn play(bench: &Bench, buffers: &mut [Vec<u8>], script: &[Step]) -> Result<Cpu, Fault> {
    let mut cpu = bench.model();
    for step in script {
        let address = |buffer: usize| 0x10_0000 * (buffer as u64 + 1);
        match *step {
            Step::Xsave(b, mask) => cpu.xsave(address(b), &mut buffers[b], mask)?,
            Step::Xsavec(b, mask) => cpu.xsavec(address(b), &mut buffers[b], mask)?,
            Step::Xsaveopt(b, mask) => cpu.xsaveopt(address(b), &mut buffers[b], mask)?,
            Step::Xrstor(b, mask) => cpu.xrstor(address(b), &buffers[b], mask)?,
            Step::Xinuse => {}
        }
    }
    Ok(cpu)
}

/// The first byte that differs: where, there, here.
pub fn first_difference(there: &[u8], here: &[u8]) -> Option<(usize, u8, u8)> {
    let differ = |(_, (a, b)): &(usize, (&u8, &u8))| a != b;
    let first = there.iter().zip(here).enumerate().find(differ);
    first.map(|(at, (a, b))| (at, *a, *b))
}

fn name(buffer: usize) -> &'static str {
    match buffer {
        STANDARD => "XSAVE",
        COMPACTED => "XSAVEC",
        OPTIMISED => "XSAVEOPT",
        _ => "XSAVE of all",
    }
}

/// The sizes that both read from CPUID are the processor's own.
#[test]
fn sizes_are_those_of_the_processor() {
    let bench = match Bench::here() {
        Ok(bench) => bench,
        Err(why) => return println!("skipped: {why}"),
    };
    let enabled = bench.processor.enabled();
    let standard = xstate_capture::machine::cpuid(0xd, 0).ebx;
    assert_eq!(bench.size(Form::Standard, enabled), standard as usize);
    assert_eq!(bench.machine.standard_bytes(enabled), standard.into());
    // It counts what IA32_XSS has, which ring 3 cannot read.
    let compacted = xstate_capture::machine::cpuid(0xd, 1).ebx as usize;
    assert!(bench.size(Form::Compacted, enabled) <= compacted);
}
