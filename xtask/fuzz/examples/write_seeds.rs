//! Writes the seed corpus into a folder: `cargo run -p xferry-fuzz --example write_seeds -- xtask/fuzz/seeds`.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let Some(root) = env::args_os().nth(1) else {
        return Err(io::Error::other("which folder?"));
    };
    for (target, name, bytes) in xferry_fuzz::seeds::all() {
        let folder = Path::new(&root).join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
