//! What tests of handlers and hypercalls share: a host like QEMU's `-cpu max`,
//! guests on a development machine's heap, and a toolstack that asks.
#![allow(unsafe_code)] // `Silicon::new`

mod bytes;

pub use bytes::{Content, blob, policy_bytes};

use crate::domain::memory::tests::memory;
use crate::domain::status::Status;
use crate::domain::table::DOMAINS;
use crate::domain::xstate_memory::XstateMemory;
use crate::domain::{Domain, Shared, VcpuCell};
use crate::exits::uart::Uart;
use crate::exits::{self, Next, Running};
use crate::host::{self, Host};
use crate::mm::addr::GuestPhys;
use crate::sched::VcpuRef;
use crate::sched::pcpu::Pcpu;
use crate::vcpu::clock::DomainClock;
use crate::vcpu::{Vcpu, record};
use crate::virt::{ActiveCpu, Backend, Event, Exit, Intercepted, PortAccess, Register, gpr};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use migration_abi::registers::{Segment, VcpuRegisters};
use migration_abi::xstate::HostLayouts;
use spin::mutex::{SpinMutex, SpinMutexGuard};
use std::sync::{Mutex, MutexGuard};
use vcpu_xstate::cpuid::{CpuidResult, HostXstate};
use vcpu_xstate::hw::Silicon;
use vcpu_xstate::percpu::{CpuId, PcpuXstate};
use vcpu_xstate::policy::CpuPolicy;
use xferry_abi::{Buffer, DomainId, Errno, Failure, Reason, Request};
use zerocopy::IntoBytes;

/// Memory of every domain here.
pub const PAGES: u64 = 32;
/// Where [`Guest::at`] puts instructions: the last page before [`DATA`].
pub const CODE: u64 = 0x8000;
/// Free memory.
pub const DATA: u64 = 0x9000;
/// Page table of the lowest 2 MiB in 64-bit mode, an entry for each page.
const PAGE_TABLE: u64 = 0x4000;
/// Present, writable, a user's, accessed, dirty.
const FLAGS: u64 = 0x67;
/// VMMCALL.
const HYPERCALL: [u8; 3] = [0x0f, 0x01, 0xd9];
/// Where a toolstack's call and its buffer lie.
const CALL: u64 = 0xa000;
pub const BUFFER: u64 = 0xb000;

/// QEMU 10's `-cpu max`: XCR0 0x21f, standard form only.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let [eax, ebx, ecx, edx] = match (leaf, subleaf) {
        (0, _) => [0x20, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        (1, _) => [0x60_0fb1, 0x0510_0800, 0x7ed8_320b, 0x178b_fbff],
        (7, 0) => [1, 0x0190_45a9, 0x40_060c, 0],
        (0xd, 0) => [0x21f, 0, 0, 0],
        (0xd, 1) => [5, 0, 0, 0],
        (0xd, 2) => [256, 576, 0, 0],
        (0xd, 3) => [64, 960, 0, 0],
        (0xd, 4) => [64, 1024, 0, 0],
        (0xd, 9) => [8, 2688, 0, 0],
        (0x8000_0000, _) => [0x8000_0008, 0, 0, 0],
        (0x8000_0001, _) => [0, 0, 0x121, 0x2c10_0800],
        (0x8000_0008, _) => [0x3928, 0, 0, 0],
        _ => [0; 4],
    };
    CpuidResult { eax, ebx, ecx, edx }
}

/// The host's facts, set by whoever asks first.
pub fn host() -> &'static Host {
    let xstate = HostXstate::read(&cpuid, 0x2_ffff).unwrap();
    host::set(Host {
        policy: CpuPolicy::host_default(&cpuid, &xstate),
        layouts: HostLayouts::new(xstate.geometry()).unwrap(),
        xstate,
        tsc_khz: 1_000_000,
        boot_nonce: 1,
        #[cfg(feature = "import-fault")]
        import_fault: crate::migrate::fault::ImportFault::None,
    });
    host::get()
}

/// A CPU whose registers hold nobody's state: on a development machine none can
/// be loaded.
pub fn pcpu() -> Pcpu {
    // SAFETY: it is never asked to execute an instruction.
    let silicon = unsafe { Silicon::new() };
    let xstate = PcpuXstate::new(CpuId(0), silicon, host().xstate.clone());
    Pcpu::new(ActiveCpu::idle(), xstate, false)
}

