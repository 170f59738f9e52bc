//! The functions that a program of this machine sees.
#![allow(unsafe_code)] // exported names, and the caller's pointer to its scene

use alloc::boxed::Box;
use core::arch::asm;

use migration_abi::xstate;
use vcpu_xstate::convert::{Target, TooSmall, transfer, transfer_whole};
use vcpu_xstate::layout::Form;
use vcpu_xstate::{ComponentSet, Image};

use crate::scene::{Buffer, Scene};

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends the program with SIGILL; nothing runs after it.
    unsafe { asm!("ud2", options(noreturn, nomem, nostack)) }
}

/// Makes a scene, which lives for ever; null where there is no such machine.
#[unsafe(no_mangle)]
extern "C" fn xstate_bench_scene(layout: u64, in_use: u64) -> *mut Scene {
    Scene::new(layout, in_use).map_or(core::ptr::null_mut(), |scene| Box::leak(Box::new(scene)))
}

/// Defines one measured function: gives the bytes that it wrote, 0 if it failed.
macro_rules! measured {
    ($(#[$doc:meta])* $name:ident, |$scene:ident| $body:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// `scene` is of `xstate_bench_scene`, and nobody else has it now.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(scene: *mut Scene) -> usize {
            // SAFETY: as the caller promises.
            let $scene = unsafe { &mut *scene };
            $body
        }
    };
}

measured!(
    /// vCPU to blob.
    xstate_bench_export,
    |scene| {
        let out = scene.blob_out.bytes_mut();
        let (vcpu, cpu) = (&mut scene.vcpu, &mut scene.cpu);
        xstate::export(vcpu, cpu, &scene.layouts, false, out).unwrap_or(0)
    }
);

measured!(
    /// Blob to vCPU.
    xstate_bench_import,
    |scene| {
        let blob = &scene.blob.bytes()[..scene.blob_len];
        let (vcpu, cpu) = (&mut scene.vcpu, &mut scene.cpu);
        match xstate::import(blob, vcpu, cpu, &scene.layouts, &mut scene.memory) {
            Ok(()) => scene.blob_len,
            Err(_) => 0,
        }
    }
);

measured!(
    /// Standard to compacted.
    xstate_bench_compact,
    |scene| convert(scene, Form::Standard, Form::Compacted, transfer)
);

measured!(
    /// Compacted to standard: the bytes that XRSTOR will read.
    xstate_bench_expand,
    |scene| convert(scene, Form::Compacted, Form::Standard, transfer)
);

measured!(
    /// Compacted to standard: all of the buffer.
    xstate_bench_expand_zeroed,
    |scene| {
        convert(scene, Form::Compacted, Form::Standard, transfer_whole)
    }
);

measured!(
    /// Compacted to compacted under another XCOMP_BV.
    xstate_bench_relayout,
    |scene| {
        let geometry = scene.cpu.host().geometry();
        let image = Image::new(scene.canonical.bytes(), geometry, Form::Compacted);
        let target = Target {
            geometry,
            form: Form::Compacted,
            layout: scene.other_layout(),
        };
        write(image, target, &mut scene.out, transfer)
    }
);

type Transfer = fn(&Image<'_>, ComponentSet, Target<'_>, &mut [u8]) -> Result<(), TooSmall>;

#[inline(always)]
fn convert(scene: &mut Scene, from: Form, to: Form, how: Transfer) -> usize {
    let geometry = scene.cpu.host().geometry();
    let source = match from {
        Form::Standard => &scene.standard,
        Form::Compacted => &scene.compacted,
    };
    let image = Image::new(source.bytes(), geometry, from);
    let target = Target {
        geometry,
        form: to,
        layout: scene.layout,
    };
    write(image, target, &mut scene.out, how)
}

#[inline(always)]
fn write(image: Option<Image<'_>>, target: Target<'_>, out: &mut Buffer, how: Transfer) -> usize {
    let Some(image) = image else { return 0 };
    match how(&image, image.xstate_bv(), target, out.bytes_mut()) {
        Ok(()) => target.size_bytes(),
        Err(_) => 0,
    }
}

measured!(
    /// The limit: 576 bytes and the live components by REP MOVSB.
    xstate_bench_limit,
    |scene| {
        rep_movsb(scene.out.bytes_mut(), scene.compacted.bytes(), scene.live_bytes);
        scene.live_bytes
    }
);

measured!(
    /// The limit of `expand_zeroed`: as above, and zeroing the rest of the
    /// standard buffer by REP STOSB.
    xstate_bench_limit_zeroed,
    |scene| {
        let live = scene.live_bytes;
        rep_movsb(scene.out.bytes_mut(), scene.compacted.bytes(), live);
        rep_stosb(&mut scene.out.bytes_mut()[live..scene.standard_bytes]);
        scene.standard_bytes
    }
);

fn rep_movsb(to: &mut [u8], from: &[u8], bytes: usize) {
    assert!(
        bytes <= to.len() && bytes <= from.len(),
        "a scene's buffers"
    );
    // SAFETY: both ranges are `bytes` long, by the assertion, and disjoint,
    // since one of them is borrowed for writing.
    unsafe {
        asm!("rep movsb", inout("rdi") to.as_mut_ptr() => _, inout("rsi") from.as_ptr() => _,
            inout("rcx") bytes => _, options(nostack, preserves_flags));
    }
}

fn rep_stosb(to: &mut [u8]) {
    // SAFETY: writes the slice, all of it and nothing else.
    unsafe {
        asm!("rep stosb", inout("rdi") to.as_mut_ptr() => _, inout("rcx") to.len() => _,
            in("al") 0u8, options(nostack, preserves_flags));
    }
}
