//! What a fuzzer makes up for a receiver.

use arbitrary::Arbitrary;

use crate::model::Plan;

#[derive(Debug, Arbitrary)]
pub struct Case {
    cuts: Vec<u8>,
    pause_after: u8,
    late: bool,
    limit: u16,
    pub input: Vec<u8>,
}

impl Case {
    pub fn plan(&self) -> Plan {
        Plan {
            cuts: self.cuts.iter().map(|cut| usize::from(*cut)).filter(|cut| *cut > 0).collect(),
            pause_after: usize::from(self.pause_after % 4),
            late: self.late,
            limit: usize::from(self.limit),
        }
    }
}
