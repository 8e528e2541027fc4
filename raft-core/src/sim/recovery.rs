//! Storms begin and end, and the cluster must recover from each (V1, V2).

use super::{
    Sim,
    clock::{Event, MILLI, Time},
    coverage::Mark,
    network::{Weather, id, place},
    rules::{Checked, check},
    schedule::{Phase, Storm},
    workload::Answer,
};
use crate::RoleKind;

impl Sim {
    pub(super) fn phase(&mut self) -> Checked {
        let now = self.agenda.now();
        if !self.storms {
            return Ok(());
        }
        self.agenda.plan_in(10 * MILLI, Event::Phase);
        match self.phase {
            Phase::Calm => self.begin_storm(),
            Phase::Storm { until } => {
                if now >= until {
                    self.heal()?;
                }
            }
            Phase::Healing { settled, deadline, command } => {
                if now < settled {
                    return Ok(());
                }
                self.mend_membership()?;
                if self.has_recovered(command) {
                    let Some((term, leader)) = self.ghost.latest_leader() else { return Ok(()) };
                    self.trace.line(now, || format!("*** recovered under {leader} in term {term}"));
                    let until = now + 6 * self.election_timeout();
                    let given = self.workload.given();
                    self.phase = Phase::Stable { since: now, until, term, given };
                    return Ok(());
                }
                check(now < deadline, "V1", || self.state_of_cluster("no recovery"))?;
                let waits = command.is_some_and(|command| {
                    matches!(self.workload.answer(command), Answer::Waiting | Answer::Committed)
                });
                if !waits && let Some((_, leader)) = self.ghost.latest_leader() {
                    let command = self.propose(place(leader), 0)?;
                    self.phase = Phase::Healing { settled, deadline, command };
                }
            }
            Phase::Stable { since, until, term, given } => {
                let held = self.members().all(|n| self.ghost.members[n].term == term);
                check(held, "V1", || self.state_of_cluster("the term changed without need"))?;
                if now >= until {
                    let members: Vec<usize> = self.members().collect();
                    self.workload.r2_reads_are_answered(&members, since + 2 * self.election_timeout())?;
                    check(self.has_settled(), "V3", || {
                        self.state_of_cluster("the membership is not settled")
                    })?;
                    for n in 0..self.nodes.len() {
                        self.ghost.x1_transfers_are_told(n)?;
                    }
                    self.workload.x2_every_command_is_answered(&members, given)?;
                    self.coverage.hit(Mark::Healed);
                    self.begin_storm();
                }
            }
        }
        Ok(())
    }

    fn begin_storm(&mut self) {
        let now = self.agenda.now();
        let leases = self.founding.lease.is_some() && self.random.chance(500);
        let random = &mut self.random;
        self.storm = if leases { Storm::at_leases(random) } else { Storm::drawn(random) };
        self.network.weather = self.storm.weather;
        self.phase = Phase::Storm { until: now + self.random.between(300, 6000) * MILLI };
        self.agenda.plan_in(MILLI, Event::Fault);
        let storm = &self.storm;
        self.trace.line(now, || format!("*** {storm:?}"));
    }

    pub(super) fn heal(&mut self) -> Checked {
        let now = self.agenda.now();
        self.trace.line(now, || "*** all faults stop".to_owned());
        // What is still on its way may arrive late; what was postponed arrives as well.
        let paused = self.nodes.iter().map(|node| node.paused_until).max().unwrap_or_default();
        let Weather { delay_max, straggle_max, .. } = self.storm.weather;
        let settled = paused.max(now + 2 * 8 * delay_max).max(now + straggle_max);
        // A leader may speak in its own way after the storm too: then those that were cut off are found again.
        let alternatives = self.storm.alternatives;
        self.storm = Storm { alternatives, ..Storm::calm(5 * MILLI) };
        self.network.weather = Weather::FAIR;
        self.network.heal();
        for n in 0..self.nodes.len() {
            self.hurry_sync(n);
            if !self.is_up(n) {
                self.start(n)?;
            }
        }
        let deadline = settled + 30 * self.election_timeout() + 3 * self.config.snapshot_timeout_ms * MILLI;
        self.phase = Phase::Healing { settled, deadline, command: None };
        Ok(())
    }

    pub(super) fn election_timeout(&self) -> Time {
        self.config.election_timeout_max_ms * MILLI
    }

    /// V1, V2 and V3: the new command is committed, all members have applied the same, and no change is under way.
    fn has_recovered(&self, command: Option<usize>) -> bool {
        let Some(index) = command.and_then(|command| self.workload.committed(command)) else { return false };
        let Some((term, leader)) = self.ghost.latest_leader() else { return false };
        self.has_settled()
            && self.ghost.members[place(leader)].role == RoleKind::Leader
            && self.members().all(|n| {
                let machine = &self.nodes[n].machine;
                self.ghost.members[n].term == term
                    && machine.last.index >= index
                    && self.ghost.is_history(machine.last.index, machine.hash)
            })
    }

    /// Who belongs to the cluster, by the latest configuration that is committed.
    fn members(&self) -> impl Iterator<Item = usize> {
        self.ghost.conf().1.members.keys().map(|id| place(*id))
    }

    pub(super) fn state_of_cluster(&self, what: &str) -> String {
        let mut text = what.to_owned();
        for (n, member) in self.ghost.members.iter().enumerate() {
            text += &format!(
                "; {} {:?} term={} log={}..={} commit={} applied={}",
                id(n),
                member.role,
                member.term,
                member.log.start(),
                member.log.last(),
                member.commit,
                self.nodes[n].machine.last
            );
        }
        text
    }
}
