//! Lets the tester's steps read as the suite's do: tasks that sleep and wait for each other on the virtual clock,
//! polled by hand in one thread.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::{Step, world::World};

/// One strand of a scenario.
pub(super) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Names a task.
pub(super) type TaskId = usize;

/// The world as every task of a run shares it. Borrowed for a moment, never across an `await`.
pub(super) type Shared = Rc<RefCell<World>>;

/// Runs `script`, and everything it spawns, until it ends or the world finds a rule broken.
pub(super) fn run(world: &Shared, script: impl Future<Output = Step> + 'static) -> Step {
    let script = spawn(world, script);
    let mut tasks: BTreeMap<TaskId, Task> = BTreeMap::new();
    let mut next_id = 0;
    loop {
        loop {
            for task in world.borrow_mut().tasks.spawned.drain(..) {
                tasks.insert(next_id, task);
                next_id += 1;
            }
            let Some(id) = world.borrow_mut().tasks.next_ready(next_id) else { break };
            let Some(task) = tasks.get_mut(&id) else { continue };
            world.borrow_mut().tasks.current = id;
            if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                tasks.remove(&id);
            }
        }
        if let Some(done) = script.slot.borrow_mut().value.take() {
            return done;
        }
        world.borrow_mut().advance()?;
    }
}

/// What the world knows of the tasks.
#[derive(Default)]
pub(super) struct Tasks {
    spawned: Vec<Task>,
    /// Every task below this number was polled at least once.
    started: TaskId,
    woken: Vec<TaskId>,
    current: TaskId,
}

impl Tasks {
    pub(super) fn wake(&mut self, task: TaskId) {
        self.woken.push(task);
    }

    fn next_ready(&mut self, end: TaskId) -> Option<TaskId> {
        if self.started < end {
            self.started += 1;
            return Some(self.started - 1);
        }
        (!self.woken.is_empty()).then(|| self.woken.remove(0))
    }
}

/// Starts a task beside the one that asks.
pub(super) fn spawn<T: 'static>(world: &Shared, future: impl Future<Output = T> + 'static) -> Join<T> {
    let slot = Rc::new(RefCell::new(Slot { value: None, waiter: None }));
    let (theirs, their_world) = (Rc::clone(&slot), Rc::clone(world));
    let task = async move {
        let value = future.await;
        let mut slot = theirs.borrow_mut();
        slot.value = Some(value);
        if let Some(waiter) = slot.waiter.take() {
            their_world.borrow_mut().tasks.wake(waiter);
        }
    };
    world.borrow_mut().tasks.spawned.push(Box::pin(task));
    Join { world: Rc::clone(world), slot }
}

/// Sleeps on the virtual clock.
pub(super) async fn sleep(world: &Shared, micros: u64) {
    let until = world.borrow().now().saturating_add(micros);
    Sleep { world: Rc::clone(world), until }.await;
}

struct Sleep {
    world: Shared,
    until: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let mut world = self.world.borrow_mut();
        if world.now() >= self.until {
            return Poll::Ready(());
        }
        let task = world.tasks.current;
        world.wake_at(self.until, task);
        Poll::Pending
    }
}

struct Slot<T> {
    value: Option<T>,
    waiter: Option<TaskId>,
}

/// Waits for a task and gives what it returned.
pub(super) struct Join<T> {
    world: Shared,
    slot: Rc<RefCell<Slot<T>>>,
}

impl<T> Future for Join<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.slot.borrow_mut();
        if let Some(value) = slot.value.take() {
            return Poll::Ready(value);
        }
        slot.waiter = Some(self.world.borrow().tasks.current);
        Poll::Pending
    }
}
