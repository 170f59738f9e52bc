//! The test itself: fill, stay, check, save, INIT; and on to the next.
#![allow(unsafe_code)] // executes XSAVE and XRSTOR

use crate::check::{self, Pointers};
use crate::direct;
use crate::image::{ALL, Image};
use crate::machine::Machine;
use crate::options::Options;
use crate::pattern::{self, Fill};
use crate::registers::{Component, ComponentSet, Registers};
use crate::time::{self, Timekeeper};
use crate::verdict::{Failure, Verdict};
use crate::{probe, spin, system};
use guest_rt::println;

/// Guest time between two reports.
const REPORT_NS: u64 = 250_000_000;
/// The pattern in which `break=` flips a bit. An even one comes by way of an
/// image, so that all components can be anything.
const BREAK_AT: u64 = 4;

/// Components that the general checks of the extended state cover.
const STATE: ComponentSet = ALL
    & !(Component::Gpr.bit()
        | Component::Debug.bit()
        | Component::System.bit()
        | Component::Control.bit());

/// Large things, allocated once.
pub struct Memory {
    expected: Registers,
    seen: Registers,
    image: Image,
}

impl Memory {
    /// All zero.
    pub const NEW: Self = Self {
        expected: Registers::ZERO,
        seen: Registers::ZERO,
        image: Image::ZERO,
    };
}

/// One run of the guest.
pub struct Run<'a> {
    options: Options,
    machine: Machine,
    memory: &'a mut Memory,
    verdict: Verdict,
    count: u64,
    hash: u64,
    control: [u64; 6],
}

impl<'a> Run<'a> {
    /// Finds out what the machine has and says so.
    pub fn new(options: Options, mut machine: Machine, memory: &'a mut Memory) -> Self {
        // SAFETY: CR4.OSFXSR was set when the machine was enabled.
        unsafe { memory.image.fxsave() };
        machine.mxcsr_mask = memory.image.mxcsr_mask();
        machine.keeps_pointers = probe::keeps_pointers(&machine, &mut memory.image);
        if !options.system {
            machine.components &= !(Component::Debug.bit() | Component::System.bit());
        }
        println!(
            "torture seed={} start xcr0={:#x} image_bytes={} mxcsr_mask={:#x} xsave={}",
            options.seed,
            machine.xcr0,
            machine.image_bytes,
            machine.mxcsr_mask,
            u8::from(machine.xsave())
        );
        probe::note_pointers(machine.keeps_pointers);
        if machine.unknown() != 0 {
            println!(
                "torture note: no pattern for components {:#x}",
                machine.unknown()
            );
        }
        if let Some(component) = options.broken {
            // Control registers are not filled, so they are not broken either.
            let there = machine.has(component) && component != Component::Control;
            let verb = if there { "will break" } else { "cannot break" };
            println!("torture note: {verb} {}", component.name());
        }
        system::store_control(&mut memory.seen, &machine);
        Self {
            options,
            control: memory.seen.control,
            machine,
            memory,
            verdict: Verdict::default(),
            count: 0,
            hash: options.seed,
        }
    }

    /// Runs until as many patterns were checked as the options say.
    pub fn run(&mut self) -> bool {
        if !Image::fits(&self.machine) {
            panic!("an image takes {} bytes", self.machine.image_bytes);
        }
        let mut timekeeper = Timekeeper::start(self.options.seed, &mut self.verdict);
        let mut report_at = time::now().saturating_add(REPORT_NS);
        self.become_init();
        while self.options.stop != Some(self.count) {
            self.count += 1;
            self.pattern();
            timekeeper.check(self.count, &mut self.verdict);
            let now = time::now();
            if now >= report_at || self.options.stop == Some(self.count) {
                self.report(now);
                report_at = now.saturating_add(REPORT_NS);
            }
        }
        self.verdict.failures() == 0
    }

    fn report(&self, now: u64) {
        println!(
            "torture seed={} {} count={} hash={:016x} clock_ns={now} ticks={}",
            self.options.seed,
            self.verdict.word(),
            self.count,
            self.hash,
            time::ticks()
        );
    }

    /// One pattern's life. No step loads a register before it was checked.
    fn pattern(&mut self) {
        let fill = if self.count.is_multiple_of(2) {
            Fill::Image
        } else {
            Fill::Direct
        };

        // 1. Into the registers, and out of memory.
        self.expect(fill);
        self.fill(fill);
        let mut gpr = self.memory.expected.gpr;
        self.memory.expected.clear();
        self.memory.seen.clear();
        self.memory.image.clear();

        // 2. The registers hold the only copy, for 2 to 20 ms.
        let broken = self.options.broken.filter(|_| self.count == BREAK_AT);
        let flip = u64::from(broken == Some(Component::Gpr)) << 17;
        spin::spin(
            &mut gpr,
            time::tsc_in(pattern::stay_ns(self.options.seed, self.count)),
            flip,
        );
        if let Some(component) = broken {
            probe::flip(component, &self.machine, &mut self.memory.image);
        }

        // 3. The registers themselves, against a pattern computed anew.
        let Memory { seen, image, .. } = &mut *self.memory;
        direct::store(seen, &self.machine, image);
        if self.options.system {
            system::store(seen, &self.machine);
        }
        system::store_control(seen, &self.machine);
        seen.gpr = gpr;
        self.expect(fill);
        let mut pointers = self.compare(ALL, "register");
        self.hash = check::chain(self.hash, &self.memory.seen, &self.machine);

        // 4. The guest's own XSAVE, by its own leaf 0xD.
        let in_image = self.own_save();
        for (all, image) in pointers.iter_mut().zip(in_image) {
            *all |= image;
        }

        // 5. The full tag word, which only FNSAVE gives, at the price of INIT.
        if self.count.is_multiple_of(4) {
            self.tag_word();
        }

        // 6. INIT, by an image of nothing.
        self.become_init();
        self.settle(pointers);
        self.cpuid();
    }

