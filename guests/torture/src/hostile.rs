//! What no guest may do, one thing a run: `hostile=NAME` on the command line. The
//! hypervisor must answer as a processor without the feature would, or stop this
//! guest; the machine and its other guests must not notice.
#![allow(unsafe_code)] // instructions that are meant to fail

use core::arch::asm;
use guest_rt::{cpu, hypercall, power, println};
use xferry_abi::{Buffer, DomainId, Errno, Request};

const EFER: u32 = 0xc000_0080;
const EFER_SVME: u64 = 1 << 12;
const APIC_BASE: u32 = 0x1b;
const VM_HSAVE_PA: u32 = 0xc001_0117;

/// Ports that end or reset a machine, and the toolstack's link.
const PORTS: [u16; 8] = [0xf4, 0xcf9, 0x64, 0x20, 0x43, 0x2f8, 0x8900, 0x501];

/// Does it, and says so where that did not stop it.
pub fn act(name: &str) -> ! {
    macro_rules! run {
        ($($code:literal),+) => {
            // SAFETY: none of these has a legal effect here; each raises an
            // exception, which ends the guest, or does nothing.
            unsafe {
                asm!($($code),+, inout("rax") 0u64 => _, inout("rcx") 0u64 => _,
                     inout("rdx") 0u64 => _)
            }
        };
    }
    match name {
        "vmrun" => run!("vmrun rax"),
        "vmload" => run!("vmload rax"),
        "vmsave" => run!("vmsave rax"),
        "stgi" => run!("stgi"),
        "clgi" => run!("clgi"),
        "skinit" => run!(".byte 0x0f, 0x01, 0xde"),
        "invlpga" => run!(".byte 0x0f, 0x01, 0xdf"),
        "monitor" => run!("monitor"),
        "mwait" => run!("mwait"),
        "rdpmc" => run!("rdpmc"),
        "invd" => run!("invd"),
        "wbinvd" => run!("wbinvd"),
        "ymm-without-sse" => run!("mov eax, 5", "xsetbv"),
        // SAFETY: as above; each write must be refused or go nowhere.
        "svme" => unsafe { cpu::wrmsr(EFER, cpu::rdmsr(EFER) | EFER_SVME) },
        // SAFETY: as above.
        "hsave" => unsafe { cpu::wrmsr(VM_HSAVE_PA, 0) },
        "apic" => {
            // SAFETY: as above.
            let _ = unsafe { cpu::rdmsr(APIC_BASE) };
        }
        "ports" => {
            for port in PORTS {
                // SAFETY: as above.
                unsafe { cpu::outb(port, 0xfe) };
            }
        }
        "outside" => {
            let outside = core::ptr::with_exposed_provenance_mut::<u64>(0x2000_0000);
            // SAFETY: mapped by the guest's own tables, and no memory of it.
            unsafe { outside.write_volatile(1) };
        }
        "triple-fault" => run!("push 0", "push 0", "lidt [rsp]", "int3"),
        "control" => control(),
        other => {
            println!("hostile does not know {other:?}");
            power::crash()
        }
    }
    println!("hostile {name}: nothing happened");
    power::off()
}

/// The toolstack's call, from a guest that is not the toolstack.
fn control() {
    let request = Request::Destroy {
        domain: DomainId(1),
    };
    let info = Request::PhysicalInfo {
        buffer: Buffer::NULL,
    };
    for request in [request, info] {
        // SAFETY: the call must be refused, so nothing is written.
        match unsafe { hypercall::control(&request) } {
            Err(failure) if failure.errno == Errno::EPERM && failure.seen == 0 => {}
            other => {
                println!("hostile control: {other:?}");
                power::crash()
            }
        }
    }
}
