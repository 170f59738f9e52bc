//! The measured code: functions of the object that `build.rs` makes.
#![allow(unsafe_code)] // calls of foreign functions

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the measured code lies as a linked program, for those who want to see
/// its instructions.
pub const PROGRAM: &str = env!("XSTATE_BENCH_KERNEL");

/// A measured function: takes its scene, gives the bytes that it dealt with.
type Entry = unsafe extern "C" fn(*mut c_void) -> usize;

unsafe extern "C" {
    fn xstate_bench_scene(layout: u64, in_use: u64) -> *mut c_void;
    fn xstate_bench_export(scene: *mut c_void) -> usize;
    fn xstate_bench_import(scene: *mut c_void) -> usize;
    fn xstate_bench_compact(scene: *mut c_void) -> usize;
    fn xstate_bench_expand(scene: *mut c_void) -> usize;
    fn xstate_bench_expand_zeroed(scene: *mut c_void) -> usize;
    fn xstate_bench_relayout(scene: *mut c_void) -> usize;
    fn xstate_bench_limit(scene: *mut c_void) -> usize;
    fn xstate_bench_limit_zeroed(scene: *mut c_void) -> usize;
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// vCPU to blob: canonical image, header and directory, no checksum.
    Export,
    /// Blob to vCPU: parsed, validated, and the area filled.
    Import,
    /// Standard to compacted.
    Compact,
    /// Compacted to standard, the bytes that XRSTOR will read.
    Expand,
    /// Compacted to standard, all of the buffer.
    ExpandZeroed,
    /// Compacted to compacted under another XCOMP_BV.
    Relayout,
}

impl Operation {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Export,
        Self::Import,
        Self::Compact,
        Self::Expand,
        Self::ExpandZeroed,
        Self::Relayout,
    ];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Import => "import",
            Self::Compact => "compact",
            Self::Expand => "expand",
            Self::ExpandZeroed => "expand_zeroed",
            Self::Relayout => "relayout",
        }
    }

    const fn entry(self) -> Entry {
        match self {
            Self::Export => xstate_bench_export,
            Self::Import => xstate_bench_import,
            Self::Compact => xstate_bench_compact,
            Self::Expand => xstate_bench_expand,
            Self::ExpandZeroed => xstate_bench_expand_zeroed,
            Self::Relayout => xstate_bench_relayout,
        }
    }

    /// Where its code begins, for those who count its instructions.
    #[must_use]
    pub fn address(self) -> usize {
        self.entry() as *const () as usize
    }

    /// The plain copy that it is compared with.
    const fn limit(self) -> Entry {
        match self {
            Self::ExpandZeroed => xstate_bench_limit_zeroed,
            _ => xstate_bench_limit,
        }
    }
}

/// Scenes are made one after the other: their memory is one.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One layout with some of its components in use.
pub struct Scene(NonNull<c_void>);

impl Scene {
    /// `None` where no machine has this layout, or `in_use` exceeds it.
    #[must_use]
    pub fn new(layout: u64, in_use: u64) -> Option<Self> {
        let _guard = one_at_a_time();
        // SAFETY: takes any numbers; gives a scene that nobody else has, or null.
        NonNull::new(unsafe { xstate_bench_scene(layout, in_use) }).map(Self)
    }

    /// Does it once; gives the bytes that it dealt with, 0 if it failed.
    #[inline]
    pub fn run(&mut self, operation: Operation) -> usize {
        // SAFETY: a live scene (they live for ever), ours alone by `&mut`.
        unsafe { operation.entry()(self.0.as_ptr()) }
    }

    /// Does the plain copy that `operation` is compared with, once.
    #[inline]
    pub fn run_limit(&mut self, operation: Operation) -> usize {
        // SAFETY: as for `run`.
        unsafe { operation.limit()(self.0.as_ptr()) }
    }
}
