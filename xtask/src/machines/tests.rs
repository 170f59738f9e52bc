//! Tests of names, tables and the machines known without one.

use super::*;

fn table(text: &str) -> Table {
    let header = "cpu,vendor,model,leaf,subleaf,eax,ebx,ecx,edx\n";
    let machines = table::parse(&format!("{header}{text}")).unwrap();
    Table { machines }
}

fn refused(text: &str) -> String {
    format!("{:#}", table::parse(text).unwrap_err())
}

#[test]
fn a_model_may_hold_commas() {
    let table = table("a,V,Q, R, S,0x0000000d,62,0x80,0x340,0,4294967295\n");
    let machine = table.find("A").unwrap();
    assert_eq!(machine.model(), "Q, R, S");
    let answer = machine.cpuid(0xd, 62);
    assert_eq!((answer.eax, answer.ebx, answer.edx), (128, 832, u32::MAX));
    assert_eq!(machine.cpuid(0xd, 61), CpuidResult::default());
}

#[test]
fn bad_tables_are_refused_by_line() {
    let header = "cpu,vendor,model,leaf,subleaf,eax,ebx,ecx,edx";
    assert!(refused("").starts_with("line 1: a table begins with"));
    assert!(refused("cpu,leaf\n").starts_with("line 1"));
    let line = |line: &str| refused(&format!("{header}\n\n{line}\n"));
    assert_eq!(line("a,b,c"), "line 3: 3 fields, 9 are needed");
    assert_eq!(
        line("a,b,c,d,0,0,0,0,0"),
        "line 3: \"d\" is no 32-bit number: invalid digit found in string"
    );
    assert!(line("a,b,c,0x100000000,0,0,0,0,0").contains("no 32-bit number"));
    assert_eq!(line(",b,c,1,0,0,0,0,0"), "line 3: the machine has no name");
    let twice = "a,b,c,1,0,0,0,0,0\na,b,c,1,0,1,0,0,0";
    assert_eq!(line(twice), "line 4: a answers leaf 0x1.0 twice");
}

#[test]
fn names_are_found_by_a_part_that_is_unique() {
    let rows: String = (0..20)
        .map(|i| format!("box-{i},V,M,0,0,1,2,3,4\n"))
        .collect();
    let table = table(&rows);
    assert_eq!(table.find("BOX-17").unwrap().name(), "box-17");
    // A whole name wins over names that contain it.
    assert_eq!(table.find("box-1").unwrap().name(), "box-1");
    assert_eq!(table.find("x-19").unwrap().name(), "box-19");
    let error = table.find("x-1").unwrap_err().to_string();
    assert!(
        error.starts_with("11 machines have \"x-1\" in their name:\n  box-1\n"),
        "{error}"
    );
    let error = table.find("box").unwrap_err().to_string();
    assert_eq!(error.lines().count(), CANDIDATES + 2, "{error}");
    assert!(error.ends_with('…'), "{error}");
    assert!(table.find("none").is_err());
}

/// A row named as a built-in machine was ignored, and `machines` listed both.
#[test]
fn a_tables_machine_takes_the_place_of_a_built_in_one() {
    let header = "cpu,vendor,model,leaf,subleaf,eax,ebx,ecx,edx";
    let rows = table::parse(&format!(
        "{header}\nZEN4,V,mine,1,0,1,2,3,4\nnew,V,M,0,0,1,2,3,4\n"
    ));
    let mut machines = builtin::machines();
    let before = machines.len();
    put(&mut machines, rows.unwrap());
    let table = Table { machines };
    assert_eq!(table.find("zen4").unwrap().model(), "mine");
    assert_eq!(table.machines().len(), before + 1);
    assert_eq!(
        refused(&format!("{header}\nall,b,c,1,0,0,0,0,0"))
            .lines()
            .count(),
        1
    );
}

#[test]
fn a_dump_tells_what_it_lacks() {
    let rows = "a,V,M,0,0,0xd,0,0,0\na,V,M,0xd,0,0x207,0,0,0\na,V,M,0xd,1,0xf,0,0x100,0\n\
                a,V,M,0xd,2,256,576,0,0\n";
    let table = table(rows);
    let machine = table.find("a").unwrap();
    assert_eq!(machine.listed().bits(), 0x307);
    assert_eq!(machine.undescribed().bits(), 0x300);
    assert_eq!(machine.cpuid(0x8000_0000, 0).eax, 0xd);
}

