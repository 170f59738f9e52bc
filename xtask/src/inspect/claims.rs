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
/// `held` is the image's XSTATE_BV, with its place in the blob.
pub fn broken(claims: &Claims, held: Option<(u64, usize)>) -> Vec<Finding> {
    let policy = claims.xstate_mask;
    let mut findings = Vec::new();
    let mut within = |rule: &str, offset: usize, seen: u64, limit: u64, text: &str| {
        if seen & !limit != 0 {
            let allowed = format!("no bits but {limit:#x}");
            findings.push(Finding::new(rule, offset, Seen::Bits(seen), allowed, text));
        }
    };
    let text = "XCR0 is within xstate_mask";
    within("xcr0-policy", XCR0, claims.xcr0, policy, text);
    let text = "IA32_XSS is within xstate_mask";
    within("xss-policy", XSS, claims.xss, policy, text);
    let text = "what may hold state (accum) is within xstate_mask";
    within("accum-policy", ACCUM, claims.accum, policy, text);
    let text = "XCOMP_BV is within xstate_mask: the directory describes nothing else";
    let limit = policy | COMPACTED;
    within("xcomp-bv-policy", XCOMP_BV, claims.xcomp_bv, limit, text);
    if let Some((held, at)) = held {
        let text = "what XSTATE_BV holds may hold state (accum)";
        within("xstate-bv-accum", at, held, claims.accum, text);
        let text = "XSTATE_BV holds nothing that IA32_XFD disables";
        within("xstate-bv-xfd", at, held, !claims.xfd, text);
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
    findings
}
