//! My VMM has a KVM buffer and wants to send less, in a format of its own: buffer → canonical image → buffer.
//!
//! `cargo run -p vcpu-xstate --example send_less`
//!
//! Who takes `migration-abi` too need not think of what goes beside the image;
//! its example of the same name writes a blob. Here the VMM has a wire format
//! already and puts [`Claims`] and the image into it.

use std::error::Error;
use std::io::Write;

use vcpu_xstate::foreign::{Destination, Excess, ForeignImage, ForeignRegisters, read};
use vcpu_xstate::{Claims, ComponentSet, CpuidResult, Form, HostXstate, XstatePolicy, validate};

/// A Skylake server's leaf 0xD, without MPX; both hosts are one.
fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
        (0, _) => (0xd, 0, 0, 0),
        (1, _) => (0, 0, 1 << 26, 0),
        (7, 0) => (0, 0, 1 << 3, 0),
        (0xd, 0) => (0x2e7, 2696, 2696, 0),
        (0xd, 1) => (0xf, 0, 0, 0),
        (0xd, 2) => (256, 576, 0, 0),
        (0xd, 5) => (64, 1088, 0, 0),
        (0xd, 6) => (512, 1152, 0, 0),
        (0xd, 7) => (1024, 1664, 0, 0),
        (0xd, 9) => (8, 2688, 0, 0),
        _ => (0, 0, 0, 0),
    };
    CpuidResult { eax, ebx, ecx, edx }
}

/// What the VMM sends: its own format would have these two in it.
struct Sent {
    claims: Claims,
    image: Vec<u8>,
}

/// The source. `buffer` is KVM_GET_XSAVE2's, `xcr0` KVM_GET_XCRS's.
fn send(
    buffer: &[u8],
    xcr0: u64,
    host: &HostXstate,
    policy: &XstatePolicy,
) -> Result<Sent, Box<dyn Error>> {
    let foreign = ForeignImage::kvm(buffer, ForeignRegisters::xcr0(xcr0));
    let taken = read(&foreign, host.geometry(), host, policy, Excess::Refuse)?;
    let mut image = vec![0; taken.image.export_size()];
    let exported = taken.image.export(&mut image)?;
    Ok(Sent {
        claims: exported.claims,
        image,
    })
}

/// The destination: the buffer for KVM_SET_XSAVE, which reads `vm_bytes` bytes:
/// what KVM_CHECK_EXTENSION(KVM_CAP_XSAVE2) says of the VM, 4096 where it says 0.
fn receive(
    sent: &Sent,
    vm_bytes: usize,
    host: &HostXstate,
    policy: &XstatePolicy,
) -> Result<Vec<u8>, Box<dyn Error>> {
    // The layouts of both hosts are known to agree; where they may differ, the
    // source's leaf 0xD goes along, and is the second argument.
    let geometry = host.geometry();
    let trusted = validate(&sent.claims, geometry, &sent.image, host, policy)?;
    let kvm = Destination::KVM.with_buffer(vm_bytes);
    let mut buffer = vec![0; trusted.standard_size(kvm)];
    trusted.write_standard(kvm, &mut buffer)?;
    Ok(buffer)
}

/// Writes what happens to `out`.
pub fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let host = HostXstate::read(&cpuid, 0xffff)?;
    let policy = XstatePolicy::new(host.user(), ComponentSet::EMPTY);
    for (name, in_use) in [
        ("SSE", 0x2),
        ("AVX", 0x6),
        ("AVX-512", 0xe6),
        ("PKRU too", 0x2e6),
    ] {
        let mut buffer = vec![0; 4096];
        buffer[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        buffer[160..416].fill(1);
        buffer[512..520].copy_from_slice(&u64::to_le_bytes(in_use));
        let in_use = ComponentSet::from_bits_retain(in_use);
        for place in host.geometry().placements(Form::Standard, in_use) {
            buffer[place.range()].fill(place.component.get());
        }
        // Upper half of PKRU's eight bytes: nobody's.
        buffer[2692..2696].fill(0);

        let sent = send(&buffer, host.user().bits(), &host, &policy)?;
        let back = receive(&sent, buffer.len(), &host, &policy)?;
        let same = back[24..512] == buffer[24..512] && back[576..] == buffer[576..];
        writeln!(
            out,
            "{name:<9} {} bytes from KVM, {} to send, {}",
            buffer.len(),
            sent.image.len(),
            if same { "the same registers" } else { "others" }
        )?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut std::io::stdout())
}
