//! This processor with everything that is compared with it.

use std::arch::x86_64::__cpuid_count;
use std::collections::BTreeMap;

use vcpu_xstate::cpuid::CpuidResult;
use vcpu_xstate::layout::{Form, Geometry};
use vcpu_xstate::model::{Cpu, InitTracking, Machine};
use vcpu_xstate::{Claims, ComponentSet, HostXstate, XstatePolicy};
use xstate_capture::player::{Buffer, Processor, Refused, Step};
use xstate_capture::restored::settle_xstate_bv;
use xstate_capture::states::Frame;

/// What was tried.
#[derive(Debug, Default)]
pub struct Tally {
    /// Register states that were loaded.
    pub states: usize,
    /// RFBMs.
    pub masks: usize,
    /// Images that were compared, byte for byte.
    pub images: usize,
    /// Images that the processor and this crate refused.
    pub refused: usize,
    /// What else was seen, and how often.
    pub notes: BTreeMap<String, usize>,
    /// What could not be tried.
    pub skipped: Vec<String>,
}

impl Tally {
    /// Counts something worth a line.
    pub fn note(&mut self, what: impl Into<String>) {
        *self.notes.entry(what.into()).or_default() += 1;
    }
}

/// This processor, as this crate, the model and the player see it.
pub struct Bench {
    /// It.
    pub processor: Processor,
    /// What this crate reads from its CPUID.
    pub host: HostXstate,
    /// All that the system has enabled and this crate offers.
    pub policy: XstatePolicy,
    /// What the model reads from its CPUID.
    pub machine: Machine,
}

impl Bench {
    /// Looks at the processor.
    pub fn here() -> Result<Self, String> {
        let processor = Processor::here()?;
        if !processor.has_xsavec() {
            return Err("no compacted form, so nothing to compare with".into());
        }
        let cpuid = |leaf, subleaf| CpuidResult::from(__cpuid_count(leaf, subleaf));
        let host = HostXstate::read(&cpuid, processor.mxcsr_mask()).map_err(|e| e.to_string())?;
        let usable = ComponentSet::from_bits_retain(processor.xcr0());
        let policy = XstatePolicy::new(usable.intersection(host.user()), ComponentSet::EMPTY);
        Ok(Self {
            machine: Machine::read(&cpuid, processor.mxcsr_mask()),
            processor,
            host,
            policy,
        })
    }

    /// What cannot be tried here.
    pub fn lacks(&self) -> Vec<String> {
        let mut lacks = self.processor.lacks().to_vec();
        if self.xcr0() & 1 << 9 == 0 {
            lacks.push("no PKRU in XCR0".into());
        }
        lacks.push("XSAVES and XRSTORS need ring 0".into());
        lacks
    }

    /// The components that can be moved here.
    pub fn xcr0(&self) -> u64 {
        self.processor.xcr0()
    }

    /// The layout as this crate has it.
    pub fn geometry(&self) -> &Geometry {
        self.host.geometry()
    }

    /// What register states are made for.
    pub fn frame(&self) -> Frame<'_> {
        Frame {
            xcr0: self.xcr0(),
            components: self.processor.components(),
            mxcsr_mask: self.processor.mxcsr_mask(),
        }
    }

    /// Every RFBM that there is, ascending.
    pub fn masks(&self) -> Vec<u64> {
        let xcr0 = self.xcr0();
        // The subsets of a mask, each from the one before.
        std::iter::successors(Some(0u64), |mask| {
            let next = mask.wrapping_sub(xcr0) & xcr0;
            (next != 0).then_some(next)
        })
        .collect()
    }

    /// Bytes of an image.
    pub fn size(&self, form: Form, mask: u64) -> usize {
        self.geometry()
            .image_size(form, ComponentSet::from_bits_retain(mask))
    }

    /// An image that makes everything INIT.
    pub fn init(&self) -> Buffer {
        let mut init = self.processor.buffer();
        init.bytes_mut()[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        init
    }

    /// All registers after INIT and XRSTOR of `image`, as XSAVE writes them,
    /// XSTATE_BV by content.
    pub fn restored(&self, image: &[u8], rfbm: u64) -> Result<Vec<u8>, Refused> {
        let all = self.xcr0();
        let mut buffers = [
            self.init(),
            self.processor.buffer(),
            self.processor.buffer(),
        ];
        buffers[1].load(image);
        let script = [
            Step::Xrstor(0, all),
            Step::Xrstor(1, rfbm),
            Step::Xsave(2, all),
        ];
        self.processor.play(&mut buffers, &script)?;
        let mut registers = buffers[2].bytes()[..self.size(Form::Standard, all)].to_vec();
        settle_xstate_bv(&mut registers, self.processor.components());
        Ok(registers)
    }

    /// The CPU in software, with the XCR0 of this one, at its privilege.
    pub fn model(&self) -> Cpu {
        let mut cpu = Cpu::new(self.machine.clone(), InitTracking::AsRestored);
        cpu.xsetbv(0, self.processor.enabled())
            .expect("the system's own XCR0");
        cpu.mode.cpl = 3;
        cpu
    }

    /// What comes with a compacted image of this machine.
    pub fn claims(&self, xcomp_bv: u64) -> Claims {
        let mask = self.policy.mask.bits();
        Claims {
            xstate_mask: mask,
            xcr0: mask,
            xss: 0,
            xfd: 0,
            xfd_err: 0,
            accum: mask,
            xcomp_bv,
            xsave: true,
        }
    }
}
