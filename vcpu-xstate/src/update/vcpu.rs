//! The update of a component of a vCPU: in registers, in its area, or without room so far.

use super::bytes::{self, COPY_BYTES, WorkingCopy};
use super::{Update, UpdateError, Viewed};
use crate::area::{Area, AreaMemory};
use crate::component::{ComponentIndex, ComponentSet};
use crate::hw::Hardware;
use crate::image::payload;
use crate::layout::Placement;
use crate::mutants::rule;
use crate::owner::{Home, VcpuXstate};
use crate::percpu::PcpuXstate;
use crate::views::View;

/// An update of a component of a vCPU.
#[must_use = "without `finish` nothing changes"]
pub struct VcpuUpdate<'a, H: Hardware, M: AreaMemory> {
    vcpu: &'a mut VcpuXstate,
    cpu: &'a mut PcpuXstate<H>,
    memory: &'a mut M,
    component: ComponentIndex,
    /// Where in the area it lies; `None` in the legacy region.
    place: Option<Placement>,
    /// It is written to the registers, which keep the state.
    in_registers: bool,
    /// The bytes, unless they are in `second`.
    copy: WorkingCopy,
    /// What becomes the vCPU's area: where the component had no room, or is
    /// too large for a working copy.
    second: Option<Area>,
}

impl VcpuXstate {
    /// Begins an update of one component. The vCPU does not run until the
    /// guard is gone. A state in the registers of `cpu` stays there if the
    /// component can be read and written alone; otherwise it is saved.
    ///
    /// Memory is taken only for a component without room, or of more than
    /// 1024 bytes.
    ///
    /// # Errors
    /// The component is not in the policy, is disabled by the guest's own
    /// IA32_XFD, or there is no memory; nothing has changed.
    pub fn begin_update<'a, H: Hardware, M: AreaMemory>(
        &'a mut self,
        component: ComponentIndex,
        cpu: &'a mut PcpuXstate<H>,
        memory: &'a mut M,
    ) -> Result<VcpuUpdate<'a, H, M>, UpdateError> {
        let len = self.updatable(component, cpu)?;
        let mut update = VcpuUpdate {
            component,
            place: None,
            in_registers: false,
            copy: WorkingCopy::new(len),
            second: None,
            vcpu: self,
            cpu,
            memory,
        };
        update.fetch(len)?;
        Ok(update)
    }

    /// Begins an update through a typed view.
    ///
    /// # Errors
    /// As [`begin_update`](Self::begin_update).
    pub fn begin_view<'a, V: View, H: Hardware, M: AreaMemory>(
        &'a mut self,
        cpu: &'a mut PcpuXstate<H>,
        memory: &'a mut M,
    ) -> Result<Viewed<V, VcpuUpdate<'a, H, M>>, UpdateError> {
        Ok(Viewed::new(self.begin_update(V::COMPONENT, cpu, memory)?))
    }

    /// What the vCPU has in a component, through a typed view.
    ///
    /// # Errors
    /// The component is not in the policy, or disabled by the guest's own
    /// IA32_XFD.
    pub fn view<V: View>(&mut self, cpu: &mut PcpuXstate<impl Hardware>) -> Result<V, UpdateError> {
        let len = self.updatable(V::COMPONENT, cpu)?;
        let mut copy = WorkingCopy::new(len);
        if self.read_registers(V::COMPONENT, cpu, copy.get_mut()) {
            return Ok(V::read(copy.get()));
        }
        if rule!("view-saves-first") {
            cpu.save(self);
        }
        let image = self.area.image(cpu.host().geometry());
        Ok(bytes::view(&image, &cpu.host().limits(), len))
    }

    /// How many bytes the component has, if it may be looked at.
    fn updatable<H: Hardware>(
        &self,
        component: ComponentIndex,
        cpu: &PcpuXstate<H>,
    ) -> Result<usize, UpdateError> {
        let mask = self.policy.mask;
        let len = bytes::len(cpu.host().geometry(), component)
            .filter(|_| !rule!("update-policy") || mask.has(component));
        let len = len.ok_or(UpdateError::Policy(component, mask))?;
        let disabled = self.xfd.components();
        if rule!("update-xfd") && disabled.has(component) {
            return Err(UpdateError::Xfd(component, mask.difference(disabled)));
        }
        Ok(len)
    }

    /// Reads a component that this processor has live and can read alone.
    fn read_registers<H: Hardware>(
        &self,
        component: ComponentIndex,
        cpu: &mut PcpuXstate<H>,
        out: &mut [u8],
    ) -> bool {
        self.home == Home::Registers(cpu.cpu())
            && self.accum.has(component)
            && cpu.read_component(self, component, out)
    }
}

