//! A migration stream: its frames in order, and what of a domain they carry.

use migration_abi::stream::frame::FRAME_HEADER_BYTES;
use migration_abi::stream::{Decoder, Frame, FrameHeader, Record, RecordType, Sequencer, Step};
use migration_abi::{Allowed, ParseError, Rule};
use serde_json::json;

use super::document::{Section, Table, hex, numbers, words};
use super::finding::{Finding, Seen};
use super::{against, blob, records, vcpu};
use crate::receiver::{self, BrokenPolicy, Receiver};

/// Bytes of a VCPU_XSTATE record before its blob: vCPU and zeros.
const BEFORE_BLOB: usize = 8;

/// Whether the bytes begin as a stream does: a frame of a known type.
pub fn looks_like_one(bytes: &[u8]) -> bool {
    FrameHeader::parse(bytes).is_ok_and(|header| {
        header.record_type().is_some()
            && FrameHeader::split(bytes)
                .is_none_or(|(header, payload, _)| header.verify(payload).is_ok())
    })
}

/// Adds the frames and the domain to `root`; gives what is wrong, and whether
/// all machines take what state there is, if there is any.
pub fn explain(
    root: &mut Section,
    bytes: &[u8],
    full: bool,
    against: &[Receiver<'_>],
) -> (Vec<Finding>, Option<bool>) {
    let (frames, mut findings) = frames(bytes);
    findings.extend(order(&frames));
    findings.sort_by_key(|finding| finding.offset);
    root.value("frames_total", json!(frames.len()));
    let mut section = Section::new("stream", "Frames").with_note(format!(
        "{} in {} bytes",
        frames.len(),
        bytes.len()
    ));
    section.table(table(&frames));
    root.section(section);

    let mut vcpus: Vec<(u32, Section)> = Vec::new();
    // DOMAIN comes before any vCPU; without its policy the state alone is judged.
    let mut policy = None;
    let mut taken = None;
    for frame in &frames {
        let Some(kind) = frame.header.record_type() else {
            continue;
        };
        let vcpu_number = blob::number(frame.payload, 0, 4).unwrap_or(0) as u32;
        match (kind, Record::parse(frame)) {
            (_, Ok(Some(Record::Header(header)))) => root.section(records::header(&header)),
            (_, Ok(Some(Record::Domain(domain)))) => {
                root.section(records::domain(&domain, full));
                match receiver::policy_of(&domain) {
                    Ok(read) => policy = Some(read),
                    // Whatever its state is, no machine takes the domain.
                    Err(broken) => {
                        taken = Some(against.is_empty());
                        findings.push(policy_finding(&broken, frame));
                    }
                }
            }
            (_, Ok(Some(Record::Console(console)))) => root.section(records::console(&console)),
            (_, Ok(Some(Record::VcpuRegisters(record)))) => {
                vcpu_section(&mut vcpus, record.vcpu).section(vcpu::explain(&record.registers));
            }
            (RecordType::VcpuXstate, _) => {
                let payload = frame.payload.get(BEFORE_BLOB..).unwrap_or_default();
                let base = frame.offset + FRAME_HEADER_BYTES + BEFORE_BLOB;
                let title = "Extended state";
                let mut xstate = Section::new("xstate", title)
                    .with_note(format!("a blob of {} bytes at {base}", payload.len()));
                let (found, parts) = blob::explain(&mut xstate, payload, full);
                if let Some(parts) = &parts {
                    let judged = blob::judged(parts, policy.as_ref());
                    let all = against::explain(&mut xstate, &judged, against);
                    taken = Some(all && taken != Some(false));
                }
                let found = found.into_iter().map(|finding| finding.within(base));
                findings.extend(
                    found
                        .filter(|finding| !findings.contains(finding))
                        .collect::<Vec<_>>(),
                );
                vcpu_section(&mut vcpus, vcpu_number).section(xstate);
            }
            _ => {}
        }
    }
    root.list(
        "vcpus",
        vcpus.into_iter().map(|(_, section)| section).collect(),
    );
    findings.sort_by_key(|finding| finding.offset);
    (findings, taken)
}

/// A policy that is none, in its DOMAIN record.
fn policy_finding(why: &BrokenPolicy, frame: &Frame<'_>) -> Finding {
    let text = format!("no receiver takes this policy: {}", why.words);
    let offset = frame.offset + FRAME_HEADER_BYTES;
    Finding::new(why.rule, offset, Seen::Words, String::new(), &text)
}

fn vcpu_section(vcpus: &mut Vec<(u32, Section)>, number: u32) -> &mut Section {
    let at = match vcpus.iter().position(|(known, _)| *known == number) {
        Some(at) => at,
        None => {
            let mut section = Section::new("vcpu", &format!("vCPU {number}"));
            section.value("vcpu", json!(number));
            vcpus.push((number, section));
            vcpus.len() - 1
        }
    };
    &mut vcpus[at].1
}

/// All frames whose ends can be found, damaged ones too.
fn frames(bytes: &[u8]) -> (Vec<Frame<'_>>, Vec<Finding>) {
    let (mut frames, mut findings) = (Vec::new(), Vec::new());
    let mut base = 0;
    let mut decoder = Decoder::new(bytes);
    loop {
        let error = match decoder.step() {
            Ok(Step::Frame(frame)) => {
                frames.push(Frame {
                    offset: base + frame.offset,
                    ..frame
                });
                continue;
            }
            Ok(Step::End) => break,
            Ok(Step::NeedMore(missing)) => {
                let offset = base + decoder.consumed();
                let rest = (bytes.len() - offset) as u64;
                let (rule, seen) = (Rule::FrameShort, Seen::Count(rest));
                let allowed = (rest + missing as u64).to_string();
                findings.push(Finding::new(
                    rule.name(),
                    offset,
                    seen,
                    allowed,
                    rule.text(),
                ));
                break;
            }
            Err(error) => error,
        };
        findings.push(error.within(base).into());
        // A frame whose checksum alone is wrong has an end, and another may
        // follow; where the header cannot be believed, nothing is known.
        let at = base + decoder.consumed();
        let rest = &bytes[at..];
        match (error.rule, FrameHeader::split(rest)) {
            (Rule::FrameCrc, Some((header, payload, _))) => {
                frames.push(Frame {
                    header,
                    payload,
                    offset: at,
                });
                base = at + header.frame_len();
                decoder = Decoder::new(&bytes[base..]);
            }
            _ => break,
        }
    }
    (frames, findings)
}

/// The first thing that breaks the order of records, or that one says wrong.
fn order(frames: &[Frame<'_>]) -> Option<Finding> {
    let domain = |frame: &Frame<'_>| frame.header.record < 0x100;
    let mut sequencer = if frames.iter().any(domain) {
        Sequencer::new()
    } else {
        Sequencer::messages()
    };
    let broken = frames
        .iter()
        .find_map(|frame| sequencer.accept(frame).err());
    let unfinished = || {
        let last = frames
            .last()
            .filter(|_| frames.iter().any(domain) && !sequencer.is_complete())?;
        Some(ParseError {
            rule: Rule::RecordOrder,
            offset: last.offset + last.header.frame_len(),
            seen: 0,
            allowed: Allowed::Words("more records, to END"),
        })
    };
    broken.or_else(unfinished).map(Finding::from)
}

/// One row for each frame; pages that follow each other share one.
fn table(frames: &[Frame<'_>]) -> Table {
    let columns = [
        numbers("at"),
        numbers("seq"),
        words("record"),
        numbers("bytes"),
        words(""),
    ];
    let mut table = Table::new("frames", &columns);
    let mut at = 0;
    while let Some(frame) = frames.get(at) {
        let same = |other: &&Frame<'_>| other.header.record == frame.header.record;
        let run = match frame.header.record_type() {
            Some(RecordType::Pages | RecordType::ZeroPages) => {
                frames[at..].iter().take_while(same).count()
            }
            _ => 1,
        };
        let run = &frames[at..at + run];
        at += run.len();
        let name = match frame.header.record_type() {
            Some(kind) => records::name(kind).to_owned(),
            None => format!("type {:#x}", frame.header.record),
        };
        let payload: usize = run.iter().map(|frame| frame.payload.len()).sum();
        let what = what(run);
        let title = if run.len() == 1 {
            name.clone()
        } else {
            format!("{name} × {}", run.len())
        };
        table.row(
            vec![
                frame.offset.to_string(),
                frame.header.sequence.to_string(),
                title,
                payload.to_string(),
                what.clone(),
            ],
            json!({
                "offset": frame.offset,
                "sequence": frame.header.sequence,
                "type": frame.header.record,
                "name": name,
                "frames": run.len(),
                "payload_bytes": payload,
                "crc32c": hex(frame.header.crc.into()),
                "what": what,
            }),
        );
    }
    table
}

/// A frame, or a run of pages, in a few words.
fn what(run: &[Frame<'_>]) -> String {
    let Some((first, last)) = run.first().zip(run.last()) else {
        return String::new();
    };
    match (Record::parse(first), Record::parse(last)) {
        (Ok(Some(Record::Pages(a))), Ok(Some(Record::Pages(b)))) => {
            records::frames_range(a.first_gfn, b.first_gfn + b.count() - 1)
        }
        (Ok(Some(Record::ZeroPages(a))), Ok(Some(Record::ZeroPages(b)))) => {
            records::frames_range(a.first_gfn, b.first_gfn + b.count - 1)
        }
        (Ok(Some(record)), _) => records::summary(&record),
        (Ok(None), _) => "optional, unknown: skipped".into(),
        (Err(error), _) => format!("broken: {}", error.rule()),
    }
}
