//! Functions that are called before and after.

use invivo_compare::{Finding, Rule};
use invivo_image::{Entity, EntityId, EntityKind, demangle};

use super::Planner;
use crate::model::{Callout, Moment};

impl Planner<'_, '_> {
    /// Functions that are called before and after: new ones, since one that the base has
    /// would be in the target twice.
    pub(super) fn callouts(&mut self, wanted: &[(Moment, String)]) -> Vec<Callout> {
        let fixed = self.c.fixed;
        let mut callouts = Vec::new();
        for (moment, name) in wanted {
            let is_wanted = |entity: &Entity| {
                let mut names = entity.names.iter().map(|symbol| &*symbol.name);
                entity.kind == EntityKind::Function
                    && entity.size > 0
                    && names.any(|own| own == name || demangle(own) == *name)
            };
            let found = fixed
                .entities
                .iter()
                .zip(0u32..)
                .filter(|(e, _)| is_wanted(e));
            let found: Vec<EntityId> = found.map(|(_, index)| EntityId(index)).collect();
            let why = match found[..] {
                [id] if self.c.pairs.base_of(id).is_none() => {
                    let function = fixed.entity(id).name().to_owned();
                    let (moment, symbol) = (*moment, self.copied(id));
                    callouts.push(Callout {
                        moment,
                        function,
                        symbol,
                    });
                    continue;
                }
                [_] => "is in the base too; a callout has to be a function that only the fix has",
                [] => {
                    "is no function of the fixed build; one that nobody calls stays only with \
                     __attribute__((used))"
                }
                _ => "is the name of several functions of the fixed build",
            };
            let why = format!("is to be called {moment}, and {why}");
            self.refused
                .push(Finding::refuse(Rule::Binding, name.clone(), why));
        }
        callouts
    }
}
