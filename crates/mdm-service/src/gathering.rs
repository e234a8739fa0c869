//! Work that comes at the same time and is done together.
//!
//! While some of it is being done, what comes gathers, and is then done at once. So a server that
//! has little to do answers as fast as it can, and one that has much to do needs less for each.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Where work gathers.
pub struct Gathering<W> {
    state: Mutex<State<W>>,
    at_once: usize,
}

struct State<W> {
    waiting: Vec<W>,
    duties: usize,
}

impl<W> Gathering<W> {
    /// With so many that do it at the same time: while one waits for the database, another can make
    /// its own ready.
    pub const fn new(at_once: usize) -> Self {
        let state = State {
            waiting: Vec::new(),
            duties: 0,
        };
        Self {
            state: Mutex::new(state),
            at_once,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds work. If a duty is given, nobody else will do it: the caller has it done, in a task of
    /// its own, since a request may be given up before the others.
    pub fn add(self: &Arc<Self>, work: W) -> Option<Duty<W>> {
        let mut state = self.state();
        state.waiting.push(work);
        if state.duties == self.at_once {
            return None;
        }
        state.duties += 1;
        Some(Duty {
            gathering: Arc::clone(self),
            is_over: false,
        })
    }
}

/// The duty to do what waits, until nothing does. If it is dropped before, what waits is dropped
/// with it: whoever waits for an answer must have another way then.
pub struct Duty<W> {
    gathering: Arc<Gathering<W>>,
    is_over: bool,
}

impl<W> Duty<W> {
    /// What waits; if nothing does, the duty is over.
    pub fn next(&mut self) -> Vec<W> {
        let mut state = self.gathering.state();
        let next = mem::take(&mut state.waiting);
        if next.is_empty() && !self.is_over {
            state.duties -= 1;
            self.is_over = true;
        }
        next
    }
}

impl<W> Drop for Duty<W> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.gathering.state();
        state.duties -= 1;
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_work_is_done_gathers_for_the_next_round() {
        let gathering = Arc::new(Gathering::new(1));
        let mut duty = gathering.add(1).unwrap();
        assert!(gathering.add(2).is_none());
        assert_eq!(duty.next(), [1, 2]);
        assert!(gathering.add(3).is_none());
        assert_eq!(duty.next(), [3]);
        assert!(duty.next().is_empty());
        // The next one begins anew.
        assert!(gathering.add(4).is_some());
    }

    #[test]
    fn a_duty_that_is_given_up_leaves_nobody_waiting() {
        let gathering = Arc::new(Gathering::new(1));
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let duty = gathering.add(tell).unwrap();
        drop(duty);
        assert!(told.recv().is_err());
        assert!(gathering.add(std::sync::mpsc::channel().0).is_some());
    }
}
