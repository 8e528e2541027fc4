//! One exploration and its report.

use std::{
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use raft_core::{ConfChange, ConfState, Member};
use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    arguments::Options,
    marks::Mark,
    node::Shape,
    rules,
    store::id,
    world::{Bounds, World},
};

/// How an exploration ended.
pub(crate) struct Report {
    /// The rule that was broken, and how many steps it took.
    pub(crate) broken: Option<(&'static str, usize)>,
    pub(crate) states: usize,
    exhausted: bool,
    /// What was to be seen and was not.
    unseen: Vec<&'static str>,
}

impl Report {
    pub(crate) fn report(&self) -> ExitCode {
        if self.broken.is_none() && self.exhausted && self.unseen.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn world(options: &Options) -> World {
    let voters = |count: usize| ConfState::of_voters((0..count).map(|at| (id(at), Member::default())));
    let conf = |voters: &[usize], learners: &[usize]| ConfChange {
        voters: voters.iter().map(|at| id(*at)).collect(),
        learners: learners.iter().map(|at| id(*at)).collect(),
        members: voters.iter().chain(learners).map(|at| (id(*at), Member::default())).collect(),
        force: true,
    };
    // Nodes that are alike may trade names.
    let all = [[0, 1, 2], [1, 0, 2], [0, 2, 1], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let alike = match options.change.as_str() {
        "remove" => 2,
        _ if options.symmetric => 6,
        _ => 1,
    };
    let (founding, changes) = match options.change.as_str() {
        // n1 and n2 found, n3 learns; then n3 takes the place of n2.
        "replace" => {
            let mut founding = voters(2);
            founding.learners.insert(id(2));
            founding.members.insert(id(2), Member::default());
            (founding, vec![conf(&[0, 2], &[])])
        }
        // Three found; the third becomes a learner: one step.
        "shrink" => (voters(3), vec![conf(&[0, 1], &[2])]),
        // Three found; the third leaves: one step without a joint configuration.
        "remove" => (voters(3), vec![conf(&[0, 1], &[])]),
        // Three found; two of them become learners: a joint step.
        "swap" => (voters(3), vec![conf(&[0], &[1, 2])]),
        _ => (voters(3), Vec::new()),
    };
    let shape = Shape { founding, pre_votes: options.pre_votes, one_epoch: !options.membership };
    let Options { terms, timeouts, proposals, crashes, heartbeats, transfers, .. } = *options;
    let joint = options.change != "remove";
    let bounds = Bounds { terms, timeouts, proposals, crashes, heartbeats, changes, joint, transfers };
    World::new(shape, bounds, &all[..alike], Instant::now() + Duration::from_secs(options.seconds))
}

pub(crate) fn explore(options: &Options) -> Report {
    let begin = Instant::now();
    let builder = world(options).checker().threads(options.threads).finish_when(HasDiscoveries::AnyFailures);
    if options.breadth {
        finish(builder.spawn_bfs().join(), options, begin)
    } else {
        finish(builder.spawn_dfs().join(), options, begin)
    }
}

fn finish(checker: impl Checker<World>, options: &Options, begin: Instant) -> Report {
    let world = checker.model();
    let properties = world.properties();
    let mut report = Report {
        broken: None,
        states: checker.unique_state_count(),
        exhausted: checker.is_done() && !world.cut_short.load(Ordering::Relaxed),
        unseen: Vec::new(),
    };
    world.over.store(true, Ordering::Relaxed);
    let found = checker.discoveries();
    for property in &properties {
        let always = matches!(property.expectation, stateright::Expectation::Always);
        match found.get(property.name) {
            Some(path) if always => {
                let steps = path.clone().into_vec();
                report.broken = Some((property.name, steps.len() - 1));
                if options.trace {
                    for (state, action) in &steps {
                        print!("{state:?}");
                        if let Some(action) = action {
                            println!("{action:?}");
                        }
                    }
                    println!("broken: {}", property.name);
                }
            }
            None if !always => report.unseen.push(property.name),
            Some(_) | None => {}
        }
    }
    // A search that ends with a counter-example has not seen everything.
    let texts = |marks: &[Mark]| -> Vec<&'static str> {
        let of = |mark: &Mark| Mark::ALL.iter().find(|(known, _)| known == mark).map(|(_, text)| text.trim());
        marks.iter().filter_map(of).collect()
    };
    let mut marks = rules::marks(&world.bounds);
    marks.retain(|mark| world.store.marks.count(*mark) == 0);
    report.unseen.extend(texts(&marks));
    if options.trace {
        let (nodes, letters, steps) = world.store.sizes();
        println!("{options:?}");
        println!(
            "states {} (transitions {}), depth {}; node states {nodes}, messages {letters}, steps {steps}; {:.0} s",
            report.states,
            checker.state_count(),
            checker.max_depth(),
            begin.elapsed().as_secs_f64()
        );
        for (mark, text) in Mark::ALL {
            println!("  {:>9} {text}", world.store.marks.count(*mark));
        }
        println!("never seen: {:?}", report.unseen);
        println!("{}", if report.exhausted { "explored to the end" } else { "NOT explored to the end" });
    }
    report
}
