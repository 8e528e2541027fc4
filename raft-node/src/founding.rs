//! The first meeting of the founders, carried out: messages over the transport, the pin onto the disk (SAFETY D3).

use std::{collections::BTreeMap, time::Duration};

use raft_core::{ClusterId, NodeId};
use raft_net::{Founding, FoundingOutcome, FoundingOutput, NetEvent, NetEvents, Pin, Sent, Transport};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, info};

use crate::{data_dir::DataDir, error::StartError};

/// How often a founder says again what the others may have missed.
const TICK: Duration = Duration::from_millis(100);
/// How often the log names whom we wait for.
const REMINDER: Duration = Duration::from_secs(5);

/// Returns once every founder has pinned the same cluster, or this directory turns out not to belong to it.
///
/// `progress` is told in words what is being waited for. Cancel-safe: whatever was pinned stays pinned.
pub(crate) async fn found(
    data_dir: &mut DataDir,
    list: &BTreeMap<NodeId, String>,
    transport: &Transport,
    events: &mut NetEvents,
    progress: &watch::Sender<String>,
) -> Result<Pin, StartError> {
    let fresh = ClusterId(random_u128());
    let (id, incarnation) = (data_dir.id(), data_dir.incarnation());
    let mut founding = Founding::new(id, incarnation, list.clone(), data_dir.pin(), fresh)?;
    let mut output = founding.tick();
    let mut next_tick = Instant::now() + TICK;
    let mut next_reminder = Instant::now();
    loop {
        // A pin may ask for more output, and nothing that rests on it is sent before it is durable.
        loop {
            let FoundingOutput { send, pin, outcome } = output;
            for (to, message) in send {
                let _: Sent = transport.send_founding(to, &message);
            }
            match outcome {
                Some(FoundingOutcome::Founded(pin)) => return Ok(pin),
                Some(FoundingOutcome::Refused(refusal)) => return Err(StartError::Founding(refusal)),
                None => {}
            }
            let Some(pin) = pin else { break };
            data_dir.store_pin(&pin)?;
            info!(cluster = %pin.cluster, "pinned the founding configuration");
            output = founding.pinned();
        }
        if Instant::now() >= next_reminder {
            next_reminder = Instant::now() + REMINDER;
            let missing = words(&founding.waiting_for());
            info!(%missing, "founding the cluster, waiting for the other founders");
            progress.send_replace(format!("founding the cluster, waiting for {missing}"));
        }
        tokio::select! {
            event = events.recv() => match event {
                Some(NetEvent::Founding { from, message, .. }) => output = founding.receive(from, &message),
                Some(NetEvent::PeerRefused { peer, by_peer, reason }) => {
                    debug!(%peer, by_peer, %reason, "connection refused");
                    progress.send_replace(format!("founding the cluster: {peer}: {reason}"));
                    output = FoundingOutput::default();
                }
                Some(NetEvent::PeerConnected { .. }) => output = founding.tick(),
                Some(_) => output = FoundingOutput::default(),
                None => return Err(StartError::Interrupted),
            },
            () = tokio::time::sleep_until(next_tick) => {
                next_tick = Instant::now() + TICK;
                output = founding.tick();
            }
        }
    }
}

fn words(missing: &[(NodeId, String)]) -> String {
    missing.iter().map(|(id, address)| format!("{id} ({address})")).collect::<Vec<_>>().join(", ")
}

/// Random bits for ids that must not repeat; from the operating system, by way of the standard library's hash keys.
pub(crate) fn random_u128() -> u128 {
    (u128::from(random_u64()) << 64) | u128::from(random_u64())
}

/// As [`random_u128`]; never zero, since zero means "none" in several places.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    loop {
        // `getrandom` cannot fail for so few bytes once the system has booted; if it does, the next source is used.
        if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) != Ok(bytes.len()) {
            use std::hash::{BuildHasher, Hasher};
            bytes = std::hash::RandomState::new().build_hasher().finish().to_le_bytes();
        }
        let value = u64::from_le_bytes(bytes);
        if value != 0 {
            return value;
        }
    }
}
