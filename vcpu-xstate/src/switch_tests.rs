//! The plan of a switch, row by row: what is saved, restored and written, and what is a mistake.

use super::*;

const HERE: CpuId = CpuId(3);
const THERE: CpuId = CpuId(4);

/// A machine with everything, by its save instruction.
const fn machine(save: SaveInstruction) -> Machine {
    Machine {
        save,
        xcr0: 0x6_02e7,
        xss: 0x1800,
        has_xss: matches!(save, SaveInstruction::Xsaves),
        has_xfd: true,
        leaks_fp_pointers: false,
    }
}

const SAVES: [SaveInstruction; 4] = [
    SaveInstruction::Xsave,
    SaveInstruction::Xsaveopt,
    SaveInstruction::Xsavec,
    SaveInstruction::Xsaves,
];

const fn version(tag: u64, generation: u64) -> Version {
    Version {
        tag: Tag::new(tag),
        generation,
    }
}

const fn at(tag: u64, home: Home) -> Side {
    Side {
        version: version(tag, 7),
        home,
    }
}

/// Registers under the host's own values.
const fn live(owner: Option<u64>, copy: Option<Version>) -> Live {
    Live {
        cpu: HERE,
        owner: match owner {
            Some(tag) => Some(Tag::new(tag)),
            None => None,
        },
        copy,
        controls: LiveControls::Host { xfd_err: 0 },
    }
}

/// What a plan moves, in a word.
fn moves(plan: &Switch) -> &'static str {
    match (plan.save.is_some(), plan.restore.is_some(), plan.adopt) {
        (false, false, false) => "nothing",
        (true, false, false) => "saves",
        (false, false, true) => "adopts",
        (false, true, true) => "restores",
        (true, true, true) => "saves and restores",
        (true, false, true) => "saves and adopts",
        _ => "restores for nobody",
    }
}

#[test]
fn what_moves() {
    const MEMORY: Home = Home::Memory;
    const LOADED: Home = Home::Registers(HERE);
    let a = Some(at(1, MEMORY));
    let a_here = Some(at(1, LOADED));
    let b = Some(at(2, MEMORY));
    let copy_of_a = Some(version(1, 7));
    // (owner, copy, from, to) -> with any instruction but XSAVES; with XSAVES
    let table = [
        // Nobody ran: restored, but for a copy of this very version.
        (None, None, None, a, "restores", "restores"),
        (None, copy_of_a, None, a, "adopts", "adopts"),
        (None, Some(version(1, 6)), None, a, "restores", "restores"),
        (None, Some(version(2, 7)), None, a, "restores", "restores"),
        // An exit that returns to the same vCPU moves nothing.
        (Some(1), copy_of_a, None, a_here, "nothing", "nothing"),
        (Some(1), copy_of_a, a_here, None, "saves", "saves"),
        // A save of what is in memory: nothing to do.
        (None, copy_of_a, a, None, "nothing", "nothing"),
        (Some(2), copy_of_a, a, None, "nothing", "nothing"),
        // From one to the other.
        (
            Some(1),
            copy_of_a,
            a_here,
            b,
            "saves and restores",
            "saves and restores",
        ),
        (None, None, a, b, "restores", "restores"),
        // Back to itself through memory: the registers keep the copy, but
        // XSAVES changes live state.
        (
            Some(1),
            copy_of_a,
            a_here,
            a,
            "saves and adopts",
            "saves and restores",
        ),
    ];
    for (owner, copy, from, to, expected, by_xsaves) in table {
        for save in SAVES {
            let machine = machine(save);
            let live = live(owner, copy);
            let plan = plan(&machine, &live, from.as_ref(), to.as_ref()).unwrap();
            let xsaves = save == SaveInstruction::Xsaves;
            let expected = if xsaves { by_xsaves } else { expected };
            assert_eq!(moves(&plan), expected, "{save:?} {live:?} {from:?} {to:?}");
            assert!(plan.save.is_none_or(|one| one == save));
            let restore = if xsaves {
                RestoreInstruction::Xrstors
            } else {
                RestoreInstruction::Xrstor
            };
            assert!(plan.restore.is_none_or(|one| one == restore));
            assert_eq!(plan.host, None, "they are live");
        }
    }
}

