//! `policy check`: whether machines can take a blob or a stream, by the rules of a receiver.

use std::fmt::Write as _;

use anyhow::{Context, Result, anyhow, bail};
use migration_abi::ParseError;
use migration_abi::blob::{self, DirectoryEntry};
use migration_abi::stream::{Decoder, Record, Step};
use serde_json::json;
use vcpu_xstate::policy::{Arrival, CpuPolicy};
use vcpu_xstate::{Claims, ComponentFacts, ComponentIndex, Geometry};

use crate::inspect;
use crate::receiver::{self, BrokenPolicy, Judged, Receiver, Why};

/// The states of a file, and the policy where it has one.
struct Contents<'a> {
    /// `None` for a blob; for a stream its domain's, or why that is none.
    policy: Option<Result<CpuPolicy, BrokenPolicy>>,
    states: Vec<State<'a>>,
}

/// One vCPU's state.
struct State<'a> {
    vcpu: Option<u32>,
    claims: Claims,
    /// By its directory, or why no machine has that.
    geometry: Result<Geometry, Why>,
    image: &'a [u8],
}

/// The verdicts, and whether every machine can take everything.
pub fn run(bytes: &[u8], hosts: &[Receiver<'_>], as_json: bool) -> Result<(String, bool)> {
    let contents = contents(bytes)?;
    let broken = contents
        .policy
        .as_ref()
        .and_then(|policy| policy.as_ref().err())
        .map(BrokenPolicy::to_string);
    let mut text = String::new();
    if let Some(words) = &broken {
        let _ = writeln!(
            text,
            "no receiver takes this stream's policy: {words}\nits state alone:"
        );
    }
    let mut entries = Vec::new();
    let mut all = broken.is_none();
    for host in hosts {
        let name = host.machine.name();
        let (vcpu, verdict) = judge(&contents, host);
        all &= verdict.is_ok();
        match &verdict {
            Ok(()) => {
                let _ = writeln!(text, "{name}: yes");
            }
            Err(why) => {
                let whose = vcpu.map_or(String::new(), |vcpu| format!("vCPU {vcpu}, "));
                let _ = writeln!(text, "{name}: no, {whose}{why}");
                for way in &why.ways {
                    let _ = writeln!(text, "  {way}");
                }
            }
        }
        let mut entry = host.json(&verdict);
        entry["vcpu"] = json!(vcpu);
        entry["policy_broken"] = json!(broken);
        entries.push(entry);
    }
    if as_json {
        text = format!("{:#}\n", json!(entries));
    }
    Ok((text, all))
}

/// The first state that the host cannot take, and why.
fn judge(contents: &Contents<'_>, host: &Receiver<'_>) -> (Option<u32>, Result<(), Why>) {
    for state in &contents.states {
        let verdict = match &state.geometry {
            Err(why) => Err(why.clone()),
            Ok(geometry) => host.judge(&Judged::Blob(Arrival {
                claims: &state.claims,
                geometry,
                image: state.image,
                policy: contents.policy.as_ref().and_then(|p| p.as_ref().ok()),
            })),
        };
        if verdict.is_err() {
            return (state.vcpu, verdict);
        }
    }
    (None, Ok(()))
}

fn contents(bytes: &[u8]) -> Result<Contents<'_>> {
    if bytes.starts_with(&blob::MAGIC) {
        let blob = blob::parse(bytes).map_err(|error| unread("the blob", error))?;
        return Ok(Contents {
            policy: None,
            states: vec![state(None, &blob)?],
        });
    }
    if !inspect::looks_like_a_stream(bytes) {
        bail!(
            "neither a blob nor a stream ({} bytes); `inspect --against` judges KVM's and Xen's \
             forms and plain images",
            bytes.len()
        );
    }
    let mut contents = Contents {
        policy: None,
        states: Vec::new(),
    };
    let mut decoder = Decoder::new(bytes);
    loop {
        let step = decoder.step();
        let frame = match step.map_err(|error| unread("the stream", error))? {
            Step::Frame(frame) => frame,
            Step::End => break,
            Step::NeedMore(missing) => {
                bail!("the stream is cut off: its last frame lacks {missing} bytes")
            }
        };
        let record = Record::parse(&frame).map_err(|error| unread("the stream", error))?;
        match record {
            Some(Record::Domain(domain)) => contents.policy = Some(receiver::policy_of(&domain)),
            Some(Record::VcpuXstate(record)) => {
                contents
                    .states
                    .push(state(Some(record.vcpu), &record.blob)?);
            }
            _ => {}
        }
    }
    if contents.states.is_empty() {
        bail!("the stream holds no extended state");
    }
    Ok(contents)
}

/// What a reader stops at, in the words of `inspect`.
fn unread(what: &str, error: ParseError) -> anyhow::Error {
    anyhow!("{what}: {}", inspect::Finding::from(error))
}

fn state<'a>(vcpu: Option<u32>, blob: &blob::Blob<'a>) -> Result<State<'a>> {
    let mut geometry = Ok(Geometry::new());
    for entry in blob.directory().iter().filter(|entry| entry.index > 1) {
        let (component, facts) = facts(&entry)?;
        geometry = geometry.and_then(|mut geometry: Geometry| {
            let inserted = geometry.insert(component, facts);
            inserted.map_err(|error| Why::directory(&error))?;
            Ok(geometry)
        });
    }
    Ok(State {
        vcpu,
        claims: receiver::claims(blob),
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
