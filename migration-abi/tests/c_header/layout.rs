//! Sizes, offsets and constants of the header, printed by C and compared with the Rust's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};

use migration_abi::blob::{DirectoryEntry, MAGIC, v1};
use migration_abi::handover::{HANDOVER_VERSION, MAX_TEXT_BYTES, Role};
use migration_abi::registers::{
    self, DescriptorTable, EventKind, PendingEvent, REGISTERS_BYTES, REGISTERS_VERSION, Segment,
    VcpuRegisters,
};
use migration_abi::stream::frame::OPTIONAL;
use migration_abi::stream::records::{
    MAX_LEAVES, MAX_OUTPUT_BYTES, MAX_PAGES, MAX_VCPUS, NAME_BYTES,
};
use migration_abi::stream::{
    End, FRAME_HEADER_BYTES, FrameHeader, MAX_PAYLOAD_BYTES, PAGE_BYTES, PolicyLeaf, RecordType,
    STREAM_VERSION, ZeroPages,
};

use super::compile::{compile, header_is_cpp, scratch, skipped};

/// Expressions of C with the value that the Rust has for each.
#[derive(Default)]
struct Facts(BTreeMap<String, u64>);

macro_rules! same_layout {
    ($facts:ident, $c:literal = $rust:ty { $($field:literal = $($name:ident).+),+ $(,)? }) => {
        $facts.is(concat!("sizeof(struct ", $c, ")"), size_of::<$rust>() as u64);
        $($facts.is(
            concat!("offsetof(struct ", $c, ", ", $field, ")"),
            offset_of!($rust, $($name).+) as u64,
        );)+
    };
    ($facts:ident, $c:literal = $rust:ty: $($name:ident)+) => {
        $facts.is(concat!("sizeof(struct ", $c, ")"), size_of::<$rust>() as u64);
        $($facts.is(
            concat!("offsetof(struct ", $c, ", ", stringify!($name), ")"),
            offset_of!($rust, $name) as u64,
        );)+
    };
}

impl Facts {
    fn is(&mut self, expression: &str, value: u64) {
        assert!(
            self.0.insert(expression.into(), value).is_none(),
            "{expression} twice"
        );
    }
}

fn structs(facts: &mut Facts) {
    same_layout!(facts, "xferry_blob_header" = v1::Header:
        magic version header_len dir_entry_len dir_entries compatible incompatible total_len xstate_mask
        xcr0 xss xfd xfd_err accum xcomp_bv image_len reserved);
    same_layout!(facts, "xferry_blob_entry" = DirectoryEntry: index size flags standard_offset);
    same_layout!(facts, "xferry_frame_header" = FrameHeader {
        "length" = length, "type" = record, "flags" = flags, "sequence" = sequence, "crc" = crc,
    });
    same_layout!(facts, "xferry_policy_leaf" = PolicyLeaf: leaf subleaf eax ebx ecx edx);
    same_layout!(facts, "xferry_zero_pages" = ZeroPages: first_gfn count);
    same_layout!(facts, "xferry_end" = End: data_pages zero_pages vcpus reserved);
    same_layout!(facts, "xferry_segment" = Segment: base limit selector reserved attributes reserved2);
    same_layout!(facts, "xferry_table" = DescriptorTable: base limit reserved);
    same_layout!(facts, "xferry_event" = PendingEvent: kind vector has_error insn_len error_code);
    same_layout!(facts, "xferry_registers" = VcpuRegisters:
        gpr rip rflags cr0 cr2 cr3 cr4 cr8 efer dr0 dr1 dr2 dr3 dr6 dr7 es cs ss ds fs gs ldtr tr gdtr idtr
        star lstar cstar sfmask kernel_gs_base sysenter_cs sysenter_esp sysenter_eip pat tsc_aux debugctl
        s_cet ssp isst tsc pending_event interrupt_shadow nmi_blocked activity reserved pending_debug
        clock_page_gpa timer_deadline_ns event_vectors pending_events);
}