/// XSA-52: where a restore leaves the pointers, they are cleared before it,
/// and only there.
#[test]
fn fp_pointers_are_cleared_before_a_restore_alone() {
    let mut machine = machine(SaveInstruction::Xsave);
    machine.leaks_fp_pointers = true;
    let (here, memory) = (at(1, Home::Registers(HERE)), at(2, Home::Memory));
    let ran = live(Some(1), None);
    let clears = |live, from, to| plan(&machine, live, from, to).unwrap().clear_fp_pointers;
    assert!(clears(&ran, Some(&here), Some(&memory)));
    assert!(!clears(&ran, Some(&here), None));
    assert!(!clears(&ran, None, Some(&here)));
    let copy = live(None, Some(version(2, 7)));
    assert!(!clears(&copy, None, Some(&memory)), "nothing is restored");
}

#[test]
fn what_no_host_may_do() {
    let machine = machine(SaveInstruction::Xsavec);
    let (here, there) = (Home::Registers(HERE), Home::Registers(THERE));
    // (owner, from, to) -> the mistake
    let table = [
        (None, Some(at(1, there)), None, "switch-elsewhere"),
        (None, None, Some(at(1, there)), "switch-elsewhere"),
        (Some(2), Some(at(1, here)), None, "switch-owner"),
        (None, None, Some(at(1, here)), "switch-owner"),
        (Some(2), None, Some(at(1, Home::Memory)), "switch-not-saved"),
        // The one that is said to have run is in memory; another is in here.
        (
            Some(2),
            Some(at(3, Home::Memory)),
            Some(at(1, Home::Memory)),
            "switch-not-saved",
        ),
    ];
    for (owner, from, to, rule) in table {
        let planned = plan(&machine, &live(owner, None), from.as_ref(), to.as_ref());
        assert_eq!(planned.unwrap_err().rule(), rule, "{from:?} {to:?}");
    }
}

/// State moves under the host's own values, and nothing is written for a
/// switch that moves nothing.
#[test]
fn the_hosts_own_values_before_state_moves() {
    let machine = machine(SaveInstruction::Xsaves);
    let guest = Controls {
        xcr0: 7,
        xss: 0x1800,
        xfd: 1 << 18,
        xfd_err: 1 << 18,
    };
    let known = Writes {
        xcr0: Some(0x6_02e7),
        xss: None,
        xfd: Some(0),
        xfd_err: None,
    };
    let unknown = Writes {
        xss: Some(0x1800),
        xfd_err: Some(0),
        ..known
    };
    let (here, memory) = (at(1, Home::Registers(HERE)), at(2, Home::Memory));
    for (controls, written) in [
        (LiveControls::after(&machine, guest), Some(known)),
        (LiveControls::Unknown, Some(unknown)),
        (LiveControls::Host { xfd_err: 1 << 18 }, None),
    ] {
        let ran = Live {
            controls,
            ..live(Some(1), None)
        };
        for (from, to) in [(Some(&here), None), (Some(&here), Some(&memory))] {
            assert_eq!(plan(&machine, &ran, from, to).unwrap().host, written);
        }
        let stays = plan(&machine, &ran, None, Some(&here)).unwrap();
        assert_eq!(stays, Switch::default());
    }
}

