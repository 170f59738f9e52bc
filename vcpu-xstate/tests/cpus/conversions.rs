//! For every subset of components in use: saved by an instruction, converted there and back, restored to the same registers.
//!
//! The processor is the model, the conversions are the library's: standard to
//! compacted to compacted under another XCOMP_BV to standard, the result of
//! each restored into registers full of something else.

use vcpu_xstate::convert::{Target, canonicalise, transfer, transfer_whole};
use vcpu_xstate::layout::{Form, Geometry};
use vcpu_xstate::model::{Cpu, Fault, InitTracking, Machine, Reason, Registers};
use vcpu_xstate::{ComponentIndex, ComponentSet, Image};

use super::layouts::{extended, subset};
use super::table::Dump;

type Save = fn(&mut Cpu, u64, &mut [u8], u64) -> Result<(), Fault>;

/// One machine with two processors: what one saves, the other restores.
pub struct Bench<'a> {
    name: &'a str,
    geometry: &'a Geometry,
    from: Cpu,
    to: Cpu,
    /// Every component in use, and every one in use otherwise.
    full: Registers,
    dirty: Registers,
    user: u64,
    supervisor: u64,
    /// The machine's saves, and whether each writes the compacted form.
    saves: Vec<(Save, bool)>,
    leaks_fp_pointers: bool,
    random: u64,
}

