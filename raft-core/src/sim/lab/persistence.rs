//! Part C of the suite: servers are killed and come back with what they persisted; networks lose and reorder.

use bytes::Bytes;

use super::{
    Step,
    tester::{Retry, Tester, ensure, number},
};
use std::{cell::Cell, rc::Rc};

pub(super) async fn persist1(t: Tester) -> Step {
    t.one(number(11), t.n, Retry::Again).await?;
    kill_all(&t);
    for server in 0..t.n {
        t.restart(server)?;
    }
    connect_all(&t);
    t.one(number(12), t.n, Retry::Again).await?;
    let first = t.leader().await?;
    t.restart(first)?;
    t.one(number(13), t.n, Retry::Again).await?;
    let second = t.leader().await?;
    t.kill(second);
    t.one(number(14), t.n - 1, Retry::Again).await?;
    t.restart(second)?;
    t.wait(4, t.n, None).await?;
    let third = t.after(t.leader().await?, 1);
    t.kill(third);
    t.one(number(15), t.n - 1, Retry::Again).await?;
    t.restart(third)?;
    t.one(number(16), t.n, Retry::Again).await?;
    Ok(())
}

pub(super) async fn persist2(t: Tester) -> Step {
    let mut next = 1;
    for _ in 0..5 {
        t.one(number(10 + next), t.n, Retry::Again).await?;
        next += 1;
        let first = t.leader().await?;
        let place = |ahead| t.after(first, ahead);
        t.kill(place(1));
        t.kill(place(2));
        t.one(number(10 + next), t.n - 2, Retry::Again).await?;
        next += 1;
        t.kill(first);
        t.kill(place(3));
        t.kill(place(4));
        t.restart(place(1))?;
        t.restart(place(2))?;
        t.sleep(1000).await;
        t.restart(place(3))?;
        t.one(number(10 + next), t.n - 2, Retry::Again).await?;
        next += 1;
        t.restart(place(4))?;
        t.restart(first)?;
    }
    t.one(number(1000), t.n, Retry::Again).await?;
    Ok(())
}

pub(super) async fn persist3(t: Tester) -> Step {
    t.one(number(101), 3, Retry::Again).await?;
    let leader = t.leader().await?;
    t.disconnect(&[t.after(leader, 2)]);
    t.one(number(102), 2, Retry::Again).await?;
    t.kill(leader);
    t.kill(t.after(leader, 1));
    t.connect(&[t.after(leader, 2)]);
    t.restart(leader)?;
    t.one(number(103), 2, Retry::Again).await?;
    t.restart(t.after(leader, 1))?;
    t.one(number(104), t.n, Retry::Again).await?;
    Ok(())
}

pub(super) async fn figure8(t: Tester) -> Step {
    t.any_one(1).await?;
    let mut up = t.n;
    for _ in 0..1000 {
        let mut leader = None;
        for server in (0..t.n).filter(|server| t.is_alive(*server)) {
            if t.start(server, &t.command()).is_some() {
                leader = Some(server);
            }
        }
        figure8_sleep(&t).await;
        if let Some(leader) = leader {
            t.kill(leader);
            up -= 1;
        }
        if up < 3 {
            let server = t.any_server();
            if !t.is_alive(server) {
                t.restart(server)?;
                up += 1;
            }
        }
    }
    restart_dead(&t)?;
    t.any_one(t.n).await?;
    Ok(())
}

pub(super) async fn unreliable_agree(t: Tester) -> Step {
    let mut clients = Vec::new();
    for round in 1..50 {
        for client in 0..4 {
            let theirs = t.clone();
            let one = async move { theirs.one(number(100 * round + client), 1, Retry::Again).await };
            clients.push(t.spawn(one));
        }
        t.one(number(round), 1, Retry::Again).await?;
    }
    t.world.borrow_mut().net.reliable = true;
    for client in clients {
        client.await?;
    }
    t.one(number(100), t.n, Retry::Again).await?;
    Ok(())
}

