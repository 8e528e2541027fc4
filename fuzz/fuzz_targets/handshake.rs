//! Anything a stranger may send to open a connection: `cargo fuzz run handshake`. It is read, judged and refused or
//! admitted without a panic, and what it claims is never believed beyond what is known.
#![no_main]

#[path = "support/frames.rs"]
mod frames;

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use frames::Piece;

use libfuzzer_sys::fuzz_target;
use raft_core::{ClusterId, Incarnation, LogIndex, NodeId, StartNumber};
use raft_net::{Addresses, Known, KnownPeer, LocalIdentity, MAGIC, judge, read_opening, standing};

#[derive(Debug, Arbitrary)]
struct Plan {
    magic: bool,
    pieces: Vec<Piece>,
}

fuzz_target!(|plan: Plan| {
    let magic = if plan.magic { &MAGIC[..] } else { &[] };
    let Ok(hello) = read_opening(&[magic, &frames::stream(&plan.pieces)].concat()) else { return };
    let mut known = known();
    let before = standing(&hello, &known);
    if judge(&hello, &known).is_ok() {
        known.peers.entry(hello.id).or_default().admit(&hello);
        assert!(judge(&hello, &known).is_ok(), "the same process is not let in twice: {hello:?}");
        assert_eq!(standing(&hello, &known), before, "being let in changed what it may say");
    }
});

fn known() -> Known {
    let local = LocalIdentity {
        id: NodeId(1),
        cluster: Some(ClusterId(0xc1)),
        incarnation: Incarnation(11),
        start: StartNumber(3),
        addresses: Addresses::default(),
        founders: None,
        election_timeout_ms: 500,
    };
    let peer = |incarnation| KnownPeer { incarnation: Incarnation(incarnation), ..KnownPeer::default() };
    let peers = BTreeMap::from([(NodeId(2), peer(22)), (NodeId(3), peer(0))]);
    Known { local, conf_index: LogIndex(5), peers }
}
