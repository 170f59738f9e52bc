//! AMX: the tile configuration, and what the tiles hold.

use serde_json::json;
use vcpu_xstate::ComponentIndex as C;

use super::{State, dump};
use crate::inspect::document::{Section, Table, hex, numbers};

/// Bytes of a tile and of a row of it in the image, palette 1 (SDM Vol. 1, 18.1).
const TILE: usize = 1024;
const ROW: usize = 64;

/// TILECFG decoded, and each tile in a line; all bytes where `full` is asked.
pub fn explain(state: &State<'_>, full: bool) -> Section {
    let mut section = Section::new("amx", "tiles");
    let config = state.of(C::TILECFG).unwrap_or_default();
    let data = state.of(C::TILEDATA);
    if config.is_empty() && data.is_none() {
        return section;
    }
    let byte = |at: usize| config.get(at).copied().unwrap_or(0);
    section.field("palette", "palette", json!(byte(0)), byte(0).to_string());
    section.field(
        "start_row",
        "start row",
        json!(byte(1)),
        byte(1).to_string(),
    );
    let mut table = Table::new(
        "tiles",
        &[
            numbers("tile"),
            numbers("rows"),
            numbers("bytes a row"),
            numbers("not zero"),
            numbers("crc-32c"),
        ],
    );
    for tile in 0..8 {
        let rows = byte(48 + tile);
        let row_bytes = u16::from_le_bytes([byte(16 + 2 * tile), byte(17 + 2 * tile)]);
        let bytes = data.and_then(|data| data.get(tile * TILE..(tile + 1) * TILE));
        let used = bytes.map_or(0, |bytes| bytes.iter().filter(|byte| **byte != 0).count());
        if rows == 0 && row_bytes == 0 && used == 0 {
            continue;
        }
        let crc = migration_abi::crc32c::crc32c(bytes.unwrap_or_default());
        let (crc_text, crc_value) = match bytes {
            Some(_) => (format!("{crc:08x}"), hex(crc.into())),
            None => ("INIT".into(), json!(null)),
        };
        table.row(
            vec![format!("tmm{tile}"), rows.to_string(), row_bytes.to_string(), format!("{used} of {TILE}"), crc_text],
            json!({"tile": tile, "rows": rows, "row_bytes": row_bytes, "nonzero_bytes": used, "crc32c": crc_value}),
        );
    }
    if table.is_empty() {
        section.line("all tiles zero and unconfigured");
    }
    section.table(table);
    if full && let Some(data) = data {
        for (tile, bytes) in data.chunks(TILE).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                section.field(
                    &format!("tmm{tile}"),
                    &format!("tmm{tile}"),
                    dump::hex_string(bytes),
                    dump::rows(bytes, ROW / 2),
                );
            }
        }
    }
    section
}