pub(super) async fn figure8_unreliable(t: Tester) -> Step {
    let command = || number(t.below(10_000));
    t.one(command(), 1, Retry::Again).await?;
    let mut up = t.n;
    for round in 0..1000 {
        if round == 200 {
            t.world.borrow_mut().net.long_reordering = true;
        }
        let mut leader = None;
        for server in 0..t.n {
            if t.start(server, &command()).is_some() && t.is_connected(server) {
                leader = Some(server);
            }
        }
        figure8_sleep(&t).await;
        if let Some(leader) = leader
            && t.chance(500)
        {
            t.disconnect(&[leader]);
            up -= 1;
        }
        if up < 3 {
            let server = t.any_server();
            if !t.is_connected(server) {
                t.connect(&[server]);
                up += 1;
            }
        }
    }
    for server in 0..t.n {
        if !t.is_connected(server) {
            t.connect(&[server]);
        }
    }
    t.one(command(), t.n, Retry::Again).await?;
    Ok(())
}

/// Both churn tests; they differ in the network.
pub(super) async fn churn(t: Tester) -> Step {
    let stop = Rc::new(Cell::new(false));
    let clients: Vec<_> =
        (0..3).map(|client| t.spawn(churn_client(t.clone(), client, Rc::clone(&stop)))).collect();
    for _ in 0..20 {
        if t.chance(200) {
            t.disconnect(&[t.any_server()]);
        }
        if t.chance(500) {
            let server = t.any_server();
            if !t.is_alive(server) {
                t.restart(server)?;
            }
            t.connect(&[server]);
        }
        if t.chance(200) {
            let server = t.any_server();
            if t.is_alive(server) {
                t.kill(server);
            }
        }
        t.sleep(700).await;
    }
    t.sleep(1000).await;
    t.world.borrow_mut().net.reliable = true;
    restart_dead(&t)?;
    connect_all(&t);
    stop.set(true);
    let mut kept = Vec::new();
    for client in clients {
        kept.extend(client.await?);
    }
    t.sleep(1000).await;
    let last = t.any_one(t.n).await?;
    let mut really = std::collections::BTreeSet::new();
    for index in 1..=last {
        really.extend(t.wait(index, t.n, None).await?);
    }
    let lost = kept.iter().filter(|command| !really.contains(*command)).count();
    ensure(lost == 0, || format!("{lost} commands that were committed are gone"))
}

/// Keeps the commands it saw committed.
async fn churn_client(t: Tester, client: u64, stop: Rc<Cell<bool>>) -> Step<Vec<Bytes>> {
    let mut kept = Vec::new();
    while !stop.get() {
        let command = t.command();
        let mut taken = None;
        for server in (0..t.n).filter(|server| t.is_alive(*server)) {
            if let Some((index, _)) = t.start(server, &command) {
                taken = Some(index);
            }
        }
        let Some(index) = taken else {
            t.pause(79 + client * 17).await;
            continue;
        };
        for millis in [10, 20, 50, 100, 200] {
            let (count, found) = t.committed(index)?;
            if count > 0 {
                kept.extend(found.filter(|found| *found == command));
                break;
            }
            t.pause(millis).await;
        }
    }
    Ok(kept)
}

/// Mostly short, sometimes as long as an election.
async fn figure8_sleep(t: &Tester) {
    let millis = if t.chance(100) { t.below(500) } else { t.below(13) };
    t.sleep_drawn(millis, 30_350).await;
}

fn kill_all(t: &Tester) {
    for server in 0..t.n {
        t.kill(server);
    }
}

fn connect_all(t: &Tester) {
    let all: Vec<usize> = (0..t.n).collect();
    t.connect(&all);
}

fn restart_dead(t: &Tester) -> Step {
    for server in (0..t.n).filter(|server| !t.is_alive(*server)) {
        t.restart(server)?;
    }
    Ok(())
}
