//! Sums of floats that keep what rounding loses.
//!
//! Neumaier's form of Kahan's summation. Prometheus sums this way, so do we, operation by operation:
//! results are the same to the bit.

/// A running sum and what it still owes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Neumaier {
    /// The plain sum.
    pub sum: f64,
    /// What rounding has taken from it so far.
    pub compensation: f64,
}

impl From<f64> for Neumaier {
    fn from(sum: f64) -> Self {
        Self { sum, compensation: 0.0 }
    }
}

impl Neumaier {
    /// Adds a number.
    #[inline]
    pub fn add(&mut self, number: f64) {
        let total = self.sum + number;
        if total.is_infinite() {
            self.compensation = 0.0;
        } else if self.sum.abs() >= number.abs() {
            self.compensation += (self.sum - total) + number;
        } else {
            self.compensation += (number - total) + self.sum;
        }
        self.sum = total;
    }

    /// Adds another running sum.
    #[inline]
    pub fn merge(&mut self, other: Self) {
        self.add(other.sum);
        if !self.sum.is_infinite() {
            self.compensation += other.compensation;
        }
    }

    /// Multiplies the sum and what it owes.
    #[inline]
    pub fn scale(&mut self, factor: f64) {
        self.sum *= factor;
        self.compensation *= factor;
    }

    /// The sum with what it owes.
    #[inline]
    pub fn corrected(self) -> f64 {
        self.sum + self.compensation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(numbers: &[f64]) -> f64 {
        let mut sum = Neumaier::default();
        numbers.iter().for_each(|n| sum.add(*n));
        sum.corrected()
    }

    #[test]
    fn what_rounding_loses_comes_back() {
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!([1.0, 1e100, 1.0, -1e100].iter().sum::<f64>(), 0.0);
        assert_eq!(sum(&[0.1; 10]), 1.0);
    }

    #[test]
    fn infinity_stays_infinity() {
        assert_eq!(sum(&[f64::MAX, f64::MAX, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    }

    #[test]
    fn sums_of_parts_merge() {
        let mut left = Neumaier::default();
        left.add(1.0);
        left.add(1e100);
        let mut right = Neumaier::default();
        right.add(1.0);
        right.add(-1e100);
        left.merge(right);
        assert_eq!(left.corrected(), 2.0);
    }
}
