//! `policy check`: whether machines can take a blob or a stream, by the rules of a receiver.

use std::fmt::Write as _;

use anyhow::{Context, Result, anyhow, bail};
use migration_abi::blob::{self, DirectoryEntry};
use migration_abi::stream::{Decoder, Record, Step};
use serde_json::json;
use vcpu_xstate::policy::{Arrival, CannotTake, CpuPolicy, CpuidLeaf};
use vcpu_xstate::withheld::Withheld;
use vcpu_xstate::{Claims, ComponentFacts, ComponentIndex, ComponentSet, Geometry, Rejection};

use super::Host;

/// The states of a file, and the policy where it has one.
struct Contents<'a> {
    policy: Option<CpuPolicy>,
    states: Vec<State<'a>>,
}

/// One vCPU's state.
struct State<'a> {
    vcpu: Option<u32>,
    claims: Claims,
    geometry: Geometry,
    image: &'a [u8],
}

/// The verdicts, and whether every machine can take everything.
pub fn run(bytes: &[u8], hosts: &[Host<'_>], as_json: bool) -> Result<(String, bool)> {
    let contents = contents(bytes)?;
    let mut text = String::new();
    let mut entries = Vec::new();
    let mut all = true;
    for host in hosts {
        let name = host.machine.name();
        let verdict = judge(&contents, host);
        all &= verdict.is_ok();
        let (rule, why) = match &verdict {
            Ok(()) => {
                let _ = writeln!(text, "{name}: yes");
                (None, None)
            }
            Err((vcpu, why)) => {
                let whose = vcpu.map_or(String::new(), |vcpu| format!("vCPU {vcpu}, "));
                let _ = writeln!(text, "{name}: no, {whose}{why}");
                text.push_str(&ways(why, host));
                (Some(why.broken().rule), Some(why.to_string()))
            }
        };
        let vcpu = verdict.err().and_then(|(vcpu, _)| vcpu);
        entries.push(json!({
            "machine": name, "takes": rule.is_none(), "rule": rule, "why": why, "vcpu": vcpu,
        }));
    }
    if as_json {
        text = format!("{:#}\n", json!(entries));
    }
    Ok((text, all))
}

/// For components that the machine has and does not offer: what would offer them.
fn ways(why: &CannotTake, host: &Host<'_>) -> String {
    let CannotTake::State(Rejection::MaskHost(seen, allowed)) = why else {
        return String::new();
    };
    let mut text = String::new();
    for component in ComponentSet::from_bits_retain(seen & !allowed) {
        let way = match host.xstate.withheld(component) {
            Some(Withheld::Permission) => "not permitted there; --permit would",
            Some(why) => {
                let _ = writeln!(text, "  {component}: {why}");
                continue;
            }
            None if host.xstate.offered().has(component) => {
                "the machine has it, no feature that is granted stands for it; --grant could"
            }
            None => continue,
        };
        let _ = writeln!(text, "  {component}: {way}");
    }
    text
}

/// The first state that the host cannot take.
fn judge(contents: &Contents<'_>, host: &Host<'_>) -> Result<(), (Option<u32>, CannotTake)> {
    for state in &contents.states {
        let arrival = Arrival {
            claims: &state.claims,
            geometry: &state.geometry,
            image: state.image,
            policy: contents.policy.as_ref(),
        };
        let taken = arrival.fits(&host.xstate, &host.policy);
        taken.map_err(|why| (state.vcpu, why))?;
    }
    Ok(())
}

fn contents(bytes: &[u8]) -> Result<Contents<'_>> {
    if bytes.starts_with(&blob::MAGIC) {
        let blob = blob::parse(bytes).map_err(|error| anyhow!("the blob: {error}"))?;
        return Ok(Contents {
            policy: None,
            states: vec![state(None, &blob)?],
        });
    }
    let mut contents = Contents {
        policy: None,
        states: Vec::new(),
    };
    let mut decoder = Decoder::new(bytes);
    loop {
        let step = decoder
            .step()
            .map_err(|error| anyhow!("no blob, and as a stream: {error}"))?;
        let frame = match step {
            Step::Frame(frame) => frame,
            Step::End => break,
            Step::NeedMore(missing) => bail!("the stream ends {missing} bytes too early"),
        };
        let record = Record::parse(&frame).map_err(|error| anyhow!("{error}"))?;
        match record {
            Some(Record::Domain(domain)) => {
                let leaves: Vec<CpuidLeaf> = domain.leaves.iter().map(leaf).collect();
                let deferred = ComponentSet::from_bits_retain(domain.xstate_deferred);
                let policy = CpuPolicy::from_leaves(&leaves, deferred);
                contents.policy = Some(policy.context("the stream's policy")?);
            }
            Some(Record::VcpuXstate(record)) => {
                contents
                    .states
                    .push(state(Some(record.vcpu), &record.blob)?);
            }
            _ => {}
        }
    }
    if contents.states.is_empty() {
        bail!("the file holds no extended state");
    }
    Ok(contents)
}

fn leaf(leaf: migration_abi::stream::PolicyLeaf) -> CpuidLeaf {
    CpuidLeaf {
        leaf: leaf.leaf,
        subleaf: leaf.subleaf,
        eax: leaf.eax,
        ebx: leaf.ebx,
        ecx: leaf.ecx,
        edx: leaf.edx,
    }
}

fn state<'a>(vcpu: Option<u32>, blob: &blob::Blob<'a>) -> Result<State<'a>> {
    let header = blob.header();
    let mut geometry = Geometry::new();
    for entry in blob.directory().iter().filter(|entry| entry.index > 1) {
        let (component, facts) = facts(&entry)?;
        let inserted = geometry.insert(component, facts);
        inserted.map_err(|error| anyhow!("the blob's directory, {component}: {error}"))?;
    }
    Ok(State {
        vcpu,
        claims: Claims {
            xstate_mask: header.xstate_mask,
            xcr0: header.xcr0,
            xss: header.xss,
            xfd: header.xfd,
            xfd_err: header.xfd_err,
            accum: header.accum,
            xcomp_bv: header.xcomp_bv,
            xsave: !blob.flags().contains(blob::latest::Incompatible::NO_XSAVE),
        },
        geometry,
        image: blob.image(),
    })
}

fn facts(entry: &DirectoryEntry) -> Result<(ComponentIndex, ComponentFacts)> {
    use blob::latest::EntryFlags;
    let index = u8::try_from(entry.index).ok().and_then(ComponentIndex::new);
    let component = index.with_context(|| format!("{} is no component", entry.index))?;
    let flags = EntryFlags::from_bits_retain(entry.flags);
    let facts = ComponentFacts {
        size_bytes: entry.size,
        standard_offset: entry.standard_offset,
        supervisor: flags.contains(EntryFlags::SUPERVISOR),
        aligned64: flags.contains(EntryFlags::ALIGN64),
        xfd: flags.contains(EntryFlags::XFD),
    };
    Ok((component, facts))
}
