//! PAGES, ZERO_PAGES, CONSOLE and END: what of a domain is not a vCPU's.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::RecordType;
use super::super::frame::Writer;
use super::super::{PAGE_BYTES, StreamError};
use super::{exactly, fixed, within, write, zero};
use crate::error::Rule;

/// Most pages of one PAGES record.
pub const MAX_PAGES: u32 = 64;
/// Most bytes of console output that nobody read.
pub const MAX_OUTPUT_BYTES: u32 = 4096;
/// One more than the last guest frame: physical addresses have 52 bits.
const MAX_GFN: u64 = 1 << 40;

/// PAGES: pages with their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages<'a> {
    /// Guest frame of the first page.
    pub first_gfn: u64,
    /// Their bytes, a multiple of [`PAGE_BYTES`].
    pub data: &'a [u8],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct WirePages {
    first_gfn: u64,
    count: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<WirePages>() == 16);

impl<'a> Pages<'a> {
    /// Reads the payload.
    pub fn parse(payload: &'a [u8]) -> Result<Self, StreamError> {
        let (wire, data): (WirePages, _) = fixed(payload)?;
        within(
            Rule::PagesCount,
            offset_of!(WirePages, count),
            u64::from(wire.count),
            1,
            u64::from(MAX_PAGES),
        )?;
        zero(offset_of!(WirePages, reserved), u64::from(wire.reserved))?;
        check_range(wire.first_gfn, u64::from(wire.count))?;
        exactly(
            payload,
            size_of::<WirePages>() + wire.count as usize * PAGE_BYTES,
        )?;
        Ok(Self {
            first_gfn: wire.first_gfn,
            data,
        })
    }

    /// How many pages.
    #[must_use]
    pub const fn count(&self) -> u64 {
        (self.data.len() / PAGE_BYTES) as u64
    }

    /// Writes the frame; gives its length.
    pub fn write(&self, writer: &mut Writer, out: &mut [u8]) -> Result<usize, StreamError> {
        let head = WirePages::new(self.first_gfn, self.count());
        write(
            writer,
            out,
            RecordType::Pages,
            &[head.as_bytes(), self.data],
        )
    }

    /// Writes the frame with `count` pages that `fill` puts in place: one copy
    /// from the guest to the wire. Gives the frame's length.
    pub fn write_with(
        writer: &mut Writer,
        out: &mut [u8],
        first_gfn: u64,
        count: u32,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<usize, StreamError> {
        within(
            Rule::PagesCount,
            offset_of!(WirePages, count),
            u64::from(count),
            1,
            u64::from(MAX_PAGES),
        )?;
        let head = WirePages::new(first_gfn, u64::from(count));
        let length = size_of::<WirePages>() + count as usize * PAGE_BYTES;
        writer.frame(out, RecordType::Pages, length, |payload| {
            if let Some((place, data)) = payload.split_at_mut_checked(size_of::<WirePages>()) {
                place.copy_from_slice(head.as_bytes());
                fill(data);
            }
            Pages::parse(payload).map(|_| ())
        })
    }
}

impl WirePages {
    fn new(first_gfn: u64, count: u64) -> Self {
        Self {
            first_gfn,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            reserved: 0,
        }
    }
}

/// ZERO_PAGES: pages that are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ZeroPages {
    /// Guest frame of the first page.
    pub first_gfn: u64,
    /// How many pages.
    pub count: u64,
}

impl ZeroPages {
    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, StreamError> {
        let (wire, _): (Self, _) = fixed(payload)?;
        exactly(payload, size_of::<Self>())?;
        within(
            Rule::PagesCount,
            offset_of!(Self, count),
            wire.count,
            1,
            MAX_GFN,
        )?;
        check_range(wire.first_gfn, wire.count)?;
        Ok(wire)
    }

    /// Writes the frame; gives its length.
    pub fn write(&self, writer: &mut Writer, out: &mut [u8]) -> Result<usize, StreamError> {
        write(writer, out, RecordType::ZeroPages, &[self.as_bytes()])
    }
}

