//! Part A of the suite: leaders are elected, and again when they are gone.

use super::{
    Step,
    tester::{Tester, ensure},
};
use crate::Term;

pub(super) async fn initial_election(t: Tester) -> Step {
    t.leader().await?;
    t.sleep(50).await;
    let first = t.terms()?;
    ensure(first >= Term(1), || format!("the term is {first}, but should be at least 1"))?;
    t.sleep(2000).await;
    let second = t.terms()?;
    // The suite only warns here.
    ensure(first == second, || "the term changed though nothing failed".to_owned())?;
    t.leader().await?;
    Ok(())
}

pub(super) async fn re_election(t: Tester) -> Step {
    let first = t.leader().await?;
    t.disconnect(&[first]);
    t.leader().await?;
    let term = t.terms()?;
    t.connect(&[first]);
    let second = t.leader().await?;
    // Beyond the suite: a server that was cut off does not disturb the others when it is back (pre-vote).
    ensure(t.terms()? == term, || "the server that came back raised the term".to_owned())?;
    t.disconnect(&[second, t.after(second, 1)]);
    t.sleep(2000).await;
    t.no_leader()?;
    t.connect(&[t.after(second, 1)]);
    t.leader().await?;
    t.connect(&[second]);
    t.leader().await?;
    Ok(())
}

pub(super) async fn many_elections(t: Tester) -> Step {
    t.leader().await?;
    for _ in 1..10 {
        let some = [t.any_server(), t.any_server(), t.any_server()];
        t.disconnect(&some);
        t.leader().await?;
        t.connect(&some);
    }
    t.leader().await?;
    Ok(())
}
