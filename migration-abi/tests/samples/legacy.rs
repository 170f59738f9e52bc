//! Records and buffers of other hypervisors, put together from the byte tables
//! of the book and not by this crate's structs.

/// A machine with AVX, AVX-512, PKRU and AMX in Intel's places: component,
/// size, offset in the standard form.
pub const INTEL: [(usize, usize, usize); 7] = [
    (2, 256, 576),
    (5, 64, 1088),
    (6, 512, 1152),
    (7, 1024, 1664),
    (9, 8, 2688),
    (17, 64, 2752),
    (18, 8192, 2816),
];

/// Length of a standard image with room for `mask` there.
pub fn standard_len(mask: u64) -> usize {
    INTEL
        .iter()
        .filter(|(index, ..)| mask >> index & 1 != 0)
        .map(|(_, size, offset)| offset + size)
        .fold(576, usize::max)
}

/// The bytes of component `index`, the same in every sample.
pub fn content(index: usize, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|at| (at * 7 + index) as u8 | 1).collect();
    match index {
        9 => bytes[4..].fill(0),
        // Palette 1; tile 0 of 16 rows of 64 bytes.
        17 => {
            bytes.fill(0);
            (bytes[0], bytes[16], bytes[48]) = (1, 64, 16);
        }
        _ => {}
    }
    bytes
}

/// A standard image of `len` bytes that holds `held`; MXCSR 1FA5, FCW 0372.
pub fn standard(len: usize, held: u64) -> Vec<u8> {
    let mut image = vec![0; len];
    image[0..2].copy_from_slice(&0x0372_u16.to_le_bytes());
    image[24..28].copy_from_slice(&0x1fa5_u32.to_le_bytes());
    image[28..32].copy_from_slice(&0xffff_u32.to_le_bytes());
    if held & 2 != 0 {
        image[160..416].copy_from_slice(&content(1, 256));
    }
    image[512..520].copy_from_slice(&held.to_le_bytes());
    for (index, size, offset) in INTEL {
        if held >> index & 1 != 0 {
            image[offset..offset + size].copy_from_slice(&content(index, size));
        }
    }
    image
}

/// A compacted image laid out for `layout` that holds `held`.
pub fn compacted(layout: u64, held: u64) -> Vec<u8> {
    let mut image = standard(576, held & 3);
    image[512..520].copy_from_slice(&held.to_le_bytes());
    image[520..528].copy_from_slice(&(layout | 1 << 63).to_le_bytes());
    for (index, size, _) in INTEL {
        if layout >> index & 1 == 0 {
            continue;
        }
        // AMX is aligned to 64 there.
        if index >= 17 {
            image.resize(image.len().next_multiple_of(64), 0);
        }
        if held >> index & 1 != 0 {
            image.extend(content(index, size));
        } else {
            image.resize(image.len() + size, 0);
        }
    }
    image
}

/// Little-endian words one behind the other.
fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// XCR0 and accumulated XCR0 7, AVX in use.
pub fn xen_pv() -> Vec<u8> {
    [words(&[7, 7]), standard(832, 7)].concat()
}

/// vCPU 3 of a stream, XCR0 7, AVX-512 enabled once.
pub fn xen_pv_stream() -> Vec<u8> {
    let image = standard(standard_len(0xe7), 7);
    let length = (8 + 16 + image.len()) as u64;
    [words(&[length << 32 | 6, 3, 7, 0xe7]), image].concat()
}

/// The body of an HVM record: XCR0 7 of a Xen that uses all of the machine,
/// followed by `zeros` zeros.
pub fn xen_hvm_body(zeros: usize) -> Vec<u8> {
    [words(&[0x2e7, 7, 7]), standard(832, 6), vec![0; zeros]].concat()
}

/// The same as vCPU 1's save record.
pub fn xen_hvm(zeros: usize) -> Vec<u8> {
    let body = xen_hvm_body(zeros);
    let descriptor = 16 | 1 << 16 | (body.len() as u64) << 32;
    [words(&[descriptor]), body].concat()
}

/// A buffer of `len` bytes with the words that Linux leaves at 464.
pub fn kvm_xsave(len: usize, held: u64) -> Vec<u8> {
    let mut buffer = standard(len.max(standard_len(held)), held);
    buffer.truncate(len);
    buffer[464..472].copy_from_slice(&0x6_02e7_u64.to_le_bytes());
    buffer
}

/// A `kvm_xcrs` with these XCRs.
pub fn kvm_xcrs(xcrs: &[(u32, u64)]) -> Vec<u8> {
    let mut bytes = words(&[xcrs.len() as u64]);
    for (xcr, value) in xcrs {
        bytes.extend(words(&[u64::from(*xcr), *value]));
    }
    bytes.resize(392, 0);
    bytes
}

/// Every golden file of these forms with its content.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "legacy-raw-standard.bin",
            standard(standard_len(0x2e7), 0x2e5),
        ),
        ("legacy-raw-compacted.bin", compacted(0x2e7, 0x2e7)),
        ("legacy-xen-pv.bin", xen_pv()),
        ("legacy-xen-pv-empty.bin", words(&[0, 0])),
        ("legacy-xen-pv-stream.bin", xen_pv_stream()),
        ("legacy-xen-hvm.bin", xen_hvm(0)),
        ("legacy-xen-hvm-long.bin", xen_hvm(2696 - 832)),
        ("legacy-kvm-xsave.bin", kvm_xsave(4096, 0x207)),
        ("legacy-kvm-xsave2.bin", kvm_xsave(11_008, 0x6_02e7)),
        ("legacy-kvm-xcrs.bin", kvm_xcrs(&[(0, 7)])),
    ]
}
