//! Rules for manifests: the licence, and the workspace's lints.

use std::path::Path;

use super::Finding;

/// Checks one `Cargo.toml`.
pub fn check(path: &Path, text: &str) -> Vec<Finding> {
    let place = path.display().to_string();
    let mut findings = Vec::new();
    if field(text, "workspace", "members").is_some() {
        if field(text, "workspace.package", "license") != Some("\"MIT OR Apache-2.0\"") {
            findings.push(Finding::new(
                place,
                "[workspace.package] license must be \"MIT OR Apache-2.0\"",
            ));
        }
        return findings;
    }
    let licence = [
        ("license.workspace", "true"),
        ("license", "\"MIT OR Apache-2.0\""),
    ];
    if !licence
        .iter()
        .any(|(key, value)| field(text, "package", key) == Some(value))
    {
        findings.push(Finding::new(
            &place,
            "[package] needs license.workspace = true",
        ));
    }
    if field(text, "lints", "workspace") != Some("true") {
        findings.push(Finding::new(&place, "[lints] needs workspace = true"));
    }
    findings
}

/// Checks that the texts of both licences are there.
pub fn licences(root: &Path) -> Vec<Finding> {
    ["LICENSE-MIT", "LICENSE-APACHE"]
        .into_iter()
        .filter(|name| !root.join(name).is_file())
        .map(|name| Finding::new(name, "the licence's text is missing"))
        .collect()
}

/// The value of `key` in `[section]`, as it is written.
fn field<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            inside = name == section;
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            return Some(value.trim());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> usize {
        check(Path::new("x/Cargo.toml"), text).len()
    }

    #[test]
    fn packages_inherit_licence_and_lints() {
        assert_eq!(
            findings("[package]\nlicense.workspace = true\n[lints]\nworkspace = true\n"),
            0
        );
        assert_eq!(
            findings("[package]\nname = \"x\"\n[lints]\nworkspace = true\n"),
            1
        );
        assert_eq!(
            findings("[package]\nlicense = \"GPL-2.0\"\n[dependencies]\nworkspace = true\n"),
            2
        );
    }

    #[test]
    fn the_workspace_names_the_licence() {
        let good =
            "[workspace]\nmembers = []\n[workspace.package]\nlicense = \"MIT OR Apache-2.0\"\n";
        assert_eq!(findings(good), 0);
        assert_eq!(findings("[workspace]\nmembers = []\n"), 1);
    }
}
