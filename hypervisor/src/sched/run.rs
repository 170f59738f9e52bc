//! The run loop of one physical CPU: choose a vCPU, run it for a slice, handle
//! its exits, idle when nothing can run.
//!
//! There is one stack per CPU, not one per vCPU: every handler runs to its end.
//! On the way from an exit back into the same guest nothing is allocated and
//! no lock is taken, but what a handler's own work needs (a console's bytes,
//! growth of an area).

use super::pcpu::Pcpu;
use super::{Choice, QUEUE, VcpuRef};
use crate::console;
use crate::cpu::{apic, interrupts, tsc};
use crate::domain::status::Stop;
use crate::exits::{self, Next, Running};
use crate::vcpu::{Activity, Vcpu, rflags};
use crate::virt::{Backend, Exit, Register};
use xferry_abi::info::crash;

/// How long a guest's vCPU runs while others wait.
const SLICE_NS: u64 = 1_000_000;

/// How long the toolstack runs while guests wait: longer, because it polls a
/// link whose FIFO holds 16 bytes, and a domain stands still while it is moved.
/// It gives the CPU away when the link is silent.
const TOOLSTACK_SLICE_NS: u64 = 10_000_000;

/// Runs this CPU for ever.
pub fn run(mut pcpu: Pcpu) -> ! {
    loop {
        console::poll();
        let now = tsc::uptime_ns();
        let choice = QUEUE.lock().choose(now);
        match choice {
            Choice::Run(target) => slice(&mut pcpu, &target),
            Choice::IdleUntil(wake) => idle(now, wake),
        }
    }
}

/// Waits for an interrupt. The timer comes at least once a slice, because the
/// console is polled.
fn idle(now_ns: u64, wake_ns: u64) {
    apic::arm_timer_ns(wake_ns.saturating_sub(now_ns).min(SLICE_NS));
    interrupts::wait();
}

/// Runs one vCPU until its slice ends or it has nothing to do.
fn slice(pcpu: &mut Pcpu, target: &VcpuRef) {
    let cell = target.cell();
    let Some(mut vcpu) = cell.vcpu.try_lock() else {
        return;
    };
    if pcpu.switch_to(target, &mut vcpu).is_err() {
        stopped(target, Stop::crash(crash::XSTATE_LOST, 0));
        return;
    }
    cell.block_until_ns(0);
    let start = tsc::uptime_ns();
    let end = start
        + if target.domain.is_privileged() {
            TOOLSTACK_SLICE_NS
        } else {
            SLICE_NS
        };
    let mut exits = 0u64;
    wake(&mut vcpu);
    arm(&vcpu, start, end);
    let next = loop {
        vcpu.events.pending |= cell.take_raised();
        if vcpu.activity == Activity::Halted {
            let interrupts = vcpu.backend.read(Register::Rflags) & rflags::IF != 0;
            if !vcpu.events.wakes(interrupts) {
                break Next::Block;
            }
            vcpu.activity = Activity::Running;
        }
        vcpu.prepare_entry();
        pcpu.xstate.enter(&vcpu.xstate);
        let Vcpu { backend, gprs, .. } = &mut *vcpu;
        let (exit, interrupted) = backend.enter(&mut pcpu.backend, gprs);
        exits += 1;
        if let Some(event) = interrupted {
            vcpu.events.redeliver(event);
        }
        if exit == Exit::Interrupt {
            // GIF is set again, RFLAGS.IF is not: let the handler run.
            interrupts::let_in();
            let now = tsc::uptime_ns();
            if now >= end {
                break Next::Yield;
            }
            wake(&mut vcpu);
            arm(&vcpu, now, end);
            continue;
        }
        let mut running = Running {
            pcpu,
            target,
            vcpu: &mut vcpu,
        };
        match exits::handle(&mut running, exit) {
            Next::Resume => {}
            Next::ResumeTimer => {
                let now = tsc::uptime_ns();
                wake(&mut vcpu);
                arm(&vcpu, now, end);
            }
            other => break other,
        }
        if !target.domain.status.runnable() {
            break Next::Yield;
        }
    };
    target
        .domain
        .account(tsc::uptime_ns().saturating_sub(start), exits);
    match next {
        Next::Block => cell.block_until_ns(deadline(&vcpu)),
        Next::Stop(stop) => stopped(target, stop),
        Next::Resume | Next::ResumeTimer | Next::Yield => {}
    }
}

fn stopped(target: &VcpuRef, stop: Stop) {
    let domain = &target.domain;
    domain.status.stop(stop);
    let told = domain.status.told();
    ::log::info!(
        "domain {} stopped: {}",
        domain.id.0,
        crate::domain::status::words(told)
    );
    if domain.is_privileged() {
        crate::power_off(told);
    }
}

/// Marks the vCPU's timer event where its time has come.
fn wake(vcpu: &mut Vcpu) {
    if vcpu.events.timer_deadline_ns != u64::MAX {
        let now = vcpu.now_ns(tsc::now());
        vcpu.events.expire(now);
    }
}

/// The next interrupt comes at the slice's end or when the vCPU's timer is due.
fn arm(vcpu: &Vcpu, now_ns: u64, end_ns: u64) {
    let due = deadline(vcpu).min(end_ns);
    apic::arm_timer_ns(due.saturating_sub(now_ns).max(1));
}

/// When the vCPU's timer is due, in host time since boot.
fn deadline(vcpu: &Vcpu) -> u64 {
    if vcpu.events.timer_deadline_ns == u64::MAX {
        return u64::MAX;
    }
    let guest_now = vcpu.now_ns(tsc::now());
    let left = vcpu.events.timer_deadline_ns.saturating_sub(guest_now);
    tsc::uptime_ns().saturating_add(left)
}
