//! A register record: one vCPU without its extended state.

use migration_abi::registers::{Activity, NONE, Segment, VcpuRegisters};
use serde_json::json;

use super::document::{Section, Table, hex, numbers, words};
use super::registers::{CET, bit_names};

const GPR: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const RFLAGS: &[(u32, &str)] = &[
    (0, "CF"),
    (2, "PF"),
    (4, "AF"),
    (6, "ZF"),
    (7, "SF"),
    (8, "TF"),
    (9, "IF"),
    (10, "DF"),
    (11, "OF"),
    (14, "NT"),
    (16, "RF"),
    (17, "VM"),
    (18, "AC"),
    (19, "VIF"),
    (20, "VIP"),
    (21, "ID"),
];
const CR0: &[(u32, &str)] = &[
    (0, "PE"),
    (1, "MP"),
    (2, "EM"),
    (3, "TS"),
    (4, "ET"),
    (5, "NE"),
    (16, "WP"),
    (18, "AM"),
    (29, "NW"),
    (30, "CD"),
    (31, "PG"),
];
const CR4: &[(u32, &str)] = &[
    (0, "VME"),
    (1, "PVI"),
    (2, "TSD"),
    (3, "DE"),
    (4, "PSE"),
    (5, "PAE"),
    (6, "MCE"),
    (7, "PGE"),
    (8, "PCE"),
    (9, "OSFXSR"),
    (10, "OSXMMEXCPT"),
    (11, "UMIP"),
    (12, "LA57"),
    (13, "VMXE"),
    (14, "SMXE"),
    (16, "FSGSBASE"),
    (17, "PCIDE"),
    (18, "OSXSAVE"),
    (19, "KL"),
    (20, "SMEP"),
    (21, "SMAP"),
    (22, "PKE"),
    (23, "CET"),
    (24, "PKS"),
    (25, "UINTR"),
    (28, "LAM_SUP"),
    (32, "FRED"),
];
const EFER: &[(u32, &str)] = &[
    (0, "SCE"),
    (8, "LME"),
    (10, "LMA"),
    (11, "NXE"),
    (12, "SVME"),
    (13, "LMSLE"),
    (14, "FFXSR"),
    (15, "TCE"),
];

/// All registers of the record; MSRs and debug registers that are zero are left out.
pub fn explain(registers: &VcpuRegisters) -> Section {
    let mut section = Section::new("registers", "Registers")
        .with_note("MSRs and debug registers not shown are zero");
    general(&mut section, registers);
    let r = registers;
    // Bit 1 is always set and says nothing.
    section.hex(
        "rflags",
        "RFLAGS",
        r.rflags,
        &bit_names(r.rflags & !2, RFLAGS),
    );
    section.hex("cr0", "CR0", r.cr0, &bit_names(r.cr0, CR0));
    section.hex("cr2", "CR2", r.cr2, "");
    section.hex("cr3", "CR3", r.cr3, "");
    section.hex("cr4", "CR4", r.cr4, &bit_names(r.cr4, CR4));
    section.hex("cr8", "CR8", r.cr8, "");
    section.hex("efer", "EFER", r.efer, &bit_names(r.efer, EFER));
    section.table(segments(r));
    for (key, name, value, meaning) in [
        ("star", "STAR", r.star, String::new()),
        ("lstar", "LSTAR", r.lstar, String::new()),
        ("cstar", "CSTAR", r.cstar, String::new()),
        ("sfmask", "SFMASK", r.sfmask, String::new()),
        (
            "kernel_gs_base",
            "KERNEL_GS_BASE",
            r.kernel_gs_base,
            String::new(),
        ),
        ("sysenter_cs", "SYSENTER_CS", r.sysenter_cs, String::new()),
        (
            "sysenter_esp",
            "SYSENTER_ESP",
            r.sysenter_esp,
            String::new(),
        ),
        (
            "sysenter_eip",
            "SYSENTER_EIP",
            r.sysenter_eip,
            String::new(),
        ),
        ("pat", "PAT", r.pat, String::new()),
        ("tsc_aux", "TSC_AUX", r.tsc_aux, String::new()),
        ("debugctl", "DEBUGCTL", r.debugctl, String::new()),
        ("s_cet", "S_CET", r.s_cet, bit_names(r.s_cet & 0xfff, CET)),
        ("ssp", "SSP", r.ssp, String::new()),
        ("isst", "ISST", r.isst, String::new()),
        ("dr0", "DR0", r.dr0, String::new()),
        ("dr1", "DR1", r.dr1, String::new()),
        ("dr2", "DR2", r.dr2, String::new()),
        ("dr3", "DR3", r.dr3, String::new()),
        ("dr6", "DR6", r.dr6, String::new()),
        ("dr7", "DR7", r.dr7, String::new()),
        (
            "pending_debug",
            "pending debug",
            r.pending_debug,
            String::new(),
        ),
    ] {
        if value == 0 {
            section.value(key, hex(0));
        } else {
            section.hex(key, name, value, &meaning);
        }
    }
    section.field("tsc", "TSC", json!(r.tsc), r.tsc.to_string());
    events(&mut section, r);
    section
}

