//! Tables as people and programs read them.

use super::*;
use alloc::vec;
use xferry_abi::info::{XstateRow, XstateSummary};

#[derive(Default)]
struct Lines(Vec<String>);

impl Output for Lines {
    fn line(&mut self, text: core::fmt::Arguments<'_>) {
        self.0.push(text.to_string());
    }
}

fn named(name: &str) -> DomainInfo {
    DomainInfo {
        name: crate::build::name_field(name).unwrap(),
        memory_pages: 1024,
        ..DomainInfo::default()
    }
}

#[test]
fn the_list_is_aligned() {
    let mut lines = Lines::default();
    let busy = DomainInfo {
        exits: 12345,
        cpu_time_ns: 7_900_000,
        ..named("torture")
    };
    domains(
        &mut lines,
        &[(DomainId(0), named("t")), (DomainId(11), busy)],
    );
    assert_eq!(
        lines.0,
        [
            "id  name     memory KiB  cpu ms  exits  right  state",
            " 0  t              4096       0      0  here   running",
            "11  torture        4096       7  12345  here   running",
        ]
    );
}

#[test]
fn states_have_words_and_their_cause() {
    let info = |state, cause| DomainInfo {
        state,
        cause,
        crash_detail: 0xfee0_0000,
        missing_bytes: 64,
        xstate_limit_bytes: 1000,
        ..named("x")
    };
    let words = |state, cause| state_words(&info(state, cause));
    assert_eq!(words(state::PAUSED, 0), "paused");
    assert_eq!(words(state::SHUT_DOWN, 3), "shut down (says it crashed)");
    assert_eq!(words(state::SHUT_DOWN, 9), "shut down (unknown reason)");
    assert_eq!(
        words(state::CRASHED, crash::NESTED_FAULT),
        "crashed (access outside its memory at 0xfee00000)"
    );
    assert!(words(state::NEEDS_MEMORY, 0).contains("64 bytes"));
    assert_eq!(words(77, 0), "unknown state 77");
}

#[test]
fn only_who_holds_the_right_is_said_to_run() {
    let states = [
        (Status::Source(source::State::Sending), "here"),
        (Status::Source(source::State::Committed), "given-up"),
        (Status::Receiver(receiver::State::Receiving), "not-yet"),
        (Status::Receiver(receiver::State::Ready), "not-yet"),
    ];
    for (status, wanted) in states {
        let info = DomainInfo {
            migration: status.code(),
            ..named("x")
        };
        assert_eq!(right(info.migration), wanted, "{status}");
        let words = state_words(&info);
        let runs = words
            .split_whitespace()
            .any(|w| matches!(w, "running" | "blocked"));
        assert!(!runs, "{status}: {words}");
    }
    let took = DomainInfo {
        migration: Status::Receiver(receiver::State::Running).code(),
        ..named("x")
    };
    assert_eq!(
        (right(took.migration), &*state_words(&took)),
        ("here", "running")
    );
}

#[test]
fn the_table_of_components_says_what_is_in_use() {
    let row = |index, size_bytes, offset_bytes, flags| XstateRow {
        index,
        size_bytes,
        offset_bytes,
        flags,
    };
    use xstate_row::{DEFERRED, ENABLED, IN_AREA, IN_USE};
    let status = XstateStatus {
        summary: XstateSummary {
            area_bytes: 832,
            blob_bytes: 1000,
            xcr0: 7,
            owner: 0,
            ..XstateSummary::default()
        },
        rows: vec![
            row(0, 160, 0, IN_AREA | IN_USE | ENABLED),
            row(2, 256, 576, IN_AREA | ENABLED),
            row(5, 64, u32::MAX, DEFERRED),
            row(40, 8, u32::MAX, 0),
        ],
    };
    let mut lines = Lines::default();
    xstate(&mut lines, 0, 1, &status);
    assert_eq!(
        lines.0,
        [
            "component     owner  bytes  offset  state   enabled  room",
            "x87           cpu0     160       0  in use  yes      always",
            "avx           cpu0     256     576  INIT    yes      always",
            "opmask        cpu0      64       -  INIT    no       when first enabled",
            "component-40  cpu0       8       -  INIT    no       none",
            "area 832 bytes, standard",
            "blob 1000 bytes",
            "xcr0 0x7  xss 0x0",
        ]
    );
}
