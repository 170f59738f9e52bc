//! The toolstack domain's entry. All it does is in the library.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
guest_rt::entry!(start);

#[cfg(target_os = "none")]
#[global_allocator]
static HEAP: guest_rt::heap::Heap = guest_rt::heap::Heap::new();

#[cfg(target_os = "none")]
#[allow(unsafe_code)] // hands free memory to the heap
fn start(boot: &'static guest_rt::BootInfo) -> ! {
    // SAFETY: called once, before the first allocation; nobody else uses free
    // memory.
    unsafe { HEAP.init(boot.free_memory()) };
    toolstack::native::shell(boot)
}

#[cfg(not(target_os = "none"))]
fn main() {
    println!("the toolstack is a guest; build it with --target x86_64-unknown-none");
}
