//! AMD's SVM with nested paging (APM Vol. 2, chapter 15).
#![allow(unsafe_code)] // VMRUN, and the permission maps' pages

mod cpu;
mod exit;
mod permissions;
mod state;
mod vmcb;

use crate::mm::addr::HostPhys;
use crate::virt::event::vector;
use crate::virt::{
    Backend, Event, Exit, Gprs, OutOfMemory, PortAccess, Register, SegmentName, gpr,
};
use alloc::boxed::Box;
use alloc::vec::Vec;
use migration_abi::registers::{Segment, VcpuRegisters};
use vmcb::{IntCtl, InterceptsHigh, InterceptsLow, Vmcb};

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("enter.S"));

#[cfg(target_os = "none")]
unsafe extern "C" {
    /// See `enter.S`.
    fn svm_enter(guest_vmcb: u64, gprs: *mut Gprs, host_vmcb: u64);
}

/// EFER.SVME, which VMRUN wants set in the guest's EFER; no guest sees it.
pub const EFER_SVME: u64 = 1 << 12;

/// TLB_CONTROL: flush everything (every SVM processor knows it).
const TLB_FLUSH_ALL: u32 = 1;

/// Exceptions that are intercepted: #DB and #AC, because a guest that makes
/// their delivery raise them again would never come back (CVE-2015-8104,
/// CVE-2015-5307); #UD, because the other vendor's VMCALL raises it; #MC, because
/// it is the machine's and not the guest's.
const EXCEPTIONS: u32 = 1 << 1 | 1 << 6 | 1 << 17 | 1 << 18;

/// CR0 and CR4 writes: their verdicts depend on the policy.
const CR_WRITES: u16 = 1 << 0 | 1 << 4;

/// A vCPU's VMCB.
pub struct SvmVcpu {
    vmcb: Box<Vmcb>,
    /// The translations of this ASID are stale.
    flush: bool,
    asid: cpu::Asid,
}

impl Backend for SvmVcpu {
    type Cpu = cpu::SvmCpu;
    type Unusable = cpu::SvmError;

    fn enable(number: u32) -> Result<cpu::SvmCpu, cpu::SvmError> {
        cpu::enable(number)
    }

    fn new(nested_root: HostPhys, ports: PortAccess) -> Result<Self, OutOfMemory> {
        let permissions = permissions::permissions(ports);
        let mut vmcb = zeroed_vmcb()?;
        let control = &mut vmcb.control;
        control.cr_write = CR_WRITES;
        control.exceptions = EXCEPTIONS;
        control.intercepts = InterceptsLow::INTR
            | InterceptsLow::NMI
            | InterceptsLow::SMI
            | InterceptsLow::INIT
            | InterceptsLow::RDPMC
            | InterceptsLow::CPUID
            | InterceptsLow::RSM
            | InterceptsLow::INVD
            | InterceptsLow::HLT
            | InterceptsLow::INVLPGA
            | InterceptsLow::IOIO
            | InterceptsLow::MSR
            | InterceptsLow::TASK_SWITCH
            | InterceptsLow::FERR_FREEZE
            | InterceptsLow::SHUTDOWN;
        control.intercepts_high = InterceptsHigh::all();
        control.iopm_base = permissions.io.as_u64();
        control.msrpm_base = permissions.msr.as_u64();
        control.int_ctl = IntCtl::V_INTR_MASKING.bits();
        control.nested_control = 1;
        control.nested_cr3 = nested_root.as_u64();
        let mut vcpu = Self {
            vmcb,
            flush: true,
            asid: cpu::Asid::NONE,
        };
        vcpu.vmcb.save.efer = EFER_SVME;
        Ok(vcpu)
    }

    fn enter(&mut self, cpu: &mut cpu::SvmCpu, gprs: &mut Gprs) -> (Exit, Option<Event>) {
        let (asid, stale) = cpu.asid(&mut self.asid);
        let control = &mut self.vmcb.control;
        control.asid = asid;
        control.tlb_control = if self.flush || stale {
            TLB_FLUSH_ALL
        } else {
            0
        };
        control.clean = 0;
        self.flush = false;
        self.vmcb.save.rax = gprs.0[gpr::RAX];
        self.vmcb.save.rsp = gprs.0[gpr::RSP];
        #[cfg(target_os = "none")]
        {
            let vmcb = HostPhys::of(&raw const *self.vmcb);
            let host = cpu.host_state();
            // SAFETY: the VMCB is page-aligned and identity-mapped, its
            // intercepts and nested tables (set up in `new`, kept alive by the
            // domain) confine the guest; `host` holds this CPU's VMSAVE state;
            // SVM is enabled on every CPU that runs vCPUs; interrupts are off.
            unsafe { svm_enter(vmcb.as_u64(), gprs, host.as_u64()) };
        }
        gprs.0[gpr::RAX] = self.vmcb.save.rax;
        gprs.0[gpr::RSP] = self.vmcb.save.rsp;
        let control = &mut self.vmcb.control;
        control.event_injection = 0;
        (
            exit::decode(control),
            exit::interrupted(control.exit_int_info),
        )
    }

