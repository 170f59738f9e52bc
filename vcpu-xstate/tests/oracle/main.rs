//! The library against the CPU in software: what `validate` accepts is restored without a fault, what faults is refused by name, what is saved comes back.
//!
//! Machines are those of the table that `XFERRY_CPUID_CSV` names, else a
//! handful of facts.

#[path = "../cpus/builtin.rs"]
mod builtin;
mod machine;
mod registers;
#[allow(dead_code)] // the other test asks more of it
#[path = "../cpus/table.rs"]
mod table;
mod verdicts;
