//! A value that changes now and then, and that many tasks wait for. Like tokio's `watch`, but those who wait are woken in the
//! order in which they began to, and not in a random one: so a simulated run can be repeated.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Changes the value. Once it is dropped, the news are closed.
pub(super) struct Teller<T>(Arc<Shared<T>>);

/// Sees the value. Each clone remembers for itself what it has seen.
#[derive(Debug)]
pub(super) struct News<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    rings: Notify,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    version: u64,
    closed: bool,
}

/// Both ends, with a first value that counts as seen.
pub(super) fn channel<T>(value: T) -> (Teller<T>, News<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            value,
            version: 0,
            closed: false,
        }),
        rings: Notify::new(),
    });
    (Teller(shared.clone()), News { shared, seen: 0 })
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        change(&mut self.lock());
        self.rings.notify_waiters();
    }
}

impl<T> Teller<T> {
    /// Sets the value and wakes all who wait.
    pub(super) fn tell(&self, value: T) {
        self.0.change(|state| {
            state.value = value;
            state.version += 1;
        });
    }
}

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        self.0.change(|state| state.closed = true);
    }
}

impl<T: Clone> News<T> {
    /// The value as it is.
    pub(super) fn borrow(&self) -> T {
        self.shared.lock().value.clone()
    }

    /// The same; it counts as seen.
    pub(super) fn borrow_and_update(&mut self) -> T {
        let state = self.shared.lock();
        self.seen = state.version;
        state.value.clone()
    }

    /// Whether there is a value that was not seen.
    pub(super) fn has_changed(&self) -> bool {
        self.shared.lock().version != self.seen
    }

    /// Whether nobody can change it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Resolves once there is a value that was not seen, which then counts as seen. Never after the last one.
    pub(super) async fn changed(&mut self) {
        self.seen = self
            .wait(|state| (state.version != self.seen).then_some(state.version))
            .await;
    }

    /// Resolves once the value is as wished, or the news are closed.
    pub(super) async fn wait_for(&self, wish: impl Fn(&T) -> bool) {
        self.wait(|state| (state.closed || wish(&state.value)).then_some(()))
            .await;
    }

    async fn wait<R>(&self, look: impl Fn(&State<T>) -> Option<R>) -> R {
        loop {
            // Made before looking, so that no ring in between is missed.
            let ring = self.shared.rings.notified();
            if let Some(found) = look(&self.shared.lock()) {
                return found;
            }
            ring.await;
        }
    }
}

impl<T> Clone for News<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            seen: self.seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn all_who_wait_are_woken_in_the_order_in_which_they_came() {
        let (teller, news) = channel(1);
        let (woken, order) = mpsc::channel();
        let waiting: Vec<_> = (0..20)
            .map(|id| {
                let (mut news, woken) = (news.clone(), woken.clone());
                tokio::spawn(async move {
                    news.changed().await;
                    let _ = woken.send((id, news.borrow()));
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!news.has_changed());
        teller.tell(2);
        for task in waiting {
            task.await.expect("it ends");
        }
        drop(woken);
        assert!(order.iter().eq((0..20).map(|id| (id, 2))));
        assert!(news.has_changed());
    }

    #[tokio::test]
    async fn a_wish_ends_with_the_teller() {
        let (teller, news) = channel(1);
        news.wait_for(|value| *value == 1).await;
        drop(teller);
        news.wait_for(|value| *value == 2).await;
        assert!(news.is_closed());
    }
}
