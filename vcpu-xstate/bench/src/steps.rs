//! Counts the instructions of a function: a child of this program runs it one instruction at a time.
#![allow(unsafe_code)] // fork, ptrace, and what the child runs between them

use std::io::Error;

/// No counted function is longer: a step further is a fault of the count.
const MOST: u64 = 100_000;

/// How many instructions the processor executes from the first one at
/// `function` until it has returned to its caller, when a child of this program
/// does `call`. The return itself counts; what the function calls counts too.
///
/// The child does nothing but `call` and then ends: it may use no lock, since
/// another thread of this program may hold it for ever.
///
/// # Errors
/// Why the system does not let it be counted, or that `call` never got there.
pub fn count(function: usize, call: impl FnOnce()) -> Result<u64, String> {
    // SAFETY: the child runs `call` and ends, as documented.
    match unsafe { libc::fork() } {
        -1 => Err(format!("fork: {}", Error::last_os_error())),
        0 => {
            // SAFETY: in the child: asks to be traced, stops until the parent
            // lets it go on, and ends without running destructors twice.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::raise(libc::SIGSTOP);
                call();
                libc::_exit(0)
            }
        }
        child => {
            let counted = Child(child).count(function);
            // SAFETY: our own child, which nobody else waits for.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, std::ptr::null_mut(), 0);
            }
            counted
        }
    }
}

/// A child that is traced.
struct Child(libc::pid_t);

impl Child {
    fn count(&self, function: usize) -> Result<u64, String> {
        self.stopped()?;
        let mut steps = 0;
        while self.registers()?.rip != function as u64 {
            self.step()?;
            steps += 1;
            if steps > MOST {
                return Err("the function was not called".to_owned());
            }
        }
        let stack = self.registers()?.rsp;
        let back = self.word(stack)?;
        steps = 0;
        loop {
            self.step()?;
            steps += 1;
            let now = self.registers()?;
            // Returned: to the caller, with the return address off the stack.
            if now.rip == back && now.rsp > stack {
                return Ok(steps);
            }
            if steps > MOST {
                return Err("the function does not return".to_owned());
            }
        }
    }

    fn step(&self) -> Result<(), String> {
        self.request(libc::PTRACE_SINGLESTEP, 0, 0)?;
        self.stopped()
    }

    /// Waits until it has stopped.
    fn stopped(&self) -> Result<(), String> {
        let mut status = 0;
        // SAFETY: our own child; `status` is ours.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        if waited == self.0 && libc::WIFSTOPPED(status) {
            let signal = libc::WSTOPSIG(status);
            if signal == libc::SIGTRAP || signal == libc::SIGSTOP {
                return Ok(());
            }
            return Err(format!("the child got signal {signal}"));
        }
        Err(format!("the child ended (status {status:#x})"))
    }

    fn registers(&self) -> Result<libc::user_regs_struct, String> {
        // SAFETY: plain numbers, for which zero is a value.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        self.request(libc::PTRACE_GETREGS, 0, (&raw mut registers).addr())?;
        Ok(registers)
    }

    /// A word of its memory, which is a copy of ours: that of a stack.
    fn word(&self, address: u64) -> Result<u64, String> {
        let value = self.request(libc::PTRACE_PEEKDATA, address as usize, 0)?;
        Ok(value as u64)
    }

    fn request(
        &self,
        what: libc::c_uint,
        address: usize,
        data: usize,
    ) -> Result<libc::c_long, String> {
        // SAFETY: our own child, stopped; `data` is 0 or a buffer of the
        // caller's that is as large as the request writes.
        let (answer, error) = unsafe {
            *libc::__errno_location() = 0;
            let answer = libc::ptrace(what, self.0, address, data);
            (answer, *libc::__errno_location())
        };
        if answer == -1 && error != 0 {
            return Err(format!("ptrace: {}", Error::from_raw_os_error(error)));
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four instructions.
    #[unsafe(naked)]
    extern "C" fn four() {
        core::arch::naked_asm!("mov eax, 1", "add eax, 1", "nop", "ret")
    }

    /// Eight: itself, a call, and the four.
    #[unsafe(naked)]
    extern "C" fn eight() {
        core::arch::naked_asm!("nop", "call {}", "nop", "ret", sym four)
    }

    #[test]
    fn instructions_are_counted_to_the_return() {
        for (function, expected) in [(four as extern "C" fn(), 4), (eight, 8)] {
            match count(function as *const () as usize, || function()) {
                Ok(counted) => assert_eq!(counted, expected),
                Err(why) => println!("skipped: {why}"),
            }
        }
        match count(four as *const () as usize, || ()) {
            Ok(counted) => panic!("{counted} of a function that was not called"),
            Err(why) => assert!(!why.is_empty()),
        }
    }
}
