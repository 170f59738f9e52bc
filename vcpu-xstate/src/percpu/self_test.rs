//! A processor tries each component's round trip before it offers it.

use super::PcpuXstate;
use crate::area::{Area, AreaMemory, OutOfMemory};
use crate::hw::Hardware;
use crate::selftest;

impl<H: Hardware> PcpuXstate<H> {
    /// Whether each offered component survives a restore and a save of a
    /// pattern, by itself. What does not is left out of what this processor
    /// offers. No vCPU may be loaded; the registers are INIT afterwards.
    ///
    /// # Errors
    /// No memory for the test image.
    pub fn self_test(
        &mut self,
        memory: &mut impl AreaMemory,
    ) -> Result<selftest::Report, OutOfMemory> {
        assert_eq!(self.owner, 0, "a vCPU is loaded");
        self.copy = None;
        let geometry = self.host().geometry().clone();
        let mask = self.host().offered();
        let format = self.host().format();
        // Two areas: a save to where the last restore came from may leave out
        // what did not change, and the test would compare memory with itself.
        let mut from = Area::new(&geometry, format, mask, memory)?;
        let mut to = match Area::new(&geometry, format, mask, memory) {
            Ok(area) => area,
            Err(error) => {
                from.release(memory);
                return Err(error);
            }
        };
        let mut report = selftest::Report::default();
        let limits = self.host().limits();
        // Which contents of a component without a name are legal is not known.
        for component in selftest::testable(mask, &limits) {
            selftest::put_pattern(&mut from, &geometry, &limits, component, 0x5a);
            selftest::scramble(&mut to);
            let survives = self.registers.restore(&from).is_ok() && {
                self.registers.save(&mut to);
                selftest::same(component, &from.image(&geometry), &to.image(&geometry))
            };
            report.add(component, survives);
        }
        from.release(memory);
        to.release(memory);
        self.registers.clear();
        self.restrict(report.failed());
        Ok(report)
    }
}
