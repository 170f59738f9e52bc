//! What the tests write and tamper with: blobs, registers and a whole stream,
//! the same on every run. The files in `tests/golden` were written from these
//! when the formats were new; readers must take them for ever.
#![allow(dead_code)] // each test binary uses its part

pub mod legacy;
pub mod machine;
pub mod wire;

use migration_abi::blob::v1::{self, EntryFlags};
use migration_abi::blob::{DirectoryEntry, Fields};
use migration_abi::handover::{Body, Message, Reason, Role};
use migration_abi::registers::{
    EVENT_TIMER, EventKind, INTERRUPTED_DELIVERY, PendingEvent, Segment, VcpuRegisters, attributes,
    gpr,
};
use migration_abi::stream::records::{RegistersRecord, XstateRecord};
use migration_abi::stream::{
    Console, Domain, End, Leaves, MigrationId, PAGE_BYTES, Pages, PolicyLeaf, StreamHeader, Uart,
    Writer, ZeroPages,
};

/// A golden file, and the bytes that today's writer makes of the same content.
/// With `XFERRY_WRITE_GOLDEN` set, a file that is not there yet is written;
/// one that is there never changes.
pub fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("XFERRY_WRITE_GOLDEN").is_some() && !path.exists() && !written.is_empty() {
        std::fs::write(&path, written).expect("tests/golden can be written");
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const X87: DirectoryEntry = DirectoryEntry {
    index: 0,
    size: 160,
    flags: 0,
    standard_offset: 0,
};
const SSE: DirectoryEntry = DirectoryEntry {
    index: 1,
    size: 256,
    flags: 0,
    standard_offset: 160,
};

/// An image of `extra` bytes behind the header, with the INIT values of x87 and SSE.
pub fn image(xstate_bv: u64, xcomp_bv: u64, extra: usize) -> Vec<u8> {
    let mut image = vec![0; v1::MIN_IMAGE_BYTES + extra];
    image[0..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    image[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    image[512..520].copy_from_slice(&xstate_bv.to_le_bytes());
    image[520..528].copy_from_slice(&xcomp_bv.to_le_bytes());
    for (index, byte) in image[v1::MIN_IMAGE_BYTES..].iter_mut().enumerate() {
        *byte = index as u8;
    }
    image
}

pub fn encode(fields: &Fields, directory: &[DirectoryEntry], image: &[u8]) -> Vec<u8> {
    let length = v1::encoded_len(fields.xstate_mask, image.len(), fields.crc).expect("a length");
    let mut out = vec![0xcc; length];
    assert_eq!(
        v1::encode(&mut out, fields, directory.iter().copied(), image),
        Ok(length)
    );
    out
}

/// A policy of x87 and SSE alone, with a checksum.
pub fn blob_sse() -> Vec<u8> {
    let xcomp_bv = 1 << 63 | 3;
    let fields = Fields {
        xstate_mask: 3,
        xcr0: 3,
        accum: 3,
        xcomp_bv,
        crc: true,
        ..Fields::default()
    };
    encode(&fields, &[X87, SSE], &image(2, xcomp_bv, 0))
}

/// AVX, AVX-512, PKRU and CET of an Intel machine, AVX-512 in use.
pub fn blob_avx512() -> Vec<u8> {
    let entry = |index, size, flags: EntryFlags, standard_offset| DirectoryEntry {
        index,
        size,
        flags: flags.bits(),
        standard_offset,
    };
    let (none, supervisor, align) = (
        EntryFlags::empty(),
        EntryFlags::SUPERVISOR,
        EntryFlags::ALIGN64,
    );
    let directory = [
        X87,
        SSE,
        entry(2, 256, none, 576),
        entry(5, 64, none, 1088),
        entry(6, 512, none, 1152),
        entry(7, 1024, align, 1664),
        entry(9, 8, none, 2688),
        entry(11, 16, supervisor, 0),
        entry(12, 24, supervisor, 0),
    ];
    let mask = 0x1ae7;
    let xcomp_bv = 1 << 63 | 0x2e7;
    let fields = Fields {
        xstate_mask: mask,
        xcr0: 0x2e7,
        xss: 0x1800,
        accum: 0x1ae7,
        xcomp_bv,
        crc: true,
        ..Fields::default()
    };
    encode(
        &fields,
        &directory,
        &image(0xe6, xcomp_bv, 256 + 64 + 512 + 1024 + 8),
    )
}

/// What an export on Sapphire Rapids writes of a guest that may use AMX and
/// uses AVX, the mask registers of AVX-512 and protection keys: canonical.
pub fn blob_sapphire_rapids() -> Vec<u8> {
    let entry = |index, size, flags: EntryFlags, standard_offset| DirectoryEntry {
        index,
        size,
        flags: flags.bits(),
        standard_offset,
    };
    let (none, align) = (EntryFlags::empty(), EntryFlags::ALIGN64);
    let directory = [
        X87,
        SSE,
        entry(2, 256, none, 576),
        entry(5, 64, none, 1088),
        entry(6, 512, none, 1152),
        entry(7, 1024, none, 1664),
        entry(9, 8, none, 2688),
        entry(17, 64, align, 2752),
        entry(18, 8192, align | EntryFlags::XFD, 2816),
    ];
    // SSE, AVX, k0-k7 and PKRU are in use; tile data never were.
    let (in_use, xcomp_bv) = (0x226, 1 << 63 | 0x226);
    let mut image = image(in_use, xcomp_bv, 256 + 64 + 8);
    image[24..28].copy_from_slice(&0x1fa5_u32.to_le_bytes());
    for (index, byte) in image[160..416].iter_mut().enumerate() {
        *byte = index as u8 ^ 0xa5;
    }
    // Key 1 may only be read, key 15 not at all; the upper half is no state.
    image[896..904].copy_from_slice(&0xc000_0008_u64.to_le_bytes());
    let fields = Fields {
        xstate_mask: 0x602e7,
        xcr0: 0x602e7,
        accum: 0x202e7,
        xcomp_bv,
        crc: true,
        ..Fields::default()
    };
    encode(&fields, &directory, &image)
}

/// A policy without XSAVE, as the hypercall hands it out: no checksum.
pub fn blob_no_xsave() -> Vec<u8> {
    let xcomp_bv = 1 << 63 | 3;
    let fields = Fields {
        xstate_mask: 3,
        xcr0: 1,
        accum: 3,
        xcomp_bv,
        no_xsave: true,
        ..Fields::default()
    };
    encode(&fields, &[X87, SSE], &image(3, xcomp_bv, 0))
}

/// A 64-bit guest caught while a page fault was being delivered.
pub fn registers() -> VcpuRegisters {
    let flat = |selector, attributes| Segment {
        limit: u32::MAX,
        selector,
        attributes,
        ..Segment::ZERO
    };
    let code =
        0xb | attributes::S | attributes::PRESENT | attributes::LONG | attributes::GRANULARITY;
    let data = 0x3 | attributes::S | attributes::PRESENT | attributes::DB | attributes::GRANULARITY;
    let mut registers = VcpuRegisters {
        rip: 0xffff_ffff_8100_0000,
        rflags: 0x202,
        cr0: 0x8005_0033,
        cr2: 0x7fff_1234_5678,
        cr3: 0x10_3000,
        cr4: 0x0004_06e0,
        cr8: 3,
        efer: 0xd01,
        dr6: 0xffff_0ff0,
        dr7: 0x400,
        es: flat(0x10, data),
        cs: flat(0x08, code),
        ss: flat(0x10, data),
        ds: flat(0x10, data),
        fs: flat(0x10, data),
        gs: Segment {
            base: 0xffff_8880_0000_0000,
            ..flat(0x10, data)
        },
        ldtr: Segment {
            attributes: attributes::UNUSABLE,
            ..Segment::ZERO
        },
        tr: Segment {
            base: 0x5000,
            limit: 0x67,
            selector: 0x40,
            attributes: 0xb | attributes::PRESENT,
            ..Segment::ZERO
        },
        pat: 0x0007_0406_0007_0406,
        tsc: 123_456_789_012,
        pending_event: PendingEvent {
            kind: EventKind::Exception as u8 | INTERRUPTED_DELIVERY,
            vector: 14,
            has_error: 1,
            insn_len: 0,
            error_code: 6,
        },
        nmi_blocked: 1,
        clock_page_gpa: 0x7000,
        timer_deadline_ns: 5_000_000_000,
        ..VcpuRegisters::ZERO
    };
    registers.gdtr.limit = 0x7f;
    registers.idtr.limit = 0xfff;
    registers.event_vectors[EVENT_TIMER] = 0x20;
    registers.pending_events = 1 << EVENT_TIMER;
    for (index, register) in registers.gpr.iter_mut().enumerate() {
        *register = 0x0101_0101_0101_0101 * index as u64;
    }
    registers.gpr[gpr::RSP] = 0xffff_8000_0000_1000;
    registers
}

pub fn id() -> MigrationId {
    MigrationId::new(*b"0123456789abcdef").expect("not zero")
}

pub const LEAVES: [PolicyLeaf; 2] = [
    PolicyLeaf {
        leaf: 0xd,
        subleaf: 0,
        eax: 3,
        ebx: 576,
        ecx: 576,
        edx: 0,
    },
    PolicyLeaf {
        leaf: 0xd,
        subleaf: 1,
        eax: 0,
        ebx: 0,
        ecx: 0,
        edx: 0,
    },
];

pub fn domain() -> Domain<'static> {
    let mut name = [0; 32];
    name[..7].copy_from_slice(b"torture");
    static WIRE: [PolicyLeaf; 2] = LEAVES;
    Domain {
        uuid: *b"uuid-of-a-domain",
        name,
        memory_pages: 70,
        clock_ns: 1_234_567_890,
        xstate_deferred: 0xe0,
        vcpus: 2,
        tsc_khz: 2_600_000,
        paused: false,
        leaves: Leaves::new(&WIRE),
    }
}

/// The messages of both sides, one of each type.
pub fn messages() -> Vec<Message<'static>> {
    use migration_abi::handover::{Status, receiver, source};
    let reason = Reason {
        errno: 22,
        reason: 0x0210,
        text: "pku (CPUID 7.0:ECX[3]) is not here – näm",
    };
    let bodies = [
        Body::Hello {
            role: Role::Source,
            boot_nonce: 7,
        },
        Body::Hello {
            role: Role::Receiver,
            boot_nonce: u64::MAX,
        },
        Body::Accept,
        Body::Refuse(reason),
        Body::Ready,
        Body::Commit,
        Body::Running,
        Body::Done,
        Body::Abort(Reason {
            errno: 0,
            reason: 0,
            text: "",
        }),
        Body::Query,
        Body::Status {
            status: Status::Unknown,
            boot_nonce: 9,
        },
        Body::Status {
            status: Status::Source(source::State::Committed),
            boot_nonce: 9,
        },
        Body::Status {
            status: Status::Receiver(receiver::State::Discarded),
            boot_nonce: 9,
        },
    ];
    bodies
        .map(|body| Message {
            migration_id: id(),
            body,
        })
        .to_vec()
}

/// Collects frames.
#[derive(Default)]
pub struct Wire {
    pub bytes: Vec<u8>,
    pub writer: Writer,
}

impl Wire {
    pub fn put(
        &mut self,
        write: impl FnOnce(&mut Writer, &mut [u8]) -> Result<usize, migration_abi::ParseError>,
    ) {
        let mut frame = vec![0; (1 << 20) + 16];
        let length = write(&mut self.writer, &mut frame).expect("the sample is legal");
        self.bytes.extend_from_slice(&frame[..length]);
    }
}

/// A whole stream of a domain with 70 pages and two vCPUs.
pub fn stream() -> Vec<u8> {
    let mut wire = Wire::default();
    wire.put(|w, out| messages()[0].write(w, out));
    wire.put(|w, out| {
        StreamHeader {
            migration_id: id(),
            boot_nonce: 7,
        }
        .write(w, out)
    });
    wire.put(|w, out| domain().write(w, out));
    let data: Vec<u8> = (0..3 * PAGE_BYTES)
        .map(|index| (index % 251) as u8)
        .collect();
    wire.put(|w, out| {
        Pages {
            first_gfn: 0,
            data: &data[..2 * PAGE_BYTES],
        }
        .write(w, out)
    });
    wire.put(|w, out| {
        ZeroPages {
            first_gfn: 2,
            count: 67,
        }
        .write(w, out)
    });
    wire.put(|w, out| {
        Pages::write_with(w, out, 69, 1, |place| {
            place.copy_from_slice(&data[2 * PAGE_BYTES..])
        })
    });
    let uart = Uart {
        ier: 1,
        lcr: 3,
        mcr: 0xb,
        scr: 0x5a,
        dll: 1,
        dlm: 0,
        fcr: 7,
    };
    wire.put(|w, out| {
        Console {
            uart,
            output: b"pass 17\n",
        }
        .write(w, out)
    });
    for (vcpu, blob) in [(0, blob_sse()), (1, blob_avx512())] {
        wire.put(|w, out| {
            RegistersRecord {
                vcpu,
                registers: registers(),
            }
            .write(w, out)
        });
        wire.put(|w, out| XstateRecord::write(w, out, vcpu, &blob));
    }
    wire.put(|w, out| {
        End {
            data_pages: 3,
            zero_pages: 67,
            vcpus: 2,
            reserved: 0,
        }
        .write(w, out)
    });
    wire.bytes
}
