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
use crate::{RoleKind, Term};

/// How often somebody looks whether the cluster has recovered.
const LOOK_EVERY: Time = 10 * MILLI;

impl Sim {
    pub(super) fn phase(&mut self) -> Checked {
        let now = self.agenda.now();
        if !self.storms {
            return Ok(());
        }
        if self.pace.watched {
            self.agenda.plan_in(LOOK_EVERY, Event::Phase);
            return self.next_phase();
        }
        self.next_phase()?;
        let next = match self.phase {
            Phase::Storm { until } | Phase::Stable { until, .. } => until,
            Phase::Calm | Phase::Healing { .. } => now + LOOK_EVERY,
        };
        self.agenda.plan(next, Event::Phase);
        Ok(())
    }

    fn next_phase(&mut self) -> Checked {
        let now = self.agenda.now();
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
                    let until = match self.pace.quiet {
                        Some((least, most)) => now + self.random.between(least, most),
                        None => now + 6 * self.election_timeout(),
                    };
                    let given = self.workload.given();
                    self.storm.client_every = self.pace.stable_client_every;
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
                for n in self.members() {
                    self.v1_term_stands(n, term)?;
                }
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
        let pace = &self.pace;
        self.storm = if leases { Storm::at_leases(random, pace) } else { Storm::drawn(random, pace) };
        self.network.weather = self.storm.weather;
        let (least, most) = self.pace.storm;
        self.phase = Phase::Storm { until: now + self.random.between(least / MILLI, most / MILLI) * MILLI };
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
        self.storm = Storm { alternatives, ..Storm::calm(self.pace.healing_client_every) };
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

    /// V1: once the cluster is whole, no member has a reason to change its term.
    pub(super) fn v1_term_stands(&self, n: usize, term: Term) -> Checked {
        check(self.ghost.members[n].term == term, "V1", || {
            self.state_of_cluster("the term changed without need")
        })
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

#[cfg(test)]
mod tests {
    use super::super::{Faults, Options};
    use super::*;
    use crate::{Body, Input, Message};

    /// A cluster that has just come through its first episode of trouble, and until when it is left alone.
    fn quiet() -> (Sim, Time) {
        let mut sim = Sim::new(Options { nodes: 3, seed: 1, faults: Faults::Episodes });
        loop {
            if let Phase::Stable { until, .. } = sim.phase {
                return (sim, until);
            }
            sim.step().expect("no rule is broken");
        }
    }

    #[test]
    fn a_term_that_changes_in_the_quiet_is_seen_at_once() {
        let (mut sim, _) = quiet();
        let (term, from) = sim.ghost.latest_leader().expect("the cluster has recovered");
        let follower = sim.members().find(|n| id(*n) != from).expect("there is another member");
        let message = Message { from, to: id(follower), term, body: Body::TimeoutNow };
        let broken = sim.input(follower, Input::Message(message)).expect_err("nobody had a reason for it");
        assert_eq!(broken.rule, "V1");
    }

    #[test]
    fn the_quiet_is_minutes_long_and_costs_few_steps() {
        let (mut sim, until) = quiet();
        let (begin, steps) = (sim.agenda.now(), sim.steps);
        while sim.agenda.now() < until {
            sim.step().expect("no rule is broken");
        }
        let seconds = (until - begin) / (1000 * MILLI);
        assert!(seconds >= 60, "only {seconds} s");
        assert!(sim.steps - steps < seconds * 100, "{} steps in {seconds} s", sim.steps - steps);
    }
}
