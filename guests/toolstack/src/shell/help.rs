//! What `help` prints.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Usage and meaning of each command.
pub(super) const HELP: &[(&str, &str)] = &[
    (
        "list",
        "domains: memory, time, right to run, state and cause",
    ),
    (
        "create IMAGE [name=N] [memory=4M] [policy=SPEC] [paused] [--] [guest's command line]",
        "a new domain from a boot module; the first word that is no option begins the guest's command line",
    ),
    ("destroy ID", "ends a domain"),
    ("pause ID, unpause ID", "stops a domain, lets it run"),
    (
        "policy ID [SPEC [drop=NAME,…]]",
        "shows or sets the CPUID policy; SPEC is host or host:avx=0,pku=0; drop gives up components in use",
    ),
    (
        "xstate ID [reclaim]",
        "extended state: where each component lies, in use or INIT; reclaim gives back room",
    ),
    (
        "limit ID BYTES",
        "how many bytes a domain's extended state may take",
    ),
    (
        "send ID [timeout=S]",
        "moves a domain to the host at the other end of COM2",
    ),
    ("receive [timeout=S]", "takes a domain that is sent"),
    (
        "reconnect [timeout=S]",
        "settles moves that were cut off, with the other host's `reconnect` or `receive`",
    ),
    (
        "decide ID reclaim|discard|take",
        "ends a move whose other host is dead for ever: reclaim runs the stopped copy here, take the arrived one, discard drops that; wrong if the other host lives",
    ),
    (
        "console ID [-- text]",
        "what a domain said since; types text and a newline to it",
    ),
    (
        "blob ID",
        "a paused domain's extended-state blob, hexadecimal",
    ),
    ("host", "the machine"),
    ("help", "this"),
    ("poweroff", "switches the machine off"),
];

/// A person's help, one line each.
#[must_use]
pub fn help_lines() -> Vec<String> {
    HELP.iter()
        .flat_map(|(usage, meaning)| [usage.to_string(), alloc::format!("    {meaning}")])
        .collect()
}
