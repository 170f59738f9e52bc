//! Machines by their CPUID: from the table that `XFERRY_CPUID_CSV` names, else the facts of `builtin`.
//!
//! Lines of the table are `cpu,vendor,model,leaf,subleaf,eax,ebx,ecx,edx`.
//! Dumps of the field are incomplete; what lacks is told, and zero here.

use std::collections::BTreeMap;

use vcpu_xstate::CpuidResult;

/// What a machine's CPUID returned, by leaf and subleaf.
#[derive(Default)]
pub struct Dump(BTreeMap<(u32, u32), CpuidResult>);

impl Dump {
    pub fn put(&mut self, leaf: u32, subleaf: u32, [eax, ebx, ecx, edx]: [u32; 4]) {
        self.0
            .insert((leaf, subleaf), CpuidResult { eax, ebx, ecx, edx });
    }

    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.0.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }

    /// User and supervisor components that leaf 0xD lists, described or not.
    pub fn listed(&self) -> (u64, u64) {
        let wide = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let (d0, d1) = (self.cpuid(0xd, 0), self.cpuid(0xd, 1));
        let supervisor = if d1.eax & 8 != 0 {
            wide(d1.edx, d1.ecx)
        } else {
            0
        };
        (wide(d0.edx, d0.eax), supervisor)
    }

    /// What of that has no subleaf in the dump, or an empty one.
    pub fn undescribed(&self) -> u64 {
        let (user, supervisor) = self.listed();
        (2..63)
            .filter(|i| (user | supervisor) & 1 << i != 0 && self.cpuid(0xd, *i).eax == 0)
            .fold(0, |set, i| set | 1 << i)
    }

    /// Everything that layouts and instructions follow from: machines in which
    /// it is equal are one.
    pub fn layout(&self) -> Vec<[u32; 4]> {
        let part = |leaf, subleaf, mask: [u32; 4]| {
            let r = self.cpuid(leaf, subleaf);
            [
                r.eax & mask[0],
                r.ebx & mask[1],
                r.ecx & mask[2],
                r.edx & mask[3],
            ]
        };
        let mut all = vec![
            part(0, 0, [0, !0, 0, 0]),
            part(7, 0, [0, 0, 1 << 3 | 1 << 7, 1 << 20]),
            part(0x8000_0008, 0, [0xff00, 1 << 2, 0, 0]),
            part(0xd, 0, [!0, 0, 0, !0]),
            part(0xd, 1, [0x1f, 0, !0, !0]),
        ];
        all.extend((2..63).map(|i| part(0xd, i, [!0; 4])));
        all
    }
}

/// The machines of the table, by name; `None` where there is no table.
pub fn load() -> Option<BTreeMap<String, Dump>> {
    let path = std::env::var_os("XFERRY_CPUID_CSV")?;
    let text = std::fs::read_to_string(&path).expect("the table that XFERRY_CPUID_CSV names");
    let mut machines = BTreeMap::<String, Dump>::new();
    for line in text.lines().skip(1) {
        // A model's name may hold commas; the numbers are the last six fields.
        let fields: Vec<&str> = line.rsplitn(7, ',').collect();
        let [edx, ecx, ebx, eax, subleaf, leaf, names] = fields[..] else {
            panic!("{line}");
        };
        let name = names.split(',').next().unwrap_or(names);
        machines.entry(name.to_owned()).or_default().put(
            number(leaf),
            number(subleaf),
            [eax, ebx, ecx, edx].map(number),
        );
    }
    Some(machines)
}

fn number(text: &str) -> u32 {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .unwrap_or_else(|error| panic!("{text}: {error}"))
}