    fn read(&self, register: Register) -> u64 {
        let save = &self.vmcb.save;
        match register {
            Register::Rip => save.rip,
            Register::Rflags => save.rflags,
            Register::Cr0 => save.cr0,
            Register::Cr2 => save.cr2,
            Register::Cr3 => save.cr3,
            Register::Cr4 => save.cr4,
            Register::Cr8 => self.vmcb.control.int_ctl & IntCtl::V_TPR.bits() & 0xf,
            Register::Efer => save.efer & !EFER_SVME,
            Register::Dr6 => save.dr6,
            Register::Dr7 => save.dr7,
            Register::Pat => save.guest_pat,
            Register::Star => save.star,
            Register::Lstar => save.lstar,
            Register::Cstar => save.cstar,
            Register::Sfmask => save.sfmask,
            Register::KernelGsBase => save.kernel_gs_base,
            Register::SysenterCs => save.sysenter_cs,
            Register::SysenterEsp => save.sysenter_esp,
            Register::SysenterEip => save.sysenter_eip,
        }
    }

    fn write(&mut self, register: Register, value: u64) {
        let save = &mut self.vmcb.save;
        match register {
            Register::Rip => save.rip = value,
            Register::Rflags => save.rflags = value,
            Register::Cr0 => {
                save.cr0 = value;
                self.flush = true;
            }
            Register::Cr2 => save.cr2 = value,
            Register::Cr3 => {
                save.cr3 = value;
                self.flush = true;
            }
            Register::Cr4 => {
                save.cr4 = value;
                self.flush = true;
            }
            Register::Cr8 => {
                let int_ctl = &mut self.vmcb.control.int_ctl;
                *int_ctl = (*int_ctl & !IntCtl::V_TPR.bits()) | (value & 0xf);
            }
            Register::Efer => {
                save.efer = value | EFER_SVME;
                self.flush = true;
            }
            Register::Dr6 => save.dr6 = value,
            Register::Dr7 => save.dr7 = value,
            Register::Pat => {
                save.guest_pat = value;
                self.flush = true;
            }
            Register::Star => save.star = value,
            Register::Lstar => save.lstar = value,
            Register::Cstar => save.cstar = value,
            Register::Sfmask => save.sfmask = value,
            Register::KernelGsBase => save.kernel_gs_base = value,
            Register::SysenterCs => save.sysenter_cs = value,
            Register::SysenterEsp => save.sysenter_esp = value,
            Register::SysenterEip => save.sysenter_eip = value,
        }
    }

    fn segment(&self, segment: SegmentName) -> Segment {
        let save = &self.vmcb.save;
        state::neutral(match segment {
            SegmentName::Es => save.es,
            SegmentName::Cs => save.cs,
            SegmentName::Ss => save.ss,
            SegmentName::Ds => save.ds,
            SegmentName::Fs => save.fs,
            SegmentName::Gs => save.gs,
        })
    }

    fn set_segment_base(&mut self, segment: SegmentName, base: u64) {
        let save = &mut self.vmcb.save;
        match segment {
            SegmentName::Es => save.es.base = base,
            SegmentName::Cs => save.cs.base = base,
            SegmentName::Ss => save.ss.base = base,
            SegmentName::Ds => save.ds.base = base,
            SegmentName::Fs => save.fs.base = base,
            SegmentName::Gs => save.gs.base = base,
        }
    }

    fn cpl(&self) -> u8 {
        self.vmcb.save.cpl & 3
    }

    fn interrupt_shadow(&self) -> bool {
        self.vmcb.control.interrupt_shadow & 1 != 0
    }

    fn clear_interrupt_shadow(&mut self) {
        self.vmcb.control.interrupt_shadow &= !1;
    }

    fn inject(&mut self, event: Event) {
        self.vmcb.control.event_injection = exit::injection(event);
    }

    fn set_interrupt_window(&mut self, on: bool) {
        let control = &mut self.vmcb.control;
        control.intercepts.set(InterceptsLow::VINTR, on);
        // A virtual interrupt that is never taken: its intercept tells when it
        // could have been. Priority 15, and the TPR does not hold it back.
        let wanted = (IntCtl::V_IRQ | IntCtl::V_INTR_PRIO | IntCtl::V_IGN_TPR).bits();
        if on {
            control.int_ctl |= wanted;
        } else {
            control.int_ctl &= !wanted;
        }
    }

    fn intercept_device_not_available(&mut self) {
        self.vmcb.control.exceptions |= 1 << vector::NM;
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcb.control.tsc_offset = offset;
    }

    fn export(&self, record: &mut VcpuRegisters) {
        state::export(&self.vmcb, record);
    }

    fn import(&mut self, record: &VcpuRegisters) {
        state::import(&mut self.vmcb, record);
        self.flush = true;
    }
}

/// A VMCB on the heap; the allocation may fail, so no `Box::new`.
fn zeroed_vmcb() -> Result<Box<Vmcb>, OutOfMemory> {
    let mut pages: Vec<Vmcb> = Vec::new();
    pages.try_reserve_exact(1).map_err(|_| OutOfMemory)?;
    // SAFETY: every field of a Vmcb is an integer, for which zero is a value.
    pages.push(unsafe { core::mem::zeroed() });
    let page: Box<[Vmcb; 1]> = pages
        .into_boxed_slice()
        .try_into()
        .map_err(|_| OutOfMemory)?;
    let page = Box::into_raw(page).cast::<Vmcb>();
    // SAFETY: a [Vmcb; 1] has the layout of a Vmcb, and the box was given up.
    Ok(unsafe { Box::from_raw(page) })
}
