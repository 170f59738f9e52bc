//! Executes saves and restores on this processor, in ring 3, with no compiler's register in between.
//!
//! A *script* is a list of XSAVE, XSAVEC, XSAVEOPT, XRSTOR and XGETBV, with
//! changes of memory and of a register in between. It is played by one piece
//! of assembly, which saves the thread's own state first and restores it last:
//! so what a script loads is what it saves. A restore that the processor
//! refuses ends the script; the signal handler tells by RIP that the fault is
//! the script's.
//!
//! The system may take the processor away in the middle. It saves and restores
//! all of the state then, so every register stays, but the processor may track
//! as in use what was INIT before, and no longer knows what is unmodified.
#![allow(unsafe_code)] // XSAVE and XRSTOR by raw pointer, a signal handler, arch_prctl

mod assembly;
mod fault;

use std::arch::asm;

use libc::c_int;

use crate::corpus::Component;
use crate::machine;
use crate::restored::{compacted_places, standard_size};
use assembly::{FLIP, ONES, RawStep, XGETBV1, XRSTOR, XSAVE, XSAVEC, XSAVEOPT};

/// Components that Linux gives only on request.
const AMX: u64 = 0x6_0000;
const TILEDATA: u32 = 18;
const ARCH_REQ_XCOMP_PERM: c_int = 0x1023;

/// This processor, as far as a thread may use it.
#[derive(Clone, Debug)]
pub struct Processor {
    enabled: u64,
    xcr0: u64,
    components: Vec<Component>,
    room_bytes: usize,
    xsavec: bool,
    xsaveopt: bool,
    xgetbv1: bool,
    mxcsr_mask: u32,
    lacks: Vec<String>,
}

impl Processor {
    /// Looks at this processor, asks the system for AMX, and installs the
    /// signal handler.
    ///
    /// # Errors
    /// Why nothing can be tried here.
    pub fn here() -> Result<Self, String> {
        if !machine::has_xsave() {
            return Err("the system has not enabled XSAVE".into());
        }
        let mut lacks = Vec::new();
        let instructions = machine::instructions();
        let enabled = xgetbv(0);
        let mut usable = enabled;
        if enabled & AMX != 0 {
            // SAFETY: arch_prctl with this code reads and writes no memory.
            let refused =
                unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILEDATA) };
            if refused != 0 {
                lacks.push("the system refuses AMX".into());
                usable &= !AMX;
            }
        }
        let mut lack = |bit: u32, name: &str| {
            let there = instructions & 1 << bit != 0;
            if !there {
                lacks.push(format!("no {name}"));
            }
            there
        };
        // Room for all of XCR0, also for what may not be loaded: an image may
        // be laid out for it.
        let all = machine::components(enabled);
        let (_, compacted) = compacted_places(&all, enabled);
        let processor = Self {
            enabled,
            xcr0: usable,
            components: machine::components(usable),
            room_bytes: standard_size(&all, enabled).max(compacted),
            xsaveopt: lack(0, "XSAVEOPT"),
            xsavec: lack(1, "XSAVEC"),
            xgetbv1: lack(2, "XGETBV 1"),
            mxcsr_mask: mxcsr_mask(),
            lacks,
        };
        fault::install_handler()?;
        Ok(processor)
    }

    /// XCR0 as it is.
    pub const fn enabled(&self) -> u64 {
        self.enabled
    }

    /// XCR0 without AMX where the system refuses it: what scripts may load.
    pub const fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// The components of XCR0 above SSE.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Bits of MXCSR that can be set.
    pub const fn mxcsr_mask(&self) -> u32 {
        self.mxcsr_mask
    }

    /// Whether it has XSAVEC and the compacted form.
    pub const fn has_xsavec(&self) -> bool {
        self.xsavec
    }

    /// Whether it has XSAVEOPT.
    pub const fn has_xsaveopt(&self) -> bool {
        self.xsaveopt
    }

    /// Whether it has XGETBV with ECX = 1.
    pub const fn has_xgetbv1(&self) -> bool {
        self.xgetbv1
    }

    /// What it has not, or may not be used.
    pub fn lacks(&self) -> &[String] {
        &self.lacks
    }

    /// A buffer in which any image of this processor has room.
    pub fn buffer(&self) -> Buffer {
        // A processor may read whole lines at the end.
        let lines = self.room_bytes.div_ceil(64) + 1;
        Buffer(vec![Line([0; 64]); lines])
    }

    /// Executes `script` over `buffers`; every restore must leave key 0 of
    /// PKRU open, because the script itself is in such memory. Gives what each
    /// step read (XGETBV; 0 for others).
    ///
    /// # Errors
    /// The step that the processor refused, and by which exception.
    ///
    /// # Panics
    /// A step names a buffer that is not there or is another processor's, or
    /// an instruction that this one lacks.
    pub fn play(&self, buffers: &mut [Buffer], script: &[Step]) -> Result<Vec<u64>, Refused> {
        let room = self.buffer().0.len();
        let mut steps: Vec<RawStep> = script
            .iter()
            .map(|step| {
                let (instruction, buffer, rfbm) = match *step {
                    Step::Xsave(buffer, rfbm) => (XSAVE, buffer, rfbm),
                    Step::Xsavec(buffer, rfbm) => {
                        assert!(self.xsavec, "no XSAVEC here");
                        (XSAVEC, buffer, rfbm)
                    }
                    Step::Xsaveopt(buffer, rfbm) => {
                        assert!(self.xsaveopt, "no XSAVEOPT here");
                        (XSAVEOPT, buffer, rfbm)
                    }
                    Step::Xrstor(buffer, rfbm) => (XRSTOR, buffer, rfbm),
                    Step::Xinuse => {
                        assert!(self.xgetbv1, "no XGETBV 1 here");
                        (XGETBV1, 0, 0)
                    }
                    Step::Flip(buffer, at) => {
                        assert!(at < room * 64, "beyond the buffer");
                        (FLIP, buffer, at as u64)
                    }
                    Step::Ones => (ONES, 0, 0),
                };
                assert_eq!(buffers[buffer].0.len(), room, "buffer of another processor");
                RawStep {
                    instruction,
                    image: buffers[buffer].0.as_mut_ptr().cast(),
                    rfbm,
                    result: 0,
                }
            })
            .collect();
        let mut mine = self.buffer();
        let (list, count) = (steps.as_mut_ptr(), steps.len() as u64);
        // SAFETY: XSAVE is enabled (`here` looked), each instruction of the
        // list is there, and each buffer is aligned to 64 bytes and has room
        // for every image that this XCR0 allows: for others the processor
        // faults before it touches more than the header, and the handler that
        // `here` installed ends the script. `mine` is an image of zeros, of
        // that size. All vector registers may change in a call of this ABI,
        // and what may not (MXCSR's masks, FCW) is restored.
        let done =
            unsafe { assembly::play(list, count, mine.0.as_mut_ptr().cast(), self.xcr0) } as usize;
        match steps.get(done) {
            None => Ok(steps.iter().map(|step| step.result).collect()),
            Some(step) => Err(Refused {
                step: done,
                exception: step.result,
            }),
        }
    }
}

