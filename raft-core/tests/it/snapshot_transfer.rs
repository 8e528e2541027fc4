//! A peer that is behind the leader's log gets a snapshot, whatever else goes on (SAFETY P7).

use raft_core::{Body, Message};

use crate::cluster::Cluster;

/// Three nodes led by 1; what 3 lacks is in the leader's snapshot only.
fn left_behind() -> Cluster {
    let mut cluster = Cluster::with(3, |config| config.trailing_entries = 0);
    cluster.be_led_by_one();
    cluster.isolate(3);
    for command in ["b", "c", "d"] {
        cluster.commit(command);
    }
    cluster.snapshot(1).unwrap();
    cluster.settle();
    cluster
}

// Each flush that opened a round of reads asked the peer something before it looked whether the peer had answered
// everything: under steady reads it never had.
#[test]
fn a_read_in_each_flush_does_not_keep_a_peer_from_its_snapshot() {
    let mut cluster = left_behind();
    cluster.heal();
    // Its answer is what ends each round.
    cluster.isolate(2);
    let mut token = 0;
    for _ in 0..500 {
        cluster.tick();
        for id in 1..=3 {
            cluster.carry_out(id);
        }
        // Each message finds a read that waits.
        for message in std::mem::take(&mut cluster.network) {
            let Message { to, .. } = message;
            token += 1;
            cluster.read(1, token);
            cluster.deliver(message);
            cluster.carry_out(to.0);
        }
        token += 1;
        cluster.read(1, token);
    }
    let sent = cluster.sent_since(0, 1, 3);
    assert!(sent.iter().any(|message| matches!(message.body, Body::InstallSnapshot { .. })));
    assert_eq!(cluster.node(3).restored.len(), 1);
    assert_eq!(cluster.raft(3).applied(), cluster.raft(1).applied());
    assert!(
        cluster.node(1).reads.len() > 100 && cluster.node(1).reads.iter().all(|read| read.index.is_some())
    );
}
