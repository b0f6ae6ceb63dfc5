//! A target in memory with a gate before each step: who holds the gate decides whether
//! the step is made, fails, or comes later than somebody else's.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use invivo_apply::{
    MemoryTarget, Module, Protection, Region, Stack, Stopped, Target, TargetError, Visit,
};
use invivo_image::LiveAddr;
use invivo_patch::ImportVersion;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is changed by it.
    Look,
    /// The target is changed, or a thread of it is held.
    Change,
}

/// Stands before each step.
pub(crate) trait Gate {
    /// Returns when the step may be made.
    ///
    /// # Errors
    /// When it fails.
    fn step(&self, step: Step) -> Result<(), TargetError>;
}

/// A target in memory that several may share.
pub(crate) struct Gated<G> {
    shared: Arc<Mutex<MemoryTarget>>,
    pub(crate) gate: G,
}

impl<G: Gate> Gated<G> {
    pub(crate) fn new(inner: MemoryTarget, gate: G) -> Self {
        Gated::shared(Arc::new(Mutex::new(inner)), gate)
    }

    pub(crate) fn shared(shared: Arc<Mutex<MemoryTarget>>, gate: G) -> Self {
        Gated { shared, gate }
    }

    /// The target as it is now.
    pub(crate) fn inner(&self) -> MemoryTarget {
        self.now().clone()
    }

    fn now(&self) -> MutexGuard<'_, MemoryTarget> {
        self.shared.lock().expect("nobody panics inside a step")
    }

    fn change(&self) -> Result<MutexGuard<'_, MemoryTarget>, TargetError> {
        self.gate.step(Step::Change)?;
        Ok(self.now())
    }
}

/// A held thread, or all of them.
struct Held<'g, G>(&'g Gated<G>);

impl<G: Gate> Visit for Held<'_, G> {
    fn map(&mut self, range: Range<LiveAddr>, protection: Protection) -> Result<(), TargetError> {
        self.0.change()?.map(range, protection)
    }

    fn unmap(&mut self, range: Range<LiveAddr>) -> Result<(), TargetError> {
        self.0.change()?.unmap(range)
    }

    fn lift(&mut self, range: Range<LiveAddr>, to: LiveAddr) -> Result<(), TargetError> {
        self.0.change()?.lift(range, to)
    }

    fn lower(&mut self, from: LiveAddr, range: Range<LiveAddr>) -> Result<(), TargetError> {
        self.0.change()?.lower(from, range)
    }

    fn read(&mut self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        Target::read(self.0, at, bytes)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        Target::write(&mut *self.0.change()?, at, bytes)
    }

    fn call(&mut self, function: LiveAddr, arguments: [u64; 2]) -> Result<(), TargetError> {
        self.0.change()?.call(function, arguments)
    }
}

impl<G: Gate> Stopped for Held<'_, G> {
    fn stacks(&mut self) -> Result<Vec<Stack>, TargetError> {
        self.0.change()?.stacks()
    }

    fn read(&mut self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        Target::read(self.0, at, bytes)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        Target::write(&mut *self.0.change()?, at, bytes)
    }
}

impl<G: Gate> Target for Gated<G> {
    fn describe(&self) -> String {
        self.now().describe()
    }

    fn modules(&self) -> Result<Vec<Module>, TargetError> {
        self.now().modules()
    }

    fn importers(&self, module: &Module, symbol: &str) -> Result<Vec<String>, TargetError> {
        self.now().importers(module, symbol)
    }

    fn look_up(
        &self,
        module: &Module,
        imports: &[(&str, Option<&ImportVersion>)],
    ) -> Result<Vec<Result<LiveAddr, String>>, TargetError> {
        self.now().look_up(module, imports)
    }

    fn regions(&self) -> Result<Vec<Region>, TargetError> {
        self.gate.step(Step::Look)?;
        self.now().regions()
    }

    fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        self.now().read(at, bytes)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        Target::write(&mut *self.change()?, at, bytes)
    }

    fn store(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.change()?.store(at, bytes)
    }

    fn original(&self, range: Range<LiveAddr>) -> Result<Option<Vec<u8>>, TargetError> {
        self.now().original(range)
    }

    fn visit(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        drop(self.change()?);
        calls(&mut Held(self)).map(|()| Duration::ZERO)
    }

    fn visit_outside_runtime(
        &mut self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        self.visit(calls)
    }

    fn stop(
        &mut self,
        _first: &[i32],
        during: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        drop(self.change()?);
        during(&mut Held(self)).map(|()| Duration::ZERO)
    }

    fn glimpse(&self) -> Result<Vec<Stack>, TargetError> {
        self.now().glimpse()
    }

    fn unwind_registrar(&self) -> Result<Option<LiveAddr>, TargetError> {
        self.now().unwind_registrar()
    }
}
