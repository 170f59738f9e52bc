//! The seeds: for each target, a few inputs that reach deep, made by the libraries' own writers.

use migration_abi::blob::{Fields, latest};
use migration_abi::handover::{Body, Message, Reason, Role, Status, receiver, source};
use migration_abi::legacy::Area;
use migration_abi::legacy::kvm::{Xcrs, Xsave};
use migration_abi::legacy::xen::{HvmRecord, PvRecord};
use migration_abi::registers::VcpuRegisters;
use migration_abi::stream::{
    Console, Domain, End, Leaves, MigrationId, Pages, PolicyLeaf, RegistersRecord, StreamHeader,
    Uart, Writer, XstateRecord, ZeroPages,
};
use migration_abi::{ParseError, stream};
use vcpu_xstate::ComponentSet;
use vcpu_xstate::layout::Form;

use crate::machines::{COUNT, machine};
use crate::mend;

/// A seed: its target, its name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// All of them; the same at each call.
#[must_use]
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for number in 0..COUNT {
        for (name, mask) in [("sse", 3), ("avx", 7), ("all", u64::MAX >> 1)] {
            let blob = blob(number, mask, name == "all");
            let seed = [&[0, number][..], &blob].concat();
            // Tiles would make most of a seed; one machine has them whole.
            if blob.len() < 4096 || number == 2 {
                seeds.push(("decode", format!("{number}-{name}"), seed.clone()));
                seeds.push(("import", format!("{number}-{name}"), mended(seed, 0x1f)));
            }
        }
        for form in [0, 1] {
            seeds.push(("convert", format!("{number}-{form}"), image(number, form)));
        }
        for form in 0..4 {
            let name = format!("{number}-made-{form}");
            seeds.push(("legacy", name, foreign(number, 0xc0 | form)));
        }
    }
    seeds.extend(records());
    seeds.extend(policies());
    seeds.extend(streams());
    seeds
}

fn mended(mut seed: Vec<u8>, bits: u8) -> Vec<u8> {
    seed[0] = bits;
    seed
}