/// A number that no other domain has.
fn number() -> DomainId {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    DomainId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A paused domain of this policy whose areas may take `limit` bytes more than
/// they do.
pub fn domain(id: DomainId, policy: &str, vcpus: u32, limit: u64) -> Arc<Domain> {
    let policy = Arc::new(host().policy.with_config(policy).unwrap());
    let memory = memory(PAGES);
    let clock = DomainClock::new(0, crate::cpu::tsc::now(), host().tsc_khz);
    let mut areas = XstateMemory::new(u64::MAX);
    let cell = |index| {
        let ports = PortAccess::Closed;
        VcpuCell::new(Vcpu::new(index, &policy, clock, &memory, ports, &mut areas).unwrap())
    };
    let vcpus = (0..vcpus).map(cell).collect();
    areas.set_limit_bytes(areas.used_bytes() + limit);
    Arc::new(Domain {
        id,
        uuid: [0; 16],
        name: [0; 32],
        vcpus,
        memory,
        status: Status::paused(true),
        stays_paused: false,
        shared: SpinMutex::new(Shared { policy, clock }),
        xstate_memory: SpinMutex::new(areas),
        console: SpinMutex::new(Uart::new()),
        cpu_time_ns: AtomicU64::new(0),
        exits: AtomicU64::new(0),
    })
}

/// The first vCPU of a domain, and the CPU that runs it.
pub struct Guest {
    pub domain: Arc<Domain>,
    target: VcpuRef,
    pcpu: Pcpu,
}

impl Guest {
    /// A guest of this policy that executes 64-bit code at CPL 0; its memory is
    /// mapped to itself, for users too.
    pub fn new(policy: &str) -> Self {
        Self::of(domain(number(), policy, 1, 1 << 20))
    }

    fn of(domain: Arc<Domain>) -> Self {
        let guest = Self {
            target: VcpuRef::new(&domain, 0).unwrap(),
            domain,
            pcpu: pcpu(),
        };
        for (table, next) in [(0x1000, 0x2000), (0x2000, 0x3000), (0x3000, PAGE_TABLE)] {
            guest.put(table, &(next | FLAGS).to_le_bytes());
        }
        (0..PAGES).for_each(|page| guest.map(page << 12, page << 12));
        guest.change(|r| {
            (r.cr0, r.cr3, r.cr4, r.efer) = (0x8001_0011, 0x1000, 1 << 5, 0x500);
            r.cs = segment(0xa09b);
            r.ss = segment(0xc093);
            (r.ds, r.es) = (r.ss, r.ss);
        });
        guest
    }

    /// The same in 32-bit code without paging.
    pub fn flat(policy: &str) -> Self {
        let guest = Self::new(policy);
        guest.change(|r| {
            (r.cr0, r.cr4, r.efer) = (0x11, 0, 0);
            r.cs = segment(0xc09b);
        });
        guest
    }

    /// The guest goes on at this privilege level.
    pub fn set_cpl(&self, cpl: u32) {
        self.change(|r| r.ss.attributes = r.ss.attributes & !0x60 | cpl << 5);
    }

    /// Maps a page of 64-bit mode.
    pub fn map(&self, linear: u64, physical: u64) {
        self.map_with(linear, physical | FLAGS);
    }

    /// The same, by its entry.
    pub fn map_with(&self, linear: u64, entry: u64) {
        self.put(PAGE_TABLE + (linear >> 9), &entry.to_le_bytes());
    }

    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.domain.memory.write(GuestPhys::new(at), bytes).unwrap();
    }

    pub fn take(&self, at: u64, bytes: usize) -> Vec<u8> {
        let mut taken = alloc::vec![0; bytes];
        let memory = &self.domain.memory;
        memory.read(GuestPhys::new(at), &mut taken).unwrap();
        taken
    }

    /// RIP stands at this instruction.
    pub fn at(&self, code: &[u8]) -> u64 {
        self.at_address(CODE, code)
    }

    pub fn at_address(&self, address: u64, code: &[u8]) -> u64 {
        self.put(address, code);
        self.vcpu().backend.write(Register::Rip, address);
        address + code.len() as u64
    }

    pub fn vcpu(&self) -> SpinMutexGuard<'_, Vcpu> {
        self.target.cell().vcpu.lock()
    }

    pub fn set(&self, register: usize, value: u64) {
        self.vcpu().gprs.0[register] = value;
    }

    pub fn get(&self, register: usize) -> u64 {
        self.vcpu().gprs.0[register]
    }

    pub fn read(&self, register: Register) -> u64 {
        self.vcpu().backend.read(register)
    }

    pub fn rip(&self) -> u64 {
        self.read(Register::Rip)
    }

    /// All registers; the TSC is its offset.
    pub fn registers(&self) -> VcpuRegisters {
        record::export(&self.vcpu(), 0)
    }

    /// Changes registers that the control block holds, unchecked.
    pub fn change(&self, change: impl FnOnce(&mut VcpuRegisters)) {
        let mut vcpu = self.vcpu();
        let mut record = record::export(&vcpu, 0);
        change(&mut record);
        vcpu.gprs.0 = record.gpr;
        vcpu.backend.import(&record);
    }

    /// What is delivered next; it is taken.
    pub fn event(&self) -> Option<Event> {
        let mut vcpu = self.vcpu();
        let event = vcpu.events.first();
        vcpu.events.set_recorded(None);
        event
    }

    /// Handles an exit.
    pub fn exit(&mut self, exit: Exit) -> Next {
        let mut vcpu = self.target.cell().vcpu.lock();
        let mut running = Running {
            pcpu: &mut self.pcpu,
            target: &self.target,
            vcpu: &mut vcpu,
        };
        exits::handle(&mut running, exit)
    }

    /// Executes an instruction that exits, and that the guest survives.
    pub fn execute(&mut self, code: &[u8], what: Intercepted) -> Option<Event> {
        self.at(code);
        assert_eq!(self.exit(Exit::Instruction(what)), Next::Resume);
        self.event()
    }

    /// Makes a hypercall.
    pub fn hypercall(&mut self, number: u64, arguments: [u64; 3]) -> Next {
        self.at(&HYPERCALL);
        self.set(gpr::RAX, number);
        for (register, value) in [gpr::RDI, gpr::RSI, gpr::RDX].into_iter().zip(arguments) {
            self.set(register, value);
        }
        self.exit(Exit::Instruction(Intercepted::Hypercall))
    }

    /// How the last call ended.
    pub fn result(&self) -> Result<u64, Failure> {
        let [value, reason, seen, allowed] =
            [gpr::RAX, gpr::RDX, gpr::RSI, gpr::RDI].map(|r| self.get(r));
        let number = value.cast_signed();
        if number >= 0 {
            assert_eq!([reason, seen, allowed], [0; 3]);
            return Ok(value);
        }
        Err(Failure {
            errno: Errno::from_number(u32::try_from(-number).unwrap()).unwrap(),
            reason: Reason(u32::try_from(reason).unwrap()),
            seen,
            allowed,
        })
    }
}

