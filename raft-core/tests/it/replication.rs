//! What a leader sends to whom and when, told by what arrives.

use raft_core::{Input, LogIndex, NodeId};

use crate::cluster::Cluster;

/// Three nodes led by 1, that have heard of each other lately.
fn led_by_one() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.wait_for_leader();
    cluster.elect(1);
    cluster.commit("a");
    cluster.pass(200);
    cluster
}

fn matched(cluster: &Cluster, id: u64) -> LogIndex {
    cluster.raft(1).peers().into_iter().find(|(peer, _)| peer.0 == id).unwrap().1.matched
}

// P6: what was in flight on a connection that is gone may be lost with it.
#[test]
fn a_new_connection_has_what_was_in_flight_sent_again_at_once() {
    let mut cluster = led_by_one();
    cluster.cut.insert((1, 3));
    let lost = cluster.propose(1, "b").unwrap().index;
    cluster.settle();
    assert_eq!(matched(&cluster, 3), lost.prev());
    cluster.heal();
    cluster.settle();
    assert_eq!(matched(&cluster, 3), lost.prev(), "nobody has told it yet");
    cluster.handle(1, Input::PeerConnected(NodeId(3))).unwrap();
    cluster.settle();
    assert_eq!(matched(&cluster, 3), lost);
}
