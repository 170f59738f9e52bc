//! COM1 of a machine: everything it ever said, and waiting for what it says.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What ends every wait at once: the hypervisor's last words.
const PANIC: &str = "(xferry) panic";

/// Why a wait ended without what was waited for.
#[derive(Debug)]
pub enum Silence {
    /// Nothing of the kind was said in time.
    TimedOut(Duration),
    /// The machine ended.
    Ended,
    /// The hypervisor panicked; the line that says why.
    Panicked(String),
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(f, "nothing of the kind within {limit:?}"),
            Self::Ended => write!(f, "the machine ended"),
            Self::Panicked(line) => write!(f, "the hypervisor panicked: {line}"),
        }
    }
}

impl std::error::Error for Silence {}

#[derive(Default)]
struct Heard {
    text: String,
    ended: bool,
}

/// A console. All text is kept; readers hold a position in it.
pub struct Console {
    heard: Arc<(Mutex<Heard>, Condvar)>,
    keyboard: UnixStream,
}

impl Console {
    /// Starts to listen on `stream`, writing all that is heard to `log` as well.
    pub fn start(stream: UnixStream, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let keyboard = stream.try_clone()?;
        let heard = Arc::new((Mutex::default(), Condvar::new()));
        let shared = Arc::clone(&heard);
        std::thread::Builder::new()
            .name("console".into())
            .spawn(move || listen(stream, file, &shared))?;
        Ok(Self { heard, keyboard })
    }

    /// Types `text`.
    pub fn type_in(&self, text: &str) -> Result<()> {
        (&self.keyboard)
            .write_all(text.as_bytes())
            .context("the console takes no more input: the machine ended")
    }

    /// The position after all that was heard so far.
    pub fn position(&self) -> usize {
        self.lock().text.len()
    }

    /// Waits until `look` finds something in the text from `from` on. `look`
    /// may see an unfinished last line, and sees everything again each time.
    pub fn wait<T>(
        &self,
        from: usize,
        limit: Duration,
        mut look: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Silence> {
        let deadline = Instant::now() + limit;
        let mut heard = self.lock();
        loop {
            let text = heard.text.get(from..).unwrap_or_default();
            if let Some(found) = look(text) {
                return Ok(found);
            }
            // The whole line of a panic is worth waiting for.
            if let Some(line) = panic_line(&heard.text) {
                return Err(Silence::Panicked(line));
            }
            if heard.ended {
                return Err(Silence::Ended);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence::TimedOut(limit));
            }
            heard = self
                .heard
                .1
                .wait_timeout(heard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Everything heard so far.
    pub fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// The last `lines` lines heard.
    pub fn tail(&self, lines: usize) -> String {
        let heard = self.lock();
        let all: Vec<&str> = heard.text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The finished line in which the hypervisor says that it panicked.
fn panic_line(text: &str) -> Option<String> {
    let start = text.find(PANIC)?;
    let (line, _) = text[start..].split_once('\n')?;
    Some(line.trim_end().to_owned())
}

fn listen(mut stream: UnixStream, mut file: File, heard: &(Mutex<Heard>, Condvar)) {
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        let bytes = &buffer[..count];
        // A log that cannot be written is no reason to hear nothing.
        let _ = file.write_all(bytes);
        let mut state = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever is not ASCII is noise on a console; one char per byte keeps
        // positions stable.
        state.text.extend(
            bytes
                .iter()
                .map(|&b| if b.is_ascii() { char::from(b) } else { '?' }),
        );
        state.ended = count == 0;
        heard.1.notify_all();
        if count == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console() -> (Console, UnixStream) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!(
            "xferry-console-{}-{number}.log",
            std::process::id()
        ));
        let (near, far) = UnixStream::pair().unwrap();
        let console = Console::start(near, &log).unwrap();
        std::fs::remove_file(&log).unwrap();
        (console, far)
    }

    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn waits_across_reads() {
        let (console, mut far) = console();
        far.write_all(b"xfe").unwrap();
        far.write_all(b"rry> ").unwrap();
        console
            .wait(0, LONG, |text| text.contains("xferry> ").then_some(()))
            .unwrap();
        let from = console.position();
        assert!(matches!(
            console.wait(from, Duration::from_millis(20), |text| text
                .contains('x')
                .then_some(())),
            Err(Silence::TimedOut(_))
        ));
        console.type_in("list\n").unwrap();
        let mut line = [0; 5];
        far.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"list\n");
    }

    #[test]
    fn a_panic_or_an_end_is_not_waited_out() {
        let (console, mut far) = console();
        far.write_all(b"(xferry) panic: no frame\r\nmore").unwrap();
        match console.wait(0, LONG, |_| None::<()>) {
            Err(Silence::Panicked(line)) => assert_eq!(line, "(xferry) panic: no frame"),
            other => panic!("{other:?}"),
        }
        let (console, far) = self::console();
        drop(far);
        assert!(matches!(
            console.wait(0, LONG, |_| None::<()>),
            Err(Silence::Ended)
        ));
    }
}
