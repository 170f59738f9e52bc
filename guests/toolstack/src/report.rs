//! What is told about domains, in aligned columns and with units.

use crate::build::name_text;
use crate::hypervisor::{Policy, XstateStatus};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use migration_abi::handover::{Status, receiver, source};
use vcpu_xstate::component::{ComponentIndex, ComponentSet};
use xferry_abi::info::{DomainInfo, PhysicalInfo, crash, state, xstate_row};
use xferry_abi::{DomainId, ShutdownReason};

/// Who a command's lines go to.
pub trait Output {
    /// Prints a line, without its end.
    fn line(&mut self, text: core::fmt::Arguments<'_>);
}

/// Prints a line to an [`Output`].
#[macro_export]
macro_rules! say {
    ($out:expr, $($argument:tt)*) => { $out.line(format_args!($($argument)*)) };
}

/// Prints `rows` in columns as wide as they must be; those of `left` and the
/// last are aligned to the left, numbers to the right.
fn table(out: &mut dyn Output, left: &[usize], rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let widths = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(String::len);
            widths.max().unwrap_or(0)
        })
        .collect();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column != 0 {
                line.push_str("  ");
            }
            if column + 1 == columns {
                line.push_str(cell);
            } else if left.contains(&column) {
                line.push_str(&alloc::format!("{cell:<width$}"));
            } else {
                line.push_str(&alloc::format!("{cell:>width$}"));
            }
        }
        say!(out, "{}", line.trim_end());
    }
}

