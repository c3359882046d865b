//! The error rates that the tests promise, measured: thousands of runs on the margin, looked at after every observation.
//!
//! On the margin both hypotheses are true, so every verdict is a false one. A naive z test runs in the same harness and must
//! break its promise: a harness that cannot fail proves nothing. Seeds are printed.

use super::{Betting, BlockTest, EProcess, Levels, Margin, MeanSequence, Proportion, QuantileSequence, Side};

const ALPHA: f64 = 0.05;

/// SplitMix64: small, fast without optimisation, the same everywhere.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn happens(&mut self, chance: f64) -> bool {
        self.uniform() < chance
    }

    /// A standard normal number, by the polar method.
    pub fn normal(&mut self) -> f64 {
        loop {
            let (u, v) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                return u * (-2.0 * s.ln() / s).sqrt();
            }
        }
    }
}

/// Draws the number of bad ones among k by one uniform number.
struct Binomial(Vec<f64>);

impl Binomial {
    fn new(k: u32, p: f64) -> Self {
        let mut weight = (1.0 - p).powi(k.cast_signed());
        let mut below = 0.0;
        let cumulated = (0..=k).map(|s| {
            below += weight;
            weight *= f64::from(k - s) / f64::from(s + 1) * p / (1.0 - p);
            below
        });
        Self(cumulated.collect())
    }

    fn draw(&self, chance: &mut Chance) -> u32 {
        let u = chance.uniform();
        u32::try_from(self.0.iter().take(self.0.len() - 1).take_while(|below| u >= **below).count()).unwrap_or(0)
    }
}

/// The shares of runs that ever failed and ever passed.
fn rates(name: &str, seed: u64, runs: u32, mut run: impl FnMut(&mut Chance) -> [bool; 2]) -> [f64; 2] {
    let (mut failed, mut passed) = (0, 0);
    for i in 0..runs {
        let [fail, pass] = run(&mut Chance::new(seed.wrapping_add(u64::from(i) << 32)));
        failed += u32::from(fail);
        passed += u32::from(pass);
    }
    let rates = [f64::from(failed) / f64::from(runs), f64::from(passed) / f64::from(runs)];
    println!("{name}: {runs} runs, seed {seed}: false fail {:.4}, false pass {:.4}", rates[0], rates[1]);
    rates
}

/// The highest share that `runs` runs at `alpha` show but once in a thousand times.
fn highest(runs: u32) -> f64 {
    ALPHA + 3.1 * (ALPHA * (1.0 - ALPHA) / f64::from(runs)).sqrt()
}

fn holds(name: &str, seed: u64, runs: u32, run: impl FnMut(&mut Chance) -> [bool; 2]) {
    let [fail, pass] = rates(name, seed, runs, run);
    assert!(fail <= highest(runs) && pass <= highest(runs), "{name}, seed {seed}: {fail} {pass}");
}

/// Runs an e-process until both sides were reached or the observations are over.
fn reached<P: EProcess>(mut test: P, observations: u32, mut feed: impl FnMut(&mut P)) -> [bool; 2] {
    let threshold = Levels::new(ALPHA, 1).ln_threshold(Side::Fail);
    let mut reached = [false; 2];
    for _ in 0..observations {
        feed(&mut test);
        reached[0] |= test.ln_e(Side::Fail) >= threshold;
        reached[1] |= test.ln_e(Side::Pass) >= threshold;
    }
    reached
}

#[test]
fn the_block_test_keeps_its_promise_on_the_margin() {
    let (seed, runs, b, m, k) = (6_001, 2_000, 0.01, 0.01, 9);
    let draws = Binomial::new(k, b);
    holds("block test, 1 % vs 2 %, 1pp, k = 9", seed, runs, |chance| {
        reached(BlockTest::new(Margin::Points(m)).unwrap(), 5_000, |test| {
            test.observe(chance.happens(b + m), k, draws.draw(chance));
        })
    });
}

