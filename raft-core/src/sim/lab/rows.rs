//! The 28 rows: what each needs, what the seed's report shows for it, and what is aimed at.

use super::{
    Scenario, Script, agreement as b, elections as a, persistence as c,
    snapshots::{self as d, Victim},
    tester::Tester,
};

/// A row's figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Seconds from the start of the servers to the end of the test.
    pub time_s: f64,
    /// Requests sent. `None`: no number is aimed at, as few for each command as possible.
    pub rpcs: Option<u64>,
}

const fn figures(time_s: f64, rpcs: u64) -> Figures {
    Figures { time_s, rpcs: Some(rpcs) }
}

const fn time_only(time_s: f64) -> Figures {
    Figures { time_s, rpcs: None }
}

const RELIABLE: bool = true;
const UNRELIABLE: bool = false;

const fn row(
    name: &'static str,
    peers: usize,
    reliable: bool,
    seed: Figures,
    goal: Figures,
    script: fn(Tester) -> Script,
) -> Scenario {
    Scenario { name, peers, seed, goal, reliable, snapshots: false, script }
}

const fn snapshots(row: Scenario) -> Scenario {
    Scenario { snapshots: true, ..row }
}

/// All of them, in the suite's order.
#[rustfmt::skip]
pub static SCENARIOS: [Scenario; 28] = [
    row("InitialElection3A", 3, RELIABLE, figures(3.0, 54), figures(3.1, 50), |t| Box::pin(a::initial_election(t))),
    row("ReElection3A", 3, RELIABLE, figures(4.5, 131), figures(4.5, 90), |t| Box::pin(a::re_election(t))),
    row("ManyElections3A", 7, RELIABLE, figures(5.5, 474), figures(5.5, 400), |t| Box::pin(a::many_elections(t))),
    row("BasicAgree3B", 3, RELIABLE, figures(0.7, 18), figures(0.35, 16), |t| Box::pin(b::basic_agree(t))),
    row("RPCBytes3B", 3, RELIABLE, figures(1.5, 50), figures(0.5, 46), |t| Box::pin(b::rpc_bytes(t))),
    row("FollowerFailure3B", 3, RELIABLE, figures(4.9, 127), figures(4.3, 85), |t| Box::pin(b::follower_failure(t))),
    row("LeaderFailure3B", 3, RELIABLE, figures(5.0, 221), figures(4.6, 100), |t| Box::pin(b::leader_failure(t))),
    row("FailAgree3B", 3, RELIABLE, figures(5.5, 124), figures(3.0, 64), |t| Box::pin(b::fail_agree(t))),
    row("FailNoAgree3B", 5, RELIABLE, figures(3.5, 218), figures(3.3, 110), |t| Box::pin(b::fail_no_agree(t))),
    row("ConcurrentStarts3B", 3, RELIABLE, figures(0.7, 22), figures(0.55, 10), |t| Box::pin(b::concurrent_starts(t))),
    row("Rejoin3B", 3, RELIABLE, figures(4.1, 167), figures(2.0, 65), |t| Box::pin(b::rejoin(t))),
    row("Backup3B", 5, RELIABLE, figures(17.1, 3716), figures(5.0, 600), |t| Box::pin(b::backup(t))),
    row("Count3B", 3, RELIABLE, figures(2.1, 60), figures(2.05, 26), |t| Box::pin(b::count(t))),
    row("Persist13C", 3, RELIABLE, figures(4.0, 80), figures(3.0, 65), |t| Box::pin(c::persist1(t))),
    row("Persist23C", 5, RELIABLE, figures(12.5, 385), figures(11.0, 300), |t| Box::pin(c::persist2(t))),
    row("Persist33C", 3, RELIABLE, figures(1.8, 42), figures(1.1, 30), |t| Box::pin(c::persist3(t))),
    row("Figure83C", 5, RELIABLE, figures(32.9, 1304), figures(31.0, 500), |t| Box::pin(c::figure8(t))),
    row("UnreliableAgree3C", 5, UNRELIABLE, figures(3.6, 1419), figures(2.0, 400), |t| Box::pin(c::unreliable_agree(t))),
    row("Figure8Unreliable3C", 5, UNRELIABLE, figures(30.1, 20_544), figures(31.0, 2000), |t| Box::pin(c::figure8_unreliable(t))),
    row("ReliableChurn3C", 5, RELIABLE, figures(16.2, 9140), time_only(16.2), |t| Box::pin(c::churn(t))),
    row("UnreliableChurn3C", 5, UNRELIABLE, figures(16.1, 3029), time_only(16.2), |t| Box::pin(c::churn(t))),
    snapshots(row("SnapshotBasic3D", 3, RELIABLE, figures(3.4, 516), figures(1.4, 130), |t| Box::pin(d::install(t, Victim::Stays)))),
    snapshots(row("SnapshotInstall3D", 3, RELIABLE, figures(38.7, 1673), figures(22.0, 600), |t| Box::pin(d::install(t, Victim::Disconnected)))),
    snapshots(row("SnapshotInstallUnreliable3D", 3, UNRELIABLE, figures(42.5, 2014), figures(25.0, 750), |t| Box::pin(d::install(t, Victim::Disconnected)))),
    snapshots(row("SnapshotInstallCrash3D", 3, RELIABLE, figures(29.1, 1217), figures(21.0, 560), |t| Box::pin(d::install(t, Victim::Killed)))),
    snapshots(row("SnapshotInstallUnCrash3D", 3, UNRELIABLE, figures(31.5, 1562), figures(24.0, 650), |t| Box::pin(d::install(t, Victim::Killed)))),
    snapshots(row("SnapshotAllCrash3D", 3, UNRELIABLE, figures(9.8, 331), figures(5.5, 220), |t| Box::pin(d::all_crash(t)))),
    snapshots(row("SnapshotInit3D", 3, UNRELIABLE, figures(2.9, 90), figures(1.9, 66), |t| Box::pin(d::init(t)))),
];