/// A blob of machine `number` in which `mask` is enabled and in use.
fn blob(number: u8, mask: u64, crc: bool) -> Vec<u8> {
    let host = &machine(number).host;
    let geometry = host.geometry();
    let held = ComponentSet::from_bits_retain(mask)
        .intersection(host.offered())
        .difference(geometry.xfd_capable());
    let user = held.intersection(host.user()).whole_groups();
    let held = user.union(held.intersection(geometry.supervisor()));
    let mut image = vec![0; geometry.image_size(Form::Compacted, held)];
    image[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    image[24..28].copy_from_slice(&0x1fa5_u32.to_le_bytes());
    image[160..168].fill(0x5a);
    image[512..520].copy_from_slice(&held.bits().to_le_bytes());
    image[520..528].copy_from_slice(&(held.bits() | 1 << 63).to_le_bytes());
    for place in geometry.placements(Form::Compacted, held) {
        // The lowest bit of the first byte is legal in most of them.
        image[place.offset_bytes] = u8::from(!geometry.supervisor().has(place.component));
    }
    let fields = Fields {
        xstate_mask: host.offered().bits(),
        xcr0: user.bits(),
        xss: held.intersection(geometry.supervisor()).bits(),
        xfd: 0,
        xfd_err: 0,
        accum: held.bits(),
        xcomp_bv: held.bits() | 1 << 63,
        no_xsave: false,
        crc,
    };
    let directory = host.offered().iter().map(|component| {
        let [index, size, flags, standard_offset] = mend::entry(geometry, component);
        latest::DirectoryEntry {
            index,
            size,
            flags,
            standard_offset,
        }
    });
    let length = latest::encoded_len(fields.xstate_mask, image.len(), crc).expect("a blob");
    let mut out = vec![0; length];
    latest::encode(&mut out, &fields, directory, &image).expect("a blob");
    out
}

/// An input of `convert`: everything held, each component a pattern.
fn image(number: u8, form: u8) -> Vec<u8> {
    let mut seed = vec![number, number + 1];
    seed.extend([0xff; 8]);
    seed.extend([0xff; 8]);
    seed.push(form);
    seed.extend([0xff; 4]);
    seed.extend([0xff; 4]);
    // Legacy: x87 and XMM, an MXCSR of its own; then patterns.
    seed.push(0x47);
    seed.extend(0x1fa5_u32.to_le_bytes());
    seed.extend([0x11; 24]);
    seed.extend([0x83; 24]);
    seed
}

/// An input of `legacy` that makes its image: the same contents, in Xen's and
/// KVM's forms.
fn foreign(number: u8, form: u8) -> Vec<u8> {
    let mut seed = vec![form, number, 1];
    seed.extend([0xff; 16]);
    seed.extend(&image(number, form & 1)[18..]);
    seed
}

/// Inputs of `legacy` that are bytes: the records, around a small image.
fn records() -> Vec<Seed> {
    let mut image = vec![0; 832];
    image[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
    image[24..28].copy_from_slice(&0x1fa5_u32.to_le_bytes());
    image[512] = 7;
    image[576] = 0x5a;
    let area = Some(Area::parse(&image).expect("an image"));
    let pv = PvRecord {
        xcr0: 7,
        xcr0_accum: 7,
        area,
    };
    let hvm = HvmRecord {
        xfeature_mask: 7,
        xcr0: 7,
        xcr0_accum: 7,
        area,
    };
    let mut buffer = vec![0; 4096];
    Xsave::encode(&image, &mut buffer).expect("room");
    let kvm = [&Xcrs { xcr0: Some(7) }.encode()[..], &buffer].concat();
    let written = |write: &dyn Fn(&mut [u8]) -> Result<usize, ParseError>| {
        let mut out = vec![0; 1024];
        let length = write(&mut out).expect("a legal record");
        out.truncate(length);
        out
    };
    let records = [
        written(&|out| pv.encode(out)),
        written(&|out| pv.encode_stream(3, out)),
        written(&|out| hvm.encode(out)),
        written(&|out| hvm.encode_save(3, out)),
        kvm,
        image.clone(),
    ];
    (0..)
        .zip(records)
        .map(|(form, bytes)| {
            let seed = [&[form, 0, 0][..], &bytes].concat();
            ("legacy", format!("record-{form}"), seed)
        })
        .collect()
}

fn policies() -> Vec<Seed> {
    let words = [
        "host",
        "host:avx=0",
        "host:avx512f=0,amx-tile=0",
        "host:xsave=0",
        "host:pku=1,defer-avx=1",
        "host:xsaves=0,xsavec=1,xgetbv1=0",
        "host:defer-mpx=1,defer-mpx=1",
        "host:no-such-thing=1",
        "host:avx",
        "guest",
    ];
    let mut seeds: Vec<Seed> = words
        .iter()
        .enumerate()
        .map(|(at, words)| {
            let seed = [&[0, at as u8][..], words.as_bytes()].concat();
            ("policy", format!("words-{at}"), seed)
        })
        .collect();
    for number in 0..COUNT {
        let settings = vec![1, number, 7, 0, 30, 1, 61, 0, 2, 0xc1];
        seeds.push(("policy", format!("settings-{number}"), settings));
        let edits = vec![2, number, number, 0, 0, 0, 0, 0, 0, 0, 0];
        seeds.push(("policy", format!("leaves-{number}"), edits));
    }
    seeds
}

fn id() -> MigrationId {
    MigrationId::new([0x17; 16]).expect("not zero")
}

/// Frames, written one behind the other.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    writer: Writer,
}

impl Wire {
    fn put(&mut self, write: impl FnOnce(&mut Writer, &mut [u8]) -> Result<usize, ParseError>) {
        let mut frame = vec![0; 16 << 10];
        let length = write(&mut self.writer, &mut frame).expect("a legal record");
        self.bytes.extend_from_slice(&frame[..length]);
    }
}

fn streams() -> Vec<Seed> {
    let whole = whole_stream();
    let mut seeds: Vec<Seed> = [("as-it-is", 0), ("mended", 3)]
        .map(|(name, bits)| ("stream", name.to_string(), [&[bits][..], &whole].concat()))
        .to_vec();
    let mut talk = Wire::default();
    for message in messages() {
        talk.put(|w, out| message.write(w, out));
    }
    seeds.push((
        "stream",
        "messages".into(),
        [&[3][..], &talk.bytes].concat(),
    ));
    // Each payload by itself.
    let (mut rest, mut at) = (&whole[..], 0);
    while let Some((header, payload, behind)) = stream::FrameHeader::split(rest) {
        let seed = [&[4][..], &header.record.to_le_bytes(), payload].concat();
        seeds.push(("stream", format!("payload-{at}"), seed));
        (rest, at) = (behind, at + 1);
    }
    seeds
}

fn messages() -> Vec<Message<'static>> {
    let reason = Reason {
        errno: 22,
        reason: 0x307,
        text: "opmask at 832 there, 1088 here",
    };
    let bodies = [
        Body::Hello {
            role: Role::Receiver,
            boot_nonce: 7,
        },
        Body::Accept,
        Body::Refuse(reason),
        Body::Ready,
        Body::Commit,
        Body::Running,
        Body::Done,
        Body::Abort(reason),
        Body::Query,
        Body::Status {
            status: Status::Source(source::State::Committed),
            boot_nonce: 7,
        },
        Body::Status {
            status: Status::Receiver(receiver::State::Ready),
            boot_nonce: 7,
        },
    ];
    bodies
        .map(|body| Message {
            migration_id: id(),
            body,
        })
        .to_vec()
}