#[test]
fn the_block_test_keeps_its_promise_elsewhere() {
    for (seed, b, margin, k) in [
        (6_002, 0.05, Margin::Points(0.02), 9),
        (6_003, 0.01, Margin::Points(0.01), 99),
        (6_004, 0.3, Margin::Points(0.0), 1),
        (6_005, 0.02, Margin::Ratio(1.5), 4),
    ] {
        let draws = Binomial::new(k, b);
        let c = match margin {
            Margin::Points(points) => b + points,
            Margin::Ratio(ratio) => b * ratio,
        };
        holds(&format!("block test, {b} vs {c}, {margin:?}, k = {k}"), seed, 300, |chance| {
            reached(BlockTest::new(margin).unwrap(), 5_000, |test| {
                test.observe(chance.happens(c), k, draws.draw(chance));
            })
        });
    }
}

#[test]
fn shared_drift_is_harmless() {
    // Both rates swing between 1 % and 20 %, the difference stays: an outage of everything is nobody's fault.
    let (calm, storm) = (Binomial::new(9, 0.01), Binomial::new(9, 0.2));
    holds("block test under shared outages", 6_006, 500, |chance| {
        let mut at = 0_u32;
        reached(BlockTest::new(Margin::Points(0.01)).unwrap(), 3_000, |test| {
            at += 1;
            let (b, draws) = if at % 500 < 50 { (0.2, &storm) } else { (0.01, &calm) };
            test.observe(chance.happens(b + 0.01), 9, draws.draw(chance));
        })
    });
}

#[test]
fn a_naive_z_test_breaks_its_promise_in_the_same_harness() {
    let (seed, runs, margin, k) = (6_001, 2_000, 0.01, 9);
    let draws = Binomial::new(k, 0.01);
    let [fail, pass] = rates("naive z test, looked at after every block", seed, runs, |chance| {
        let (mut blocks, mut candidate, mut baseline) = (0.0, 0.0, 0.0);
        let mut reached = [false; 2];
        for _ in 0..5_000 {
            blocks += 1.0;
            candidate += f64::from(u8::from(chance.happens(0.01 + margin)));
            baseline += f64::from(draws.draw(chance));
            let (c_hat, b_hat) = (candidate / blocks, baseline / (blocks * f64::from(k)));
            let variance = (c_hat * (1.0 - c_hat) + b_hat * (1.0 - b_hat) / f64::from(k)) / blocks;
            if blocks >= 100.0 && variance > 0.0 {
                let z = (c_hat - b_hat - margin) / variance.sqrt();
                reached[0] |= z > 1.645;
                reached[1] |= z < -1.645;
            }
        }
        reached
    });
    assert!(fail > 2.0 * highest(runs) && pass > 2.0 * highest(runs), "{fail} {pass}: the harness cannot fail");
}

#[test]
fn failures_by_arm_and_the_sample_ratio_keep_their_promises() {
    let limit = Proportion::failure_limit(0.1, 1.5);
    holds("which arm failures hit, 10 % share, ratio 1.5", 6_010, 2_000, |chance| {
        reached(Proportion::new(limit).unwrap(), 1_000, |test| test.observe(chance.happens(limit)))
    });
    let [off, _] = rates("sample ratio, 10 %", 6_011, 2_000, |chance| {
        let mut test = Proportion::new(0.1).unwrap();
        let off = (0..2_000).any(|_| {
            test.observe(chance.happens(0.1));
            test.ln_e_equal() >= (1.0 / ALPHA).ln()
        });
        [off, false]
    });
    assert!(off <= highest(2_000), "{off}");
}

#[test]
fn a_broken_split_is_noticed() {
    let mut chance = Chance::new(6_012);
    let mut test = Proportion::new(0.1).unwrap();
    let noticed = (0..20_000).position(|_| {
        test.observe(chance.happens(0.13));
        test.ln_e_equal() >= 1_000.0_f64.ln()
    });
    println!("13 % instead of 10 % noticed after {noticed:?} jobs");
    assert!(noticed.is_some_and(|jobs| jobs < 5_000), "{noticed:?}");
}

