//! `cargo xtask layout`: where each component lies, standard and compacted, with the holes.

mod pieces;
mod scale;
mod svg;
#[cfg(test)]
mod tests;
mod text;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use vcpu_xstate::{ComponentIndex, ComponentSet, Form};

use self::pieces::{Picture, image};
use crate::machines::{ALL, Machine, Table};
use crate::output;

/// Which machines, and which components of them.
#[derive(ClapArgs)]
pub struct Args {
    /// The machines; `all` for every one that has XSAVE.
    #[arg(required = true, value_name = "MACHINE")]
    machines: Vec<String>,

    /// Only these components: a mask, or names with commas between.
    #[arg(long, value_name = "MASK")]
    mask: Option<String>,

    /// Draw them above each other, on one scale of bytes.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// A table of machines; $XFERRY_CPUID_CSV where it is not given.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// Prints the layouts, or draws them.
pub fn run(args: &Args) -> Result<()> {
    let table = Table::load(args.table.as_deref())?;
    let mask = match &args.mask {
        Some(text) => parse_mask(text)?,
        None => ComponentSet::ALL,
    };
    let machines = table.chosen(&args.machines)?;
    if args.machines.iter().any(|name| name == ALL) {
        let without = table.machines().iter().filter(|m| !m.has_xsave());
        let names: Vec<&str> = without.map(Machine::name).collect();
        if !names.is_empty() {
            eprintln!("left out, without XSAVE: {}", names.join(", "));
        }
    }
    let pictures = machines.iter().map(|machine| picture(machine, mask));
    let pictures = pictures.collect::<Result<Vec<_>>>()?;
    match &args.svg {
        None => output::print(&text::text(&pictures))?,
        Some(path) => {
            let drawing = svg::draw(&pictures);
            std::fs::write(path, drawing).with_context(|| format!("writing {}", path.display()))?;
            output::print(&format!("{}\n", path.display()))?;
        }
    }
    Ok(())
}

/// Both images of a machine. The compacted one is what its best instruction
/// writes: XSAVES all components, XSAVEC those of XCR0.
fn picture(machine: &Machine, mask: ComponentSet) -> Result<Picture> {
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
        standard: image(geometry, Form::Standard, user),
        compacted: compacted.map(|mask| image(geometry, Form::Compacted, mask)),
    })
}

/// A number, or names (and numbers) of components with commas between.
fn parse_mask(text: &str) -> Result<ComponentSet> {
    if let Some(hex) = text.strip_prefix("0x") {
        let bits = u64::from_str_radix(hex, 16).with_context(|| format!("mask {text:?}"))?;
        let mask = ComponentSet::from_bits(bits);
        return mask.with_context(|| format!("mask {text:?}: bit 63 is no component"));
    }
    ensure!(!text.is_empty(), "the mask names no component");
    text.split(',').try_fold(ComponentSet::EMPTY, |all, name| {
        let number = || name.parse().ok().and_then(ComponentIndex::new);
        let component = ComponentIndex::from_name(name).or_else(number);
        let component = component.with_context(|| format!("no component {name:?}"))?;
        Ok(all.union(ComponentSet::only(component)))
    })
}
