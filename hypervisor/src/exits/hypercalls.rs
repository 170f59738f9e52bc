//! VMMCALL and VMCALL, whichever the guest uses.

use super::{Handled, Running};
use crate::hypercall;

/// Serves a hypercall. RIP moves on first: a call that does not return, or that
/// lets another vCPU run, must not be made again.
pub fn handle(running: &mut Running<'_>, next_rip: u64) -> Handled {
    running.vcpu.advance(next_rip)?;
    // As on Xen, calls are the guest kernel's to make.
    if crate::virt::Backend::cpl(&running.vcpu.backend) != 0 {
        running.vcpu.gprs.0[crate::virt::gpr::RAX] =
            (-i64::from(xferry_abi::Errno::EPERM as u32)).cast_unsigned();
        return Ok(super::Next::Resume);
    }
    Ok(hypercall::serve(running))
}
