//! The bootable image: GRUB, the hypervisor and its modules on an ISO 9660 disc.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build::Binaries;
use crate::setup;
use crate::workspace::Workspace;

/// Name of the image of the torture guest, for the shell's `create`.
pub const TORTURE: &str = "torture";

/// Builds an image that boots `binaries`, the hypervisor with `cmdline`.
///
/// An image is named after what is in it, and one that is there is used again.
pub fn build(workspace: &Workspace, binaries: &Binaries, cmdline: &str) -> Result<PathBuf> {
    let config = grub_config(cmdline)?;
    let files = [
        ("xferry", &binaries.hypervisor),
        ("toolstack", &binaries.toolstack),
        (TORTURE, &binaries.torture),
    ];
    let mut contents = Vec::new();
    let mut hasher = DefaultHasher::new();
    config.hash(&mut hasher);
    for (name, path) in files {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        bytes.hash(&mut hasher);
        contents.push((name, bytes));
    }

    let dir = workspace.images();
    let stem = format!("xferry-{:016x}", hasher.finish());
    let image = dir.join(format!("{stem}.iso"));
    if image.is_file() {
        return Ok(image);
    }
    // Two runs at once must not see each other's half-written files.
    let stage = dir.join(format!("{stem}.{}", std::process::id()));
    let tree = stage.join("tree");
    std::fs::create_dir_all(tree.join("boot/grub"))?;
    std::fs::write(tree.join("boot/grub/grub.cfg"), config)?;
    for (name, bytes) in contents {
        std::fs::write(tree.join("boot").join(name), bytes)?;
    }
    let unfinished = stage.join("image.iso");
    let made = mkrescue(&tree, &unfinished)
        .and_then(|()| std::fs::rename(&unfinished, &image).context("naming the image"));
    std::fs::remove_dir_all(&stage)?;
    made?;
    Ok(image)
}

fn mkrescue(tree: &Path, image: &Path) -> Result<()> {
    let tool = setup::grub_mkrescue().context("there is no grub-mkrescue")?;
    let modules = setup::grub_modules().context("GRUB's i386-pc modules are not here")?;
    let output = Command::new(tool)
        .arg("--directory")
        .arg(modules)
        // Only what the boot needs: the default is every module, font and
        // translation, which costs seconds and megabytes.
        .args([
            "--install-modules=multiboot2 biosdisk iso9660 normal configfile",
            "--fonts=",
            "--locales=",
            "--themes=",
        ])
        .arg("--output")
        .arg(image)
        .arg(tree)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{tool} could not be started"))?;
    if !output.status.success() {
        bail!(
            "{tool} failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// GRUB's configuration: no menu, no waiting.
fn grub_config(cmdline: &str) -> Result<String> {
    let mut words = String::new();
    for word in cmdline.split_whitespace() {
        if let Some(bad) = word
            .chars()
            .find(|c| *c == '\'' || c.is_control() || !c.is_ascii())
        {
            bail!("command line word {word:?}: {bad:?} cannot be passed through GRUB");
        }
        words.push_str(&format!(" '{word}'"));
    }
    Ok(format!(
        "set timeout=0\n\
         multiboot2 /boot/xferry{words}\n\
         module2 /boot/toolstack toolstack\n\
         module2 /boot/{TORTURE} {TORTURE}\n\
         boot\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_words_are_quoted_one_by_one() {
        let config = grub_config("  log=debug  import-fault=avx ").unwrap();
        assert!(config.contains("multiboot2 /boot/xferry 'log=debug' 'import-fault=avx'\n"));
        assert!(
            grub_config("")
                .unwrap()
                .contains("multiboot2 /boot/xferry\n")
        );
    }

    #[test]
    fn what_grub_would_change_is_refused() {
        let error = grub_config("a'b").unwrap_err().to_string();
        assert!(error.contains("\"a'b\""), "{error}");
        assert!(grub_config("caf\u{e9}").is_err());
    }
}
