//! What several sessions want at the same time is done once: a token fetched, a question
//! asked, a password tried.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Mutex;

/// Something for each key.
pub struct Slots<K, T>(RefCell<Vec<(K, Rc<T>)>>);

impl<K, T> Default for Slots<K, T> {
    fn default() -> Self {
        Slots(RefCell::default())
    }
}

impl<K: Clone + PartialEq, T: Default> Slots<K, T> {
    /// What there is for `key`.
    pub fn slot(&self, key: &K) -> Rc<T> {
        let mut slots = self.0.borrow_mut();
        if let Some((_, slot)) = slots.iter().find(|(other, _)| other == key) {
            return Rc::clone(slot);
        }
        let slot = Rc::default();
        slots.push((key.clone(), Rc::clone(&slot)));
        slot
    }

    /// What there is for the keys that are `wanted`.
    pub fn all(&self, wanted: impl Fn(&K) -> bool) -> Vec<Rc<T>> {
        let slots = self.0.borrow();
        let wanted = slots.iter().filter(|(key, _)| wanted(key));
        wanted.map(|(_, slot)| Rc::clone(slot)).collect()
    }

    /// Forgets what there is for keys that are not `wanted`.
    pub fn retain(&self, wanted: impl Fn(&K) -> bool) {
        self.0.borrow_mut().retain(|(key, _)| wanted(key));
    }
}

/// Questions by key: whoever wants to know while one is open gets the same answer.
pub struct SingleFlight<K, A>(Slots<K, Flight<A>>);

struct Flight<A> {
    /// How often it has been asked.
    times: Cell<u64>,
    /// The last answer; locked while it is asked.
    answer: Mutex<Option<A>>,
}

impl<A> Default for Flight<A> {
    fn default() -> Self {
        Flight {
            times: Cell::new(0),
            answer: Mutex::new(None),
        }
    }
}

impl<K, A> Default for SingleFlight<K, A> {
    fn default() -> Self {
        SingleFlight(Slots::default())
    }
}

impl<K: Clone + PartialEq, A: Clone> SingleFlight<K, A> {
    /// What `ask` finds out, or another's asking has meanwhile; or the last answer, if that
    /// `still_holds`.
    pub async fn ask(
        &self,
        key: &K,
        still_holds: impl Fn(&A) -> bool,
        ask: impl Future<Output = A>,
    ) -> A {
        let flight = self.0.slot(key);
        let times = flight.times.get();
        let mut answer = flight.answer.lock().await;
        match &*answer {
            Some(answer) if flight.times.get() != times || still_holds(answer) => answer.clone(),
            _ => {
                let new = ask.await;
                flight.times.set(flight.times.get() + 1);
                *answer = Some(new.clone());
                new
            }
        }
    }

    /// Forgets answers that are not `good`, unless they are just being sought.
    pub fn forget(&self, key: &K, good: impl Fn(&A) -> bool) {
        for flight in self.0.all(|other| other == key) {
            if let Ok(mut answer) = flight.answer.try_lock() {
                answer.take_if(|answer| !good(answer));
            }
        }
    }
}
