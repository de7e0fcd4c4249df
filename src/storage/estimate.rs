//! How much there is to read, known before it is read.

/// What reading a selection would bring.
///
/// Series are as many as the selection has. Samples are no fewer than are read, and more only where one lies in several
/// places (in memory and on disk, in two files, in rows that are not merged yet) or is deleted and not yet removed:
/// never more than as many times what is read as there are such places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Series.
    pub series: u64,
    /// Memory that their labels take.
    pub label_bytes: u64,
    /// Float samples.
    pub floats: u64,
    /// Histogram samples.
    pub histograms: u64,
    /// About the memory that those take.
    pub histogram_bytes: u64,
}

/// A float and its time.
const FLOAT_BYTES: u64 = 16;

impl Estimate {
    /// Samples of both kinds.
    pub fn samples(&self) -> u64 {
        self.floats.saturating_add(self.histograms)
    }

    /// Memory that the samples and the labels take, the samples all at once.
    pub fn bytes(&self) -> u64 {
        let floats = self.floats.saturating_mul(FLOAT_BYTES);
        floats.saturating_add(self.histogram_bytes).saturating_add(self.label_bytes)
    }

    /// Adds what another selection brings.
    pub fn add(&mut self, other: &Self) {
        let Self { series, label_bytes, floats, histograms, histogram_bytes } = self;
        for (sum, more) in [
            (series, other.series),
            (label_bytes, other.label_bytes),
            (floats, other.floats),
            (histograms, other.histograms),
            (histogram_bytes, other.histogram_bytes),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_add_up() {
        let one = Estimate { series: 1, label_bytes: 100, floats: 10, histograms: 2, histogram_bytes: 500 };
        let mut two = one;
        two.add(&one);
        assert_eq!((two.series, two.samples(), two.bytes()), (2, 24, 2 * (100 + 160 + 500)));
        two.add(&Estimate { floats: u64::MAX, ..one });
        assert_eq!((two.floats, two.bytes()), (u64::MAX, u64::MAX));
    }
}