impl<'a> Bench<'a> {
    pub fn new(
        name: &'a str,
        dump: &Dump,
        geometry: &'a Geometry,
        leaks_fp_pointers: bool,
    ) -> Self {
        let machine = Machine::read(&|leaf, subleaf| dump.cpuid(leaf, subleaf), 0xffff);
        let mut from = Cpu::new(machine.clone(), InitTracking::ByContent);
        let user = largest_xcr0(&mut from);
        let supervisor = machine.supervisor();
        if supervisor != 0 {
            from.wrmsr(0xda0, supervisor).expect("what CPUID lists");
        }
        let to = from.clone();
        let patterns = |seed| {
            let mut registers = Registers::init(&machine);
            for component in ComponentSet::from_bits_retain(user | supervisor) {
                registers.set_pattern(&machine, component, seed);
            }
            registers
        };
        let has = dump.cpuid(0xd, 1).eax;
        let saves: [(Save, bool, bool); 4] = [
            (Cpu::xsave, false, true),
            (Cpu::xsaveopt, false, has & 1 != 0),
            (Cpu::xsavec, true, has & 2 != 0),
            (Cpu::xsaves, true, has & 8 != 0),
        ];
        Self {
            name,
            geometry,
            full: patterns(0x15),
            dirty: patterns(0x3e),
            from,
            to,
            user,
            supervisor,
            saves: saves
                .into_iter()
                .filter(|(.., has)| *has)
                .map(|(save, compacted, _)| (save, compacted))
                .collect(),
            leaks_fp_pointers,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Every subset; how many.
    pub fn every_subset(&mut self) -> usize {
        let all = extended(self.user | self.supervisor);
        let mut count = 0;
        for index in 0..1 << all.len() {
            // x87, XMM and MXCSR: all eight where that is little, else in turn.
            let legacy = if all.len() <= 8 {
                0..8
            } else {
                index % 8..index % 8 + 1
            };
            for legacy in legacy {
                self.one(
                    subset(&all, index) | legacy as u64 & 3,
                    legacy & 4 != 0,
                    count,
                );
                count += 1;
            }
        }
        count
    }

    /// There and back with these components in use.
    fn one(&mut self, in_use: u64, mxcsr: bool, turn: usize) {
        let what = format!("{}: {:#x}, turn {turn}", self.name, in_use);
        self.fill(in_use, mxcsr);
        let supervisor = in_use & self.supervisor != 0;
        let (save, compacted) = if supervisor {
            self.saves[self.saves.len() - 1]
        } else {
            self.saves[turn % self.saves.len()]
        };
        let mut rfbm = self.superset(in_use | if mxcsr { 2 } else { 0 });
        if !compacted && rfbm & 6 == 0 {
            // XRSTOR of everything takes MXCSR from any standard image.
            rfbm |= 2;
        }
        let machine = self.from.machine();
        let len = if compacted {
            machine.compacted_bytes(rfbm)
        } else {
            machine.standard_bytes(rfbm)
        };
        // Memory held something before, and there is not a byte more.
        let mut image = vec![0xcc; len as usize];
        image[512..576].fill(0);
        save(&mut self.from, 0x4000, &mut image, rfbm).unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut form = form_of(compacted);
        self.restore(&image, &what);
        let canonical = self.canonical(&image, form, &what);
        self.restore(&canonical, &what);

        let (one, other) = (self.superset(in_use), self.superset(in_use));
        let targets = if supervisor {
            [
                (Form::Compacted, one),
                (Form::Compacted, other),
                (Form::Compacted, one & other),
            ]
        } else {
            // A standard image has no supervisor components.
            let (one, other) = (one & self.user, other & self.user);
            [
                (Form::Standard, one),
                (Form::Compacted, other),
                (Form::Standard, self.user),
            ]
        };
        let compacting = self.saves.iter().any(|(_, compacted)| *compacted);
        for (to, layout) in targets {
            let target = Target {
                geometry: self.geometry,
                form: to,
                layout: ComponentSet::from_bits_retain(layout),
            };
            let mut out = vec![0xee; target.size_bytes()];
            let from = Image::new(&image, self.geometry, form).expect(&what);
            let convert = if turn & 1 == 0 {
                transfer
            } else {
                transfer_whole
            };
            convert(&from, ComponentSet::ALL, target, &mut out).expect(&what);
            (image, form) = (out, to);
            if to == Form::Standard || compacting {
                self.restore(&image, &what);
            }
            let again = self.canonical(&image, form, &what);
            assert!(
                again == canonical,
                "{what}: another canonical image of {form:?}"
            );
        }
    }

    /// Registers with exactly these components in use.
    fn fill(&mut self, in_use: u64, mxcsr: bool) {
        let registers = self.from.registers_mut();
        registers.mxcsr = if mxcsr { 0x1fa5 } else { 0x1f80 };
        for component in ComponentSet::from_bits_retain(self.user | self.supervisor) {
            if in_use & component.bit() == 0 {
                registers.set_init(component);
                continue;
            }
            match component {
                ComponentIndex::X87 => registers.x87 = self.full.x87,
                ComponentIndex::SSE => registers.xmm = self.full.xmm,
                _ => registers
                    .component_mut(component)
                    .copy_from_slice(self.full.component(component)),
            }
        }
    }

    /// A mask with `mask` and others of the machine in it.
    fn superset(&mut self, mask: u64) -> u64 {
        // Xorshift; by turns few and many.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        mask | self.random & (self.user | self.supervisor)
    }

    fn canonical(&self, image: &[u8], form: Form, what: &str) -> Vec<u8> {
        let image = Image::new(image, self.geometry, form).expect(what);
        let mut out = vec![0xee; 16 << 10];
        let written = canonicalise(&image, ComponentSet::EMPTY, &mut out);
        out.truncate(written.expect(what).len_bytes);
        out
    }

    /// Restores into registers that are full of something else, and finds the
    /// first processor's.
    fn restore(&mut self, image: &[u8], what: &str) {
        let registers = self.to.registers_mut();
        registers.clone_from(&self.dirty);
        if self.leaks_fp_pointers {
            // What a host does before a restore on such machines (XSA-52).
            (registers.x87.fop, registers.x87.fip, registers.x87.fdp) = (0, 0, 0);
        }
        let compacted = image[527] & 0x80 != 0;
        let restored = if compacted && self.supervisor != 0 {
            self.to.xrstors(0x8000, image, u64::MAX)
        } else if compacted && self.saves.iter().all(|(_, compacted)| !compacted) {
            // The canonical image of a machine without the compacted form goes
            // elsewhere.
            return;
        } else {
            // XRSTOR leaves supervisor components alone: make them INIT.
            let registers = self.to.registers_mut();
            for component in ComponentSet::from_bits_retain(self.supervisor) {
                registers.set_init(component);
            }
            self.to.xrstor(0x8000, image, u64::MAX)
        };
        restored.unwrap_or_else(|fault| panic!("{what}: {fault}"));
        let differ = self
            .to
            .registers()
            .differences(self.from.registers(), u64::MAX);
        let differ = ComponentSet::from_bits_retain(differ);
        assert!(differ.is_empty(), "{what}: {differ} not as it was");
    }
}

const fn form_of(compacted: bool) -> Form {
    if compacted {
        Form::Compacted
    } else {
        Form::Standard
    }
}

/// The largest XCR0 that the machine takes: groups that its CPUID lists or
/// describes in part go, as its faults say.
fn largest_xcr0(cpu: &mut Cpu) -> u64 {
    let mut value = cpu.machine().user();
    loop {
        let Err(fault) = cpu.xsetbv(0, value) else {
            return value;
        };
        value &= !match fault.reason {
            Reason::Xcr0AvxWithoutSse(_) => 0x4,
            Reason::Xcr0Mpx(_) | Reason::Xcr0ApxWithMpx(_) => 0x18,
            Reason::Xcr0Avx512(_) => 0xe0,
            Reason::Xcr0Amx(_) => 0x6_0000,
            reason => panic!("XSETBV of {value:#x}: {reason:?}"),
        };
    }
}
