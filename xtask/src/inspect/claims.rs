//! What a blob's header says of its masks, held against each other: the rules that no machine is needed for.

use vcpu_xstate::Claims;
use vcpu_xstate::header::COMPACTED;

use super::finding::{Finding, Seen};

/// Where the fields stand in the header.
const XCR0: usize = 40;
const XSS: usize = 48;
const ACCUM: usize = 72;
const XCOMP_BV: usize = 80;

/// The rules that the masks break, in a receiver's order and by its names.
pub fn masks(claims: &Claims) -> Vec<Finding> {
    let policy = claims.xstate_mask;
    let mut findings = Vec::new();
    for (rule, offset, seen, text) in [
        (
            "xcr0-policy",
            XCR0,
            claims.xcr0,
            "XCR0 is within xstate_mask",
        ),
        (
            "xss-policy",
            XSS,
            claims.xss,
            "IA32_XSS is within xstate_mask",
        ),
        (
            "accum-policy",
            ACCUM,
            claims.accum,
            "what may hold state (accum) is within xstate_mask",
        ),
    ] {
        findings.extend(within(rule, offset, seen, policy, text));
    }
    if claims.xcomp_bv & COMPACTED == 0 {
        findings.push(Finding::new(
            "xcomp-bv-bit-63",
            XCOMP_BV,
            Seen::Bits(claims.xcomp_bv),
            format!("{:#x}", claims.xcomp_bv | COMPACTED),
            "a blob's image is compacted",
        ));
    }
    let text = "XCOMP_BV is within xstate_mask: the directory describes nothing else";
    let limit = policy | COMPACTED;
    findings.extend(within(
        "xcomp-bv-policy",
        XCOMP_BV,
        claims.xcomp_bv,
        limit,
        text,
    ));
    findings
}

/// The rules that they break with the image's XSTATE_BV, which is at `offset` of
/// the blob. A receiver asks for them behind all that the image's header breaks.
pub fn held(claims: &Claims, (held, offset): (u64, usize)) -> Vec<Finding> {
    let text = "what XSTATE_BV holds may hold state (accum)";
    let accum = within("xstate-bv-accum", offset, held, claims.accum, text);
    let text = "XSTATE_BV holds nothing that IA32_XFD disables";
    let xfd = within("xstate-bv-xfd", offset, held, !claims.xfd, text);
    accum.into_iter().chain(xfd).collect()
}

fn within(rule: &str, offset: usize, seen: u64, limit: u64, text: &str) -> Option<Finding> {
    let allowed = format!("no bits but {limit:#x}");
    let broken = seen & !limit != 0;
    broken.then(|| Finding::new(rule, offset, Seen::Bits(seen), allowed, text))
}
