//! Which machines would take what a file holds, and which rule stands against it.

use serde_json::json;

use super::document::{Section, Table, words};
use crate::receiver::{Judged, Receiver, Why};

/// What is judged: something whole, or what no machine takes, for this reason.
pub type Subject<'a> = Result<Judged<'a>, Why>;

/// Adds a verdict for each machine; gives whether all of them take it.
pub fn explain(root: &mut Section, subject: &Subject<'_>, machines: &[Receiver<'_>]) -> bool {
    if machines.is_empty() {
        root.value("against", json!([]));
        return true;
    }
    let mut all = true;
    let mut section = Section::within("Machines");
    let columns = [words("machine"), words("takes it"), words("")];
    let mut table = Table::new("against", &columns);
    for machine in machines {
        let verdict = match subject {
            Ok(judged) => machine.judge(judged),
            Err(why) => Err(why.clone()),
        };
        all &= verdict.is_ok();
        let (short, why) = match &verdict {
            Ok(()) => ("yes", String::new()),
            Err(why) => ("no", why.to_string()),
        };
        table.row(
            vec![machine.machine.name().into(), short.into(), why],
            machine.json(&verdict),
        );
        for way in verdict.err().into_iter().flat_map(|why| why.ways) {
            table.more(vec![String::new(), String::new(), format!("  {way}")]);
        }
    }
    section.table(table);
    root.section(section);
    all
}
