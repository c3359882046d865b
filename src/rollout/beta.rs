//! Logarithms of the gamma and beta functions, and of likelihoods.
//!
//! Invariant: finite for every finite positive argument; nothing here knows what is counted.

use std::f64::consts::PI;

/// ln Γ(x) for x > 0: Stirling's series, after moving small arguments up by Γ(x + 1) = x·Γ(x).
pub(super) fn ln_gamma(x: f64) -> f64 {
    let mut x = x.max(f64::MIN_POSITIVE);
    let mut shift = 0.0;
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    // Bernoulli numbers over 2i(2i − 1); the first term left out is below 1e-14 at x = 10.
    let series = inverse
        * (1.0 / 12.0
            - square
                * (1.0 / 360.0
                    - square
                        * (1.0 / 1_260.0
                            - square * (1.0 / 1_680.0 - square * (1.0 / 1_188.0 - square * 691.0 / 360_360.0)))));
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series
}

/// ln B(a, b) for a, b > 0.
pub(super) fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// a·ln b, with 0·ln 0 = 0.
pub(super) fn x_ln_y(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a * b.ln() }
}

/// The Kullback–Leibler divergence of one Bernoulli distribution from another: how much one observation of `p` tells
/// against `q`.
pub(super) fn divergence(p: f64, q: f64) -> f64 {
    (x_ln_y(p, p / q) + x_ln_y(1.0 - p, (1.0 - p) / (1.0 - q))).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        for (x, expected) in [
            (0.5, 0.572_364_942_924_700_1),
            (1.0, 0.0),
            (2.0, 0.0),
            (5.0, 24.0_f64.ln()),
            (9.999, 12.799_575_780_077_417),
            (100.0, 359.134_205_369_575_4),
            (1e6, 12_815_504.569_147_611),
        ] {
            let error = (ln_gamma(x) - expected).abs() / expected.abs().max(1.0);
            assert!(error < 2e-14, "ln_gamma({x}) = {}, off by {error:e}", ln_gamma(x));
        }
        assert!((ln_beta(2.0, 3.0) - (1.0_f64 / 12.0).ln()).abs() < 1e-13);
        assert!(ln_gamma(0.0).is_finite());
    }
}
