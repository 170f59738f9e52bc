//! Tests of layouts as text and as a drawing.

use super::pieces::{Kind, Pieces};
use super::scale::Scale;
use super::*;

fn pictures(names: &[&str], mask: Option<ComponentSet>) -> Vec<Picture> {
    let table = Table::load(None).unwrap();
    let of = |name: &&str| picture(table.find(name).unwrap(), mask).unwrap();
    names.iter().map(of).collect()
}

fn all_built_in() -> Vec<Picture> {
    let table = Table::built_in();
    let machines = table.machines().iter();
    machines.map(|m| picture(m, None).unwrap()).collect()
}

/// From the first byte to the last, nothing twice, and as long as the layout says.
#[test]
fn pieces_cover_an_image() {
    for picture in all_built_in() {
        let check = |image: &Pieces| {
            let mut end = 0;
            for piece in &image.pieces {
                assert_eq!(piece.start, end, "{}: {}", picture.name, piece.name());
                assert!(piece.end > piece.start);
                end = piece.end;
            }
            assert_eq!(image.bytes(), end);
            let components = image
                .pieces
                .iter()
                .filter(|p| matches!(p.kind, Kind::Component(..)));
            let legacy = image.mask.intersection(ComponentSet::LEGACY).len() as usize;
            assert_eq!(components.count() + legacy, image.mask.len() as usize);
        };
        check(&picture.standard);
        picture.compacted.iter().for_each(check);
    }
}

#[test]
fn text_shows_both_forms_and_holes() {
    let text = text::text(&pictures(&["zen3", "piledriver"], None));
    for line in [
        "  standard 0x207: 2440 bytes, 1600 of them holes   compacted 0x1a07: 880 bytes",
        "      832  · · ·          1600  hole                   832  pkru              8",
        "     2432  pkru              8                         840  cet_u            16  xss",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} not in\n{text}");
    }
    assert!(text.contains("no compacted form"), "{text}");
    let masked = Some(components::parse("0x7").unwrap());
    let masked = text::text(&pictures(&["zen4"], masked));
    assert!(masked.contains("standard 0x7: 832 bytes"), "{masked}");
}

/// `layout zen4 --mask apx` printed `standard 0x0: 576` and nothing of APX.
#[test]
fn a_component_that_the_machine_lacks_is_named() {
    let args = |machines: &[&str], mask: &str| Args {
        machines: machines.iter().map(|name| (*name).to_owned()).collect(),
        mask: Some(components::parse(mask).unwrap()),
        svg: None,
        table: None,
        json: false,
    };
    let error = run(&args(&["zen4"], "apx")).unwrap_err().to_string();
    assert_eq!(error, "zen4: no machine of these has apx");
    let mask = Some(components::parse("avx,apx").unwrap());
    let text = text::text(&pictures(&["zen4", "diamond-rapids"], mask));
    assert_eq!(text.matches("It has no apx\n").count(), 1, "{text}");
}

#[test]
fn a_layout_in_json() {
    let zen3 = pictures(&["zen3"], None)[0].json();
    assert_eq!(zen3["standard"]["bytes"], 2440);
    assert_eq!(zen3["standard"]["mask"], "0x207");
    let pieces = zen3["standard"]["pieces"].as_array().unwrap();
    let pkru = pieces.iter().find(|piece| piece["name"] == "pkru").unwrap();
    assert_eq!((&pkru["offset"], &pkru["index"]), (&2432.into(), &9.into()));
}

#[test]
fn a_scale_breaks_where_no_image_has_an_edge() {
    let scale = Scale::new([0, 512, 576, 832, 2752, 2816, 11008].into_iter());
    assert_eq!(scale.broken, [(832, 2752), (2816, 11008)]);
    assert_eq!(scale.place(832) - scale.place(576), 256.0);
    assert!(scale.is_broken_at(1024) && scale.is_broken_at(256));
    assert!(!scale.is_broken_at(832) && !scale.is_broken_at(2816));
    // Ascending over every byte.
    let places: Vec<f64> = (0..=11008).map(|byte| scale.place(byte)).collect();
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(scale.place(11008), scale.length());
}

