//! Lines good and bad.

use super::*;
use proptest::prelude::*;

fn reason(line: &str) -> String {
    parse_command(line).unwrap_err().reason.into_owned()
}

#[test]
fn tags_are_taken_off() {
    let line = |tag, command| Ok(Line { tag, command });
    assert_eq!(parse_line("  list \r"), line(None, "list"));
    assert_eq!(parse_line("#x1 list"), line(Some("x1"), "list"));
    assert_eq!(parse_line("#x1"), line(Some("x1"), ""));
    for bad in ["#", "# list", "#a|b list", "#12345678901234567 list"] {
        assert_eq!(parse_line(bad).unwrap_err().reason, "tag", "{bad}");
    }
}

#[test]
fn a_create_line_with_everything() {
    let command = parse_command(
        "create torture name=t7 memory=2M policy=host:avx=0,pku=0 paused -- seed=7  x=-- y",
    );
    let wanted = Command::Create {
        image: "torture",
        name: "t7",
        memory_bytes: 2 << 20,
        policy: Some("host:avx=0,pku=0"),
        paused: true,
        cmdline: "seed=7  x=-- y",
    };
    assert_eq!(command, Ok(wanted));
}

#[test]
fn the_first_word_that_is_no_option_begins_the_guests_line() {
    let cmdline = |line| match parse_command(line) {
        Ok(Command::Create { cmdline, name, .. }) => (cmdline, name),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(cmdline("create torture"), ("", "torture"));
    assert_eq!(
        cmdline("create torture name=t seed=7 name=x"),
        ("seed=7 name=x", "t")
    );
    assert_eq!(cmdline("create torture   seed=7"), ("seed=7", "torture"));
    assert_eq!(cmdline("create torture --"), ("", "torture"));
}

#[test]
fn the_short_commands() {
    use Command as C;
    let id = DomainId(3);
    let good = [
        ("", C::Nothing),
        ("  \t ", C::Nothing),
        ("list", C::List),
        ("destroy 3", C::Destroy(id)),
        ("pause 3", C::Pause(id)),
        ("unpause  3 ", C::Unpause(id)),
        ("policy 3", C::ShowPolicy(id)),
        (
            "policy 3 host:avx=0",
            C::SetPolicy {
                domain: id,
                spec: "host:avx=0",
                drop: 0,
            },
        ),
        (
            "policy 3 host drop=avx,pkru",
            C::SetPolicy {
                domain: id,
                spec: "host",
                drop: 0x204,
            },
        ),
        (
            "policy 3 host drop=5",
            C::SetPolicy {
                domain: id,
                spec: "host",
                drop: 0x20,
            },
        ),
        ("xstate 3", C::Xstate(id)),
        ("xstate 3 reclaim", C::Reclaim(id)),
        ("limit 3 4k", C::Limit(id, 4096)),
        (
            "send 3",
            C::Send {
                domain: id,
                timeout_s: None,
            },
        ),
        ("receive", C::Receive { timeout_s: None }),
        ("receive timeout=2", C::Receive { timeout_s: Some(2) }),
        (
            "reconnect",
            C::Reconnect {
                timeout_s: RECONNECT_TIMEOUT_S,
            },
        ),
        ("console 3", C::Console(id, None)),
        ("console 3 -- a  b ", C::Console(id, Some("a  b"))),
        ("blob 3", C::Blob(id)),
        ("host", C::Host),
        ("help", C::Help),
        ("poweroff", C::PowerOff),
    ];
    for (line, command) in good {
        assert_eq!(parse_command(line), Ok(command), "{line}");
    }
}

#[test]
fn bad_lines_are_refused_by_rule() {
    let bad = [
        ("lst", "unknown-command"),
        ("list all", "argument-unexpected"),
        ("create", "argument-missing"),
        ("create x memory=0", "size"),
        ("create x memory=-1", "size"),
        ("create x memory=99999999999G", "size"),
        ("create x memory=4Q", "size"),
        ("create x memory=M", "size"),
        ("create x name=a name=b", "argument-repeated"),
        ("pause", "argument-missing"),
        ("pause one", "domain-number"),
        ("pause 4294967296", "domain-number"),
        ("pause 1 2", "argument-unexpected"),
        ("policy 1 drop=avx", "argument-missing"),
        ("policy 1 host dorp=avx", "argument-unexpected"),
        ("policy 1 host drop=xmm", "component-name"),
        ("policy 1 host drop=63", "component-name"),
        ("policy 1 host drop=avx more", "argument-unexpected"),
        ("xstate 1 claim", "argument-unexpected"),
        ("limit 1", "argument-missing"),
        ("receive 5", "argument-unexpected"),
        ("receive timeout=0", "timeout"),
        ("receive timeout=3601", "timeout"),
        ("console 1 text", "argument-unexpected"),
        ("list \u{1b}[A", "line-characters"),
    ];
    for (line, rule) in bad {
        assert_eq!(reason(line), rule, "{line}");
    }
    let error = parse_command("pause one").unwrap_err();
    assert!(
        error.text.contains("\"one\"") && error.text.contains("allowed"),
        "{error}"
    );
}

#[test]
fn every_command_of_the_help_is_known() {
    for (usage, _) in crate::shell::help::HELP {
        for part in usage.split(", ").filter(|part| !part.starts_with('[')) {
            let word = part.split(' ').next().unwrap();
            let known = match parse_command(word) {
                Ok(_) => true,
                Err(error) => error.reason == "argument-missing",
            };
            assert!(known, "{usage}");
        }
    }
}

proptest! {
    #[test]
    fn no_line_panics(line in "\\PC*") {
        if let Ok(line) = parse_line(&line) {
            let _ = parse_command(line.command);
        }
    }

    #[test]
    fn no_line_of_words_panics(words in proptest::collection::vec(
        "create|policy|limit|send|memory=|name=|drop=|--|[0-9]{1,22}|[0-9]{1,20}[KMG]|é|=", 0..6)) {
        let _ = parse_command(&words.join(" "));
    }
}
