//! Reads apt's sources, deb822 and one-line, and derives a backports source.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// One source of binary packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    signed_by: Option<String>,
}

impl Source {
    /// Whether this source carries `suite`.
    pub fn has_suite(&self, suite: &str) -> bool {
        self.suites.iter().any(|s| s == suite)
    }
}

/// All sources configured below `etc` (which is /etc/apt). Files that cannot
/// be read carry nothing.
pub fn read_all(etc: &Path) -> Vec<Source> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(etc.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.push(etc.join("sources.list"));
    files.sort();

    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => sources.extend(parse_deb822(&text)),
            Some("list") => sources.extend(text.lines().filter_map(parse_line)),
            _ => {}
        }
    }
    sources
}

/// The stanzas of a `.sources` file that give binary packages.
pub fn parse_deb822(text: &str) -> Vec<Source> {
    text.split("\n\n").filter_map(parse_stanza).collect()
}

fn parse_stanza(stanza: &str) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in stanza.lines() {
        if line.starts_with('#') {
            // A comment may stand between a field and its continuation.
        } else if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            value.push('\n');
            value.push_str(line);
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let get = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    };
    let words = |name: &str| -> Vec<String> {
        get(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let disabled = get("enabled").is_some_and(|v| v.eq_ignore_ascii_case("no"));
    if disabled || !words("types").iter().any(|t| t == "deb") {
        return None;
    }
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        signed_by: get("signed-by").map(str::to_owned),
    })
}

/// A line of a `.list` file: `deb [option=value …] URI suite component…`.
pub fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let mut rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let mut signed_by = None;
    if let Some(inside) = rest.strip_prefix('[') {
        let (options, after) = inside.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace();
    Some(Source {
        uris: vec![words.next()?.to_owned()],
        suites: vec![words.next()?.to_owned()],
        signed_by,
    })
}

/// A deb822 stanza for `suite`, from the same place and under the same key as
/// the source that carries `codename` itself; `None` where none does.
pub fn backports(known: &[Source], codename: &str, suite: &str) -> Option<String> {
    let source = known
        .iter()
        .find(|source| source.has_suite(codename) && !source.uris.is_empty())?;
    let mut stanza = format!(
        "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n",
        source.uris.join(" ")
    );
    if let Some(key) = &source.signed_by {
        let _ = writeln!(stanza, "Signed-By: {key}");
    }
    Some(stanza)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb
# pinned
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/example.gpg

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm

Types: deb
Enabled: no
URIs: http://mirror.example/other
Suites: trixie

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
";

    #[test]
    fn deb822_gives_enabled_binary_sources_only() {
        let sources = parse_deb822(DEB822);
        assert_eq!(sources.len(), 2);
        assert!(sources[0].has_suite("bookworm") && sources[0].has_suite("bookworm-updates"));
        assert!(!sources[0].has_suite("bookworm-security"));
        assert!(sources[1].has_suite("bookworm-security"));
    }

    #[test]
    fn backports_come_from_the_place_that_carries_the_release() {
        let stanza = backports(&parse_deb822(DEB822), "bookworm", "bookworm-backports").unwrap();
        assert_eq!(
            stanza,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\n\
             Components: main\nSigned-By: /usr/share/keyrings/example.gpg\n"
        );
        // What was written can be read, and is not added twice.
        assert!(parse_deb822(&stanza)[0].has_suite("bookworm-backports"));
    }

    #[test]
    fn embedded_keys_keep_their_lines() {
        let sources = parse_deb822(
            "Types: deb\nURIs: http://mirror.example/d\nSuites: bookworm\nSigned-By:\n -----BEGIN\n .\n abc\n",
        );
        let stanza = backports(&sources, "bookworm", "bookworm-backports").unwrap();
        assert!(
            stanza.ends_with("Signed-By: \n -----BEGIN\n .\n abc\n"),
            "{stanza}"
        );
    }

    #[test]
    fn one_line_sources() {
        let source = parse_line(
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/d bookworm main # x",
        );
        let source = source.unwrap();
        assert_eq!(source.uris, ["http://mirror.example/d"]);
        assert!(source.has_suite("bookworm"));
        assert_eq!(source.signed_by.as_deref(), Some("/k.gpg"));

        assert!(parse_line("deb http://mirror.example/d bookworm main contrib").is_some());
        for line in [
            "",
            "# deb http://m.example/d bookworm",
            "deb-src http://m.example/d bookworm main",
            "deb http://m.example/d",
            "deb [broken http://m.example/d bookworm",
        ] {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }

    #[test]
    fn nothing_is_derived_without_the_release() {
        assert_eq!(
            backports(&parse_deb822(DEB822), "forky", "forky-backports"),
            None
        );
        assert_eq!(backports(&[], "bookworm", "bookworm-backports"), None);
    }
}
