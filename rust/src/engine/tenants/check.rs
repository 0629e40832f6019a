//! The invariants of tenants, for tests.

use super::usage::ROWS_MAX;
use super::{Charge, GUESTS_MAX, Tenants};

impl Tenants {
    /// Checks that the indexes agree with the accounts, that everything is bounded, and that what is charged
    /// agrees with these charges, which are those of all requests that have not ended.
    pub(in crate::engine) fn check(
        &self,
        charges: impl Iterator<Item = Charge>,
    ) -> Result<(), String> {
        let mut in_flight = vec![0_u32; self.accounts.capacity()];
        for charge in charges {
            match in_flight.get_mut(charge.account as usize) {
                Some(count) => *count += 1,
                None => return Err("charges_are_of_accounts".to_owned()),
            }
        }
        for (place, account) in &self.accounts {
            let (held, live) = (account.in_flight, in_flight[place]);
            if held != live {
                return Err(format!("charges_are_settled: {held} != {live}"));
            }
        }
        let rows: usize = self
            .accounts
            .iter()
            .map(|(_, account)| account.usage.len())
            .sum();
        if rows != self.rows || rows > ROWS_MAX {
            return Err(format!(
                "rows_of_usage_are_counted: {rows} != {}",
                self.rows
            ));
        }
        let (names, keys, all) = (self.by_name.len(), self.by_key.len(), self.accounts.len());
        let (names, all) = (names + usize::from(self.others.is_some()), all);
        if names != all || keys > all {
            return Err(format!(
                "accounts_are_found_by_name: {names}, {keys} != {all}"
            ));
        }
        let accounts = || self.accounts.iter().map(|(_, account)| account);
        let listed = accounts().filter(|account| account.listed).count();
        let limited = accounts().any(|account| !account.listed && account.terms.limited());
        if listed != self.listed || limited {
            return Err(format!(
                "only_listed_accounts_have_terms: {listed} != {}",
                self.listed
            ));
        }
        let guests = accounts().filter(|account| account.guest).count();
        if guests > GUESTS_MAX + self.listed + 1 {
            return Err(format!("guests_are_bounded: {guests}"));
        }
        let active = self
            .accounts
            .iter()
            .filter(|(_, account)| account.active)
            .count();
        if active != self.active.len() {
            return Err(format!(
                "active_accounts_are_listed: {active} != {}",
                self.active.len()
            ));
        }
        Ok(())
    }
}
