//! Part B of the suite: commands are agreed on, while servers and leaders come and go.

use super::{
    Step,
    tester::{Retry, Tester, ensure, fail, number},
};

pub(super) async fn basic_agree(t: Tester) -> Step {
    for index in 1..=3 {
        ensure(t.committed(index)?.0 == 0, || "some have committed before Start()".to_owned())?;
        t.one_at(number(index * 100), t.n, index).await?;
    }
    Ok(())
}

pub(super) async fn rpc_bytes(t: Tester) -> Step {
    t.one(number(99), t.n, Retry::Never).await?;
    let before = t.world.borrow().net.bytes;
    let mut sent = 0;
    for index in 2..12 {
        let command = t.text(5000);
        t.one_at(command, t.n, index).await?;
        sent += 5000;
    }
    let bytes = t.world.borrow().net.bytes - before;
    ensure(bytes <= t.n as u64 * sent + 50_000, || format!("too many bytes: {bytes}"))
}

pub(super) async fn follower_failure(t: Tester) -> Step {
    t.one(number(101), t.n, Retry::Never).await?;
    let leader = t.leader().await?;
    t.disconnect(&[t.after(leader, 1)]);
    t.one(number(102), t.n - 1, Retry::Never).await?;
    t.sleep(1000).await;
    t.one(number(103), t.n - 1, Retry::Never).await?;
    let leader = t.leader().await?;
    t.disconnect(&[t.after(leader, 1), t.after(leader, 2)]);
    let Some((index, _)) = t.start(leader, &number(104)) else { return fail("the leader refused a command") };
    ensure(index == 4, || format!("expected number 4, got {index}"))?;
    t.sleep(2000).await;
    let (count, _) = t.committed(index)?;
    ensure(count == 0, || format!("{count} applied a command without a majority"))
}

pub(super) async fn leader_failure(t: Tester) -> Step {
    t.one(number(101), t.n, Retry::Never).await?;
    let first = t.leader().await?;
    t.disconnect(&[first]);
    t.one(number(102), t.n - 1, Retry::Never).await?;
    t.sleep(1000).await;
    t.one(number(103), t.n - 1, Retry::Never).await?;
    let second = t.leader().await?;
    t.disconnect(&[second]);
    for server in 0..t.n {
        t.start(server, &number(104));
    }
    t.sleep(2000).await;
    let (count, _) = t.committed(4)?;
    ensure(count == 0, || format!("{count} applied a command without a majority"))
}

pub(super) async fn fail_agree(t: Tester) -> Step {
    t.one(number(101), t.n, Retry::Never).await?;
    let leader = t.leader().await?;
    let away = t.after(leader, 1);
    t.disconnect(&[away]);
    t.one(number(102), t.n - 1, Retry::Never).await?;
    t.one(number(103), t.n - 1, Retry::Never).await?;
    t.sleep(1000).await;
    t.one(number(104), t.n - 1, Retry::Never).await?;
    t.one(number(105), t.n - 1, Retry::Never).await?;
    t.connect(&[away]);
    t.one(number(106), t.n, Retry::Again).await?;
    t.sleep(1000).await;
    t.one(number(107), t.n, Retry::Again).await?;
    Ok(())
}

pub(super) async fn fail_no_agree(t: Tester) -> Step {
    t.one(number(10), t.n, Retry::Never).await?;
    let leader = t.leader().await?;
    let away = [t.after(leader, 1), t.after(leader, 2), t.after(leader, 3)];
    t.disconnect(&away);
    let Some((index, _)) = t.start(leader, &number(20)) else { return fail("the leader refused a command") };
    ensure(index == 2, || format!("expected number 2, got {index}"))?;
    t.sleep(2000).await;
    let (count, _) = t.committed(index)?;
    ensure(count == 0, || format!("{count} applied a command without a majority"))?;
    t.connect(&away);
    // The majority may have elected another leader, whose log lacks command 2.
    let leader = t.leader().await?;
    let Some((index, _)) = t.start(leader, &number(30)) else { return fail("the leader refused a command") };
    ensure((2..=3).contains(&index), || format!("unexpected number {index}"))?;
    t.one(number(1000), t.n, Retry::Again).await?;
    Ok(())
}

