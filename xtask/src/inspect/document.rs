//! What an explanation is made of: sections, fields, tables and lists, each
//! with a stable key and a value for programs and a text for people.
//!
//! Values that are masks, registers or addresses are strings in hexadecimal
//! (JSON's numbers end at 2⁵³); lengths, offsets and counts are numbers.

use serde_json::{Map, Value};

/// A titled part.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its key in the object around it; where it is empty, what is in it stands
    /// in that object itself.
    pub key: String,
    /// What stands above it in the text; nothing, where it is empty.
    pub title: String,
    /// What stands behind the title.
    pub note: String,
    nodes: Vec<Node>,
}

/// One thing in a section.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Section(Section),
    /// Label and text for people, key and value for programs.
    Field {
        key: String,
        label: String,
        value: Value,
        text: String,
    },
    Table(Table),
    /// Several sections under one key.
    List {
        key: String,
        sections: Vec<Section>,
    },
    /// A sentence for people alone.
    Line(String),
    /// A value for programs alone.
    Value {
        key: String,
        value: Value,
    },
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub struct Table {
    pub(super) key: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<String>>,
    values: Vec<Value>,
}

/// A heading.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// What it says.
    pub title: &'static str,
    /// Whether the cells are numbers, which stand to the right.
    pub right: bool,
}

/// A column of words.
pub const fn words(title: &'static str) -> Column {
    Column {
        title,
        right: false,
    }
}

/// A column of numbers.
pub const fn numbers(title: &'static str) -> Column {
    Column { title, right: true }
}

pub use crate::output::hex;

impl Section {
    /// An empty part.
    pub fn new(key: &str, title: &str) -> Self {
        Self {
            key: key.into(),
            title: title.into(),
            note: String::new(),
            nodes: Vec::new(),
        }
    }

    /// An empty part that has a title for people and no object of its own for programs.
    pub fn within(title: &str) -> Self {
        Self::new("", title)
    }

    /// The same with something behind the title.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Label and text for people, key and value for programs.
    pub fn field(&mut self, key: &str, label: &str, value: Value, text: impl Into<String>) {
        self.nodes.push(Node::Field {
            key: key.into(),
            label: label.into(),
            value,
            text: text.into(),
        });
    }

    /// A 64-bit value, with its meaning behind it.
    pub fn hex(&mut self, key: &str, label: &str, value: u64, meaning: &str) {
        let text = format!("{value:#x}");
        let text = if meaning.is_empty() {
            text
        } else {
            format!("{text:<18}  {meaning}")
        };
        self.field(key, label, hex(value), text);
    }

    /// A sentence for people.
    pub fn line(&mut self, text: impl Into<String>) {
        self.nodes.push(Node::Line(text.into()));
    }

    /// A value for programs.
    pub fn value(&mut self, key: &str, value: Value) {
        self.nodes.push(Node::Value {
            key: key.into(),
            value,
        });
    }

    /// A part within this one. An empty one is left out.
    pub fn section(&mut self, section: Section) {
        if !section.nodes.is_empty() {
            self.nodes.push(Node::Section(section));
        }
    }

    /// Several parts under one key.
    pub fn list(&mut self, key: &str, sections: Vec<Section>) {
        self.nodes.push(Node::List {
            key: key.into(),
            sections,
        });
    }

    /// Rows under headings.
    pub fn table(&mut self, table: Table) {
        self.nodes.push(Node::Table(table));
    }

    /// Adds what is in another part.
    pub fn append(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What programs get.
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        for node in &self.nodes {
            match node {
                Node::Section(section) if section.key.is_empty() => {
                    if let Value::Object(inner) = section.json() {
                        object.extend(inner);
                    }
                }
                Node::Section(section) => {
                    object.insert(section.key.clone(), section.json());
                }
                Node::Field { key, value, .. } | Node::Value { key, value } => {
                    object.insert(key.clone(), value.clone());
                }
                Node::Table(table) => {
                    object.insert(table.key.clone(), Value::Array(table.values.clone()));
                }
                Node::List { key, sections } => {
                    let values = sections.iter().map(Section::json).collect();
                    object.insert(key.clone(), Value::Array(values));
                }
                Node::Line(_) => {}
            }
        }
        Value::Object(object)
    }
}

impl Table {
    /// Without rows yet.
    pub fn new(key: &str, columns: &[Column]) -> Self {
        Self {
            key: key.into(),
            columns: columns.to_vec(),
            rows: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Adds a row: its cells for people, its object for programs.
    pub fn row(&mut self, cells: Vec<String>, value: Value) {
        self.rows.push(cells);
        self.values.push(value);
    }

    /// Adds cells for people alone, which go on with the row above them.
    pub fn more(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
