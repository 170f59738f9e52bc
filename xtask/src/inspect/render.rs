//! Explanations as text: aligned columns, two blanks for each level.

use super::document::{Node, Section, Table};

/// The explanation for people, ending with a newline.
pub fn text(section: &Section) -> String {
    let mut out = String::new();
    put_section(&mut out, section, 0);
    out
}

fn put_section(out: &mut String, section: &Section, depth: usize) {
    if !section.title.is_empty() {
        // Top-level parts stand apart from each other.
        if depth <= 1 && !out.is_empty() {
            out.push('\n');
        }
        let note = if section.note.is_empty() {
            String::new()
        } else {
            format!("  ·  {}", section.note)
        };
        put_line(
            out,
            depth.saturating_sub(1),
            &format!("{}{note}", section.title),
        );
    }
    let nodes = section.nodes();
    let mut at = 0;
    while let Some(node) = nodes.get(at) {
        match node {
            Node::Field { .. } => {
                let run = nodes[at..]
                    .iter()
                    .take_while(|node| matches!(node, Node::Field { .. } | Node::Value { .. }))
                    .count();
                put_fields(out, &nodes[at..at + run], depth);
                at += run;
                continue;
            }
            Node::Section(section) => put_section(out, section, depth + 1),
            Node::List { sections, .. } => {
                for section in sections {
                    put_section(out, section, depth + 1);
                }
            }
            Node::Table(table) => put_table(out, table, depth),
            Node::Line(text) => put_line(out, depth, text),
            Node::Value { .. } => {}
        }
        at += 1;
    }
}

/// Fields that follow each other share the column in which their texts begin.
fn put_fields(out: &mut String, fields: &[Node], depth: usize) {
    let rows: Vec<(&str, &str)> = fields
        .iter()
        .filter_map(|node| match node {
            Node::Field { label, text, .. } => Some((label.as_str(), text.as_str())),
            _ => None,
        })
        .collect();
    let width = rows
        .iter()
        .map(|(label, _)| label.chars().count())
        .max()
        .unwrap_or(0);
    for (label, text) in rows {
        // What has several lines goes on under its beginning.
        for (number, line) in text.lines().enumerate() {
            let label = if number == 0 { label } else { "" };
            put_line(out, depth, &format!("{label:<width$}  {line}"));
        }
    }
}

fn put_table(out: &mut String, table: &Table, depth: usize) {
    if table.is_empty() {
        return;
    }
    let titles: Vec<String> = table.columns.iter().map(|c| c.title.to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&titles).chain(&table.rows).collect();
    let widths: Vec<usize> = (0..table.columns.len())
        .map(|column| {
            let cells = lines.iter().filter_map(|cells| cells.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let titled = table.columns.iter().any(|column| !column.title.is_empty());
    for cells in lines.into_iter().skip(usize::from(!titled)) {
        let mut line = String::new();
        for ((cell, column), &width) in cells.iter().zip(&table.columns).zip(&widths) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            if column.right {
                line.push_str(&format!("{cell:>width$}"));
            } else {
                line.push_str(&format!("{cell:<width$}"));
            }
        }
        put_line(out, depth, &line);
    }
}

fn put_line(out: &mut String, depth: usize, line: &str) {
    out.push_str(format!("{}{line}", "  ".repeat(depth)).trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::document::{Section, Table, numbers, words};
    use super::*;

    #[test]
    fn columns_are_aligned_and_programs_get_values() {
        let mut header = Section::new("header", "Header").with_note("96 bytes");
        header.field("a", "a", json!(1), "one\ntwo");
        header.hex("longer", "longer", 0x2e7, "x87");
        let mut table = Table::new("rows", &[words("name"), numbers("size")]);
        table.row(vec!["x87".into(), "160".into()], json!({"size": 160}));
        table.row(vec!["sse".into(), "8".into()], json!({"size": 8}));
        header.table(table);
        let mut root = Section::new("", "file");
        root.section(header);
        assert_eq!(
            text(&root),
            "file\n\nHeader  ·  96 bytes\n\
             \x20 a       one\n          two\n  longer  0x2e7               x87\n\
             \x20 name  size\n  x87    160\n  sse      8\n"
        );
        assert_eq!(
            root.json(),
            json!({"header": {"a": 1, "longer": "0x2e7", "rows": [{"size": 160}, {"size": 8}]}})
        );
    }
}
