//! The CPU in software plays the same script: every byte of every buffer is the processor's, written or not.
//!
//! The manual leaves it to the processor whether a component that is INIT is
//! tracked as in use. Where this one does it otherwise than the model, the
//! script is played again with images that say INIT as this processor does;
//! then every byte must agree.

use vcpu_xstate::layout::Form;
use vcpu_xstate::model::{Cpu, Fault};
use vcpu_xstate::{ComponentIndex, ComponentSet};
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
const AGAIN: usize = 7;
const BUFFERS: usize = 8;

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
            one(bench, tally, &buffers, restores, *saves);
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

/// Plays the script on the processor. The system may take it away in the
/// middle, and then XINUSE over INIT contents may change: such a play is
/// repeated.
fn play_here(bench: &Bench, tally: &mut Tally, fresh: &[Buffer], script: &[Step]) -> Played {
    for _ in 0..100 {
        let mut buffers = fresh.to_vec();
        let read = bench.processor.play(&mut buffers, script);
        let read = read.expect("legal images");
        let [first, last] = [ALL, AGAIN].map(|b| restored::xstate_bv(buffers[b].bytes()));
        if first == last {
            let buffers = buffers.iter().map(|b| b.bytes().to_vec()).collect();
            return Played { buffers, read };
        }
        tally.note("the system came between, and XINUSE changed");
    }
    panic!("XINUSE changes in every script");
}

/// What a script left.
struct Played {
    buffers: Vec<Vec<u8>>,
    read: Vec<u64>,
}

fn one(bench: &Bench, tally: &mut Tally, fresh: &[Buffer], restores: u64, saves: u64) {
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
    script.push(Step::Xsave(AGAIN, all));
    let what = format!("restored {restores:#x}, saved {saves:#x}");
    let there = play_here(bench, tally, fresh, &script);

    let mut modelled: Vec<Vec<u8>> = fresh.iter().map(|b| b.bytes().to_vec()).collect();
    let mut ours = modelled.clone();
    let mut cpu = play(bench, &mut ours, &script, 0).expect(&what);
    let used = restored::xstate_bv(&there.buffers[ALL]);
    let expected = restored::xstate_bv(&ours[ALL]);
    if used != expected {
        // It may differ only in what is INIT by content.
        let mut by_content = there.buffers[ALL].clone();
        settle_xstate_bv(&mut by_content, bench.processor.components());
        let not_init = restored::xstate_bv(&by_content);
        assert_eq!(
            used & not_init,
            not_init,
            "{what}: in use, and not tracked so"
        );
        for i in (0..63).filter(|i| (used ^ expected) & 1 << i != 0) {
            let how = if used & 1 << i == 0 { "INIT" } else { "in use" };
            tally.note(format!(
                "component {i} with INIT contents is tracked as {how}"
            ));
        }
        for (buffer, mask) in [(BEFORE, all & !restores), (LOADED, restores)] {
            say_init(&mut modelled[buffer], expected & !used & mask);
        }
        ours = modelled;
        cpu = play(bench, &mut ours, &script, used & !expected).expect(&what);
        assert_eq!(restored::xstate_bv(&ours[ALL]), used, "{what}: XINUSE");
    }
    if let Some(at) = script.iter().position(|step| *step == Step::Xinuse) {
        // Tiles may be in XCR0 without being ours to move.
        let modelled = cpu.xgetbv(1).map(|bits| bits & all);
        assert_eq!(modelled, Ok(there.read[at] & all), "{what}: XGETBV 1");
    }
    let both = there.buffers.iter().zip(&ours).enumerate();
    for (buffer, (there, ours)) in both.skip(STANDARD) {
        let differ = first_difference(there, ours);
        assert_eq!(differ, None, "{what}: {} (processor, model)", name(buffer));
        tally.images += 1;
    }
}

/// Clears bits of XSTATE_BV.
fn say_init(image: &mut [u8], bits: u64) {
    let bv = restored::xstate_bv(image) & !bits;
    image[512..520].copy_from_slice(&bv.to_le_bytes());
}

/// Plays a script on the model. Components of `in_use` are so, INIT or not,
/// from the first save on.
fn play(
    bench: &Bench,
    buffers: &mut [Vec<u8>],
    script: &[Step],
    in_use: u64,
) -> Result<Cpu, Fault> {
    let mut cpu = bench.model();
    for step in script {
        let address = |buffer: usize| 0x10_0000 * (buffer as u64 + 1);
        match *step {
            Step::Xsave(ALL, mask) => {
                touch(&mut cpu, in_use);
                cpu.xsave(address(ALL), &mut buffers[ALL], mask)?;
            }
            Step::Xsave(b, mask) => cpu.xsave(address(b), &mut buffers[b], mask)?,
            Step::Xsavec(b, mask) => cpu.xsavec(address(b), &mut buffers[b], mask)?,
            Step::Xsaveopt(b, mask) => cpu.xsaveopt(address(b), &mut buffers[b], mask)?,
            Step::Xrstor(b, mask) => cpu.xrstor(address(b), &buffers[b], mask)?,
            Step::Xinuse => {}
            Step::Flip(..) | Step::Ones => unreachable!("no such step in this script"),
        }
    }
    Ok(cpu)
}

/// A program writes to these components what is in them: their INIT values.
fn touch(cpu: &mut Cpu, components: u64) {
    for component in ComponentSet::from_bits_retain(components) {
        let init = match component {
            ComponentIndex::X87 => [0x7f, 0x03].to_vec(),
            _ => Vec::new(),
        };
        cpu.put(component, &init);
    }
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
