//! The Kaitai Struct description of the blob reads what the Rust reads.
//!
//! The compiler and the runtime come from npm into the target directory, at
//! the versions below; where there is no node or no network, this is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use migration_abi::blob::{self, Blob, DirectoryEntry, Fields, v1};
use serde_json::{Value, json};
use vcpu_xstate::{ComponentFacts, ComponentIndex, ComponentSet, Form, Geometry};

use super::Tally;
use crate::setup::in_path;
use crate::workspace::Workspace;

/// Compiler, runtime, and the reader of the description's YAML.
const PACKAGES: [&str; 3] = [
    "kaitai-struct-compiler@0.11.0",
    "kaitai-struct@0.11.0",
    "js-yaml@4.1.0",
];

const GOLDEN: [&str; 4] = [
    "blob-v1-sse.bin",
    "blob-v1-avx512.bin",
    "blob-v1-no-xsave.bin",
    "blob-v1-sapphire-rapids.bin",
];

/// Bytes of the AVX-512 blob by which its components no longer lie in its image,
/// which the format alone allows, and the rule that says so.
const OUTSIDE: &[(&str, &[usize], u8, &str)] = &[
    ("a size that nothing has", &[135], 0xff, "image-length"),
    ("a size too large", &[132], 8, "image-length"),
    (
        "held, and not laid out",
        &[240 + 513],
        0x0a,
        "xstate-bv-xcomp-bv",
    ),
    (
        "laid out, and not described",
        &[81, 240 + 521],
        6,
        "xcomp-bv-policy",
    ),
    ("not compacted", &[87, 240 + 527], 0, "xcomp-bv-bit-63"),
];

/// Reads golden and made-up blobs by both, field by field.
pub fn play(workspace: &Workspace) -> Result<Tally> {
    let dir = workspace.target().join("kaitai");
    if let Some(why) = install(&dir)? {
        eprintln!("skipped: {why}");
        return Ok(Tally {
            skipped: 1,
            ..Tally::default()
        });
    }
    let mut blobs = Vec::new();
    for name in GOLDEN {
        let path = workspace
            .root()
            .join("migration-abi/tests/golden")
            .join(name);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        blobs.push((name.to_owned(), bytes));
    }
    let sse = blobs[0].1.clone();
    blobs.push(("every kind of component".into(), rich()?));
    blobs.push(("longer header and entries".into(), longer(&sse)?));
    for (what, at, value) in [
        ("magic", 0, b'x'),
        ("version", 8, 2),
        ("length of the header", 10, 88),
        ("an unknown flag", 20, 5),
        ("flags of an entry", 96 + 16 + 8, 8),
        ("reserved", 92, 1),
        ("length", 88, 0),
    ] {
        let mut bytes = sse.clone();
        bytes[at] = value;
        let _ = v1::seal(&mut bytes);
        blobs.push((what.into(), bytes));
    }
    blobs.push(("an entry too few".into(), without_an_entry(&blobs[1].1)?));
    blobs.push(("a component above 62".into(), with_index(&sse, 1, 65)?));
    blobs.push(("a component twice".into(), with_index(&sse, 1, 0)?));

    for (what, at, value, _) in OUTSIDE {
        let mut bytes = blobs[1].1.clone();
        for at in *at {
            bytes[*at] = *value;
        }
        v1::seal(&mut bytes)?;
        blobs.push(((*what).into(), bytes));
    }

    let said = read_all(workspace, &dir, &blobs)?;
    let mut tally = Tally::default();
    for ((name, bytes), said) in blobs.iter().zip(said) {
        let refused = said.get("refused").and_then(Value::as_str);
        let outside = OUTSIDE.iter().find(|(what, ..)| what == name);
        let same = match (blob::parse(bytes), outside) {
            (Ok(_), Some((.., rule))) => refused.is_some_and(|why| why.starts_with(rule)),
            (Ok(blob), None) => said == expected(&blob, bytes)?,
            (Err(_), _) => refused.is_some(),
        };
        if same {
            tally = tally.and(Tally::PASS);
        } else {
            eprintln!("kaitai, {name}: the description reads {said}");
            tally = tally.and(Tally::FAIL);
        }
    }
    Ok(tally)
}

