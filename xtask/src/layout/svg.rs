//! Layouts as a drawing: a bar for each image, standard forms first, all on one scale of bytes.

use std::fmt::Write as _;

use super::palette::{colour, group};
use super::pieces::{Kind, Picture, Piece, Pieces};
use super::scale::Scale;

/// Width of the bars' area, px.
const BARS: f64 = 1180.0;
/// Width of a letter of the names on the left, which are bold, px, on the safe side.
const NAME_LETTER: f64 = 9.0;
/// Machines that the title names; more are counted.
const NAMED: usize = 8;
const MARGIN: f64 = 20.0;
/// Room on the right for the size of the longest bar, px.
const SIZES: f64 = 90.0;
const BAR: f64 = 26.0;
/// A line of labels above a bar, px.
const TIER: f64 = 13.0;
/// Room below a bar for offsets, px.
const BELOW: f64 = 24.0;
/// Width of a letter of the labels and of the offsets, px, on the safe side.
const LETTER: f64 = 6.3;
const SMALL_LETTER: f64 = 5.4;

const STYLE: &str = "\
text{font-family:'DejaVu Sans','Liberation Sans',Helvetica,Arial,sans-serif;fill:#1d2733}\
.label{font-size:10.5px}.halo{stroke:#fff;stroke-opacity:.55;stroke-width:2.4px;stroke-linejoin:round}.small{font-size:9px;fill:#51606f}.name{font-size:13px;font-weight:bold}\
.title{font-size:16px;font-weight:bold}.form{font-size:13px;font-weight:bold;fill:#37485a}\
.box{stroke:#1d2733;stroke-width:.7}.lead{stroke:#51606f;stroke-width:.7;fill:none}\
.grid{stroke:#d5dce3;stroke-width:1}.break{stroke:#fff;stroke-width:3;fill:none}";

/// The drawing.
pub fn draw(pictures: &[Picture]) -> String {
    let images = || {
        let both = |p: &'_ Picture| [Some(p.standard.clone()), p.compacted.clone()];
        pictures.iter().flat_map(both).flatten()
    };
    let edges: Vec<usize> = images()
        .flat_map(|image| image.pieces)
        .flat_map(|piece| [piece.start, piece.end])
        .collect();
    let scale = Scale::new(edges.into_iter());
    let letters = pictures.iter().map(|p| p.name.chars().count()).max();
    let mut drawing = Drawing {
        names: (letters.unwrap_or(0) + 2) as f64 * NAME_LETTER,
        per_unit: BARS / scale.length(),
        scale,
        body: String::new(),
        y: MARGIN + 18.0,
    };
    let title = format!("Where extended state lies: {}", names(pictures));
    drawing.text(MARGIN, "title", "start", &title);
    drawing.y += 16.0;
    let standard = pictures
        .iter()
        .map(|p| (p.name.as_str(), Some(&p.standard)));
    drawing.section(
        "Standard form (XSAVE, XSAVEOPT): fixed places, components of XCR0",
        standard,
    );
    let compacted = pictures
        .iter()
        .map(|p| (p.name.as_str(), p.compacted.as_ref()));
    drawing.section(
        "Compacted form (XSAVEC, XSAVES): packed by XCOMP_BV, here with all components",
        compacted,
    );
    drawing.legend(images());
    let (width, height) = (
        MARGIN * 2.0 + drawing.names + BARS + SIZES,
        drawing.y + MARGIN,
    );
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <defs>{PATTERNS}</defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
        drawing.body,
        title = escape(&title),
    )
}

/// Holes are hatched grey; supervisor components have white stripes over their colour.
const PATTERNS: &str = "\
<pattern id=\"hole\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
<rect width=\"6\" height=\"6\" fill=\"#f4f6f8\"/><rect width=\"1.4\" height=\"6\" fill=\"#aab4bf\"/></pattern>\
<pattern id=\"xss\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(-45)\">\
<rect width=\"2\" height=\"5\" fill=\"#fff\" fill-opacity=\".55\"/></pattern>";

fn names(pictures: &[Picture]) -> String {
    let names: Vec<&str> = pictures
        .iter()
        .map(|picture| picture.name.as_str())
        .collect();
    if names.len() > NAMED {
        format!("{} machines", names.len())
    } else {
        names.join(", ")
    }
}

