//! VMMCALL and VMCALL, whichever the guest uses.

use super::{Handled, Running};
use crate::hypercall;

/// Serves a hypercall. RIP moves on first: a call that does not return, or that
/// lets another vCPU run, must not be made again.
pub fn handle(running: &mut Running<'_>, next_rip: u64) -> Handled {
    running.vcpu.advance(next_rip)?;
    Ok(hypercall::serve(running))
}
