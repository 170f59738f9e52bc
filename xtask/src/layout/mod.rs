//! `cargo xtask layout`: where each component lies, standard and compacted, with the holes.

mod palette;
mod pieces;
mod scale;
mod svg;
#[cfg(test)]
mod tests;
mod text;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use vcpu_xstate::{ComponentSet, Form};

use self::pieces::{Picture, image};
use crate::machines::{ALL, Machine, Table, unbelieved};
use crate::{components, output};

/// Which machines, and which components of them.
#[derive(ClapArgs)]
pub struct Args {
    /// The machines; `all` for every one that has XSAVE.
    #[arg(required = true, value_name = "MACHINE")]
    machines: Vec<String>,

    /// Only these components: names with commas between (avx,pkru), or a mask (0x207).
    #[arg(long, value_name = "COMPONENTS", value_parser = components::parse)]
    mask: Option<ComponentSet>,

    /// Draw them above each other, on one scale of bytes; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// A table of machines, each in the place of a built-in one of its name;
    /// $XFERRY_CPUID_CSV where it is not given.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    /// Print JSON on standard output.
    #[arg(long, conflicts_with = "svg")]
    json: bool,
}

/// Prints the layouts, or draws them.
pub fn run(args: &Args) -> Result<()> {
    let table = Table::load(args.table.as_deref())?;
    let machines = table.chosen(&args.machines)?;
    if args.machines.iter().any(|name| name == ALL) {
        let without = table.machines().iter().filter(|m| !m.has_xsave());
        let names: Vec<&str> = without.map(Machine::name).collect();
        if !names.is_empty() {
            eprintln!("left out, without XSAVE: {}", names.join(", "));
        }
    }
    let pictures = machines.iter().map(|machine| picture(machine, args.mask));
    let pictures = pictures.collect::<Result<Vec<_>>>()?;
    if let Some(mask) = args.mask {
        let has_some =
            |picture: &Picture| !picture.lacks.contains(mask) || !picture.unbelieved.is_empty();
        ensure!(
            pictures.iter().any(has_some),
            "{}: no machine of these has {mask}",
            args.machines.join(" ")
        );
    }
    match &args.svg {
        None if args.json => {
            let pictures: Vec<_> = pictures.iter().map(Picture::json).collect();
            output::print(&format!("{:#}\n", serde_json::json!(pictures)))?;
        }
        None => output::print(&text::text(&pictures))?,
        Some(path) if path.as_os_str() == "-" => output::print(&svg::draw(&pictures))?,
        Some(path) => {
            let drawing = svg::draw(&pictures);
            std::fs::write(path, drawing).with_context(|| format!("writing {}", path.display()))?;
            output::print(&format!("{}\n", path.display()))?;
        }
    }
    Ok(())
}

/// Both images of a machine. The compacted one is what its best instruction
/// writes: XSAVES all components, XSAVEC those of XCR0. `wanted` are the
/// components that are asked for; else all that it has.
fn picture(machine: &Machine, wanted: Option<ComponentSet>) -> Result<Picture> {
    let mask = wanted.unwrap_or(ComponentSet::ALL);
    let host = machine.host(machine.mxcsr_mask())?;
    let geometry = host.geometry();
    let known = geometry.known().intersection(mask);
    let user = known.difference(geometry.supervisor());
    let compacted = match host.instructions() {
        has if has.xsaves => Some(known),
        has if has.xsavec => Some(user),
        _ => None,
    };
    Ok(Picture {
        name: machine.name().to_owned(),
        model: machine.model().to_owned(),
        undescribed: machine.undescribed().intersection(mask),
        unbelieved: unbelieved(machine.listed().intersection(mask), &host),
        lacks: wanted.map_or(ComponentSet::EMPTY, |wanted| {
            wanted.difference(machine.listed())
        }),
        standard: image(geometry, Form::Standard, user),
        compacted: compacted.map(|mask| image(geometry, Form::Compacted, mask)),
    })
}
