//! How many connections one user and one address may have, over all workers.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mdm_core::ids::UserId;

/// The most connections at once.
#[derive(Debug, Clone, Copy)]
pub struct SeatLimits {
    /// Of one user.
    pub per_user: usize,
    /// From one address. Behind a proxy all clients share one.
    pub per_address: usize,
}

impl Default for SeatLimits {
    fn default() -> Self {
        Self {
            per_user: 20_000,
            per_address: 20_000,
        }
    }
}

#[derive(Debug, Default)]
struct Taken {
    users: HashMap<UserId, usize>,
    addresses: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
pub(super) struct Seats {
    limits: SeatLimits,
    taken: Mutex<Taken>,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    user: UserId,
    address: Option<IpAddr>,
}

impl Seats {
    pub(super) fn new(limits: SeatLimits) -> Self {
        Self {
            limits,
            taken: Mutex::default(),
        }
    }

    /// Takes a place, if there is one.
    pub(super) fn take(self: &Arc<Self>, user: UserId, address: Option<IpAddr>) -> Option<Seat> {
        let mut taken = self.taken();
        let of_user = taken.users.get(&user).copied().unwrap_or_default();
        let of_address = address.and_then(|address| taken.addresses.get(&address).copied());
        if of_user >= self.limits.per_user
            || of_address.unwrap_or_default() >= self.limits.per_address
        {
            return None;
        }
        *taken.users.entry(user).or_default() += 1;
        if let Some(address) = address {
            *taken.addresses.entry(address).or_default() += 1;
        }
        Some(Seat {
            seats: Arc::clone(self),
            user,
            address,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        give_back(&mut taken.users, self.user);
        if let Some(address) = self.address {
            give_back(&mut taken.addresses, address);
        }
    }
}

fn give_back<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let std::collections::hash_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() = count.get().saturating_sub(1);
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_place_is_free_again_when_its_connection_is_gone() {
        let limits = SeatLimits {
            per_user: 2,
            per_address: 1,
        };
        let seats = Arc::new(Seats::new(limits));
        let user = UserId::from_uuid(Uuid::from_u128(1));
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        let there = Some(IpAddr::from([127, 0, 0, 2]));
        let first = seats.take(user, here).unwrap();
        assert!(seats.take(user, here).is_none(), "one per address");
        let _second = seats.take(user, there).unwrap();
        assert!(seats.take(user, None).is_none(), "two per user");
        drop(first);
        assert!(seats.take(user, here).is_some());
    }
}
