//! The records of a stream that are no vCPU's: header, domain, console, messages.

use migration_abi::handover::{Body, Message, Reason, Role};
use migration_abi::stream::{Console, Domain, PAGE_BYTES, Record, RecordType, StreamHeader};
use serde_json::{Value, json};

use super::document::{Section, Table, hex, numbers};
use super::image::mask;

/// The record's name as the book has it.
pub const fn name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::Header => "HEADER",
        RecordType::Domain => "DOMAIN",
        RecordType::Pages => "PAGES",
        RecordType::ZeroPages => "ZERO_PAGES",
        RecordType::Console => "CONSOLE",
        RecordType::VcpuRegisters => "VCPU_REGISTERS",
        RecordType::VcpuXstate => "VCPU_XSTATE",
        RecordType::End => "END",
        RecordType::Hello => "HELLO",
        RecordType::Accept => "ACCEPT",
        RecordType::Refuse => "REFUSE",
        RecordType::Ready => "READY",
        RecordType::Commit => "COMMIT",
        RecordType::Running => "RUNNING",
        RecordType::Done => "DONE",
        RecordType::Abort => "ABORT",
        RecordType::Query => "QUERY",
        RecordType::Status => "STATUS",
    }
}

/// What a frame says, in a few words.
pub fn summary(record: &Record<'_>) -> String {
    match record {
        Record::Header(header) => format!("migration {}", header.migration_id),
        Record::Domain(domain) => format!("{:?}", domain.name()),
        Record::Console(console) => format!("{} bytes unread", console.output.len()),
        Record::VcpuRegisters(record) => format!("vCPU {}", record.vcpu),
        Record::VcpuXstate(record) => format!("vCPU {}", record.vcpu),
        Record::End(end) => format!(
            "{} pages with bytes, {} zero, {} vCPUs",
            end.data_pages, end.zero_pages, end.vcpus
        ),
        Record::Handover(message) => said(message),
        Record::Pages(_) | Record::ZeroPages(_) => String::new(),
    }
}

fn said(message: &Message<'_>) -> String {
    let reason = |reason: &Reason<'_>| {
        format!(
            "errno {}, rule {:#x}: {}",
            reason.errno, reason.reason, reason.text
        )
    };
    match &message.body {
        Body::Hello {
            role: Role::Source,
            boot_nonce,
        } => format!("the source, boot {boot_nonce:#x}"),
        Body::Hello {
            role: Role::Receiver,
            boot_nonce,
        } => format!("the receiver, boot {boot_nonce:#x}"),
        Body::Refuse(why) | Body::Abort(why) => reason(why),
        Body::Status { status, boot_nonce } => format!("{status:?}, boot {boot_nonce:#x}"),
        _ => String::new(),
    }
}

/// A range of guest frames.
pub fn frames_range(first: u64, last: u64) -> String {
    if first == last {
        format!("guest frame {first:#x}")
    } else {
        format!("guest frames {first:#x} to {last:#x}")
    }
}

/// HEADER.
pub fn header(header: &StreamHeader) -> Section {
    let mut section = Section::new("header", "Header");
    let id = header.migration_id.to_string();
    section.field("migration_id", "migration", json!(id), id.clone());
    section.hex("boot_nonce", "source's boot", header.boot_nonce, "");
    section
}

/// DOMAIN; its CPUID policy leaf by leaf where `full` is asked for.
pub fn domain(domain: &Domain<'_>, full: bool) -> Section {
    let mut section = Section::new("domain", "Domain");
    let id = uuid(&domain.uuid);
    section.field("name", "name", json!(domain.name()), domain.name());
    section.field("uuid", "UUID", json!(id), id.clone());
    section.field(
        "memory_pages",
        "memory",
        json!(domain.memory_pages),
        format!(
            "{} pages, {}",
            domain.memory_pages,
            size(domain.memory_pages)
        ),
    );
    section.field(
        "vcpus",
        "vCPUs",
        json!(domain.vcpus),
        domain.vcpus.to_string(),
    );
    section.field(
        "clock_ns",
        "guest's clock",
        json!(domain.clock_ns.to_string()),
        format!(
            "{}.{:09} s",
            domain.clock_ns / 1_000_000_000,
            domain.clock_ns % 1_000_000_000
        ),
    );
    section.field(
        "tsc_khz",
        "TSC",
        json!(domain.tsc_khz),
        format!("{} kHz", domain.tsc_khz),
    );
    let paused = if domain.paused {
        "paused by its toolstack"
    } else {
        "runs"
    };
    section.field("paused", "state", json!(domain.paused), paused);
    mask(
        &mut section,
        "xstate_deferred",
        "deferred components",
        domain.xstate_deferred,
    );
    let count = domain.leaves.len();
    let more = if full { "" } else { " (--full shows them)" };
    section.field(
        "leaf_count",
        "CPUID policy",
        json!(count),
        format!("{count} leaves{more}"),
    );
    let columns = [
        numbers("leaf"),
        numbers("subleaf"),
        numbers("eax"),
        numbers("ebx"),
        numbers("ecx"),
        numbers("edx"),
    ];
    let mut table = Table::new("leaves", &columns);
    let mut values = Vec::new();
    for leaf in domain.leaves.iter() {
        let registers =
            [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx].map(|value| format!("{value:08x}"));
        let value = json!({
            "leaf": hex(leaf.leaf.into()), "subleaf": leaf.subleaf, "eax": hex(leaf.eax.into()),
            "ebx": hex(leaf.ebx.into()), "ecx": hex(leaf.ecx.into()), "edx": hex(leaf.edx.into()),
        });
        values.push(value.clone());
        let mut cells = vec![format!("{:#x}", leaf.leaf), leaf.subleaf.to_string()];
        cells.extend(registers);
        table.row(cells, value);
    }
    if full {
        section.table(table);
    } else {
        section.value("leaves", Value::Array(values));
    }
    section
}

/// CONSOLE.
pub fn console(console: &Console<'_>) -> Section {
    let mut section = Section::new("console", "Console");
    let u = &console.uart;
    let registers = [
        ("IER", u.ier),
        ("LCR", u.lcr),
        ("MCR", u.mcr),
        ("SCR", u.scr),
        ("DLL", u.dll),
        ("DLM", u.dlm),
        ("FCR", u.fcr),
    ];
    let shown: Vec<String> = registers
        .iter()
        .map(|(name, value)| format!("{name} {value:02x}"))
        .collect();
    let values = registers
        .iter()
        .map(|(name, value)| (name.to_lowercase(), hex((*value).into())))
        .collect();
    section.field("uart", "16550", Value::Object(values), shown.join("  "));
    let output = console.output.escape_ascii().to_string();
    let text = if output.is_empty() {
        "none".to_owned()
    } else {
        format!("{} bytes: \"{output}\"", console.output.len())
    };
    section.field("output", "unread output", json!(output), text);
    section
}

/// In the usual grouping.
fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn size(pages: u64) -> String {
    let kib = pages.saturating_mul(PAGE_BYTES as u64 / 1024);
    match kib {
        0..1024 => format!("{kib} KiB"),
        1024..1_048_576 => format!("{} MiB", kib / 1024),
        _ => format!("{} GiB", kib >> 20),
    }
}
