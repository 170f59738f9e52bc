//! The order in which the machine comes up, from the first line of Rust to
//! `start`.
#![allow(unsafe_code)] // entered from assembly; each step once, in this order

use super::info::BootInfo;
use super::{image, multiboot, selftest};
use crate::cpu::stacks::{self, BOOT_STACK, BOOT_STACK_BYTES, GuardedStack};
use crate::cpu::{apic, features, idt, percpu, pic, tsc};
use crate::mm::{frames, heap, paging};
use ::log::{info, warn};
use multiboot2::BootInformation;

core::arch::global_asm!(
    include_str!("boot.S"),
    stack = sym BOOT_STACK,
    stack_bytes = const GuardedStack::<BOOT_STACK_BYTES>::TOP_OFFSET,
    entry = sym enter,
);

/// Called by `boot.S`, once, on the boot stack, with interrupts off.
extern "C" fn enter(magic: u32, information: u32) -> ! {
    crate::log::init();
    // SAFETY: once, first, on the boot processor and stack; the tables that
    // idt::load needs were loaded the line before.
    unsafe {
        percpu::init_boot_cpu();
        idt::load();
    }
    info!("Xferry {}", env!("CARGO_PKG_VERSION"));
    // SAFETY: the boot tables map the image writable, and nothing writes to its
    // constants.
    let features = unsafe { features::enable() }.unwrap_or_else(|error| panic!("{error}"));

    let boot = boot_information(magic, information).unwrap_or_else(|error| panic!("{error}"));
    if let Some(level) = boot.option("log")
        && !crate::log::set_level(level)
    {
        warn!("log={level}: no such level; off, error, warn, info, debug and trace are");
    }

    let image = image::layout();
    // SAFETY: the loader's word on this machine is all there is; the boot tables
    // map 4 GiB; what is in use is image and modules, for the boot information
    // was copied.
    unsafe { frames::init(&boot, image.whole()) }.unwrap_or_else(|error| panic!("{error}"));
    paging::build(&boot, &image, &stacks::boot_guard_pages())
        .unwrap_or_else(|error| panic!("page tables: {error}"));
    // SAFETY: built from this machine's map and image; WP and NXE were set by
    // features::enable; code and boot stack are in the image.
    unsafe { paging::activate() };
    let audit = paging::audit();
    assert_eq!(
        audit.writable_and_executable, 0,
        "pages are both writable and executable"
    );
    // SAFETY: the only call.
    unsafe { heap::init() }.unwrap_or_else(|error| panic!("heap: {error}"));

    pic::disable();
    // SAFETY: interrupts are off, and all it needs was done above.
    unsafe { apic::init() }.unwrap_or_else(|error| panic!("{error}"));

    report(&boot, &features, &audit);
    selftest::run(&boot);
    crate::start(boot)
}

fn boot_information(magic: u32, address: u32) -> Result<BootInfo, multiboot::BootError> {
    if magic != multiboot::MAGIC {
        return Err(multiboot::BootError::Magic(magic));
    }
    let pointer = core::ptr::with_exposed_provenance(address as usize);
    // SAFETY: with that magic number in EAX, EBX is the address of a structure
    // of the size that it says (Multiboot2 3.3), identity-mapped below 4 GiB;
    // nothing writes there before it was copied.
    let information = unsafe { BootInformation::load(pointer) };
    multiboot::parse(&information.map_err(multiboot::BootError::Structure)?)
}

fn report(boot: &BootInfo, features: &features::Features, audit: &paging::Audit) {
    for region in boot.memory() {
        ::log::debug!("memory {} {:?}", region.range, region.kind);
    }
    for module in boot.modules() {
        info!(
            "module \"{}\" at {}, {} bytes",
            module.name,
            module.range,
            module.range.size_bytes()
        );
    }
    let frames = frames::counts();
    info!("memory: {} frames, {} free", frames.total, frames.free);
    info!(
        "paging: {} small and {} large pages, none writable and executable",
        audit.small_pages, audit.large_pages
    );
    info!(
        "tsc {} kHz, apic timer {} kHz",
        tsc::khz(),
        apic::timer_khz()
    );
    ::log::debug!("{features:?}");
}
