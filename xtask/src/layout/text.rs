//! Layouts as text: offset, name and size, both forms side by side.

use std::fmt::Write as _;

use vcpu_xstate::ComponentSet;

use super::pieces::{Kind, Picture, Piece, Pieces};

/// All machines, one below the other.
pub fn text(pictures: &[Picture]) -> String {
    let mut text = String::new();
    for (at, picture) in pictures.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        machine(picture, &mut text);
    }
    text
}

fn machine(picture: &Picture, text: &mut String) {
    let _ = writeln!(text, "{}: {}", picture.name, picture.model);
    if !picture.undescribed.is_empty() {
        let lacks = picture.undescribed;
        let _ = writeln!(text, "Listed, and not described by its dump: {lacks}");
    }
    for (component, why) in &picture.unbelieved {
        let _ = writeln!(text, "Left out, {component}: {why}");
    }
    if !picture.lacks.is_empty() {
        let _ = writeln!(text, "It has no {}", words(picture.lacks));
    }
    let left = column("standard", &picture.standard);
    let right = match &picture.compacted {
        Some(compacted) => column("compacted", compacted),
        None => vec!["no compacted form: it has no XSAVEC".to_owned()],
    };
    let width = left
        .iter()
        .map(|row| row.chars().count())
        .max()
        .unwrap_or(0);
    for row in 0..left.len().max(right.len()) {
        let cell = |column: &[String]| column.get(row).cloned().unwrap_or_default();
        let line = format!("  {:<width$}   {}", cell(&left), cell(&right));
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// Names with commas between.
fn words(set: ComponentSet) -> String {
    let names: Vec<String> = set.iter().map(|component| component.to_string()).collect();
    names.join(", ")
}

fn column(title: &str, image: &Pieces) -> Vec<String> {
    let (bytes, holes) = (image.bytes(), image.hole_bytes());
    let holes = match holes {
        0 => String::new(),
        holes => format!(", {holes} of them holes"),
    };
    let mut rows = vec![
        format!("{title} {:#x}: {bytes} bytes{holes}", image.mask.bits()),
        format!("{:>7}  {:<12} {:>6}", "offset", "", "bytes"),
    ];
    rows.extend(image.pieces.iter().map(row));
    rows
}

fn row(piece: &Piece) -> String {
    let (name, note) = match piece.kind {
        Kind::Hole => ("· · ·".to_owned(), "  hole"),
        Kind::Component(_, true) => (piece.name(), "  xss"),
        _ => (piece.name(), ""),
    };
    format!("{:>7}  {name:<12} {:>6}{note}", piece.start, piece.bytes())
}