    /// Computes the pattern.
    fn expect(&mut self, fill: Fill) {
        let expected = &mut self.memory.expected;
        pattern::write(expected, self.options.seed, self.count, fill, &self.machine);
        expected.control = self.control;
    }

    fn fill(&mut self, fill: Fill) {
        let Memory {
            expected, image, ..
        } = &mut *self.memory;
        match fill {
            Fill::Direct => direct::load(expected, &self.machine, image),
            Fill::Image => {
                image.encode(expected, &self.machine, ALL);
                // SAFETY: patterns are legal values.
                unsafe { image.restore(&self.machine, ALL) };
                // Without XSAVE, PKRU is in no image.
                if !self.machine.xsave() {
                    direct::load_pkru(expected, &self.machine);
                }
            }
        }
        if self.options.system {
            system::load(expected, &self.machine);
        }
    }

    fn compare(&mut self, which: ComponentSet, via: &str) -> Pointers {
        let Memory { expected, seen, .. } = &*self.memory;
        check::compare(
            expected,
            seen,
            which,
            &self.machine,
            &mut self.verdict,
            (self.count, via),
        )
    }

    /// Saves all components with the guest's own XSAVE, and compares what is in
    /// the image with the pattern.
    fn own_save(&mut self) -> Pointers {
        let Memory { seen, image, .. } = &mut *self.memory;
        seen.clear();
        image.clear();
        // SAFETY: the machine is enabled.
        unsafe { image.save(&self.machine, ALL) };
        image.decode(seen, &self.machine, ALL);
        let untouched = image.untouched(&self.machine);
        if !untouched {
            self.fail("xsave", "header_or_tail", 0, 1);
        }
        self.compare(self.in_images(), "xsave")
    }

    /// Components that the machine's images have.
    fn in_images(&self) -> ComponentSet {
        let has = |c: &Component| self.machine.image_base(*c).is_some();
        Component::ALL
            .into_iter()
            .filter(has)
            .fold(0, |set, c| set | c.bit())
    }

    fn tag_word(&mut self) {
        let expected = direct::full_tag_word(&self.memory.expected);
        let seen = direct::take_tag_word();
        if expected != seen {
            self.fail("x87", "full_tag_word", expected.into(), seen.into());
        }
    }

    /// Makes all of the extended state INIT and checks that it is.
    fn become_init(&mut self) {
        let Memory {
            expected,
            seen,
            image,
        } = &mut *self.memory;
        image.set_init(&self.machine);
        // SAFETY: an image of nothing is legal.
        unsafe { image.restore(&self.machine, ALL) };
        expected.set_init();
        if !self.machine.xsave() {
            direct::load_pkru(expected, &self.machine);
        }
        seen.clear();
        direct::store(seen, &self.machine, image);
        // INIT values of pointers are zero: what loses them shows that too.
        let _ = self.compare(STATE, "init");
    }

    /// Pointers that differed: the machine may have changed under the guest to
    /// one that does not keep them. If not, somebody lost them.
    fn settle(&mut self, differed: Pointers) {
        if differed == [false; 3] {
            return;
        }
        let keeps = probe::keeps_pointers(&self.machine, &mut self.memory.image);
        let names = ["fop", "fip", "fdp"];
        let differed = differed.into_iter().zip(keeps).zip(names);
        for ((differs, kept), name) in differed {
            if differs && kept {
                self.fail("x87", name, 1, 0);
            }
        }
        if keeps != self.machine.keeps_pointers {
            self.machine.keeps_pointers = keeps;
            probe::note_pointers(keeps);
        }
        self.become_init();
    }

    /// CPUID must say what it said at start: its layout is in the guest's
    /// memory.
    fn cpuid(&mut self) {
        let Self {
            machine,
            verdict,
            count,
            options,
            ..
        } = self;
        for change in machine.cpuid_changes(options.cpuid_follows_policy) {
            let (leaf, subleaf) = change.leaf;
            let name = ["eax", "ebx", "ecx", "edx"]
                .get(change.register)
                .unwrap_or(&"?");
            verdict.fail(&Failure {
                component: "cpuid",
                register: &format_args!("{leaf:#x}.{subleaf:#x}.{name}"),
                byte: 0,
                expected: change.was.into(),
                seen: change.is.into(),
                count: *count,
                via: "cpuid",
            });
        }
    }

    fn fail(&mut self, component: &str, register: &str, expected: u64, seen: u64) {
        self.verdict.fail(&Failure {
            component,
            register: &register,
            byte: 0,
            expected,
            seen,
            count: self.count,
            via: "register",
        });
    }
}
