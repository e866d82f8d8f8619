//! Assertions over the measurements: CI fails if the layers have no effect.

use std::time::Duration;

use crate::column::Column;
use crate::report::Report;
use crate::script::Health;

/// Orders that take longer in the slow phase were not helped.
const AS_USUAL: Duration = Duration::from_millis(400);

impl Report {
    /// Complains if the run does not show what it should.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let twice = self.bare.booked_twice + self.protected.booked_twice;
        if twice > 0 {
            return Err(format!("{twice} orders were paid twice"));
        }
        if self.is_disturbed() {
            return Ok(());
        }
        let placed = |shop: &Column| {
            let faulty = shop.orders_while(&self.script, Health::is_partly_faulty);
            faulty.placed()
        };
        let [bare, protected] = self.both().map(placed);
        if protected <= bare {
            return Err(format!(
                "while some payments failed, were slow or hung, the bare shop placed {bare} orders and the \
                 protected one only {protected}"
            ));
        }
        let [bare, protected] = self.both().map(|shop| shop.paid_for_nothing);
        if protected >= bare {
            return Err(format!(
                "{bare} customers of the bare shop and {protected} of the protected one paid and got nothing"
            ));
        }
        let [bare, protected] = self.knew_after();
        if protected >= bare {
            return Err(format!(
                "while no payment could be made, a customer knew so after {bare:?} at the bare shop and \
                 after {protected:?} at the protected one"
            ));
        }
        let [bare, protected] = self.slowest();
        if protected >= bare {
            return Err(format!(
                "99 % of the answers came within {bare:?} at the bare shop and within {protected:?} at the \
                 protected one"
            ));
        }
        if let Some((phase, _)) = self.script.first(Health::Slow) {
            let slow = |shop: &Column| shop.orders_of_phase(phase).slower_than(AS_USUAL);
            let [bare, protected] = self.both().map(slow);
            if protected > 0 && protected >= bare {
                return Err(format!(
                    "in the slow phase, {bare} orders of the bare shop and {protected} of the protected one \
                     took longer than {AS_USUAL:?}"
                ));
            }
        }
        if let Some((_, phase)) = self.script.first(Health::Overloaded) {
            let capacity = phase.health.capacity();
            let goodput = |shop: &Column| {
                let placed = shop.orders_placed_within(phase);
                let a_second = placed.len() as f64 / phase.length().as_secs_f64();
                (a_second, placed.took(0.99))
            };
            let [bare, protected] = self.both().map(goodput);
            if protected.0 < 0.5 * capacity || protected.0 <= bare.0 || protected.1 >= bare.1 {
                return Err(format!(
                    "under overload, the protected shop placed {:.0} orders a second of {capacity:.0} that \
                     were possible, 99 % of them within {:?}; the bare one {:.0} within {:?}",
                    protected.0, protected.1, bare.0, bare.1
                ));
            }
        }
        let [bare, protected] = self.both().map(|shop| shop.refused);
        if protected >= bare {
            return Err(format!(
                "{bare} requests of the bare shop and {protected} of the protected one were answered 429"
            ));
        }
        Ok(())
    }
}