/// The built-in ones are whole, and each yields a policy with what its name promises.
#[test]
fn machines_known_without_a_table() {
    let masks = [
        ("core2", 0x3),
        ("haswell", 0x7),
        ("skylake-sp", 0x2ff),
        ("icelake-sp", 0x2e7),
        ("alder-lake", 0x207),
        ("sapphire-rapids", 0x6_02e7),
        ("granite-rapids", 0x6_02e7),
        ("diamond-rapids", 0x6_02e7),
        ("piledriver", 0x7),
        ("zen1", 0x7),
        ("zen2", 0x7),
        ("zen3", 0x207),
        ("zen4", 0x2e7),
        ("zen5", 0x2e7),
        ("qemu-max", 0x21f),
        ("qemu-epyc-rome", 0x7),
    ];
    let machines = builtin::machines();
    assert_eq!(machines.len(), masks.len());
    for (machine, (name, mask)) in machines.iter().zip(masks) {
        assert_eq!(machine.name(), name);
        assert!(machine.undescribed().is_empty(), "{name}");
        let host = machine.host(machine.mxcsr_mask()).unwrap();
        assert_eq!(machine.policy(&host).xstate().mask.bits(), mask, "{name}");
    }
}

/// CPUID 0xD of the processor that runs this, as far as it has XSAVE.
#[test]
fn this_machine() {
    let machine = this();
    assert!(machine.cpuid(0, 0).eax > 0);
    assert!(machine.model().ends_with("(the machine that runs this)"));
    let mask = machine.mxcsr_mask();
    assert_eq!(mask & 0xffbf, 0xffbf);
    match machine.host(mask) {
        Ok(host) => assert!(machine.listed().contains(host.offered())),
        Err(error) => println!("skipped: {error:#}"),
    }
}

/// Rows with a model of several words and commas had more fields than the first line.
#[test]
fn rows_are_csv() {
    let machine = Table::built_in();
    let machine = machine.find("sapphire-rapids").unwrap();
    assert!(machine.model().contains(','));
    let text = list::rows(machine);
    let quoted = format!(",\"{}\",0x", machine.model());
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert!(rows.iter().all(|row| row.contains(&quoted)), "{text}");
    let read = table::parse(&text).unwrap();
    assert_eq!(read[0].model(), machine.model());
    // And as dumps have it.
    let plain = table::parse(&text.replace('"', "")).unwrap();
    assert_eq!(plain[0].model(), machine.model());
}

/// A component that overlaps another was left out without a word.
#[test]
fn what_no_machine_can_have_is_said_to_be_left_out() {
    let known = Table::built_in();
    let rows = list::rows(known.find("sapphire-rapids").unwrap());
    let rows = rows.replace(
        "0x0000000d,9,0x00000008,0x00000a80",
        "0x0000000d,9,0x00000008,0x00000240",
    );
    let machine = &table::parse(&rows).unwrap()[0];
    let host = machine.host(machine.mxcsr_mask()).unwrap();
    let left_out = unbelieved(machine.listed(), &host);
    let [(component, why)] = left_out[..] else {
        panic!("{left_out:?}");
    };
    assert_eq!(component, ComponentIndex::PKRU);
    assert_eq!(
        why.to_string(),
        "no machine can lay it out so (layout-overlap: pkru and avx share bytes of the standard form)"
    );
}

/// Who was named twice was counted twice, and no name was any machine's.
#[test]
fn machines_are_chosen_once() {
    let table = Table::built_in();
    let chosen = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        table.chosen(&names).map(|machines| machines.len())
    };
    assert_eq!(chosen(&["zen4", "zen4"]).unwrap(), 1);
    assert_eq!(chosen(&["all", "zen4"]).unwrap(), chosen(&["all"]).unwrap());
    assert_eq!(
        chosen(&[""]).unwrap_err().to_string(),
        "no machine is named"
    );
}
