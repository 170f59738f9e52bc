//! Takes a corpus on this machine.

use crate::corpus::{Corpus, Record};
use crate::player::{Buffer, Processor, Refused, Step};
use crate::restored::{compacted_places, crc32, flags, mxcsr, settle_xstate_bv, standard_size};
use crate::states::{Frame, Random, State};

/// How much to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every corner under some thirty masks, and as many random states.
    Full,
    /// A handful of pairs, for a repository.
    Small,
}

/// What the processor does not write stays so.
const FILL: u8 = 0xcc;
/// Random states beside the corners.
const RANDOM_STATES: usize = 8;
/// The first number of the states: a corpus is the same whenever it is taken.
const SEED: u64 = 0x5853_4156_4531;

/// Takes pairs of images of this processor.
///
/// # Errors
/// It has no XSAVEC, or it refused an image that it wrote itself.
pub fn take(processor: &Processor, extent: Extent) -> Result<Corpus, String> {
    if !processor.has_xsavec() || !processor.has_xgetbv1() {
        return Err("this processor has no XSAVEC and XGETBV 1, so there are no pairs".into());
    }
    let frame = Frame {
        xcr0: processor.xcr0(),
        components: processor.components(),
        mxcsr_mask: processor.mxcsr_mask(),
    };
    let mut random = Random(SEED);
    let mut states = frame.corners(&mut random);
    let mut masks = masks(processor.xcr0());
    match extent {
        Extent::Full => states.extend((0..RANDOM_STATES).map(|_| frame.any(&mut random))),
        Extent::Small => {
            states.truncate(6);
            masks = vec![0x5, 0x66, 0x83];
        }
    }
    let mut corpus = Corpus {
        xcr0: processor.xcr0(),
        components: processor.components().to_vec(),
        records: Vec::new(),
    };
    for (number, state) in (0..).zip(&states) {
        for mask in masks.iter().map(|mask| mask & processor.xcr0()) {
            corpus.records.push(pair(processor, number, state, mask)?);
        }
        // All of it is large: once is enough for a repository.
        if extent == Extent::Small && number == 1 {
            let all = pair(processor, number, state, processor.xcr0())?;
            corpus.records.push(all);
        }
    }
    Ok(corpus)
}

/// RFBMs: none, all, each alone, each left out, and pairs that tell SSE's
/// rules from AVX's.
fn masks(xcr0: u64) -> Vec<u64> {
    let mut masks = vec![0, xcr0];
    for bit in (0..63).map(|i| 1 << i).filter(|bit| xcr0 & bit != 0) {
        masks.extend([bit, xcr0 & !bit]);
    }
    let pairs = [
        0x5, 0x22, 0x27, 0x44, 0x61, 0x66, 0x83, 0xa5, 0xc2, 0x6_0001,
    ];
    masks.extend(pairs.iter().map(|mask| mask & xcr0));
    masks.sort_unstable();
    masks.dedup();
    masks
}

/// The buffers of a script.
const LOADED: usize = 0;
const INIT: usize = 1;
const STANDARD: usize = 2;
const COMPACTED: usize = 3;
const FIRST: usize = 4;
const SECOND: usize = 5;

fn pair(processor: &Processor, number: u32, state: &State, rfbm: u64) -> Result<Record, String> {
    let all = processor.xcr0();
    let mut buffers: Vec<Buffer> = (0..6).map(|_| processor.buffer()).collect();
    buffers[LOADED].load(&state.image);
    // An image whose XSTATE_BV is 0 makes everything INIT; its MXCSR is loaded.
    buffers[INIT].bytes_mut()[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    buffers[STANDARD].fill(FILL);
    buffers[COMPACTED].fill(FILL);
    let script = [
        Step::Xrstor(INIT, all),
        Step::Xrstor(LOADED, all),
        Step::Xinuse,
        Step::Xsave(STANDARD, rfbm),
        Step::Xsavec(COMPACTED, rfbm),
        Step::Xrstor(INIT, all),
        Step::Xrstor(STANDARD, rfbm),
        Step::Xsave(FIRST, all),
        Step::Xrstor(INIT, all),
        Step::Xrstor(COMPACTED, rfbm),
        Step::Xsave(SECOND, all),
    ];
    let read = processor
        .play(&mut buffers, &script)
        .map_err(|Refused { step, exception }| {
            format!("state {number}, RFBM {rfbm:#x}: step {step} raised exception {exception}")
        })?;

    let components = processor.components();
    let size = standard_size(components, all);
    let restored = [FIRST, SECOND].map(|buffer| {
        let mut image = buffers[buffer].bytes()[..size].to_vec();
        settle_xstate_bv(&mut image, components);
        image
    });
    let taken = |buffer: usize, size: usize| buffers[buffer].bytes()[..size].to_vec();
    let standard = taken(STANDARD, standard_size(components, rfbm));
    let compacted = taken(COMPACTED, compacted_places(components, rfbm).1);
    let [first, second] = &restored;
    let mxcsrs = [mxcsr(first), mxcsr(second)];
    let flags = flags([first, second], &standard, &compacted);
    Ok(Record {
        state: number,
        loaded_bv: state.xstate_bv,
        rfbm,
        xinuse: read[2],
        loaded_mxcsr: state.mxcsr,
        flags,
        crc: [crc32(first), crc32(second)],
        mxcsr: mxcsrs,
        standard,
        compacted,
    })
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::restored::unexplained;

    /// What is taken here is what the plain account of XRSTOR makes of it.
    #[test]
    fn each_pair_that_is_taken_here_is_explained() {
        let processor = match Processor::here() {
            Ok(processor) if processor.has_xsavec() && processor.has_xgetbv1() => processor,
            Ok(_) => return println!("skipped: this processor has no XSAVEC or no XGETBV 1"),
            Err(why) => return println!("skipped: {why}"),
        };
        let taken = take(&processor, Extent::Full).unwrap();
        let corpus = Corpus::read(&taken.write()).unwrap();
        assert_eq!(corpus, taken);
        assert!(corpus.records.len() > 100);
        for record in &corpus.records {
            let found = unexplained(&corpus, processor.mxcsr_mask(), record);
            assert_eq!(
                found, None,
                "state {} RFBM {:#x}",
                record.state, record.rfbm
            );
        }
    }
}