pub(super) async fn concurrent_starts(t: Tester) -> Step {
    'again: for attempt in 0..TRIES {
        if attempt > 0 {
            t.sleep(3000).await;
        }
        let leader = t.leader().await?;
        let Some((_, term)) = t.start(leader, &number(1)) else { continue };
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let theirs = t.clone();
            let start = async move { theirs.start(leader, &number(100 + client)) };
            clients.push(t.spawn(start));
        }
        let mut indexes = Vec::new();
        for client in clients {
            if let Some((index, _)) = client.await.filter(|(_, in_term)| *in_term == term) {
                indexes.push(index);
            }
        }
        if (0..t.n).any(|server| t.state(server).is_none_or(|(now, _)| now != term)) {
            continue;
        }
        let mut commands = Vec::new();
        for index in indexes {
            let Some(command) = t.wait(index, t.n, Some(term)).await? else { continue 'again };
            commands.push(command);
        }
        for client in 0..CLIENTS {
            let sent = number(100 + client);
            ensure(commands.contains(&sent), || format!("command {} is missing", 100 + client))?;
        }
        return Ok(());
    }
    fail("the term changed too often")
}

pub(super) async fn rejoin(t: Tester) -> Step {
    t.one(number(101), t.n, Retry::Again).await?;
    let first = t.leader().await?;
    t.disconnect(&[first]);
    for command in [102, 103, 104] {
        t.start(first, &number(command));
    }
    t.one(number(103), t.n - 1, Retry::Again).await?;
    let second = t.leader().await?;
    t.disconnect(&[second]);
    t.connect(&[first]);
    t.one(number(104), t.n - 1, Retry::Again).await?;
    t.connect(&[second]);
    t.one(number(105), t.n, Retry::Again).await?;
    Ok(())
}

pub(super) async fn backup(t: Tester) -> Step {
    t.any_one(t.n).await?;
    // A leader and one follower in a partition, with much that cannot be committed.
    let first = t.leader().await?;
    let minority = [first, t.after(first, 1)];
    let majority = [t.after(first, 2), t.after(first, 3), t.after(first, 4)];
    t.disconnect(&majority);
    start_many(&t, first);
    t.sleep(500).await;
    t.disconnect(&minority);
    t.connect(&majority);
    for _ in 0..MANY {
        t.any_one(3).await?;
    }
    // Another leader and one of its followers, with much that cannot be committed.
    let second = t.leader().await?;
    let mut other = t.after(first, 2);
    if other == second {
        other = t.after(second, 1);
    }
    t.disconnect(&[other]);
    start_many(&t, second);
    t.sleep(500).await;
    // The first leader comes back, with the one that was cut off last.
    let all: Vec<usize> = (0..t.n).collect();
    t.disconnect(&all);
    t.connect(&[minority[0], minority[1], other]);
    for _ in 0..MANY {
        t.any_one(3).await?;
    }
    t.connect(&all);
    t.any_one(t.n).await?;
    Ok(())
}

pub(super) async fn count(t: Tester) -> Step {
    t.leader().await?;
    let elected = t.arrived();
    ensure((1..=30).contains(&elected), || format!("{elected} RPCs to elect the first leader"))?;
    let mut after = None;
    'again: for attempt in 0..TRIES {
        if attempt > 0 {
            t.sleep(3000).await;
        }
        let leader = t.leader().await?;
        let before = t.arrived();
        let Some((first, term)) = t.start(leader, &number(1)) else { continue };
        let mut commands = Vec::new();
        for ahead in 1..BATCH + 2 {
            let command = number(t.below(1 << 31));
            let Some((index, in_term)) = t.start(leader, &command) else { continue 'again };
            if in_term != term {
                continue 'again;
            }
            ensure(first + ahead == index, || "Start() gives no consecutive numbers".to_owned())?;
            commands.push(command);
        }
        for (index, command) in (first + 1..).zip(&commands).take(10) {
            let Some(found) = t.wait(index, t.n, Some(term)).await? else { continue 'again };
            ensure(found == *command, || format!("another command is number {index}"))?;
        }
        if (0..t.n).any(|server| t.state(server).is_none_or(|(now, _)| now != term)) {
            continue;
        }
        let rpcs = t.arrived() - before;
        ensure(rpcs <= (BATCH + 1 + 3) * 3, || format!("{rpcs} RPCs for {BATCH} entries"))?;
        after = Some(before + rpcs);
        break;
    }
    let Some(after) = after else { return fail("the term changed too often") };
    t.sleep(1000).await;
    let idle = t.arrived() - after;
    ensure(idle <= 3 * 20, || format!("{idle} RPCs in an idle second"))
}

/// Many commands at once, to a leader that cannot commit them.
fn start_many(t: &Tester, leader: usize) {
    for _ in 0..MANY {
        t.start(leader, &t.command());
    }
}

const TRIES: u32 = 5;
const CLIENTS: u64 = 5;
const BATCH: u64 = 10;
const MANY: u32 = 50;
