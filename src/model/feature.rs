//! Feature switches: what the server, a tenant or a request has switched on or off by name.

/// A feature that is switched by name; the names are Prometheus'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Feature {
    /// A metric's name is dropped at the end of a query instead of at each function.
    DelayedNameRemoval,
    /// Start timestamps make `rate` and its kin see resets.
    UseStartTimestamps,
    /// Type and unit are labels of the series.
    TypeAndUnitLabels,
    /// Functions that may yet change.
    ExperimentalFunctions,
    /// `anchored` and `smoothed`.
    ExtendedRangeSelectors,
    /// `fill`, `fill_left` and `fill_right`.
    FillModifiers,
}

impl Feature {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::DelayedNameRemoval,
        Self::UseStartTimestamps,
        Self::TypeAndUnitLabels,
        Self::ExperimentalFunctions,
        Self::ExtendedRangeSelectors,
        Self::FillModifiers,
    ];

    /// The name it is switched by.
    pub fn name(self) -> &'static str {
        match self {
            Self::DelayedNameRemoval => "promql-delayed-name-removal",
            Self::UseStartTimestamps => "use-start-timestamps",
            Self::TypeAndUnitLabels => "type-and-unit-labels",
            Self::ExperimentalFunctions => "promql-experimental-functions",
            Self::ExtendedRangeSelectors => "promql-extended-range-selectors",
            Self::FillModifiers => "promql-binop-fill-modifiers",
        }
    }

    /// The feature of a name; `promql-` may be left out, or stand where it does not.
    pub fn of_name(name: &str) -> Option<Self> {
        let short = |name: &'_ str| name.strip_prefix("promql-").unwrap_or(name).to_owned();
        Self::ALL.into_iter().find(|feature| short(feature.name()) == short(name))
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The longest name that is repeated in a message.
const LONGEST: usize = 64;

/// Features that somebody switches on or off; of the others they say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FeatureSwitches {
    on: u8,
    off: u8,
}

impl FeatureSwitches {
    /// Reads names; one with a minus before it is switched off.
    pub fn read<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, String> {
        let mut switches = Self::default();
        for written in names {
            let (name, on) = written.strip_prefix('-').map_or((written, true), |name| (name, false));
            let feature = Feature::of_name(name).ok_or_else(|| unknown(name))?;
            if switches.of(feature) == Some(!on) {
                return Err(format!("{} is switched on and off", feature.name()));
            }
            switches.set(feature, on);
        }
        Ok(switches)
    }

    /// Whether somebody switches a feature, and which way.
    pub fn of(self, feature: Feature) -> Option<bool> {
        match (self.on & feature.bit() != 0, self.off & feature.bit() != 0) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            (false, false) => None,
        }
    }

    /// Switches a feature.
    pub fn set(&mut self, feature: Feature, on: bool) {
        let (there, gone) = if on { (&mut self.on, &mut self.off) } else { (&mut self.off, &mut self.on) };
        *there |= feature.bit();
        *gone &= !feature.bit();
    }

    /// These, and where they say nothing, those below.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let said = self.on | self.off;
        Self { on: self.on | below.on & !said, off: self.off | below.off & !said }
    }

    /// Whether they say nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The names as [`read`](Self::read) reads them.
    pub fn names(self) -> impl Iterator<Item = String> {
        Feature::ALL.into_iter().filter_map(move |feature| {
            let sign = if self.of(feature)? { "" } else { "-" };
            Some(format!("{sign}{}", feature.name()))
        })
    }
}

fn unknown(name: &str) -> String {
    let shown: String = name.chars().take(LONGEST).collect();
    let short = |name: &'_ str| name.strip_prefix("promql-").unwrap_or(name).to_owned();
    let closest = Feature::ALL
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&short(known.name()), &short(&shown)), known.name()));
    match closest.min() {
        Some((distance, known)) if distance <= 4.min(shown.chars().count() / 2) => {
            format!("unknown feature {shown:?}, did you mean {known}?")
        }
        Some(_) | None => {
            let names = Feature::ALL.map(Feature::name).join(", ");
            format!("unknown feature {shown:?}; there are {names}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        FeatureSwitches::read(text.split(' ')).map(|read| read.names().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn names_are_prometheus_and_a_minus_switches_off() {
        assert_eq!(
            read("delayed-name-removal -promql-use-start-timestamps type-and-unit-labels"),
            Ok("promql-delayed-name-removal -use-start-timestamps type-and-unit-labels".to_owned())
        );
        assert_eq!(
            read("delayed-name-removal -delayed-name-removal"),
            Err("promql-delayed-name-removal is switched on and off".to_owned())
        );
    }

    #[test]
    fn an_unknown_name_is_told_what_it_may_have_meant() {
        let wrong = read("promql-delayed-names-removal").unwrap_err();
        assert!(wrong.ends_with("did you mean promql-delayed-name-removal?"), "{wrong}");
        let wrong = read("x").unwrap_err();
        assert!(
            wrong.starts_with("unknown feature \"x\"; there are promql-delayed-name-removal, "),
            "{wrong}"
        );
        assert!(read(&"é".repeat(10_000)).unwrap_err().len() < 500);
    }

    #[test]
    fn what_is_above_goes_before_what_is_below() {
        let of = |text: &str| FeatureSwitches::read(text.split(' ')).unwrap();
        let both = of("-delayed-name-removal").over(of("delayed-name-removal use-start-timestamps"));
        assert_eq!(both, of("-delayed-name-removal use-start-timestamps"));
    }
}
