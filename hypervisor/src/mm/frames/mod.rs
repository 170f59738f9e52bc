//! The machine's frames: set up once from the memory map, then shared by all.
#![allow(unsafe_code)] // turns frames into memory: the table's storage, and zeroing

mod owned;
mod table;

pub use owned::OwnedFrames;
pub use table::{FrameCounts, FrameTable, NotOwned, OutOfFrames, Owner};

use super::addr::{HostPhys, PAGE_BYTES, PhysRange};
use crate::boot::info::{BootInfo, RegionKind};
use crate::cpu::irq::IrqMutex;

static FRAMES: IrqMutex<Option<FrameTable<'static>>> = IrqMutex::new(None);

/// Why there is no frame table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FramesError {
    /// No usable range had room for the table itself.
    NoRoomForTable {
        /// What it needs.
        bytes: u64,
    },
    /// There is one already.
    AlreadyThere,
}

impl core::fmt::Display for FramesError {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoRoomForTable { bytes } => {
                write!(
                    out,
                    "no usable memory has {bytes} bytes together for the frame table"
                )
            }
            Self::AlreadyThere => out.write_str("the frame table was set up twice"),
        }
    }
}

/// Sets up the machine's frame table: all usable memory is free but `image`,
/// the boot modules and the table itself.
///
/// # Safety
/// `boot` tells the truth about this machine, memory is identity-mapped at
/// least up to 4 GiB, and nothing but `image` and the modules is in use.
pub unsafe fn init(boot: &BootInfo, image: PhysRange) -> Result<(), FramesError> {
    let mut frames = FRAMES.lock();
    if frames.is_some() {
        return Err(FramesError::AlreadyThere);
    }
    let usable = || ranges(boot, |kind| kind == RegionKind::Available);
    // Some firmware reports ranges that overlap: the cautious word counts.
    let withheld = || ranges(boot, |kind| kind != RegionKind::Available);
    let taken = || {
        boot.modules()
            .map(|module| module.range)
            .chain([image])
            .chain(withheld())
    };

    let bytes = FrameTable::storage_bytes(usable());
    let place =
        place_outside(usable(), taken, bytes).ok_or(FramesError::NoRoomForTable { bytes })?;
    let length = usize::try_from(bytes).map_err(|_| FramesError::NoRoomForTable { bytes })?;
    // SAFETY: the bytes are usable memory by the map, which the caller vouches
    // for, identity-mapped, outside of all that is in use, and claimed for the
    // table below, so that this is the only reference to them for ever.
    let storage = unsafe {
        place.start().as_mut_ptr::<u8>().write_bytes(0, length);
        core::slice::from_raw_parts_mut(place.start().as_mut_ptr::<u8>(), length)
    };

    let mut table = FrameTable::new(storage, usable());
    withheld().for_each(|range| table.withhold(range));
    table.claim(image, Owner::IMAGE);
    table.claim(place, Owner::IMAGE);
    for module in boot.modules() {
        table.claim(module.range, Owner::MODULES);
    }
    *frames = Some(table);
    Ok(())
}

fn ranges(boot: &BootInfo, wanted: impl Fn(RegionKind) -> bool) -> impl Iterator<Item = PhysRange> {
    boot.memory()
        .filter(move |region| wanted(region.kind))
        .map(|region| region.range)
}

/// The lowest place above 1 MiB and below 4 GiB for `bytes` bytes that is
/// usable and not taken.
fn place_outside<T: Iterator<Item = PhysRange>>(
    usable: impl Iterator<Item = PhysRange>,
    taken: impl Fn() -> T,
    bytes: u64,
) -> Option<PhysRange> {
    usable
        .filter_map(|range| first_fit(range.pages_inside(), &taken, bytes))
        .min_by_key(|place| place.start().as_u64())
}

