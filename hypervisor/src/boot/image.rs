//! Where the linker script put the parts of the image.
#![allow(unsafe_code)] // declares the linker's symbols

use crate::mm::addr::{HostPhys, PhysRange};
use crate::mm::paging::ImageLayout;

unsafe extern "C" {
    safe static __image_start: u8;
    safe static __rodata_end: u8;
    safe static __text_end: u8;
    safe static __image_end: u8;
}

/// The image's parts, by `xferry.ld`.
pub fn layout() -> ImageLayout {
    let [start, rodata_end, text_end, end] = [
        &raw const __image_start,
        &raw const __rodata_end,
        &raw const __text_end,
        &raw const __image_end,
    ]
    .map(HostPhys::of);
    ImageLayout {
        rodata: PhysRange::between(start, rodata_end),
        text: PhysRange::between(rodata_end, text_end),
        data: PhysRange::between(text_end, end),
    }
}
