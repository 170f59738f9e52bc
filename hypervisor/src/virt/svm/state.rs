//! The VMCB's registers to and from the neutral register record.

use super::EFER_SVME;
use super::vmcb::{IntCtl, Vmcb, VmcbSegment};
use migration_abi::registers::{
    DescriptorTable, SHADOW_NONE, SHADOW_STI, Segment, VcpuRegisters, attributes,
};

/// A segment in the record's form: AVL, L, D/B and G move from bits 8–11 to
/// 12–15, and a segment that is not present is unusable, as VMX would say.
pub fn neutral(segment: VmcbSegment) -> Segment {
    let packed = u32::from(segment.attributes);
    let mut access = (packed & 0xff) | (packed & 0xf00) << 4;
    if access & attributes::PRESENT == 0 {
        access |= attributes::UNUSABLE;
    }
    Segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        attributes: access,
        ..Segment::ZERO
    }
}

/// The same backwards. VMX keeps P set where it says unusable, SVM knows only P.
fn packed(segment: &Segment) -> VmcbSegment {
    let access = segment.attributes;
    let mut packed = (access & 0xff) | (access >> 4 & 0xf00);
    if access & attributes::UNUSABLE != 0 {
        packed &= !attributes::PRESENT;
    }
    VmcbSegment {
        selector: segment.selector,
        // Twelve bits, by the masks above.
        attributes: packed as u16,
        limit: segment.limit,
        base: segment.base,
    }
}

fn table(segment: VmcbSegment) -> DescriptorTable {
    DescriptorTable {
        base: segment.base,
        limit: segment.limit & 0xffff,
        reserved: 0,
    }
}

fn table_packed(table: &DescriptorTable) -> VmcbSegment {
    VmcbSegment {
        base: table.base,
        limit: table.limit,
        ..VmcbSegment::default()
    }
}

/// All of the record that the VMCB holds; RAX and RSP are among the general
/// registers, which it does not.
pub fn export(vmcb: &Vmcb, record: &mut VcpuRegisters) {
    let save = &vmcb.save;
    record.rip = save.rip;
    record.rflags = save.rflags;
    record.cr0 = save.cr0;
    record.cr2 = save.cr2;
    record.cr3 = save.cr3;
    record.cr4 = save.cr4;
    record.cr8 = vmcb.control.int_ctl & 0xf;
    record.efer = save.efer & !EFER_SVME;
    record.dr6 = save.dr6;
    record.dr7 = save.dr7;
    record.es = neutral(save.es);
    record.cs = neutral(save.cs);
    record.ss = neutral(save.ss);
    // On SVM the CPL is a field of its own, and SS.DPL may differ where SS is
    // null; the record's CPL is SS's DPL.
    record.ss.attributes = (record.ss.attributes & !attributes::DPL) | u32::from(save.cpl & 3) << 5;
    record.ds = neutral(save.ds);
    record.fs = neutral(save.fs);
    record.gs = neutral(save.gs);
    record.ldtr = neutral(save.ldtr);
    record.tr = neutral(save.tr);
    record.gdtr = table(save.gdtr);
    record.idtr = table(save.idtr);
    record.star = save.star;
    record.lstar = save.lstar;
    record.cstar = save.cstar;
    record.sfmask = save.sfmask;
    record.kernel_gs_base = save.kernel_gs_base;
    record.sysenter_cs = save.sysenter_cs;
    record.sysenter_esp = save.sysenter_esp;
    record.sysenter_eip = save.sysenter_eip;
    record.pat = save.guest_pat;
    record.debugctl = save.debugctl;
    record.s_cet = save.s_cet;
    record.ssp = save.ssp;
    record.isst = save.isst;
    record.interrupt_shadow = if vmcb.control.interrupt_shadow & 1 != 0 {
        // SVM does not tell which of the two it was.
        SHADOW_STI
    } else {
        SHADOW_NONE
    };
}

/// The same backwards.
pub fn import(vmcb: &mut Vmcb, record: &VcpuRegisters) {
    let save = &mut vmcb.save;
    save.rip = record.rip;
    save.rflags = record.rflags;
    save.cr0 = record.cr0;
    save.cr2 = record.cr2;
    save.cr3 = record.cr3;
    save.cr4 = record.cr4;
    save.efer = record.efer | EFER_SVME;
    save.dr6 = record.dr6;
    save.dr7 = record.dr7;
    save.es = packed(&record.es);
    save.cs = packed(&record.cs);
    save.ss = packed(&record.ss);
    save.ds = packed(&record.ds);
    save.fs = packed(&record.fs);
    save.gs = packed(&record.gs);
    save.ldtr = packed(&record.ldtr);
    save.tr = packed(&record.tr);
    save.gdtr = table_packed(&record.gdtr);
    save.idtr = table_packed(&record.idtr);
    // Two bits, by the mask.
    save.cpl = ((record.ss.attributes & attributes::DPL) >> 5) as u8;
    save.star = record.star;
    save.lstar = record.lstar;
    save.cstar = record.cstar;
    save.sfmask = record.sfmask;
    save.kernel_gs_base = record.kernel_gs_base;
    save.sysenter_cs = record.sysenter_cs;
    save.sysenter_esp = record.sysenter_esp;
    save.sysenter_eip = record.sysenter_eip;
    save.guest_pat = record.pat;
    save.debugctl = record.debugctl;
    save.s_cet = record.s_cet;
    save.ssp = record.ssp;
    save.isst = record.isst;
    let control = &mut vmcb.control;
    control.int_ctl = (control.int_ctl & !IntCtl::V_TPR.bits()) | (record.cr8 & 0xf);
    control.interrupt_shadow = u64::from(record.interrupt_shadow != SHADOW_NONE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_survives_both_ways() {
        for access in [0xa09b_u32, 0xc093, 0x008b, 0x0082, 0xa0fb] {
            let segment = Segment {
                base: 0x1234_5678_9abc,
                limit: 0xffff_ffff,
                selector: 0x10,
                attributes: access,
                ..Segment::ZERO
            };
            assert_eq!(neutral(packed(&segment)), segment);
        }
    }

    #[test]
    fn an_unusable_segment_of_vmx_is_not_present_here() {
        let segment = Segment {
            attributes: attributes::UNUSABLE | 0xc093,
            ..Segment::ZERO
        };
        let back = neutral(packed(&segment));
        assert_eq!(back.attributes & attributes::PRESENT, 0);
        assert_ne!(back.attributes & attributes::UNUSABLE, 0);
    }
}
