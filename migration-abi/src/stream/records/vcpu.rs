//! VCPU_REGISTERS and VCPU_XSTATE: one vCPU, in its two halves.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::RecordType;
use super::super::StreamError;
use super::super::frame::Writer;
use super::{exactly, fixed, write, zero};
use crate::blob::{self, Blob};
use crate::error::{Allowed, ParseError, Rule};
use crate::mutants::rule;
use crate::registers::{REGISTERS_BYTES, REGISTERS_VERSION, VcpuRegisters};

/// VCPU_REGISTERS: whose, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistersRecord {
    /// Number of the vCPU.
    pub vcpu: u32,
    /// Its registers, well-formed.
    pub registers: VcpuRegisters,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct WireRegisters {
    vcpu: u32,
    version: u16,
    length: u16,
}

const HEAD_BYTES: usize = 8;
const _: () =
    assert!(size_of::<WireRegisters>() == HEAD_BYTES && size_of::<WireXstate>() == HEAD_BYTES);

impl RegistersRecord {
    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, StreamError> {
        let (wire, rest): (WireRegisters, _) = fixed(payload)?;
        if rule!("registers-version") && wire.version != REGISTERS_VERSION {
            let (offset, allowed) = (
                offset_of!(WireRegisters, version),
                u64::from(REGISTERS_VERSION),
            );
            let allowed = Allowed::Exactly(allowed);
            return Err(ParseError::new(
                Rule::RegistersVersion,
                offset,
                u64::from(wire.version),
                allowed,
            ));
        }
        if rule!("registers-length") && usize::from(wire.length) != REGISTERS_BYTES {
            let (offset, allowed) = (
                offset_of!(WireRegisters, length),
                Allowed::Exactly(REGISTERS_BYTES as u64),
            );
            return Err(ParseError::new(
                Rule::RegistersLength,
                offset,
                u64::from(wire.length),
                allowed,
            ));
        }
        exactly(payload, HEAD_BYTES + REGISTERS_BYTES)?;
        let registers = VcpuRegisters::parse(rest).map_err(|error| error.within(HEAD_BYTES))?;
        Ok(Self {
            vcpu: wire.vcpu,
            registers,
        })
    }

    /// Writes the frame; gives its length.
    pub fn write(&self, writer: &mut Writer, out: &mut [u8]) -> Result<usize, StreamError> {
        let head = WireRegisters {
            vcpu: self.vcpu,
            version: REGISTERS_VERSION,
            length: REGISTERS_BYTES as u16,
        };
        write(
            writer,
            out,
            RecordType::VcpuRegisters,
            &[head.as_bytes(), self.registers.as_bytes()],
        )
    }
}

/// VCPU_XSTATE: whose, and its blob.
#[derive(Debug, Clone, Copy)]
pub struct XstateRecord<'a> {
    /// Number of the vCPU.
    pub vcpu: u32,
    /// The blob as it came: what a hypercall takes.
    pub bytes: &'a [u8],
    /// The blob, read.
    pub blob: Blob<'a>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct WireXstate {
    vcpu: u32,
    reserved: u32,
}

impl<'a> XstateRecord<'a> {
    /// Reads the payload, and the blob in it.
    pub fn parse(payload: &'a [u8]) -> Result<Self, StreamError> {
        let (wire, bytes): (WireXstate, _) = fixed(payload)?;
        zero(offset_of!(WireXstate, reserved), u64::from(wire.reserved))?;
        let blob = blob::parse(bytes).map_err(|error| error.within(HEAD_BYTES))?;
        Ok(Self {
            vcpu: wire.vcpu,
            bytes,
            blob,
        })
    }

    /// Writes the frame around a blob's bytes, which are read first; gives its length.
    pub fn write(
        writer: &mut Writer,
        out: &mut [u8],
        vcpu: u32,
        blob: &[u8],
    ) -> Result<usize, StreamError> {
        let head = WireXstate { vcpu, reserved: 0 };
        write(
            writer,
            out,
            RecordType::VcpuXstate,
            &[head.as_bytes(), blob],
        )
    }
}