fn row<const N: usize>(cells: [&dyn core::fmt::Display; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

/// `list`.
pub fn domains(out: &mut dyn Output, domains: &[(DomainId, DomainInfo)]) {
    let mut rows = Vec::from([row([
        &"id",
        &"name",
        &"memory KiB",
        &"cpu ms",
        &"exits",
        &"right",
        &"state",
    ])]);
    for (id, info) in domains {
        rows.push(row([
            &id.0,
            &name_text(&info.name),
            &info.memory_pages.saturating_mul(4),
            &(info.cpu_time_ns / 1_000_000),
            &info.exits,
            &right(info.migration),
            &state_words(info),
        ]));
    }
    table(out, &[1, 5], &rows);
}

/// Who may run a domain whose migration has this status code.
fn right(code: u32) -> &'static str {
    match Status::from_code(code) {
        Some(Status::Source(state)) if !state.holds_right() => "given-up",
        Some(Status::Receiver(state)) if !state.holds_right() => "not-yet",
        Some(_) => "here",
        None => "unknown",
    }
}

/// What a domain does, and why.
#[must_use]
pub fn state_words(info: &DomainInfo) -> String {
    let migration = match Status::from_code(info.migration) {
        Some(Status::Source(
            source::State::Sending | source::State::Accepted | source::State::Offered,
        )) => Some("sending"),
        Some(Status::Source(source::State::Committed)) => {
            Some("given up: paused copy of a domain that moved, until `reconnect` settles it")
        }
        Some(Status::Receiver(receiver::State::Receiving | receiver::State::Accepted)) => {
            Some("arriving")
        }
        Some(Status::Receiver(receiver::State::Ready)) => {
            Some("arrived, waits for COMMIT; `reconnect` settles it")
        }
        _ => None,
    };
    if let Some(words) = migration {
        return words.to_string();
    }
    match info.state {
        state::RUNNING => "running".to_string(),
        state::PAUSED => "paused".to_string(),
        state::SHUT_DOWN => {
            let reason = ShutdownReason::from_number(info.cause.into());
            alloc::format!(
                "shut down ({})",
                match reason {
                    Some(ShutdownReason::PowerOff) => "power off",
                    Some(ShutdownReason::Reboot) => "asks for a reboot",
                    Some(ShutdownReason::Crash) => "says it crashed",
                    None => "unknown reason",
                }
            )
        }
        state::CRASHED => {
            let detail = match info.cause {
                crash::NESTED_FAULT => alloc::format!(" at {:#x}", info.crash_detail),
                _ if info.crash_detail != 0 => alloc::format!(", {:#x}", info.crash_detail),
                _ => String::new(),
            };
            alloc::format!("crashed ({}{detail})", crash::name(info.cause))
        }
        state::NEEDS_MEMORY => alloc::format!(
            "waits for {} bytes of extended state: `limit ID BYTES` with more than {}",
            info.missing_bytes,
            info.xstate_limit_bytes
        ),
        other => alloc::format!("unknown state {other}"),
    }
}

/// `xstate`, one vCPU of it.
pub fn xstate(out: &mut dyn Output, vcpu: u32, vcpus: u32, status: &XstateStatus) {
    let summary = &status.summary;
    if vcpus > 1 {
        say!(out, "vcpu {vcpu}");
    }
    let owner = match summary.owner {
        u32::MAX => "memory".to_string(),
        cpu => alloc::format!("cpu{cpu}"),
    };
    let mut rows = Vec::from([row([
        &"component",
        &"owner",
        &"bytes",
        &"offset",
        &"state",
        &"enabled",
        &"room",
    ])]);
    for component in &status.rows {
        let has = |flag: u32| component.flags & flag != 0;
        let name = u8::try_from(component.index)
            .ok()
            .and_then(ComponentIndex::new)
            .map_or_else(|| component.index.to_string(), name_of);
        let offset = match component.offset_bytes {
            u32::MAX => "-".to_string(),
            offset => offset.to_string(),
        };
        rows.push(row([
            &name,
            &owner,
            &component.size_bytes,
            &offset,
            &if has(xstate_row::IN_USE) {
                "in use"
            } else {
                "INIT"
            },
            &if has(xstate_row::ENABLED) {
                "yes"
            } else {
                "no"
            },
            &match (has(xstate_row::IN_AREA), has(xstate_row::DEFERRED)) {
                (true, false) => "always",
                (true, true) => "since first enabled",
                (false, true) => "when first enabled",
                (false, false) => "none",
            },
        ]));
    }
    table(out, &[0, 1, 4, 5], &rows);
    let form = if summary.compacted != 0 {
        "compacted"
    } else {
        "standard"
    };
    say!(out, "area {} bytes, {form}", summary.area_bytes);
    say!(out, "blob {} bytes", summary.blob_bytes);
    say!(out, "xcr0 {:#x}  xss {:#x}", summary.xcr0, summary.xss);
}

/// One word, so that it can be read back from a table.
fn name_of(component: ComponentIndex) -> String {
    match component.name() {
        Some(name) => name.to_string(),
        None => alloc::format!("component-{}", component.get()),
    }
}

/// `policy`.
pub fn policy(out: &mut dyn Output, policy: &Policy, components: ComponentSet) {
    say!(out, "components {components}");
    let deferred = ComponentSet::from_bits_retain(policy.deferred);
    if !deferred.is_empty() {
        say!(out, "room when first enabled {deferred}");
    }
    let mut rows = Vec::from([row([&"leaf", &"subleaf", &"eax", &"ebx", &"ecx", &"edx"])]);
    for leaf in &policy.leaves {
        let hex = |value: u32| alloc::format!("{value:08x}");
        rows.push(row([
            &hex(leaf.leaf),
            &leaf.subleaf,
            &hex(leaf.eax),
            &hex(leaf.ebx),
            &hex(leaf.ecx),
            &hex(leaf.edx),
        ]));
    }
    table(out, &[], &rows);
}

/// `host`.
pub fn host(out: &mut dyn Output, info: &PhysicalInfo) {
    say!(out, "cpus       {}", info.cpus);
    say!(out, "tsc        {} kHz", info.tsc_khz);
    let kib = |pages: u64| pages.saturating_mul(4);
    say!(
        out,
        "memory     {} KiB, {} free",
        kib(info.total_pages),
        kib(info.free_pages)
    );
    say!(
        out,
        "heap       {} bytes, {} free",
        info.heap_bytes,
        info.heap_free_bytes
    );
    say!(
        out,
        "xstate     {}",
        ComponentSet::from_bits_retain(info.xstate_offered)
    );
    say!(out, "uptime     {} ms", info.uptime_ns / 1_000_000);
    say!(out, "boot       {:016x}", info.boot_nonce);
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