fn first_fit<T: Iterator<Item = PhysRange>>(
    range: PhysRange,
    taken: impl Fn() -> T,
    bytes: u64,
) -> Option<PhysRange> {
    const LOWEST: u64 = 1 << 20;
    const END: u64 = 1 << 32;
    let end = range.end().as_u64().min(END);
    let mut start = range.start().as_u64().max(LOWEST);
    loop {
        let place = PhysRange::new(HostPhys::new(start), bytes)?;
        if place.end().as_u64() > end {
            return None;
        }
        match taken()
            .map(PhysRange::pages_touched)
            .find(|other| place.overlaps(*other))
        {
            Some(other) => start = other.end().as_u64(),
            None => return Some(place),
        }
    }
}

/// `frames` zeroed frames that lie together, the first at a multiple of
/// `align_frames` frames (a power of two).
///
/// Always zeroed, so that no domain sees what another left.
pub fn allocate_contiguous(
    owner: Owner,
    frames: usize,
    align_frames: usize,
) -> Result<HostPhys, OutOfFrames> {
    let first = with(|table| table.allocate(owner, frames, align_frames))?;
    zero(first, frames);
    Ok(first)
}

/// One zeroed frame.
pub fn allocate(owner: Owner) -> Result<HostPhys, OutOfFrames> {
    allocate_contiguous(owner, 1, 1)
}

/// One zeroed frame below 1 MiB, for code that a processor starts in real mode.
pub fn allocate_low(owner: Owner) -> Result<HostPhys, OutOfFrames> {
    let frame = with(|table| table.allocate_low(owner))?;
    zero(frame, 1);
    Ok(frame)
}

/// Gives one frame back.
pub fn free(owner: Owner, frame: HostPhys) -> Result<(), NotOwned> {
    free_contiguous(owner, frame, 1)
}

/// Gives `frames` frames from `first` back: all, or none if one is not the
/// owner's.
pub fn free_contiguous(owner: Owner, first: HostPhys, frames: usize) -> Result<(), NotOwned> {
    with(|table| table.free_frames(owner, first, frames))
}

/// Gives back all that `owner` holds; returns how many frames that were.
pub fn free_all(owner: Owner) -> usize {
    with(|table| table.free_all(owner))
}

/// How many frames `owner` holds.
pub fn held_by(owner: Owner) -> usize {
    with(|table| table.held_by(owner))
}

/// What there is and what is left.
pub fn counts() -> FrameCounts {
    with(|table| table.counts())
}

fn with<R>(work: impl FnOnce(&mut FrameTable<'static>) -> R) -> R {
    let mut frames = FRAMES.lock();
    work(
        frames
            .as_mut()
            .expect("frames::init comes before every use of frames"),
    )
}

fn zero(first: HostPhys, frames: usize) {
    // SAFETY: the frames were just taken out of the table, so nobody else has
    // them; the table holds usable memory only, which is identity-mapped
    // (up to 4 GiB before mm::paging, all of it after; frames are taken from
    // the lowest address up).
    unsafe {
        first
            .as_mut_ptr::<u8>()
            .write_bytes(0, frames * PAGE_BYTES as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::between(HostPhys::new(start), HostPhys::new(end))
    }

    #[test]
    fn the_table_goes_where_nothing_is() {
        let usable = [range(0, 0x9_f000), range(0x10_0000, 0x100_0000)];
        let taken = [range(0x10_0000, 0x18_0123), range(0x18_1000, 0x18_2000)];
        let place = |bytes| place_outside(usable.into_iter(), || taken.into_iter(), bytes);
        // Behind the image and the module that follows it: the gap between
        // them is none once the image's last page is whole.
        assert_eq!(place(0x1000), Some(range(0x18_2000, 0x18_3000)));
        assert_eq!(place(0x100_0000), None);
    }

    #[test]
    fn the_table_stays_in_what_the_boot_tables_map() {
        let usable = [range(0xffff_f000, 0x1_0000_4000)];
        let place = |bytes| place_outside(usable.into_iter(), core::iter::empty, bytes);
        assert_eq!(place(0x1000), Some(range(0xffff_f000, 0x1_0000_0000)));
        assert_eq!(place(0x1001), None);
    }
}
