//! My VMM has a KVM buffer and wants to send less: KVM buffer → blob → another host → KVM buffer.
//!
//! `cargo run -p migration-abi --example send_less`
//!
//! KVM_GET_XSAVE2 gives as many bytes as the guest's CPUID could ever need:
//! 11008 where it has AMX, whatever is in use. A blob holds what is in use, in
//! the same bytes on every host, with the layout that it was made under, so
//! that the other side can judge it before it takes anything.

use std::error::Error;
use std::io::Write;

use migration_abi::blob;
use migration_abi::legacy::kvm::{Xcrs, Xsave};
use migration_abi::xstate::{blob_len, claims, geometry, write_blob};
use vcpu_xstate::foreign::{Destination, Excess, read};
use vcpu_xstate::{ComponentSet, CpuidResult, Form, HostXstate, XstatePolicy, validate};

/// Both hosts of this example: components of CPUID leaf 0xD with size, offset
/// and ECX, as a Sapphire Rapids has them. Your VMM asks its processor.
const MACHINE: [(u32, u32, u32, u32); 7] = [
    (2, 256, 576, 0),
    (5, 64, 1088, 0),
    (6, 512, 1152, 0),
    (7, 1024, 1664, 0),
    (9, 8, 2688, 0),
    (17, 64, 2752, 2),
    (18, 8192, 2816, 6),
];

fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
        (0, _) => (0xd, 0, 0, 0),
        (1, _) => (0, 0, 1 << 26, 0),
        (7, 0) => (0, 0, 1 << 3, 0),
        (0xd, 0) => (0x6_02e7, 11_008, 11_008, 0),
        (0xd, 1) => (0x1f, 0, 0, 0),
        (0xd, _) => match MACHINE.iter().find(|(index, ..)| *index == subleaf) {
            Some((_, size, offset, flags)) => (*size, *offset, *flags, 0),
            None => (0, 0, 0, 0),
        },
        _ => (0, 0, 0, 0),
    };
    CpuidResult { eax, ebx, ecx, edx }
}

/// The source: what goes over the wire.
fn send(
    buffer: &[u8],
    xcrs: Xcrs,
    host: &HostXstate,
    policy: &XstatePolicy,
) -> Result<Vec<u8>, Box<dyn Error>> {
    // The buffer of KVM_GET_XSAVE2 and the XCRs of KVM_GET_XCRS. A guest with AMX
    // has IA32_XFD too: put it into `registers`. One with CET has IA32_XSS, and
    // CET's registers are MSRs: `ForeignImage::kvm` says how they get into a blob.
    let foreign = Xsave::parse(buffer)?.foreign(xcrs);
    // `Excess::Drop` would leave out what a host saved beyond the policy.
    let taken = read(&foreign, host.geometry(), host, policy, Excess::Refuse)?;
    let mut blob = vec![0; blob_len(&taken.image, true)];
    write_blob(&taken.image, true, &mut blob)?;
    Ok(blob)
}

/// The destination: what KVM_SET_XSAVE gets, and XCR0 for KVM_SET_XCRS.
fn receive(
    bytes: &[u8],
    buffer_bytes: usize,
    host: &HostXstate,
    policy: &XstatePolicy,
) -> Result<(Vec<u8>, u64), Box<dyn Error>> {
    let blob = blob::parse(bytes)?;
    let there = geometry(&blob)?;
    // Nothing of the blob is believed; here is where this host says no.
    let image = validate(&claims(&blob), &there, blob.image(), host, policy)?;
    let mut buffer = vec![0; buffer_bytes];
    let written = image.write_standard(Destination::KVM, &mut buffer)?;
    Ok((buffer, written.xcr0))
}

/// A buffer as KVM would fill it for a guest that uses these components.
fn kvm_buffer(in_use: ComponentSet, host: &HostXstate) -> Vec<u8> {
    let mut buffer = vec![0; 11_008];
    buffer[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    buffer[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    buffer[160..416].fill(1);
    buffer[512..520].copy_from_slice(&in_use.bits().to_le_bytes());
    for place in host.geometry().placements(Form::Standard, in_use) {
        let bytes = &mut buffer[place.range()];
        match place.component.get() {
            // Palette 1; tile 0 has 16 rows of 64 bytes.
            17 => (bytes[0], bytes[16], bytes[48]) = (1, 64, 16),
            _ => bytes.fill(place.component.get()),
        }
    }
    buffer
}

/// Writes what happens to `out`.
pub fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let host = HostXstate::read(&cpuid, 0xffff)?;
    let policy = XstatePolicy::new(host.user(), ComponentSet::EMPTY);
    writeln!(out, "in use         KVM buffer    blob    given back")?;
    for (name, in_use) in [
        ("SSE", 0x2),
        ("AVX", 0x6),
        ("AVX-512", 0xe6),
        ("all of AMX", 0x6_00e6),
    ] {
        let buffer = kvm_buffer(ComponentSet::from_bits_retain(in_use), &host);
        let xcr0 = Some(host.user().bits());
        let blob = send(&buffer, Xcrs { xcr0 }, &host, &policy)?;
        let (back, xcr0) = receive(&blob, buffer.len(), &host, &policy)?;
        // The same registers. (XSTATE_BV also says that PKRU is 0: KVM
        // would keep the old one otherwise.)
        let same = back[576..] == buffer[576..] && back[..512] == buffer[..512];
        let verdict = if same { "the same" } else { "something else" };
        writeln!(
            out,
            "{name:<12} {:>12} {:>7}    {verdict}, XCR0 {xcr0:#x}",
            buffer.len(),
            blob.len()
        )?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut std::io::stdout())
}