impl<H: Hardware, M: AreaMemory> VcpuUpdate<'_, H, M> {
    /// Fills the bytes in, and takes the room that they will need.
    fn fetch(&mut self, len: usize) -> Result<(), UpdateError> {
        let component = self.component;
        if self
            .vcpu
            .read_registers(component, self.cpu, self.copy.get_mut())
        {
            self.in_registers = true;
            return Ok(());
        }
        if rule!("update-saves-first") {
            self.cpu.save(self.vcpu);
        }
        let (geometry, limits) = (self.cpu.host().geometry(), self.cpu.host().limits());
        let area = &self.vcpu.area;
        let mask = self.vcpu.policy.area(self.accum());
        self.place = bytes::place(geometry, area.format(), mask, component);
        if mask == area.mask() && len <= COPY_BYTES {
            self.copy = WorkingCopy::of(&area.image(geometry), component, &limits, len);
            return Ok(());
        }
        let mut second = area
            .relaid(geometry, mask, self.memory)
            .map_err(UpdateError::NeedsMemory)?;
        // A conversion writes what a restore reads: where nothing is held there may
        // stand what the component was, or what stood in a gap.
        if let Some(place) = self.place
            && !second.image(geometry).xstate_bv().has(component)
            && rule!("update-fills-in-init")
        {
            let room = &mut second.bytes_mut()[place.range()];
            let (state, tail) = room.split_at_mut(payload(place).len());
            bytes::init(component, &limits, state);
            tail.fill(0);
        }
        self.second = Some(second);
        Ok(())
    }

    /// What may hold state when the update is finished.
    fn accum(&self) -> ComponentSet {
        self.vcpu.accum.union(ComponentSet::only(self.component))
    }

    /// Where its bytes lie in the second area.
    fn range(&self) -> core::ops::Range<usize> {
        self.place.map_or(0..0, payload)
    }
}

impl<H: Hardware, M: AreaMemory> Update for VcpuUpdate<'_, H, M> {
    fn component(&self) -> ComponentIndex {
        self.component
    }

    fn bytes(&self) -> &[u8] {
        match &self.second {
            Some(area) => &area.bytes()[self.range()],
            None => self.copy.get(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        match &mut self.second {
            Some(area) => &mut area.bytes_mut()[range],
            None => self.copy.get_mut(),
        }
    }

    fn finish(mut self) -> Result<(), UpdateError> {
        let component = self.component;
        let refused = |bad| UpdateError::Value(component, bad);
        let judged = bytes::judge(component, self.bytes(), &self.cpu.host().limits());
        if rule!("update-judged") {
            judged.map_err(refused)?;
        }
        if self.in_registers {
            let new = self.copy.get();
            return self
                .cpu
                .write_component(self.vcpu, component, new)
                .map_err(refused);
        }
        let accum = self.accum();
        match self.second.take() {
            Some(mut second) => {
                bytes::mark(second.bytes_mut(), component);
                self.vcpu.replace_area(second, self.memory);
            }
            None => {
                let area = self.vcpu.area.bytes_mut();
                bytes::write(area, component, self.place, self.copy.get());
                // No processor's copy is this state any more.
                if rule!("update-new-generation") {
                    self.vcpu.generation += 1;
                }
            }
        }
        self.vcpu.accum = accum;
        Ok(())
    }
}

impl<H: Hardware, M: AreaMemory> Drop for VcpuUpdate<'_, H, M> {
    fn drop(&mut self) {
        if let Some(second) = self.second.take() {
            second.release(self.memory);
        }
    }
}

impl<H: Hardware, M: AreaMemory> core::fmt::Debug for VcpuUpdate<'_, H, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "update of {} of {:?}", self.component, self.vcpu)
    }
}
