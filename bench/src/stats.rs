//! Medians and percentiles. Means would let one hiccup of the machine speak for a thousand good samples.

use std::time::Duration;

/// A series of samples of one variant.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a time, in milliseconds.
    pub fn push_time(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e3);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The median; 0 of none.
    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// What 95 of 100 do not exceed; 0 of none.
    pub fn p95(&self) -> f64 {
        self.quantile(0.95)
    }

    /// The greatest; 0 of none.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => 0.0,
            len => {
                // Between the two samples that the quantile falls between.
                let place = q * (len - 1) as f64;
                let (below, above) = (place.floor() as usize, place.ceil() as usize);
                sorted[below] + (sorted[above] - sorted[below]) * place.fract()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(samples(&[9.0, 1.0, 5.0]).p50(), 5.0);
        assert_eq!(samples(&[4.0, 1.0, 3.0, 2.0]).p50(), 2.5);
        assert_eq!(samples(&[]).p50(), 0.0);
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_p95_of_many() {
        let mut values = vec![1.0; 99];
        values.push(1e6);
        assert_eq!((samples(&values).p50(), samples(&values).p95()), (1.0, 1.0));
    }
}