/// The first page's frame, such that the last one's is a frame too.
fn check_range(first_gfn: u64, count: u64) -> Result<(), StreamError> {
    within(
        Rule::PagesRange,
        0,
        first_gfn,
        0,
        MAX_GFN.saturating_sub(count),
    )
}

/// Registers of the 16550 that a guest sees.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Uart {
    /// Interrupt enable.
    pub ier: u8,
    /// Line control.
    pub lcr: u8,
    /// Modem control.
    pub mcr: u8,
    /// Scratch.
    pub scr: u8,
    /// Divisor, low byte.
    pub dll: u8,
    /// Divisor, high byte.
    pub dlm: u8,
    /// FIFO control, as last written.
    pub fcr: u8,
}

/// CONSOLE: the UART, and the output that nobody read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Console<'a> {
    /// The UART.
    pub uart: Uart,
    /// Oldest byte first, at most [`MAX_OUTPUT_BYTES`].
    pub output: &'a [u8],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct WireConsole {
    uart: Uart,
    reserved: u8,
    output_len: u32,
    reserved2: u32,
}

const _: () = assert!(size_of::<WireConsole>() == 16);

impl<'a> Console<'a> {
    /// Reads the payload.
    pub fn parse(payload: &'a [u8]) -> Result<Self, StreamError> {
        let (wire, output): (WireConsole, _) = fixed(payload)?;
        zero(offset_of!(WireConsole, reserved), u64::from(wire.reserved))?;
        zero(
            offset_of!(WireConsole, reserved2),
            u64::from(wire.reserved2),
        )?;
        let (length, most) = (u64::from(wire.output_len), u64::from(MAX_OUTPUT_BYTES));
        within(
            Rule::ConsoleOutput,
            offset_of!(WireConsole, output_len),
            length,
            0,
            most,
        )?;
        exactly(payload, size_of::<WireConsole>() + wire.output_len as usize)?;
        Ok(Self {
            uart: wire.uart,
            output,
        })
    }

    /// Writes the frame; gives its length.
    pub fn write(&self, writer: &mut Writer, out: &mut [u8]) -> Result<usize, StreamError> {
        write(
            writer,
            out,
            RecordType::Console,
            &[self.head().as_bytes(), self.output],
        )
    }

    /// Length of the payload alone, in bytes.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        size_of::<WireConsole>() + self.output.len()
    }

    /// Writes the payload alone, as the hypercalls pass it. `false`, and nothing
    /// written, where `out` has another length than [`payload_len`](Self::payload_len).
    #[must_use]
    pub fn write_payload(&self, out: &mut [u8]) -> bool {
        let room = out.len() == self.payload_len();
        if room && let Some((head, output)) = out.split_at_mut_checked(size_of::<WireConsole>()) {
            head.copy_from_slice(self.head().as_bytes());
            output.copy_from_slice(self.output);
        }
        room
    }

    fn head(&self) -> WireConsole {
        WireConsole {
            uart: self.uart,
            reserved: 0,
            output_len: u32::try_from(self.output.len()).unwrap_or(u32::MAX),
            reserved2: 0,
        }
    }
}

/// END: the state is complete, and this much it was.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct End {
    /// Pages that came with their bytes.
    pub data_pages: u64,
    /// Pages that came as zero.
    pub zero_pages: u64,
    /// vCPUs that came.
    pub vcpus: u32,
    /// Zero.
    pub reserved: u32,
}

impl End {
    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, StreamError> {
        let (wire, _): (Self, _) = fixed(payload)?;
        exactly(payload, size_of::<Self>())?;
        zero(offset_of!(Self, reserved), u64::from(wire.reserved))?;
        Ok(wire)
    }

    /// Writes the frame; gives its length.
    pub fn write(&self, writer: &mut Writer, out: &mut [u8]) -> Result<usize, StreamError> {
        write(writer, out, RecordType::End, &[self.as_bytes()])
    }
}
