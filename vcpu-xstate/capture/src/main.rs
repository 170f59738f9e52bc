//! Writes what this machine has of extended state to a directory, for machines where it is to be tested.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: xstate-capture [--small] OUT

Writes to the directory OUT:
  cpuid.csv   CPUID leaves 0, 1, 7, 0xD and neighbours of this machine
  images.bin  pairs of XSAVE and XSAVEC images of the same registers

  --small     a handful of pairs only";

fn main() -> ExitCode {
    let mut small = false;
    let mut out = None;
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--small") => small = true,
            Some(flag) if flag.starts_with('-') => {
                eprintln!("{USAGE}");
                let asked = matches!(flag, "-h" | "--help");
                return if asked {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                };
            }
            _ if out.is_some() => {
                eprintln!(
                    "error: one directory is written, and {argument:?} is another\n\n{USAGE}"
                );
                return ExitCode::FAILURE;
            }
            _ => out = Some(PathBuf::from(argument)),
        }
    }
    let Some(out) = out else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    match capture(&out, small) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|why| format!("{}: {why}", path.display()))
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn capture(out: &Path, small: bool) -> Result<(), String> {
    use xstate_capture::corpus::Corpus;
    use xstate_capture::player::Processor;
    use xstate_capture::restored::unexplained;
    use xstate_capture::{machine, take};

    std::fs::create_dir_all(out).map_err(|why| format!("{}: {why}", out.display()))?;
    println!("{} ({})", machine::brand(), machine::vendor());
    let csv = machine::csv();
    let table = out.join("cpuid.csv");
    write(&table, csv.as_bytes())?;
    println!("{}: {} rows", table.display(), csv.lines().count() - 1);

    let processor = match Processor::here() {
        Ok(processor) => processor,
        Err(why) => {
            println!("skipped: images: {why}");
            return Ok(());
        }
    };
    for lacking in processor.lacks() {
        println!("skipped: {lacking}");
    }
    if !processor.has_xsavec() || !processor.has_xgetbv1() {
        println!("skipped: images: they are pairs of XSAVE's and XSAVEC's, with XGETBV 1");
        return Ok(());
    }
    let extent = if small {
        take::Extent::Small
    } else {
        take::Extent::Full
    };
    let bytes = take::take(&processor, extent)?.write();
    let images = out.join("images.bin");
    write(&images, &bytes)?;

    // What was written is read again and compared with what XRSTOR should do.
    let corpus = Corpus::read(&bytes).map_err(|why| why.to_string())?;
    let mask = processor.mxcsr_mask();
    let odd: Vec<String> = corpus
        .records
        .iter()
        .filter_map(|record| {
            let what = unexplained(&corpus, mask, record)?;
            Some(format!(
                "state {} RFBM {:#x}: {what}",
                record.state, record.rfbm
            ))
        })
        .collect();
    println!(
        "{}: {} pairs under XCR0 {:#x}, {} bytes, MXCSR_MASK {mask:#x}; {} not explained",
        images.display(),
        corpus.records.len(),
        corpus.xcr0,
        bytes.len(),
        odd.len()
    );
    odd.iter().for_each(|what| println!("  {what}"));
    Ok(())
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn capture(_: &Path, _: bool) -> Result<(), String> {
    Err("this program needs Linux on x86-64".into())
}