struct Drawing {
    /// Width of the names on the left, px.
    names: f64,
    scale: Scale,
    per_unit: f64,
    body: String,
    /// Where the next thing goes.
    y: f64,
}

impl Drawing {
    fn x(&self, byte: usize) -> f64 {
        MARGIN + self.names + self.scale.place(byte) * self.per_unit
    }

    fn text(&mut self, x: f64, class: &str, anchor: &str, text: &str) {
        let y = self.y;
        self.text_at(x, y, class, anchor, text);
    }

    fn text_at(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        let text = escape(text);
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }

    /// A label that stands on something: with a halo under it. The halo is an
    /// element of its own, because not every reader knows `paint-order`.
    fn label_over(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        self.text_at(x, y, "label halo", anchor, text);
        self.text_at(x, y, "label", anchor, text);
    }

    /// The bars of one form under their title and axis.
    fn section<'a>(
        &mut self,
        title: &str,
        rows: impl Iterator<Item = (&'a str, Option<&'a Pieces>)>,
    ) {
        self.y += 22.0;
        self.text(MARGIN, "form", "start", title);
        self.y += 22.0;
        let top = self.y;
        let before = self.body.len();
        self.y += 8.0;
        for (name, image) in rows {
            self.row(name, image);
        }
        let axis = self.axis(top, self.y - 6.0);
        self.body.insert_str(before, &axis);
    }

    /// Grid lines and byte numbers, drawn below the bars.
    fn axis(&self, top: f64, bottom: f64) -> String {
        let mut text = String::new();
        let mut last = f64::MIN;
        for byte in (0..=self.scale.last()).step_by(256) {
            if self.scale.is_broken_at(byte) {
                continue;
            }
            let x = self.x(byte);
            let _ = writeln!(
                text,
                "<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" class=\"grid\"/>"
            );
            if x - last > 40.0 {
                let _ = writeln!(
                    text,
                    "<text x=\"{x:.1}\" y=\"{:.1}\" class=\"small\" text-anchor=\"middle\">{byte}</text>",
                    top - 4.0
                );
                last = x;
            }
        }
        text
    }

    fn row(&mut self, name: &str, image: Option<&Pieces>) {
        let Some(image) = image else {
            self.y += TIER + 4.0;
            self.text_at(MARGIN, self.y + BAR / 2.0, "name", "start", name);
            let x = self.x(0);
            self.text_at(x, self.y + BAR / 2.0, "label", "start", "has no XSAVEC");
            self.y += BAR;
            return;
        };
        let labels = self.labels(image);
        let tiers = labels.iter().map(|label| label.tier + 1).max().unwrap_or(0);
        self.y += TIER * tiers as f64 + 6.0;
        let y = self.y;
        self.text_at(MARGIN, y + BAR / 2.0 + 5.0, "name", "start", name);
        for piece in &image.pieces {
            self.piece(piece);
        }
        for (from, to) in self.scale.broken.clone() {
            if to <= image.bytes() {
                self.break_mark((self.x(from) + self.x(to)) / 2.0);
            }
        }
        for label in labels {
            let top = y - 4.0 - TIER * label.tier as f64;
            let _ = writeln!(
                self.body,
                "<path class=\"lead\" d=\"M{:.1} {y:.1}V{:.1}\"/>",
                label.x,
                top - 7.0
            );
            self.label_over(label.x + 2.5, top, "start", &label.text);
        }
        self.offsets(image);
        let (end, size) = (self.x(image.bytes()), image.bytes());
        self.text_at(
            end + 6.0,
            y + BAR / 2.0 + 4.0,
            "label",
            "start",
            &format!("{size} bytes"),
        );
        self.y += BAR + BELOW;
    }

    fn piece(&mut self, piece: &Piece) {
        let (x, y) = (self.x(piece.start), self.y);
        let width = self.x(piece.end) - x;
        let (name, bytes) = (piece.name(), piece.bytes());
        let hint = escape(&format!("{name}: {bytes} bytes at {}", piece.start));
        let mut rect = |fill: &str, hint: &str| {
            let _ = writeln!(
                self.body,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{fill}\" \
                 class=\"box\"><title>{hint}</title></rect>"
            );
        };
        rect(colour(piece.kind), &hint);
        if matches!(piece.kind, Kind::Component(_, true)) {
            rect("url(#xss)", &hint);
        }
        if let Some(text) = self.inside(piece) {
            let (x, y) = (x + width / 2.0, y + BAR / 2.0 + 4.0);
            self.label_over(x, y, "middle", &text);
        }
    }

    /// What fits into the piece: name and size, name, or nothing.
    fn inside(&self, piece: &Piece) -> Option<String> {
        let width = self.x(piece.end) - self.x(piece.start);
        let name = piece.name();
        let both = format!("{name} {}", piece.bytes());
        [both, name]
            .into_iter()
            .find(|text| text.chars().count() as f64 * LETTER + 4.0 <= width)
    }

    /// Labels of what is too narrow for one inside. From right to left, each in
    /// the lowest line where it is clear of those on its right: so no leader
    /// crosses a label.
    fn labels(&self, image: &Pieces) -> Vec<Label> {
        let mut labels: Vec<Label> = Vec::new();
        let outside = |piece: &&Piece| piece.kind != Kind::Hole && self.inside(piece).is_none();
        for piece in image.pieces.iter().rev().filter(outside) {
            let x = (self.x(piece.start) + self.x(piece.end)) / 2.0;
            let text = format!("{} {}", piece.name(), piece.bytes());
            let end = x + 6.0 + text.chars().count() as f64 * LETTER;
            let clear = |tier: usize| {
                let mut beside = labels.iter().filter(|label| label.tier >= tier);
                beside.all(|label| label.x >= end || label.tier > tier && label.x >= x)
            };
            let tier = (0..).find(|tier| clear(*tier)).unwrap_or(0);
            labels.push(Label { x, tier, text });
        }
        labels
    }

    /// Offsets below the bar, where there is room.
    fn offsets(&mut self, image: &Pieces) {
        let mut free = f64::MIN;
        let y = self.y + BAR + 11.0;
        for piece in image.pieces.iter().filter(|piece| piece.kind != Kind::Hole) {
            let (x, text) = (self.x(piece.start), piece.start.to_string());
            let half = text.len() as f64 * SMALL_LETTER / 2.0;
            if x - half >= free {
                self.text_at(x, y, "small", "middle", &text);
                free = x + half + 4.0;
            }
        }
    }

    /// A stretch that is drawn short.
    fn break_mark(&mut self, x: f64) {
        let (top, bottom) = (self.y - 3.0, self.y + BAR + 3.0);
        for x in [x - 4.0, x + 4.0] {
            let _ = writeln!(
                self.body,
                "<path class=\"break\" d=\"M{:.1} {bottom:.1}L{:.1} {top:.1}\"/>",
                x - 4.0,
                x + 4.0
            );
        }
    }

    fn legend(&mut self, images: impl Iterator<Item = Pieces>) {
        let mut kinds: Vec<(String, Kind)> = Vec::new();
        for piece in images.flat_map(|image| image.pieces) {
            let name = group(piece.kind);
            if !kinds.iter().any(|(known, _)| *known == name) {
                kinds.push((name, piece.kind));
            }
        }
        kinds.sort_by_key(|(_, kind)| match kind {
            Kind::Legacy => 0,
            Kind::Header => 1,
            Kind::Component(component, _) => 2 + usize::from(component.get()),
            Kind::Hole => 99,
        });
        self.y += 18.0;
        let mut x = MARGIN;
        for (name, kind) in kinds {
            let width = 26.0 + name.chars().count() as f64 * LETTER + 14.0;
            if x + width > MARGIN + self.names + BARS + SIZES {
                x = MARGIN;
                self.y += 20.0;
            }
            let y = self.y - 10.0;
            let mut fills = vec![colour(kind)];
            if matches!(kind, Kind::Component(_, true)) {
                fills.push("url(#xss)");
            }
            for fill in fills {
                let _ = writeln!(
                    self.body,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"20\" height=\"12\" fill=\"{fill}\" class=\"box\"/>"
                );
            }
            self.text(x + 25.0, "label", "start", &name);
            x += width;
        }
        self.y += 20.0;
        let note = "Striped: components of IA32_XSS. A slanted gap: bytes that no row divides are not \
                    drawn to scale; nor is the legacy region. Numbers below a bar: offsets in bytes.";
        self.text(MARGIN, "small", "start", note);
    }
}

struct Label {
    x: f64,
    tier: usize,
    text: String,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