/// A step of a script: an instruction, the number of its buffer, and RFBM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// XSAVE64.
    Xsave(usize, u64),
    /// XSAVEC64.
    Xsavec(usize, u64),
    /// XSAVEOPT64.
    Xsaveopt(usize, u64),
    /// XRSTOR64.
    Xrstor(usize, u64),
    /// XGETBV with ECX = 1.
    Xinuse,
    /// Turns all bits of the byte at this offset of the buffer.
    Flip(usize, usize),
    /// XMM0 becomes all ones.
    Ones,
}

/// The processor refused a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which step.
    pub step: usize,
    /// The exception's vector: 13 for #GP, 14 for #PF, 7 for #NM.
    pub exception: u64,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A 64-byte-aligned buffer for any image of one [`Processor`].
#[derive(Clone)]
pub struct Buffer(Vec<Line>);

impl Buffer {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: a `Line` is 64 initialised bytes without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 64) }
    }

    /// Its bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: a `Line` is 64 initialised bytes without padding.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 64) }
    }

    /// Fills it with `byte`, the header with zeros.
    pub fn fill(&mut self, byte: u8) {
        self.bytes_mut().fill(byte);
        self.bytes_mut()[512..576].fill(0);
    }

    /// Puts `image` at its start.
    ///
    /// # Panics
    /// `image` is longer.
    pub fn load(&mut self, image: &[u8]) {
        self.bytes_mut()[..image.len()].copy_from_slice(image);
    }
}

fn xgetbv(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller has seen OSXSAVE; no memory is touched.
    unsafe {
        asm!("xgetbv", in("ecx") register, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// MXCSR_MASK as FXSAVE stores it; 0 there means FFBF.
fn mxcsr_mask() -> u32 {
    let mut image = [Line([0; 64]); 8];
    // SAFETY: every x86-64 processor has FXSAVE; it writes 512 aligned bytes.
    unsafe {
        asm!("fxsave64 [{}]", in(reg) image.as_mut_ptr(), options(nostack, preserves_flags));
    }
    match u32::from_le_bytes([
        image[0].0[28],
        image[0].0[29],
        image[0].0[30],
        image[0].0[31],
    ]) {
        0 => 0xffbf,
        mask => mask,
    }
}