/// A flat segment.
pub fn segment(attributes: u32) -> Segment {
    Segment {
        limit: u32::MAX,
        selector: 8,
        attributes,
        ..Segment::ZERO
    }
}

/// Domain 0. There is one at a time, because there is one text that explains.
pub struct Toolstack {
    pub guest: Guest,
    _alone: MutexGuard<'static, ()>,
}

std::thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

impl Drop for Toolstack {
    fn drop(&mut self) {
        HERE.set(false);
    }
}

impl Toolstack {
    pub fn new() -> Self {
        crate::mm::heap::stand_in();
        static ALONE: Mutex<()> = Mutex::new(());
        // A second one in one test would wait for the first for ever.
        assert!(!HERE.replace(true), "this test has a toolstack");
        let alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
        Self {
            guest: Guest::of(domain(DomainId::TOOLSTACK, "host", 1, 1 << 20)),
            _alone: alone,
        }
    }

    /// A paused domain that calls can name.
    pub fn domain(&self, policy: &str, vcpus: u32, limit: u64) -> Arc<Domain> {
        let domain = domain(number(), policy, vcpus, limit);
        DOMAINS.lock().insert(Arc::clone(&domain));
        domain
    }

    /// The same, as a guest in 64-bit mode.
    pub fn other(&self, policy: &str) -> Guest {
        Guest::of(self.domain(policy, 1, 1 << 20))
    }

    /// A buffer of these bytes.
    pub fn give(&self, bytes: &[u8]) -> Buffer {
        self.guest.put(BUFFER, bytes);
        self.room(bytes.len() as u64)
    }

    /// A buffer of so many bytes.
    pub fn room(&self, bytes: u64) -> Buffer {
        Buffer {
            address: BUFFER,
            bytes,
        }
    }

    pub fn call(&mut self, request: Request) -> Result<u64, Failure> {
        self.raw(request.encode().as_bytes())
    }

    /// A call with these bytes as its argument.
    pub fn raw(&mut self, control: &[u8]) -> Result<u64, Failure> {
        self.guest.put(CALL, control);
        let next = self.guest.hypercall(16, [CALL, control.len() as u64, 0]);
        assert_eq!(next, Next::Resume);
        self.guest.result()
    }

    /// Asks for the size, makes room, and takes what is there.
    pub fn fetch(&mut self, request: impl Fn(Buffer) -> Request) -> Vec<u8> {
        let bytes = self.call(request(Buffer::NULL)).unwrap();
        let room = self.room(bytes);
        assert_eq!(self.call(request(room)), Ok(bytes));
        self.guest.take(BUFFER, usize::try_from(bytes).unwrap())
    }

    /// The words for the last refusal.
    pub fn words(&mut self) -> String {
        let text = self.fetch(|buffer| Request::Explain { buffer });
        String::from_utf8(text).unwrap()
    }
}
