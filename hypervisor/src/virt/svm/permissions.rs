//! The I/O and MSR permission maps (APM Vol. 2, 15.10.1 and 15.11): which ports
//! and MSRs a guest reaches without an exit. Two maps of ports (an ordinary
//! guest's, the toolstack's) and one of MSRs serve every vCPU of the host.

use crate::mm::addr::HostPhys;
use crate::virt::{LINK_PORTS, PortAccess};

/// Where the maps of a guest lie.
#[derive(Clone, Copy, Debug)]
pub struct Permissions {
    /// I/O permission map.
    pub io: HostPhys,
    /// MSR permission map.
    pub msr: HostPhys,
}

/// 12 KiB: a bit for each port, and room for an access that straddles the end.
#[repr(C, align(4096))]
pub struct IoMap([u8; 0x3000]);

/// 8 KiB: two bits (read, write) for each MSR of three ranges.
#[repr(C, align(4096))]
pub struct MsrMap([u8; 0x2000]);

impl IoMap {
    /// Every port exits.
    pub const CLOSED: Self = Self([0xff; 0x3000]);

    /// Every port exits but those of the link.
    pub const LINK: Self = {
        let mut map = Self::CLOSED;
        let mut port = *LINK_PORTS.start() as usize;
        while port <= *LINK_PORTS.end() as usize {
            map.0[port / 8] &= !(1 << (port % 8));
            port += 1;
        }
        map
    };
}

/// MSRs that VMLOAD and VMSAVE switch with the guest and that the processor
/// checks itself (canonical addresses, #GP): no exit is needed. SYSENTER's
/// exit, because AMD takes values there that no Intel machine would enter with.
pub const DIRECT_MSRS: [u32; 7] = [
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0100, // FS_BASE
    0xc000_0101, // GS_BASE
    0xc000_0102, // KERNEL_GS_BASE
];

impl MsrMap {
    /// Every MSR exits but [`DIRECT_MSRS`].
    pub const GUEST: Self = {
        let mut map = Self([0xff; 0x2000]);
        let mut i = 0;
        while i < DIRECT_MSRS.len() {
            let msr = DIRECT_MSRS[i];
            // Ranges of 0x2000 MSRs, 0x800 bytes each: 0…, 0xC000_0000….
            let (base, first) = if msr >= 0xc000_0000 {
                (0x800, msr - 0xc000_0000)
            } else {
                (0, msr)
            };
            map.0[base + first as usize / 4] &= !(0b11 << (first % 4 * 2));
            i += 1;
        }
        map
    };
}

static CLOSED: IoMap = IoMap::CLOSED;
static LINK: IoMap = IoMap::LINK;
static MSRS: MsrMap = MsrMap::GUEST;

/// The maps of a guest with this access.
pub fn permissions(ports: PortAccess) -> Permissions {
    let io = match ports {
        PortAccess::Closed => &CLOSED,
        PortAccess::Link => &LINK,
    };
    Permissions {
        io: HostPhys::of(io),
        msr: HostPhys::of(&raw const MSRS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port_exits(map: &IoMap, port: usize) -> bool {
        map.0[port / 8] & 1 << (port % 8) != 0
    }

    #[test]
    fn an_ordinary_guest_reaches_no_port_and_the_toolstack_the_link() {
        assert!((0..0x1_8000).all(|port| port_exits(&IoMap::CLOSED, port)));
        for port in 0..0x1_8000 {
            let link = (0x2f8..=0x2ff).contains(&port);
            assert_eq!(port_exits(&IoMap::LINK, port), !link, "{port:#x}");
        }
    }

    #[test]
    fn msrs_that_nobody_switches_exit() {
        let open: u32 = MsrMap::GUEST.0.iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(open as usize, 2 * DIRECT_MSRS.len());
        // EFER (0xC000_0080) lies beside STAR: byte 0x820, lowest pair.
        assert_eq!(MsrMap::GUEST.0[0x820], 0b0000_0011);
        // IA32_XSS (0xDA0) exits both ways.
        assert_eq!(MsrMap::GUEST.0[0xda0 / 4], 0xff);
    }
}
