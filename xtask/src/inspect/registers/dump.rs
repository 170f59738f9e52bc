//! Bytes as hexadecimal rows, runs of zeros folded.

use serde_json::Value;

/// All bytes as programs get them: digits in the order of memory.
pub fn hex_string(bytes: &[u8]) -> Value {
    Value::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Rows of `width` bytes behind their offsets; rows of zeros are counted instead.
pub fn rows(bytes: &[u8], width: usize) -> String {
    let mut lines = Vec::new();
    let mut zeros = 0;
    for (number, row) in bytes.chunks(width).enumerate() {
        if row.iter().all(|byte| *byte == 0) {
            zeros += 1;
            continue;
        }
        fold(&mut lines, &mut zeros);
        let groups: Vec<String> = row
            .chunks(8)
            .map(|group| group.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        lines.push(format!("{:04x}  {}", number * width, groups.join(" ")));
    }
    fold(&mut lines, &mut zeros);
    lines.join("\n")
}

fn fold(lines: &mut Vec<String>, zeros: &mut usize) {
    match *zeros {
        0 => {}
        1 => lines.push("…     one row of zeros".into()),
        count => lines.push(format!("…     {count} rows of zeros")),
    }
    *zeros = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_zeros_are_folded() {
        let mut bytes = [0; 80];
        bytes[17] = 0xab;
        assert_eq!(
            rows(&bytes, 16),
            "…     one row of zeros\n0010  00ab000000000000 0000000000000000\n…     3 rows of zeros"
        );
        assert_eq!(hex_string(&[1, 0xff]), "01ff");
    }
}