/// Sixteen registers and RIP in four columns.
fn general(section: &mut Section, registers: &VcpuRegisters) {
    section.hex("rip", "RIP", registers.rip, "");
    for (row, names) in GPR.chunks(4).enumerate() {
        let cells: Vec<String> = names
            .iter()
            .zip(&registers.gpr[4 * row..])
            .map(|(name, value)| format!("{:<3} {value:016x}", name.to_uppercase()))
            .collect();
        section.line(cells.join("  "));
    }
    for (name, value) in GPR.iter().zip(registers.gpr) {
        section.value(name, hex(value));
    }
}

fn segments(r: &VcpuRegisters) -> Table {
    let columns = [
        words(""),
        numbers("selector"),
        numbers("base"),
        numbers("limit"),
        words("attributes"),
    ];
    let mut table = Table::new("segments", &columns);
    for (name, segment) in [
        ("ES", r.es),
        ("CS", r.cs),
        ("SS", r.ss),
        ("DS", r.ds),
        ("FS", r.fs),
        ("GS", r.gs),
        ("LDTR", r.ldtr),
        ("TR", r.tr),
    ] {
        table.row(
            vec![
                name.into(),
                format!("{:#x}", segment.selector),
                format!("{:#x}", segment.base),
                format!("{:#x}", segment.limit),
                attributes(&segment),
            ],
            json!({
                "name": name.to_lowercase(),
                "selector": format!("{:#x}", segment.selector),
                "base": hex(segment.base),
                "limit": hex(segment.limit.into()),
                "attributes": hex(segment.attributes.into()),
            }),
        );
    }
    for (name, table_register) in [("GDTR", r.gdtr), ("IDTR", r.idtr)] {
        table.row(
            vec![
                name.into(),
                String::new(),
                format!("{:#x}", table_register.base),
                format!("{:#x}", table_register.limit),
                String::new(),
            ],
            json!({
                "name": name.to_lowercase(),
                "base": hex(table_register.base),
                "limit": hex(table_register.limit.into()),
            }),
        );
    }
    table
}

/// A descriptor's access rights in words.
fn attributes(segment: &Segment) -> String {
    let a = segment.attributes;
    let system = a >> 4 & 1 == 0;
    let kind = match (system, a & 0xf) {
        _ if a >> 16 & 1 == 1 || a == 0 => return format!("{a:#07x}  unusable"),
        (false, 8..) => "code",
        (false, _) => "data",
        (true, 2) => "LDT",
        (true, 3 | 11) => "TSS",
        (true, _) => "system",
    };
    let mut text = format!("{a:#07x}  {kind} DPL {}", a >> 5 & 3);
    for (bit, name) in [
        (7, "present"),
        (12, "AVL"),
        (13, "L"),
        (14, "D/B"),
        (15, "G"),
    ] {
        if a >> bit & 1 == 1 {
            text.push(' ');
            text.push_str(name);
        }
    }
    text
}

fn events(section: &mut Section, r: &VcpuRegisters) {
    let event = &r.pending_event;
    let mut text = match event.event_kind() {
        Some(kind) => format!("{kind:?}").to_lowercase(),
        None => format!("unknown kind {:#x}", event.kind),
    };
    if event.kind != 0 {
        text.push_str(&format!(", vector {}", event.vector));
        if event.has_error == 1 {
            text.push_str(&format!(", error code {:#x}", event.error_code));
        }
        if event.insn_len != 0 {
            text.push_str(&format!(", instruction of {} bytes", event.insn_len));
        }
        if event.interrupted_delivery() {
            text.push_str(", interrupted in delivery");
        }
    }
    let value = json!({
        "kind": event.kind, "vector": event.vector, "has_error": event.has_error,
        "insn_len": event.insn_len, "error_code": hex(event.error_code.into()),
    });
    section.field("pending_event", "pending event", value, text);
    let shadow = ["none", "STI", "MOV SS"]
        .get(usize::from(r.interrupt_shadow))
        .unwrap_or(&"unknown");
    section.field(
        "interrupt_shadow",
        "interrupt shadow",
        json!(r.interrupt_shadow),
        *shadow,
    );
    let blocked = if r.nmi_blocked == 1 {
        "blocked"
    } else {
        "not blocked"
    };
    section.field("nmi_blocked", "NMI", json!(r.nmi_blocked), blocked);
    let activity = match Activity::from_code(r.activity) {
        Some(Activity::WaitForSipi) => "waits for SIPI".into(),
        Some(activity) => format!("{activity:?}").to_lowercase(),
        None => format!("unknown: {}", r.activity),
    };
    section.field("activity", "activity", json!(r.activity), activity);
    let or_none = |value: u64, text: String| if value == NONE { "none".into() } else { text };
    section.field(
        "clock_page_gpa",
        "clock page",
        hex(r.clock_page_gpa),
        or_none(r.clock_page_gpa, format!("{:#x}", r.clock_page_gpa)),
    );
    section.field(
        "timer_deadline_ns",
        "timer deadline",
        json!(r.timer_deadline_ns.to_string()),
        or_none(r.timer_deadline_ns, format!("{} ns", r.timer_deadline_ns)),
    );
    let vectors: Vec<String> = r
        .event_vectors
        .iter()
        .enumerate()
        .filter(|(_, vector)| **vector != 0)
        .map(|(event, vector)| format!("event {event} by vector {vector}"))
        .collect();
    let vectors = if vectors.is_empty() {
        "none".into()
    } else {
        vectors.join(", ")
    };
    section.field(
        "event_vectors",
        "paravirtual events",
        json!(r.event_vectors),
        vectors,
    );
    section.hex("pending_events", "… pending", r.pending_events, "");
}
