//! A domain's memory on its way out: pages with content, and the numbers of
//! those that are zero.

use super::source::{Plan, Sent, refusals};
use crate::error::Error;
use crate::hypervisor::{CHUNK_BYTES, Hypervisor};
use crate::link::Wire;
use alloc::vec;
use migration_abi::stream::{PAGE_BYTES, Pages, ZeroPages};

/// Sends all pages, ascending, those that are zero by their number alone.
pub fn memory(
    hypervisor: &mut dyn Hypervisor,
    wire: &mut Wire<'_>,
    plan: &Plan<'_>,
    pages: u64,
    sent: &mut Sent,
) -> Result<(), Error> {
    let mut chunk = vec![0; CHUNK_BYTES];
    // Zero pages before `gfn` that were not told of yet.
    let mut zeros = 0;
    let mut gfn = 0;
    while gfn < pages {
        let left = pages - gfn;
        let count = left.min((CHUNK_BYTES / PAGE_BYTES) as u64);
        let bytes = usize::try_from(count)
            .unwrap_or(0)
            .saturating_mul(PAGE_BYTES);
        let data = chunk.get_mut(..bytes).unwrap_or_default();
        hypervisor.memory_read(plan.domain, gfn.saturating_mul(PAGE_BYTES as u64), data)?;
        let mut rest: &[u8] = data;
        while !rest.is_empty() {
            let (run, zero) = run(rest);
            let (this, next) = rest.split_at(run);
            let run_pages = (run / PAGE_BYTES) as u64;
            if zero {
                zeros += run_pages;
                sent.zero_pages += run_pages;
            } else {
                zero_pages(wire, gfn, &mut zeros)?;
                let record = Pages {
                    first_gfn: gfn,
                    data: this,
                };
                wire.send(|writer, out| record.write(writer, out))?;
                sent.data_pages += run_pages;
            }
            gfn += run_pages;
            rest = next;
        }
        // A receiver that refuses must not be sent all the rest.
        refusals(hypervisor, wire, plan, 0)?;
    }
    zero_pages(wire, gfn, &mut zeros)
}

/// How many bytes at the start of `data` are pages of one kind, and whether
/// they are zero.
fn run(data: &[u8]) -> (usize, bool) {
    let zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
    let mut pages = data.chunks(PAGE_BYTES);
    let first = pages.next().is_some_and(zero);
    let more = pages.take_while(|page| zero(page) == first).count();
    ((1 + more).saturating_mul(PAGE_BYTES).min(data.len()), first)
}

/// Tells of `zeros` zero pages that end before `gfn`.
fn zero_pages(wire: &mut Wire<'_>, gfn: u64, zeros: &mut u64) -> Result<(), Error> {
    let count = core::mem::take(zeros);
    if count == 0 {
        return Ok(());
    }
    let record = ZeroPages {
        first_gfn: gfn.saturating_sub(count),
        count,
    };
    wire.send(|writer, out| record.write(writer, out))
}
