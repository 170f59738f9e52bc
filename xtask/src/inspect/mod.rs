//! `cargo xtask inspect`: what is in a file of extended state, explained.

mod against;
mod blob;
mod detect;
mod document;
mod finding;
mod foreign;
mod image;
mod layout;
mod records;
mod registers;
mod render;
mod stream;
#[cfg(test)]
mod tests;
mod vcpu;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use migration_abi::registers::VcpuRegisters;
use serde_json::json;

use self::detect::Format;
use self::document::Section;
use self::layout::Layout;
pub use self::stream::looks_like_one as looks_like_a_stream;
use crate::machines::Table as Machines;
use crate::output;
use crate::receiver::{Offer, Receiver};

/// What to explain, and how.
#[derive(Args, Debug, Default)]
pub struct InspectOptions {
    /// The file: a blob, a migration stream, a Xen record, KVM's buffer, or an XSAVE image.
    file: PathBuf,

    /// What it is, where its bytes do not say.
    #[arg(long = "as", value_name = "FORMAT")]
    format: Option<Format>,

    /// Say whether this machine would take it, and where not, why; may be repeated.
    #[arg(long, value_name = "CPU")]
    against: Vec<String>,

    #[command(flatten)]
    offer: Offer,

    /// The machine whose layout an image of another hypervisor has.
    #[arg(long, value_name = "CPU")]
    layout: Option<String>,

    /// XCR0, for forms that do not have it; otherwise the least that their components need.
    #[arg(long, value_name = "MASK", value_parser = parse_mask)]
    xcr0: Option<u64>,

    /// The table of machines by name.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    /// Show all bytes of tiles, of unknown components, and all CPUID leaves.
    #[arg(long)]
    full: bool,

    /// Print JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// Explains the file. False where it breaks a rule.
pub fn run(options: &InspectOptions) -> Result<bool> {
    let path = &options.file;
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let name = path.display().to_string();
    let machines = Machines::load(options.table.as_deref())?;
    let (section, whole) = explain(&name, &bytes, options, &machines)?;
    let text = if options.json {
        format!("{:#}\n", section.json())
    } else {
        render::text(&section)
    };
    output::print(&text)?;
    Ok(whole)
}

/// The explanation, and whether nothing is wrong.
fn explain(
    name: &str,
    bytes: &[u8],
    options: &InspectOptions,
    machines: &Machines,
) -> Result<(Section, bool)> {
    let named = |name: &String| machines.find(name);
    let against = options
        .against
        .iter()
        .map(|name| options.offer.receiver(named(name)?))
        .collect::<Result<Vec<Receiver<'_>>>>()?;
    let layout_of = options.layout.as_ref().map(named).transpose()?;
    let Some(format) = options.format.or_else(|| detect::detect(bytes)) else {
        bail!(
            "{name}: {} bytes that begin with neither a blob's magic nor a frame, and hold no XSAVE header \
             where a record or an image has one; --as says what they are",
            bytes.len()
        );
    };
    let mut body = Section::new("", "");
    let findings = match format {
        Format::Blob => {
            let (findings, parts) = blob::explain(&mut body, bytes, options.full);
            if let Some(parts) = &parts {
                against::explain(&mut body, &parts.judged(None), &against);
            }
            findings
        }
        Format::Stream => stream::explain(&mut body, bytes, options.full, &against),
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
            let (findings, parts) =
                foreign::explain(&mut body, format, bytes, options.xcr0, layout, options.full);
            if let Some(parts) = &parts {
                against::explain(&mut body, &parts.judged(), &against);
            }
            findings
        }
    };
    let mut root =
        Section::new("", name).with_note(format!("{}, {} bytes", format.title(), bytes.len()));
    root.value("file", json!(name));
    root.value("format", json!(format.name()));
    root.value("bytes", json!(bytes.len()));
    finding::explain(&mut root, &findings);
    root.append(body);
    Ok((root, findings.is_empty()))
}

/// A mask in hexadecimal (with 0x) or decimal digits.
fn parse_mask(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}