/// Puts the packages into `dir`; gives why that cannot be.
fn install(dir: &Path) -> Result<Option<String>> {
    if !in_path("node") || !in_path("npm") {
        return Ok(Some(
            "no node and npm are here, which run Kaitai's compiler".into(),
        ));
    }
    let wanted = PACKAGES.join("\n");
    let mark = dir.join("installed");
    if std::fs::read_to_string(&mark).is_ok_and(|there| there == wanted) {
        return Ok(None);
    }
    std::fs::create_dir_all(dir)?;
    let output = Command::new("npm")
        .args([
            "install",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--prefix",
        ])
        .arg(dir)
        .args(PACKAGES)
        .current_dir(dir)
        .output()
        .context("npm")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default().to_owned();
        return Ok(Some(format!(
            "npm could not install Kaitai's compiler: {last}"
        )));
    }
    std::fs::write(mark, wanted)?;
    Ok(None)
}

/// What the description says of each blob.
fn read_all(workspace: &Workspace, dir: &Path, blobs: &[(String, Vec<u8>)]) -> Result<Vec<Value>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for (number, (_, bytes)) in blobs.iter().enumerate() {
        let file = dir.join(format!("{number}.bin"));
        std::fs::write(&file, bytes)?;
        files.push(file);
    }
    let output = Command::new("node")
        .arg(workspace.root().join("migration-abi/kaitai/read_blob.js"))
        .args(files)
        .env("NODE_PATH", dir.join("node_modules"))
        .output()
        .context("node")?;
    // 1: some of them are refused, as they are meant to be.
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!("read_blob.js: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said: Vec<Value> = String::from_utf8(output.stdout)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    if said.len() != blobs.len() {
        bail!("{} blobs, {} answers", blobs.len(), said.len());
    }
    Ok(said)
}

/// What it must say, from what the Rust reader says.
fn expected(blob: &Blob<'_>, bytes: &[u8]) -> Result<Value> {
    let (header, image) = (blob.header(), blob.image());
    let word = |at: usize| -> Result<u64> {
        let word = image.get(at..).and_then(|rest| rest.first_chunk());
        Ok(u64::from_le_bytes(*word.context("an image")?))
    };
    let xstate_bv = word(512)?;
    let hex = |value: u64| format!("{value:#x}");
    let geometry = geometry(blob)?;
    let layout = ComponentSet::from_bits_retain(header.xcomp_bv);
    let mut directory = Vec::new();
    for entry in blob.directory().iter() {
        let component = u8::try_from(entry.index).ok().and_then(ComponentIndex::new);
        let component = component.context("a component")?;
        let mut places = geometry.placements(Form::Compacted, layout);
        let offset = match entry.index {
            0 | 1 => Some(entry.standard_offset as usize),
            _ => places
                .find(|p| p.component == component)
                .map(|p| p.offset_bytes),
        };
        let held = xstate_bv >> entry.index & 1 == 1;
        let state = offset
            .filter(|_| held)
            .and_then(|at| image.get(at..at + entry.size as usize))
            .map(|state| {
                state
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            });
        directory.push(json!({
            "index": entry.index,
            "name": component.name(),
            "size": entry.size,
            "supervisor": entry.flags & 1 != 0,
            "align64": entry.flags & 2 != 0,
            "xfd": entry.flags & 4 != 0,
            "standard_offset": entry.standard_offset,
            "image_offset": offset,
            "held": held,
            "state": state,
        }));
    }
    let crc = blob.flags().contains(v1::Incompatible::CRC);
    let trailer = bytes
        .last_chunk()
        .map(|trailer| u32::from_le_bytes(*trailer));
    Ok(json!({
        "version": header.version,
        "total_len": header.total_len,
        "incompatible": hex(header.incompatible.into()),
        "xstate_mask": hex(header.xstate_mask),
        "xcr0": hex(header.xcr0),
        "xss": hex(header.xss),
        "xfd": hex(header.xfd),
        "xfd_err": hex(header.xfd_err),
        "accum": hex(header.accum),
        "xcomp_bv": hex(header.xcomp_bv),
        "image": {
            "bytes": header.image_len,
            "fcw": hex(word(0)? & 0xffff),
            "mxcsr": hex(word(24)? & 0xffff_ffff),
            "xstate_bv": hex(xstate_bv),
            "xcomp_bv": hex(header.xcomp_bv),
        },
        "directory": directory,
        "crc32c": trailer.filter(|_| crc).map(|trailer| hex(trailer.into())),
    }))
}