fn constants(facts: &mut Facts) {
    let sizes = [
        ("BLOB_HEADER_BYTES", v1::HEADER_BYTES),
        ("BLOB_MAX_HEADER_BYTES", v1::MAX_HEADER_BYTES),
        ("BLOB_ENTRY_BYTES", v1::ENTRY_BYTES),
        ("BLOB_MAX_ENTRY_BYTES", v1::MAX_ENTRY_BYTES),
        ("BLOB_MAX_COMPONENTS", v1::MAX_COMPONENTS),
        ("BLOB_MIN_IMAGE_BYTES", v1::MIN_IMAGE_BYTES),
        ("BLOB_MAX_IMAGE_BYTES", v1::MAX_IMAGE_BYTES),
        ("BLOB_CRC_BYTES", v1::CRC_BYTES),
        ("FRAME_HEADER_BYTES", FRAME_HEADER_BYTES),
        ("MAX_PAYLOAD_BYTES", MAX_PAYLOAD_BYTES),
        ("PAGE_BYTES", PAGE_BYTES),
        ("NAME_BYTES", NAME_BYTES),
        ("MAX_TEXT_BYTES", MAX_TEXT_BYTES),
        ("REGISTERS_BYTES", REGISTERS_BYTES),
        ("EVENTS", registers::EVENTS),
    ];
    let numbers = [
        ("BLOB_VERSION", u64::from(v1::VERSION)),
        ("BLOB_CRC", v1::Incompatible::CRC.bits().into()),
        ("BLOB_NO_XSAVE", v1::Incompatible::NO_XSAVE.bits().into()),
        ("ENTRY_SUPERVISOR", v1::EntryFlags::SUPERVISOR.bits().into()),
        ("ENTRY_ALIGN64", v1::EntryFlags::ALIGN64.bits().into()),
        ("ENTRY_XFD", v1::EntryFlags::XFD.bits().into()),
        ("STREAM_VERSION", STREAM_VERSION.into()),
        ("MAX_LEAVES", MAX_LEAVES.into()),
        ("MAX_VCPUS", MAX_VCPUS.into()),
        ("MAX_PAGES", MAX_PAGES.into()),
        ("MAX_OUTPUT_BYTES", MAX_OUTPUT_BYTES.into()),
        ("HANDOVER_VERSION", HANDOVER_VERSION.into()),
        ("FRAME_OPTIONAL", OPTIONAL.into()),
        ("REGISTERS_VERSION", REGISTERS_VERSION.into()),
        ("NONE", registers::NONE),
        ("SEGMENT_UNUSABLE", registers::attributes::UNUSABLE.into()),
        ("SEGMENT_ATTRIBUTES", registers::attributes::ALL.into()),
        ("EVENT_NONE", EventKind::None as u64),
        ("EVENT_INTERRUPT", EventKind::Interrupt as u64),
        ("EVENT_NMI", EventKind::Nmi as u64),
        ("EVENT_EXCEPTION", EventKind::Exception as u64),
        (
            "EVENT_SOFTWARE_INTERRUPT",
            EventKind::SoftwareInterrupt as u64,
        ),
        (
            "EVENT_SOFTWARE_EXCEPTION",
            EventKind::SoftwareException as u64,
        ),
        ("EVENT_INTERRUPTED", registers::INTERRUPTED_DELIVERY.into()),
        ("SOURCE", Role::Source as u64),
        ("RECEIVER", Role::Receiver as u64),
        ("HEADER", RecordType::Header.code().into()),
        ("DOMAIN", RecordType::Domain.code().into()),
        ("PAGES", RecordType::Pages.code().into()),
        ("ZERO_PAGES", RecordType::ZeroPages.code().into()),
        ("CONSOLE", RecordType::Console.code().into()),
        ("VCPU_REGISTERS", RecordType::VcpuRegisters.code().into()),
        ("VCPU_XSTATE", RecordType::VcpuXstate.code().into()),
        ("END", RecordType::End.code().into()),
        ("HELLO", RecordType::Hello.code().into()),
        ("ACCEPT", RecordType::Accept.code().into()),
        ("REFUSE", RecordType::Refuse.code().into()),
        ("READY", RecordType::Ready.code().into()),
        ("COMMIT", RecordType::Commit.code().into()),
        ("RUNNING", RecordType::Running.code().into()),
        ("DONE", RecordType::Done.code().into()),
        ("ABORT", RecordType::Abort.code().into()),
        ("QUERY", RecordType::Query.code().into()),
        ("STATUS", RecordType::Status.code().into()),
    ];
    let sizes = sizes.map(|(name, value)| (name, value as u64));
    for (name, value) in sizes.into_iter().chain(numbers) {
        facts.is(&format!("XFERRY_{name}"), value);
    }
    for (index, byte) in MAGIC.iter().enumerate() {
        facts.is(&format!("XFERRY_BLOB_MAGIC[{index}]"), u64::from(*byte));
    }
}

