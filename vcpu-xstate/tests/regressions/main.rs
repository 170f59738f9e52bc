//! The bugs that hypervisors and kernels had with extended state, each as a test named after it.
//!
//! They use the public interface alone, on the software CPU. The book's
//! page `proof.md` has the table of all of them, with those that cannot live in
//! these libraries.

mod images;
mod policies;
mod switches;
mod world;
