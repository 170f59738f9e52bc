//! The signals by which the system tells that the processor refused a step.

use std::sync::OnceLock;

use libc::{c_int, c_void, siginfo_t, ucontext_t};

/// The signals that a refused instruction becomes.
const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL];

/// What the process did with these signals before.
static BEFORE: OnceLock<[libc::sigaction; 3]> = OnceLock::new();

/// Installs the handler, once for the process.
pub fn install_handler() -> Result<(), String> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = *INSTALLED.get_or_init(|| {
        // SAFETY: all-zero is a value of this C structure.
        let mut before: [libc::sigaction; 3] = unsafe { std::mem::zeroed() };
        // Known before the first fault can come.
        for (signal, old) in SIGNALS.into_iter().zip(&mut before) {
            // SAFETY: asks, and writes to `old`.
            unsafe { libc::sigaction(signal, std::ptr::null(), old) };
        }
        if BEFORE.set(before).is_err() {
            return false;
        }
        // SAFETY: as above; the empty set of signals is zeros.
        let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_fault;
        ours.sa_sigaction = handler as *const () as usize;
        // Not on the alternate stack: with AMX the frame alone fills one of the
        // least size that the system allows.
        ours.sa_flags = libc::SA_SIGINFO;
        SIGNALS.into_iter().all(|signal| {
            // SAFETY: `on_fault` is async-signal-safe: it reads and writes the
            // context that it is given, and calls sigaction alone.
            unsafe { libc::sigaction(signal, &ours, std::ptr::null_mut()) == 0 }
        })
    });
    if installed {
        Ok(())
    } else {
        Err("the system takes no signal handler".into())
    }
}

/// Ends the script that faulted; any other fault goes to whom it went before.
unsafe extern "C" fn on_fault(signal: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // Labels within the assembly's `play`.
    unsafe extern "C" {
        static xstate_capture_script: u8;
        static xstate_capture_faulted: u8;
    }
    let script = (&raw const xstate_capture_script).addr();
    let faulted = (&raw const xstate_capture_faulted).addr();
    // SAFETY: the third argument of a handler with SA_SIGINFO is a context
    // that belongs to it until it returns.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let rip = registers[libc::REG_RIP as usize];
    if (script..faulted).contains(&(rip as usize)) {
        registers[libc::REG_R8 as usize] = registers[libc::REG_TRAPNO as usize];
        registers[libc::REG_RIP as usize] = faulted as i64;
    } else if let Some(before) = BEFORE.get() {
        for (known, old) in SIGNALS.into_iter().zip(before) {
            if known == signal {
                // SAFETY: the action was this process's. The instruction
                // faults again when this returns.
                unsafe { libc::sigaction(signal, old, std::ptr::null_mut()) };
            }
        }
    }
}