#[test]
fn the_header_has_the_rusts_numbers() {
    let mut facts = Facts::default();
    structs(&mut facts);
    constants(&mut facts);
    let mut source = String::from(
        "#include \"xferry_migration.h\"\n#include <stdio.h>\nint main(int argc, char **argv)\n{\n    (void)argc;\n    (void)argv;\n",
    );
    for expression in facts.0.keys() {
        writeln!(
            source,
            "    printf(\"%s %llu\\n\", \"{expression}\", (unsigned long long)({expression}));"
        )
        .expect("a String");
    }
    source.push_str("    return 0;\n}\n");
    let path = scratch("numbers.c");
    std::fs::write(&path, source).expect("a scratch file");
    let Some(program) = compile("numbers", &path) else {
        return skipped();
    };
    let output = program.run(&path);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).expect("text");
    let seen: BTreeMap<String, u64> = said
        .lines()
        .map(|line| {
            let (expression, value) = line.rsplit_once(' ').expect("expression and value");
            (expression.to_owned(), value.parse().expect("a number"))
        })
        .collect();
    assert_eq!(seen, facts.0);
}

/// What the header says of each constant is compared: none is left out.
#[test]
fn no_constant_of_the_header_is_left_out() {
    let mut facts = Facts::default();
    constants(&mut facts);
    let header = include_str!("../../c/xferry_migration.h");
    // Compared otherwise, or no number of the Rust's own.
    let elsewhere = [
        "XFERRY_MIGRATION_H",
        "XFERRY_ASSERT(what)",
        "XFERRY_AT(type,",
        "XFERRY_BLOB_MAGIC",
        "XFERRY_STREAM_MAGIC",
        "XFERRY_DOMAIN_PAUSED",
        "XFERRY_IMAGE_FCW",
        "XFERRY_IMAGE_MXCSR",
        "XFERRY_IMAGE_XSTATE_BV",
        "XFERRY_IMAGE_XCOMP_BV",
        "XFERRY_IMAGE_EXTENDED",
        "XFERRY_XCOMP_COMPACTED",
    ];
    for line in header.lines() {
        let name = match line.trim_start().strip_prefix("#define ") {
            Some(rest) => rest.split_whitespace().next().unwrap_or_default(),
            None if line.trim_start().starts_with("XFERRY_") && line.contains(" = ") => {
                line.trim_start().split(' ').next().unwrap_or_default()
            }
            None => continue,
        };
        let known = facts.0.contains_key(name) || elsewhere.contains(&name);
        assert!(known, "{name} is compared with nothing");
    }
}

#[test]
fn the_header_is_cpp_too() {
    match header_is_cpp() {
        Some(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
        }
        None => {
            use std::io::Write as _;
            writeln!(
                std::io::stdout().lock(),
                "skipped: no C++ compiler (c++) is here"
            )
            .expect("standard output");
        }
    }
}