/// A register is written where it differs, where nothing is known of it, and
/// only where the machine has it.
#[test]
fn control_registers_are_written_where_they_differ() {
    let all = machine(SaveInstruction::Xsaves);
    let plain = Machine {
        has_xss: false,
        has_xfd: false,
        ..all
    };
    let own = all.controls(0);
    let live = LiveControls::after(&all, own);
    assert_eq!(live, LiveControls::Host { xfd_err: 0 });
    let none = Writes::default();
    // (wanted) -> on a machine with everything; on one with XCR0 alone
    let with = |change: fn(&mut Controls)| {
        let mut wanted = own;
        change(&mut wanted);
        wanted
    };
    let xcr0 = Writes {
        xcr0: Some(3),
        ..none
    };
    let table = [
        (own, none, none),
        (with(|c| c.xcr0 = 3), xcr0, xcr0),
        (
            with(|c| c.xss = 0),
            Writes {
                xss: Some(0),
                ..none
            },
            none,
        ),
        (
            with(|c| c.xfd = 9),
            Writes {
                xfd: Some(9),
                ..none
            },
            none,
        ),
        (
            with(|c| c.xfd_err = 9),
            Writes {
                xfd_err: Some(9),
                ..none
            },
            none,
        ),
    ];
    for (wanted, here, there) in table {
        assert_eq!(writes(&all, &live, &wanted), here, "{wanted:x?}");
        assert_eq!(writes(&plain, &live, &wanted), there, "{wanted:x?}");
        // And back: the same registers, the host's values.
        let back = writes(&all, &LiveControls::after(&all, wanted), &own);
        let touched = |w: Writes| [w.xcr0, w.xss, w.xfd, w.xfd_err].map(|value| value.is_some());
        assert_eq!(touched(back), touched(here));
    }
    let everything = writes(&all, &LiveControls::Unknown, &own);
    assert!(everything.xcr0.is_some() && everything.xss.is_some());
    assert!(everything.xfd.is_some() && everything.xfd_err.is_some());
    let everything = writes(&plain, &LiveControls::Unknown, &own);
    assert_eq!((everything.xss, everything.xfd), (None, None));
}

#[test]
fn tags_keep_their_numbers() {
    for number in [0, 1, 77, u64::MAX - 1] {
        assert_eq!(Tag::new(number).number(), number);
        let tag = Some(Tag::new(number));
        assert_eq!(Tag::from_word(Tag::word(tag)), tag);
    }
    assert_eq!(Tag::word(None), 0);
}

/// The way that is taken without a plan is the plan's: wherever it is taken, the
/// plan is a save and a restore and nothing else.
#[test]
fn the_straight_way_is_what_the_plan_says() {
    let homes = [Home::Memory, Home::Registers(HERE), Home::Registers(THERE)];
    let copies = [
        None,
        Some(version(1, 7)),
        Some(version(2, 7)),
        Some(version(2, 6)),
    ];
    let mut straight = 0;
    for save in SAVES {
        for leaks_fp_pointers in [false, true] {
            let machine = Machine {
                leaks_fp_pointers,
                ..machine(save)
            };
            let guest = LiveControls::Guest(machine.controls(0));
            for controls in [
                LiveControls::Host { xfd_err: 0 },
                LiveControls::Unknown,
                guest,
            ] {
                for (owner, copy) in [None, Some(1), Some(2), Some(3)]
                    .into_iter()
                    .flat_map(|owner| copies.map(|copy| (owner, copy)))
                {
                    for home in homes {
                        let live = Live {
                            controls,
                            ..live(owner, copy)
                        };
                        // Who is the owner is here, by the owner's own rule.
                        let (from, to) = (at(1, Home::Registers(HERE)), at(2, home));
                        let word = |tag| Tag::word(Some(tag));
                        let taken =
                            is_straight(Tag::word(live.owner), word(from.version.tag), home);
                        let Some(exchange) = at_once(&machine, &controls).filter(|_| taken) else {
                            continue;
                        };
                        // A copy of another's state beside an owner is no state of the world.
                        if copy.is_some_and(|copy| Some(copy.tag) != live.owner) {
                            continue;
                        }
                        straight += 1;
                        let plan = plan(&machine, &live, Some(&from), Some(&to));
                        let expected = Switch {
                            save: Some(match exchange {
                                Exchange::User => SaveInstruction::Xsavec,
                                Exchange::All => SaveInstruction::Xsaves,
                            }),
                            restore: Some(match exchange {
                                Exchange::User => RestoreInstruction::Xrstor,
                                Exchange::All => RestoreInstruction::Xrstors,
                            }),
                            adopt: true,
                            ..Switch::default()
                        };
                        assert_eq!(plan, Ok(expected), "{live:?} {to:?}");
                    }
                }
            }
        }
    }
    assert_eq!(straight, 4);
}
