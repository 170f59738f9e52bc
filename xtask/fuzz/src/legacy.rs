//! `legacy`: Xen's records, KVM's buffers and raw images become a vCPU's state, or are refused by name.

use migration_abi::legacy::Area;
use migration_abi::legacy::kvm::{Xcrs, Xsave};
use migration_abi::legacy::xen::{HvmRecord, PvRecord};
use vcpu_xstate::foreign::{Destination, Excess, ForeignImage, ForeignRegisters, read};
use vcpu_xstate::{ComponentSet, XstatePolicy};

use crate::image::sample;
use crate::import::{keeps_its_promises, same};
use crate::input::Input;
use crate::machines::{Machine, machine};

/// One input: which form, the machine, what its vCPU may use; then the bytes
/// of the form, or what an image of the machine is made from.
///
/// # Panics
/// Where something accepted is not what it must be, or a reader and a writer
/// disagree.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (form, number, choices) = (input.u8(), input.u8(), input.u8());
    let machine = machine(number);
    let excess = if choices & 1 == 0 {
        Excess::Refuse
    } else {
        Excess::Drop
    };
    let mask = machine.host.offered();
    let mask = match choices >> 4 & 3 {
        0 => mask,
        1 => mask.intersection(ComponentSet::UP_TO_AVX),
        2 => mask.difference(ComponentSet::AMX),
        _ => mask.intersection(ComponentSet::LEGACY),
    };
    let policy = XstatePolicy::new(mask, ComponentSet::EMPTY);
    let taker = Taker {
        machine,
        policy,
        excess,
    };
    if form & 0x80 == 0 {
        taker.bytes(form, input.rest());
    } else {
        taker.made(form, &mut input);
    }
}

/// Who is to take an image.
struct Taker {
    machine: &'static Machine,
    policy: XstatePolicy,
    excess: Excess,
}

impl Taker {
    /// Any bytes as one of the forms. What is read is written again as the same.
    fn bytes(&self, form: u8, bytes: &[u8]) {
        let mut out = vec![0xa5; bytes.len() + 64];
        match form % 6 {
            0 => {
                if let Ok(record) = PvRecord::parse(bytes) {
                    // An empty record has two spellings.
                    if !bytes.is_empty() {
                        assert_eq!(record.encode(&mut out), Ok(bytes.len()));
                        assert_eq!(&out[..bytes.len()], bytes);
                    }
                    self.take(record.foreign());
                }
            }
            1 => {
                if let Ok((vcpu, record, read)) = PvRecord::parse_stream(bytes) {
                    assert!(read <= bytes.len());
                    assert_eq!(
                        record.encode_stream(vcpu, &mut out).ok(),
                        Some(record.stream_len())
                    );
                    self.take(record.foreign());
                }
            }
            2 => {
                if let Ok(record) = HvmRecord::parse(bytes) {
                    let written = record.encode(&mut out).expect("what was read is written");
                    assert_eq!(HvmRecord::parse(&out[..written]), Ok(record));
                    self.take(record.foreign());
                }
            }
            3 => {
                if let Ok((_, record, read)) = HvmRecord::parse_save(bytes) {
                    assert!(read <= bytes.len());
                    self.take(record.foreign());
                }
            }
            4 => {
                let Some((xcrs, buffer)) = bytes.split_at_checked(392) else {
                    return;
                };
                if let (Ok(xcrs), Ok(xsave)) = (Xcrs::parse(xcrs), Xsave::parse(buffer)) {
                    assert_eq!(Xcrs::parse(&xcrs.encode()), Ok(xcrs));
                    self.take(Some(xsave.foreign(xcrs)));
                }
            }
            _ => {
                if let Ok(area) = Area::parse(bytes) {
                    let registers = ForeignRegisters::xcr0(self.policy.mask.bits() & 0xff | 1);
                    self.take(Some(ForeignImage::raw(area.bytes(), registers)));
                }
            }
        }
    }

    /// An image of the machine's, with registers that mostly go with it.
    fn made(&self, form: u8, input: &mut Input<'_>) {
        let host = &self.machine.host;
        let (xcr0, accum) = (input.u64(), input.u64());
        let mut sample = sample(input, host.geometry(), host.mxcsr_mask());
        let user = self.policy.mask.difference(host.geometry().supervisor());
        let mend = form & 0x40 != 0;
        let xcr0 = if mend {
            let set = ComponentSet::from_bits_retain(xcr0 | 1);
            set.intersection(user).whole_groups().bits()
        } else {
            xcr0
        };
        let accum = if mend {
            xcr0 | sample.held.bits() | accum & user.bits() | 3
        } else {
            accum
        };
        let reset = ForeignRegisters::xcr0(xcr0);
        let registers = ForeignRegisters {
            accum: Some(accum),
            xss: if mend { 0 } else { xcr0 >> 8 },
            ..reset
        };
        if mend {
            let layout = ComponentSet::from_bits_retain(accum);
            let exact = host.geometry().image_size(
                sample.form,
                match sample.form {
                    vcpu_xstate::Form::Standard => layout,
                    vcpu_xstate::Form::Compacted => sample.layout,
                },
            );
            sample.bytes[528..576].fill(0);
            sample.bytes.resize(exact.max(576), 0);
        }
        let image = &sample.bytes;
        self.take(Some(match form % 4 {
            0 => ForeignImage::xen_pv(image, xcr0, accum),
            1 => {
                sample.bytes.extend([0; 64]);
                ForeignImage::xen_hvm(&sample.bytes, xcr0, accum)
            }
            2 => ForeignImage::kvm(
                image,
                ForeignRegisters {
                    accum: None,
                    ..registers
                },
            ),
            _ => ForeignImage::raw(image, registers),
        }));
    }

    /// Judges an image, and holds what is accepted to its promises.
    fn take(&self, foreign: Option<ForeignImage<'_>>) {
        let Some(foreign) = foreign else {
            return;
        };
        let host = &self.machine.host;
        let taken = read(&foreign, host.geometry(), host, &self.policy, self.excess);
        let Ok(taken) = taken else {
            return;
        };
        assert!(taken.dropped.is_empty() || self.excess == Excess::Drop);
        assert!(!taken.dropped.state.intersects(self.policy.mask));
        keeps_its_promises(&taken.image, self.machine, &self.policy);
        for to in [Destination::XEN, Destination::KVM] {
            let mut out = vec![0xa5; taken.image.standard_size(to).max(4096)];
            let Ok(written) = taken.image.write_standard(to, &mut out) else {
                continue;
            };
            // What was written is read, and is the same state.
            let registers = ForeignRegisters {
                accum: Some(written.accum),
                xss: taken.image.claims().xss,
                xfd: taken.image.claims().xfd,
                xfd_err: taken.image.claims().xfd_err,
                ..ForeignRegisters::xcr0(written.xcr0)
            };
            let image = ForeignImage::kvm(&out, registers);
            // Groups are completed there, which the policy may not have.
            if let Ok(again) = read(&image, host.geometry(), host, &self.policy, Excess::Refuse) {
                let mut images = [
                    vec![0; taken.image.export_size()],
                    vec![0; again.image.export_size()],
                ];
                taken.image.export(&mut images[0]).expect("measured");
                again.image.export(&mut images[1]).expect("measured");
                same(&images[0], &images[1], "written and read");
            }
        }
    }
}