fn geometry(blob: &Blob<'_>) -> Result<Geometry> {
    let mut geometry = Geometry::new();
    for entry in blob.directory().iter().filter(|entry| entry.index > 1) {
        let component = u8::try_from(entry.index).ok().and_then(ComponentIndex::new);
        let facts = ComponentFacts {
            size_bytes: entry.size,
            standard_offset: entry.standard_offset,
            supervisor: entry.flags & 1 != 0,
            aligned64: entry.flags & 2 != 0,
            xfd: entry.flags & 4 != 0,
        };
        geometry.insert(component.context("a component")?, facts)?;
    }
    Ok(geometry)
}

/// A blob with alignment, XFD, a supervisor component in the image, one that
/// has no name, and the last one; and one that the image leaves out.
fn rich() -> Result<Vec<u8>> {
    let rows = [
        (0, 160, 0, 0),
        (1, 256, 0, 160),
        (2, 256, 0, 576),
        (9, 8, 0, 2688),
        (11, 16, 1, 0),
        (17, 64, 2, 2752),
        (18, 8192, 6, 2816),
        (40, 24, 0, 12_000),
        (62, 128, 0, 832),
    ];
    let directory = rows.map(|(index, size, flags, standard_offset)| DirectoryEntry {
        index,
        size,
        flags,
        standard_offset,
    });
    let mask = rows.iter().fold(0, |mask, row| mask | 1u64 << row.0);
    let layout = mask & !(1 << 2) | 1 << 63;
    let mut image: Vec<u8> = (0..576).map(|at| at as u8).collect();
    image[512..520].copy_from_slice(&(mask & !(1 << 2) & !(1 << 18)).to_le_bytes());
    image[520..528].copy_from_slice(&layout.to_le_bytes());
    // PKRU, CET_U; TILECFG and TILEDATA aligned; the two that follow them.
    image.resize(640, 9);
    image.resize(704 + 8192, 17);
    image.resize(704 + 8192 + 24, 40);
    image.resize(704 + 8192 + 24 + 128, 62);
    let fields = Fields {
        xstate_mask: mask,
        xcr0: mask,
        xss: 1 << 11,
        xfd: 1 << 18,
        accum: mask,
        xcomp_bv: layout,
        crc: true,
        ..Fields::default()
    };
    let len = v1::encoded_len(mask, image.len(), true).context("a length")?;
    let mut out = vec![0; len];
    v1::encode(&mut out, &fields, directory, &image)?;
    Ok(out)
}

/// A directory without AVX, which the policy and the image have.
fn without_an_entry(blob: &[u8]) -> Result<Vec<u8>> {
    let mut short = blob.to_vec();
    short.drain(96 + 2 * 16..96 + 3 * 16);
    short[14] -= 1;
    let total = short.len() as u64;
    short[24..32].copy_from_slice(&total.to_le_bytes());
    v1::seal(&mut short)?;
    Ok(short)
}

/// A blob whose directory says another component in this entry.
fn with_index(blob: &[u8], entry: usize, index: u32) -> Result<Vec<u8>> {
    let mut other = blob.to_vec();
    let at = 96 + entry * 16;
    other
        .get_mut(at..at + 4)
        .context("an entry")?
        .copy_from_slice(&index.to_le_bytes());
    v1::seal(&mut other)?;
    Ok(other)
}

/// The same blob as a later writer would extend it, compatibly.
fn longer(short: &[u8]) -> Result<Vec<u8>> {
    let (header, rest) = short.split_at_checked(96).context("a header")?;
    let (directory, rest) = rest.split_at_checked(32).context("two entries")?;
    let mut long = [header, &[0xaa; 32]].concat();
    for entry in directory.chunks(16) {
        long.extend_from_slice(entry);
        long.extend([0xbb; 8]);
    }
    long.extend_from_slice(rest);
    long[10] = 128;
    long[12] = 24;
    let total = long.len() as u64;
    long[24..32].copy_from_slice(&total.to_le_bytes());
    v1::seal(&mut long)?;
    Ok(long)
}
