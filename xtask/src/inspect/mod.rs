//! `cargo xtask inspect`: what is in a file of extended state, explained.

mod against;
mod blob;
mod claims;
mod detect;
mod document;
mod finding;
mod foreign;
mod image;
mod layout;
mod likeness;
mod records;
mod registers;
mod render;
#[cfg(test)]
mod strange_tests;
mod stream;
#[cfg(test)]
mod tests;
mod vcpu;
#[cfg(test)]
mod verdict_tests;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use migration_abi::registers::VcpuRegisters;
use serde_json::json;
use vcpu_xstate::ComponentSet;

use self::detect::Format;
use self::document::Section;
pub use self::finding::Finding;
use self::layout::Layout;
pub use self::stream::looks_like_one as looks_like_a_stream;
use crate::machines::Table as Machines;
use crate::receiver::Offer;
use crate::{components, input, output};

/// What to explain, and how.
#[derive(Args, Debug, Default)]
pub struct InspectOptions {
    /// The file: a blob, a migration stream, a Xen record, KVM's buffer, or an
    /// XSAVE image; `-` is standard input.
    file: PathBuf,

    /// What it is, where its bytes do not say.
    #[arg(long = "as", value_name = "FORMAT")]
    format: Option<Format>,

    /// Say whether this machine would take it, and where not, why; may be repeated,
    /// and `all` is every one that has XSAVE. The exit status is 1 where one would not.
    #[arg(long, value_name = "CPU")]
    against: Vec<String>,

    #[command(flatten)]
    offer: Offer,

    /// The machine whose layout an image of another hypervisor has.
    #[arg(long, value_name = "CPU")]
    layout: Option<String>,

    /// XCR0, for forms that do not have it: names of components (x87,sse,avx) or a
    /// mask (0x207); otherwise the least that their components need.
    #[arg(long, value_name = "COMPONENTS", value_parser = components::parse)]
    xcr0: Option<ComponentSet>,

    /// A table of machines, each in the place of a built-in one of its name;
    /// $XFERRY_CPUID_CSV where it is not given.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    /// Show all bytes of tiles, of unknown components, and all CPUID leaves.
    #[arg(long)]
    full: bool,

    /// Print JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// Explains the file. False where it breaks a rule, or a machine does not take it.
pub fn run(options: &InspectOptions) -> Result<bool> {
    let is_stream = |head: &[u8]| match options.format {
        Some(format) => format == Format::Stream,
        None => looks_like_a_stream(head),
    };
    let bytes = input::read(&options.file, is_stream)?;
    let name = input::name(&options.file);
    let machines = Machines::load(options.table.as_deref())?;
    let (section, taken) = explain(&name, &bytes, options, &machines)?;
    let text = if options.json {
        format!("{:#}\n", section.json())
    } else {
        render::text(&section)
    };
    output::print(&text)?;
    // "No" would be an answer, too.
    taken.with_context(|| format!("{name}: {NOTHING}"))
}

/// What is said where nothing can be judged.
const NOTHING: &str = "no extended state is here that a machine could take or refuse";

/// The explanation, and whether nothing is wrong and nobody refuses it; `None`
/// where a verdict is asked for and nothing is there to be judged.
fn explain(
    name: &str,
    bytes: &[u8],
    options: &InspectOptions,
    machines: &Machines,
) -> Result<(Section, Option<bool>)> {
    let named = |name: &String| machines.find(name);
    // What is mistyped is told first, whether it matters or not.
    options.offer.granted()?;
    options.offer.permitted()?;
    let against = match &options.against[..] {
        [] => {
            let idle = options.offer.is_empty();
            ensure!(
                idle,
                "--grant and --permit say what a machine offers: --against names it"
            );
            Vec::new()
        }
        names => options.offer.receivers(&machines.chosen(names)?)?,
    };
    let layout_of = options.layout.as_ref().map(named).transpose()?;
    let Some(format) = options.format.or_else(|| detect::detect(bytes)) else {
        ensure!(!bytes.is_empty(), "{name}: empty, 0 bytes");
        bail!(
            "{name}: {} bytes that begin with neither a blob's magic nor a frame, and hold no XSAVE header \
             where a record or an image has one; --as says what they are",
            bytes.len()
        );
    };
    let mut body = Section::new("", "");
    // Nothing is judged where there is no extended state.
    let mut taken = None;
    let mut warnings = Vec::new();
    let mut findings = Vec::from_iter(detect::another(format, bytes));
    findings.extend(match format {
        Format::Blob => {
            let (findings, parts) = blob::explain(&mut body, bytes, options.full);
            if let Some(parts) = &parts {
                let judged = blob::judged(parts, None);
                taken = Some(against::explain(&mut body, &judged, &against));
            }
            findings
        }
        Format::Stream => {
            let findings;
            (findings, taken) = stream::explain(&mut body, bytes, options.full, &against);
            findings
        }
        Format::KvmXcrs => foreign::xcrs(&mut body, bytes),
        Format::Registers => match VcpuRegisters::parse(bytes) {
            Ok(registers) => {
                body.section(vcpu::explain(&registers));
                Vec::new()
            }
            Err(error) => vec![error.into()],
        },
        format => {
            let layout = match layout_of {
                Some(machine) => {
                    let host = machine.host(machine.mxcsr_mask())?;
                    Some(Layout::of_machine(machine.name(), host.geometry()))
                }
                None => None,
            };
            let xcr0 = options.xcr0.map(ComponentSet::bits);
            let (explained, parts) =
                foreign::explain(&mut body, format, bytes, xcr0, layout, options.full);
            if let Some(parts) = &parts {
                taken = Some(against::explain(&mut body, &parts.judged(), &against));
            }
            warnings = explained.warnings;
            explained.broken
        }
    });
    let mut root =
        Section::new("", name).with_note(format!("{}, {} bytes", format.title(), bytes.len()));
    root.value("file", json!(name));
    root.value("format", json!(format.name()));
    root.value("bytes", json!(bytes.len()));
    let unjudged = taken.is_none() && !against.is_empty();
    if unjudged {
        warnings.push(NOTHING.into());
    }
    warnings.extend(options.idle(format));
    finding::explain(&mut root, &findings, &warnings);
    if format != Format::Stream {
        // Where something can be judged, its verdicts take this place.
        root.value("against", json!([]));
    }
    root.append(body);
    let good = findings.is_empty() && taken != Some(false);
    Ok((root, (!unjudged || !findings.is_empty()).then_some(good)))
}

impl InspectOptions {
    /// What is said of options that say nothing of this form.
    fn idle(&self, format: Format) -> Vec<String> {
        let whose_layout = match format {
            Format::Blob | Format::Stream => Some("its directory is its layout"),
            Format::KvmXcrs | Format::Registers => Some("it has no image"),
            Format::Kvm | Format::Raw | Format::XenHvm | Format::XenPv => None,
        };
        let whose_xcr0 = match format {
            Format::Kvm | Format::Raw => None,
            _ => Some("it has XCR0 itself"),
        };
        let said = [
            (self.layout.is_some(), "--layout", whose_layout),
            (self.xcr0.is_some(), "--xcr0", whose_xcr0),
        ];
        let idle = said.into_iter().filter(|(given, ..)| *given);
        idle.filter_map(|(_, option, why)| Some(format!("{option} is not used: {}", why?)))
            .collect()
    }
}
