//! How many calls at once an endpoint stands that says nothing of quotas: found out by its failures.
//!
//! Invariant: no limit until the endpoint is overloaded for the first time; then a cut a round trip, and one call more
//! for every full round that went well. Never below one.

/// A limit above this is none.
const NO_LIMIT: f64 = 10_000.0;
/// What a cut leaves.
const CUT: f64 = 0.7;

/// The learned number of calls at once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Crowd {
    most: Option<f64>,
    deaf_below: u64,
}

impl Crowd {
    /// Goes on with a number that was learned earlier.
    pub fn restored(most: u32) -> Self {
        Self { most: Some(f64::from(most.max(1))), deaf_below: 0 }
    }

    /// Calls at once, at most.
    pub fn most(&self) -> Option<u32> {
        // Cut off, so between one and the bound above.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10,000")]
        self.most.map(|most| most as u32)
    }

    /// A call was answered while so many were in flight.
    pub fn answered(&mut self, in_flight: u32) {
        if let Some(most) = &mut self.most
            && f64::from(in_flight) + 1.0 >= *most
        {
            *most += 1.0 / *most;
            if *most > NO_LIMIT {
                self.most = None;
            }
        }
    }

    /// The endpoint was too busy for the call of this number, with so many in flight; `sent` calls went by now.
    pub fn overloaded(&mut self, number: u64, in_flight: u32, sent: u64) {
        if number < self.deaf_below {
            return;
        }
        let crowd = f64::from(in_flight.max(1));
        self.most = Some((self.most.map_or(crowd, |most| most.min(crowd)) * CUT).max(1.0));
        self.deaf_below = sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_settles_around_what_the_endpoint_stands() {
        let (mut crowd, mut sent, stands) = (Crowd::default(), 0_u64, 20_u32);
        let mut sum = 0.0;
        for round in 0..400 {
            let in_flight = crowd.most().unwrap_or(100).min(100);
            let first = sent;
            sent += u64::from(in_flight);
            for call in 0..in_flight {
                if call >= stands {
                    crowd.overloaded(first + u64::from(call), in_flight, sent);
                } else {
                    crowd.answered(in_flight);
                }
            }
            if round >= 100 {
                sum += f64::from(in_flight);
            }
        }
        let mean = sum / 300.0;
        assert!((14.0..=21.0).contains(&mean), "{mean}");
    }

    #[test]
    fn never_below_one_and_forgotten_when_it_is_out_of_sight() {
        let mut crowd = Crowd::default();
        for call in 0..50 {
            crowd.overloaded(call, 0, call + 1);
        }
        assert_eq!(crowd.most(), Some(1));
        let mut large = Crowd::restored(10_000);
        (0..20_000).for_each(|_| large.answered(20_000));
        assert_eq!(large.most(), None);
    }
}