/// A domain of five pages and one vCPU.
fn whole_stream() -> Vec<u8> {
    let mut wire = Wire::default();
    wire.put(|w, out| messages()[0].write(w, out));
    let header = StreamHeader {
        migration_id: id(),
        boot_nonce: 7,
    };
    wire.put(|w, out| header.write(w, out));
    let leaves = [PolicyLeaf {
        leaf: 0xd,
        ..PolicyLeaf::default()
    }];
    let mut name = [0; 32];
    name[..5].copy_from_slice(b"guest");
    let domain = Domain {
        uuid: [9; 16],
        name,
        memory_pages: 5,
        clock_ns: 1,
        xstate_deferred: 0,
        vcpus: 1,
        tsc_khz: 2_000_000,
        paused: false,
        leaves: Leaves::new(&leaves),
    };
    wire.put(|w, out| domain.write(w, out));
    let page = [0x5a; stream::PAGE_BYTES];
    let pages = Pages {
        first_gfn: 0,
        data: &page,
    };
    wire.put(|w, out| pages.write(w, out));
    let zeros = ZeroPages {
        first_gfn: 1,
        count: 4,
    };
    wire.put(|w, out| zeros.write(w, out));
    let uart = Uart {
        ier: 1,
        lcr: 3,
        mcr: 0xb,
        scr: 0x5a,
        dll: 1,
        dlm: 0,
        fcr: 7,
    };
    let console = Console {
        uart,
        output: b"pass 17\n",
    };
    wire.put(|w, out| console.write(w, out));
    let registers = RegistersRecord {
        vcpu: 0,
        registers: VcpuRegisters::ZERO,
    };
    wire.put(|w, out| registers.write(w, out));
    wire.put(|w, out| XstateRecord::write(w, out, 0, &blob(0, 7, true)));
    let end = End {
        data_pages: 1,
        zero_pages: 4,
        vcpus: 1,
        reserved: 0,
    };
    wire.put(|w, out| end.write(w, out));
    wire.bytes
}
