//! The hold's invariants, for tests.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::choice::valid;
use super::payers::{Payer, Payers, Use};
use super::{Class, Config, Entry, Hold, Partition, Queues};

impl Hold {
    /// Checks the structure.
    ///
    /// # Errors
    ///
    /// The name of the broken invariant.
    pub fn check_invariants(&self, config: &Config) -> Result<(), &'static str> {
        self.check_bounds(config)?;
        let mut linked_len = 0;
        for (partition, queues) in &self.partitions {
            linked_len += self.check_queues(*partition, queues)?;
        }
        if linked_len != self.entries.len() {
            return Err("hold_every_entry_in_one_queue");
        }
        for (_, entry) in &self.entries {
            check_entry(entry, config)?;
        }
        self.check_accounts()?;
        self.check_choices()?;
        self.check_timers()
    }

    /// Accounts are those of requests in the hold or in flight, and stand in the queues as they are.
    fn check_accounts(&self) -> Result<(), &'static str> {
        let mut places = Vec::new();
        let mut counts: HashMap<usize, (u32, u32), FixedState> = HashMap::default();
        for (_, entry) in &self.entries {
            let (waiting, choosing) = counts.entry(entry.account).or_default();
            *waiting += 1;
            *choosing += u32::from(entry.choice.is_some());
        }
        for (number, account) in self.accounts.iter() {
            let counted = counts.get(&number).copied().unwrap_or_default();
            if counted != (account.sum.waiting, account.choosing) {
                return Err("hold_requests_of_accounts_are_counted");
            }
            if account.sum.waiting == 0 && account.sum.running == 0 {
                return Err("hold_accounts_without_requests_are_forgotten");
            }
            let purse = account.purse();
            places.push((purse.pool, purse.class as usize));
            let stands = |line: &Partition| {
                let queue = self.queue_of(*line, purse.class);
                let had = self.accounts.had(number);
                queue.is_some_and(|queue| queue.turns().any(|turn| turn == (number, had)))
            };
            if !account.lines.iter().all(stands) {
                return Err("hold_accounts_stand_where_they_wait");
            }
        }
        places.sort_unstable();
        places.dedup();
        if places.len() != self.accounts.clocks_len() {
            return Err("hold_clocks_without_accounts_are_forgotten");
        }
        if !self.accounts.add_up() {
            return Err("hold_clocks_add_accounts_up");
        }
        Ok(())
    }

    fn check_bounds(&self, config: &Config) -> Result<(), &'static str> {
        let (mut used, mut payers) = (Use::default(), Payers::new());
        for (_, entry) in &self.entries {
            used.add(entry.of.bytes);
            payers.add(entry.of.payer, entry.of.bytes);
        }
        if used != self.used {
            return Err("hold_use_is_counted");
        }
        if used.requests > config.hold_len_max {
            return Err("hold_len_at_most_max");
        }
        if used.requests > 1 && used.bytes > config.hold_bytes_max {
            return Err("hold_bytes_at_most_max");
        }
        if payers.len() != self.payers.len() {
            return Err("hold_payers_without_requests_are_forgotten");
        }
        for (_, entry) in &self.entries {
            let of = self.payers.of(entry.of.payer);
            if of != payers.of(entry.of.payer) {
                return Err("hold_use_of_payers_is_counted");
            }
            // They may have come while all requests were anonymous.
            let anonymous =
                entry.of.payer == Payer::Anonymous && config.hold_tenant_len_max.is_none();
            let (len_max, bytes_max) = config.hold_of_tenant_max();
            if !anonymous && (of.requests > len_max || (of.requests > 1 && of.bytes > bytes_max)) {
                return Err("hold_use_of_a_payer_at_most_max");
            }
        }
        Ok(())
    }

    /// Requests in these queues.
    fn check_queues(&self, partition: Partition, queues: &Queues) -> Result<usize, &'static str> {
        let (mut len, mut open, mut bytes) = (0, 0, 0);
        for class in Class::ALL {
            let queue = &queues.by_class[class as usize];
            let (mut of_class, mut lanes) = (0, 0);
            for front in self.fronts(partition, class) {
                lanes += 1;
                let mut older = None;
                let mut of_lane = 0;
                let mut youngest = None;
                for (ticket, _) in self.lane(front) {
                    let slot = ticket.slot;
                    let entry = &self.entries[slot];
                    if entry.older != older {
                        return Err("hold_links_agree");
                    }
                    if (entry.of.partition, entry.of.class) != (partition, class) {
                        return Err("hold_every_entry_in_its_queue");
                    }
                    if older.is_some_and(|older: usize| self.entries[older].of.age > entry.of.age) {
                        return Err("hold_lanes_by_age");
                    }
                    youngest = Some((slot, entry.account));
                    older = Some(slot);
                    len += 1;
                    open += usize::from(entry.choice.is_none());
                    of_lane += entry.of.bytes;
                    if len > self.entries.len() {
                        return Err("hold_links_have_no_cycle");
                    }
                }
                of_class += of_lane;
                let ends = youngest.and_then(|(slot, account)| {
                    let lane = queue.lane(account)?;
                    Some((lane.youngest == slot, lane.bytes == of_lane))
                });
                if ends != Some((true, true)) {
                    return Err("hold_lane_ends_agree");
                }
            }
            if lanes != queue.turns().count() || of_class != queue.bytes {
                return Err("hold_every_lane_has_its_turn");
            }
            bytes += of_class;
        }
        if len == 0 {
            return Err("hold_empty_lines_are_forgotten");
        }
        if (len, open, bytes) != (queues.len, queues.open, queues.bytes) {
            return Err("hold_lines_are_counted");
        }
        Ok(len)
    }

    fn chosen_len(&self) -> u64 {
        self.chosen.values().map(|chosen| chosen.len()).sum()
    }

    fn check_choices(&self) -> Result<(), &'static str> {
        for (replica, chosen) in &self.chosen {
            let choices = self.entries.iter().filter_map(|(_, entry)| entry.choice);
            let choices = choices.filter(|choice| choice.replica == *replica);
            if choices.count() as u64 != chosen.len() || chosen.len() == 0 {
                return Err("hold_choices_are_counted");
            }
        }
        let choices = self.entries.iter().filter(|(_, e)| e.choice.is_some());
        if choices.count() as u64 != self.chosen_len() {
            return Err("hold_choices_are_counted");
        }
        let passed_out = self.entries.iter().filter(|(_, e)| e.passed_out);
        if passed_out.count() != self.passed_out {
            return Err("hold_passed_out_is_counted");
        }
        Ok(())
    }

    fn check_timers(&self) -> Result<(), &'static str> {
        let valid_len = self
            .timers
            .all()
            .filter(|timer| valid(&self.entries, timer))
            .count();
        if valid_len as u64 != self.entries.len() as u64 + self.chosen_len() {
            return Err("hold_one_timer_per_deadline_and_choice");
        }
        for timer in self.timers.all() {
            let entry = self.entries.get(timer.slot);
            let deadline = entry.filter(|entry| entry.serial == timer.serial);
            if deadline.is_some_and(|entry| entry.of.deadline_ns != timer.at_ns) {
                return Err("hold_timers_at_their_deadlines");
            }
        }
        if self.timers.all().count() != valid_len + self.timers.stale() {
            return Err("hold_stale_timers_are_counted");
        }
        let first = self.timers.first();
        if first.is_some_and(|timer| !valid(&self.entries, &timer)) {
            return Err("hold_first_timer_is_valid");
        }
        Ok(())
    }
}

fn check_entry(entry: &Entry, config: &Config) -> Result<(), &'static str> {
    if entry.passes > config.hold_passes_max {
        return Err("hold_passed_over_at_most_max");
    }
    if entry.passed_out != (entry.passes >= config.hold_passes_max) {
        return Err("hold_passed_out_is_noted");
    }
    let Some(choice) = entry.choice else {
        return Ok(());
    };
    if entry.passed_out {
        return Err("hold_passed_out_takes_what_comes");
    }
    let overdue_ns = entry.of.submitted_ns + config.due_after_ns();
    if choice.until_ns > overdue_ns.min(entry.of.deadline_ns)
        || entry.choice_end_ns != Some(choice.until_ns)
    {
        return Err("hold_choices_end_in_time");
    }
    Ok(())
}