#[test]
fn bets_on_pairs_keep_their_promise() {
    // ln(c / rb) is symmetric around 0, so (c − rb)/(c + rb) = tanh of half of it has the mean 0.
    holds("bets on pairs, σ = 0.5", 6_020, 2_000, |chance| {
        reached(Betting::default(), 5_000, |test| test.observe((0.25 * chance.normal()).tanh()))
    });
    // Rare and large against frequent and small: nothing to be seen for a long time.
    holds("bets on pairs, skewed", 6_021, 500, |chance| {
        reached(Betting::default(), 5_000, |test| test.observe(if chance.happens(0.02) { 0.98 } else { -0.02 }))
    });
}

#[test]
fn means_of_log_latency_keep_their_promise() {
    let levels = Levels::new(ALPHA, 1);
    let limit = 1.25_f64.ln();
    holds("log latency, σ = 0.6, k = 9", 6_030, 2_000, |chance| {
        let mut test = MeanSequence::new(limit, 100).unwrap();
        let mut reached = [false; 2];
        for _ in 0..5_000 {
            // The mean of nine independent normal numbers is normal.
            test.observe(limit + 0.6 * chance.normal() - 0.2 * chance.normal());
            match test.proves(levels) {
                Some(Side::Fail) => reached[0] = true,
                Some(Side::Pass) => reached[1] = true,
                None => {}
            }
        }
        reached
    });
}

#[test]
fn quantiles_keep_their_promise() {
    let levels = Levels::new(ALPHA, 1);
    holds("p50 on the ratio", 6_040, 100, |chance| {
        let mut test = QuantileSequence::new(0.5, 1.25).unwrap();
        let mut reached = [false; 2];
        for _ in 0..1_000 {
            test.observe(true, 1.25 * (0.6 * chance.normal()).exp());
            test.observe(false, (0.6 * chance.normal()).exp());
            match test.proves(levels) {
                Some(Side::Fail) => reached[0] = true,
                Some(Side::Pass) => reached[1] = true,
                None => {}
            }
        }
        reached
    });
}

/// The mean number of observations until a verdict, over runs that all must come to the right one.
fn delay(
    name: &str,
    seed: u64,
    runs: u32,
    most: u32,
    mut run: impl FnMut(&mut Chance) -> Box<dyn FnMut(&mut Chance) -> bool>,
) -> f64 {
    let mut total = 0.0;
    for i in 0..runs {
        let mut chance = Chance::new(seed.wrapping_add(u64::from(i) << 32));
        let mut step = run(&mut chance);
        let needed = (1..=most).find(|_| step(&mut chance));
        total += f64::from(needed.unwrap_or(most));
    }
    let mean = total / f64::from(runs);
    println!("{name}: {runs} runs, seed {seed}: {mean:.0} on average");
    mean
}

#[test]
fn differences_are_found_soon() {
    let levels = Levels::new(ALPHA, 1);
    for (name, seed, b, c, m, k, side, most) in [
        ("1 % → 5 %, 1pp, k = 9", 6_100, 0.01, 0.05, 0.01, 9, Side::Fail, 400.0),
        ("5 % → 15 %, 2pp, k = 9", 6_101, 0.05, 0.15, 0.02, 9, Side::Fail, 200.0),
        ("1 % → 20 %, 1pp, k = 99", 6_102, 0.01, 0.2, 0.01, 99, Side::Fail, 30.0),
        ("1 % = 1 %, 2pp, k = 9", 6_103, 0.01, 0.01, 0.02, 9, Side::Pass, 600.0),
    ] {
        let mean = delay(name, seed, 300, 20_000, |_| {
            let mut test = BlockTest::new(Margin::Points(m)).unwrap();
            let draws = Binomial::new(k, b);
            Box::new(move |chance| {
                test.observe(chance.happens(c), k, draws.draw(chance));
                test.ln_e(side) >= levels.ln_threshold(side)
            })
        });
        assert!(mean <= most, "{name}: {mean}");
    }
    let mean = delay("log latency, 1.5 × against 1.25 ×", 6_110, 300, 20_000, |_| {
        let mut test = MeanSequence::new(1.25_f64.ln(), 100).unwrap();
        Box::new(move |chance| {
            test.observe(1.5_f64.ln() + 0.4 * chance.normal() - 0.133 * chance.normal());
            test.proves(levels) == Some(Side::Fail)
        })
    });
    assert!(mean <= 200.0, "{mean}");
}