/// The rectangles and labels of a drawing, by their attributes.
fn numbers(svg: &str, tag: &str, names: &[&str]) -> Vec<Vec<f64>> {
    let lines = svg
        .lines()
        .filter(|line| line.starts_with(&format!("<{tag} x=")));
    let read = |line: &str, name: &str| {
        let value = line.split(&format!(" {name}=\"")).nth(1).unwrap();
        value.split('"').next().unwrap().parse().unwrap()
    };
    lines
        .map(|line| names.iter().map(|name| read(line, name)).collect())
        .collect()
}

#[test]
fn a_drawing_has_every_piece_within_its_frame() {
    let pictures = all_built_in();
    let svg = svg::draw(&pictures);
    let pieces: usize = pictures
        .iter()
        .flat_map(|p| [Some(&p.standard), p.compacted.as_ref()])
        .flatten()
        .map(|image| image.pieces.len())
        .sum();
    let boxes = numbers(&svg, "rect", &["x", "y", "width", "height"]);
    assert!(boxes.len() >= pieces, "{} of {pieces}", boxes.len());
    let width = svg.split("width=\"").nth(1).unwrap();
    let width: f64 = width.split('"').next().unwrap().parse().unwrap();
    for b in &boxes {
        assert!(b[0] >= 0.0 && b[2] > 0.5 && b[0] + b[2] <= width, "{b:?}");
    }
    assert!(svg.contains("pkru: 8 bytes at 2688"));
}

/// A long name ran into its bar.
#[test]
fn a_long_name_ends_before_the_bars() {
    let mut pictures = pictures(&["zen4"], None);
    pictures[0].name = "w".repeat(48);
    let svg = svg::draw(&pictures);
    let boxes = numbers(&svg, "rect", &["x"]);
    // Bars come before the legend.
    assert!(boxes[0][0] > 20.0 + 48.0 * 9.0, "{:?}", boxes[0]);
}

#[test]
fn all_machines_are_those_with_xsave() {
    let table = Table::load(None).unwrap();
    let all = table.chosen(&["all".to_owned()]).unwrap();
    assert!(all.len() >= 16, "{}", all.len());
    for machine in all {
        picture(machine, None).unwrap();
    }
}

/// Labels of one line do not run into each other.
#[test]
fn labels_do_not_overlap() {
    let svg = svg::draw(&all_built_in());
    let mut labels: Vec<(f64, f64, f64)> = Vec::new();
    for line in svg.lines().filter(|line| line.contains("class=\"label\"")) {
        let at = numbers(line, "text", &["x", "y"]).remove(0);
        let text = line.split('>').nth(1).unwrap().split('<').next().unwrap();
        let width = text.chars().count() as f64 * 6.0;
        let start = if line.contains("middle") {
            at[0] - width / 2.0
        } else {
            at[0]
        };
        labels.push((at[1], start, start + width));
    }
    assert!(labels.len() > 50);
    for (i, a) in labels.iter().enumerate() {
        for b in &labels[i + 1..] {
            let apart = a.0 != b.0 || a.2 <= b.1 || b.2 <= a.1;
            assert!(apart, "{a:?} {b:?}");
        }
    }
}

/// The book's drawing is what the command draws.
#[test]
fn the_books_drawing_is_current() {
    let names = [
        "piledriver",
        "zen2",
        "zen3",
        "zen4",
        "skylake-sp",
        "sapphire-rapids",
        "diamond-rapids",
    ];
    let book = include_str!("../../../docs/src/layouts.svg");
    let drawn = svg::draw(&pictures(&names, None));
    let command = "cargo xtask layout --svg docs/src/layouts.svg";
    assert!(
        book == drawn,
        "draw it again: {command} {}",
        names.join(" ")
    );
}
