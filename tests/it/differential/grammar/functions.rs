//! Functions of samples over time, of values, and of labels.

use super::{Grammar, LABELS, Place, SECONDS, finite, quoted};
use crate::differential::{
    data::{Family, Kind, TEXTS},
    expr::{
        Expr,
        Precision::{Close, Equal, Exact},
        Type,
    },
};

/// Functions of a vector's values, with what is left of precision at most, whether they need values that are equal to the
/// bit, and whether they make values special.
pub(super) const MATH: &[(&str, bool, bool)] = &[
    ("abs", false, false),
    ("exp", true, true),
    ("ln", true, true),
    ("log2", true, true),
    ("log10", true, true),
    ("sqrt", false, true),
    ("sin", true, false),
    ("cos", true, false),
    ("tan", true, false),
    ("asin", true, true),
    ("acos", true, true),
    ("atan", true, false),
    ("sinh", true, true),
    ("cosh", true, true),
    ("tanh", true, false),
    ("asinh", true, false),
    ("acosh", true, true),
    ("atanh", true, true),
    ("deg", false, false),
    ("rad", false, false),
];

const CALENDAR: &[&str] =
    &["hour", "minute", "month", "year", "day_of_month", "day_of_week", "day_of_year", "days_in_month"];

/// Functions of a range that fall into classes by what they need and leave.
const KEEPING: &[&str] = &["min_over_time", "max_over_time", "last_over_time"];

const COUNTING: &[&str] = &["count_over_time", "present_over_time", "changes", "resets", "absent_over_time"];

const AVERAGING: &[&str] = &["avg_over_time", "sum_over_time", "deriv", "irate", "idelta"];

const SPREADING: &[&str] = &["stddev_over_time", "stdvar_over_time"];

/// These reckon with where the window begins.
const EXTRAPOLATING: &[&str] = &["rate", "increase", "delta"];

impl Grammar<'_> {
    /// A function of a range.
    pub(super) fn over_range(&mut self, place: Place) -> Expr {
        if !self.aligned && self.random.one_in(3) {
            let name = self.random.pick(EXTRAPOLATING);
            return self.extrapolation(place, name);
        }
        let expr = Expr::new(Type::Vector, place.phase);
        let matrix_that = |me: &mut Self, fits: &dyn Fn(&Expr) -> bool| loop {
            let matrix = if me.random.one_in(5) {
                let family = me.family(|f| f.kind != Kind::Odd);
                me.range_of(place, family)
            } else {
                me.matrix(place)
            };
            if fits(&matrix) {
                return matrix;
            }
        };
        let matrix = |me: &mut Self, precision| matrix_that(me, &|matrix| matrix.precision >= precision);
        match self.random.below(14) {
            0..=2 => {
                let name = self.random.pick(KEEPING);
                let part = matrix(self, Close);
                expr.text(format!("{name}(")).part(part).text(")")
            }
            3..=5 => {
                let name = self.random.pick(COUNTING);
                let part = matrix(self, Equal);
                let mut expr = expr.text(format!("{name}(")).part(part).text(")").precise(Exact);
                expr.special = false;
                expr
            }
            6..=9 => {
                let name = self.random.pick(AVERAGING);
                // The noise around a constant is not compared.
                let part = matrix(self, Equal);
                let exact = name == "sum_over_time" && part.precision == Exact;
                let expr = expr.text(format!("{name}(")).part(part).text(")");
                if exact { expr } else { expr.precise(Close) }
            }
            10 => {
                let (part, q) = (matrix(self, Equal), self.fraction());
                expr.text("quantile_over_time(")
                    .part(q)
                    .text(", ")
                    .part(part)
                    .text(")")
                    .precise(Close)
                    .special()
            }
            11 => {
                // 2.42 moves what is pinned from step to step.
                let part = matrix_that(self, &|matrix| matrix.precision >= Equal && !matrix.pinned);
                let ahead = self.random.between(-600, 3600);
                expr.text("predict_linear(").part(part).text(format!(", {ahead})")).precise(Close)
            }
            12 => {
                let name = self.random.pick(SPREADING);
                let part = matrix_that(self, &|matrix| matrix.precision >= Equal && !matrix.special);
                expr.text(format!("{name}(")).part(part).text(")").precise(Close)
            }
            _ => {
                let part = matrix(self, Equal);
                let (factor, trend) = (self.random.between(0, 10), self.random.between(1, 9));
                // No factor of 0 or 1 is taken.
                expr.either("double_exponential_smoothing(", "holt_winters(")
                    .part(part)
                    .text(format!(", {:.1}, 0.{trend})", f64::from(i32::try_from(factor).unwrap()) / 10.0))
                    .precise(Close)
            }
        }
    }

    /// `rate` and its like, of what is a counter or has no gaps.
    pub(super) fn extrapolation(&mut self, place: Place, name: &str) -> Expr {
        let fits = |f: &Family| name == "delta" || f.kind == Kind::Counter || f.whole;
        let matrix = if place.subqueries > 0 && self.random.one_in(5) {
            let below = Place { phase: 0, ..place.below() };
            let of = self.selector(below, fits);
            self.subquery(place, Some(of))
        } else {
            let family = self.family(fits);
            self.range_of(place, family)
        };
        Expr::new(Type::Vector, place.phase).text(format!("{name}(")).part(matrix).text(")").precise(Close)
    }

    pub(super) fn math(&mut self, place: Place) -> Expr {
        let expr = Expr::new(Type::Vector, place.phase);
        match self.random.below(8) {
            0 | 1 => {
                let name = self.random.pick(&["floor", "ceil", "sgn", "round"]);
                let part = self.precise(place, Equal);
                expr.text(format!("{name}(")).part(part).text(")")
            }
            2 => {
                let part = self.precise(place, Exact);
                let to = self.random.pick(&["0.5", "8", "0.1", "-2", "1e3"]);
                expr.text("round(").part(part).text(format!(", {to})")).at_most(Equal)
            }
            3 => {
                let part = self.vector(place.below());
                let (low, high) = (self.number(), self.number());
                let mut expr = match self.random.below(3) {
                    0 => expr.text("clamp(").part(part).text(format!(", {low}, {high})")),
                    1 => expr.text("clamp_min(").part(part).text(format!(", {low})")),
                    _ => expr.text("clamp_max(").part(part).text(format!(", {high})")),
                };
                expr.special |= !finite(low) || !finite(high);
                expr
            }
            4 => {
                let part = self.vector(place.below());
                let mut expr = expr.text("-(").part(part).text(")");
                expr.negates = true;
                expr
            }
            _ => {
                let n = self.random.below(MATH.len());
                self.math_by(place, n)
            }
        }
    }

    pub(super) fn math_by(&mut self, place: Place, n: usize) -> Expr {
        let (name, amplifies, special) = MATH[n];
        let part = if amplifies { self.precise(place, Equal) } else { self.vector(place.below()) };
        let left = if name == "abs" || name == "sqrt" && part.precision > Close { Equal } else { Close };
        let mut expr =
            Expr::new(Type::Vector, place.phase).text(format!("{name}(")).part(part).text(")").at_most(left);
        expr.special |= special;
        expr
    }

    pub(super) fn labelled(&mut self, place: Place) -> Expr {
        let part = self.vector(place.below());
        let expr = Expr::new(Type::Vector, place.phase);
        if self.random.one_in(3) {
            let to = self.random.pick(&["both", "job", "text"]);
            let separator = self.random.pick(&["", "-", "\\n", "é"]);
            let from: String =
                (0..self.random.below(3)).map(|_| format!(", \"{}\"", self.random.pick(LABELS))).collect();
            return expr.text("label_join(").part(part).text(format!(", \"{to}\", \"{separator}\"{from})"));
        }
        let from = self.random.pick(&["job", "instance", "text", "le", "__name__", "nothing"]);
        let to = self.random.pick(&["to", "job", "le", "instance", "text"]);
        let with = self.random.pick(&["$1", "x-$1", "${1}y", "$1y", "", "const", "$$1", "$2", "$name", "$0"]);
        let pattern = self.random.pick(&[
            "(.*)",
            "(.+):(.*)",
            "(.*)b(.*)",
            "",
            "(?P<name>[a-z]+).*",
            "(a|d).*",
            ".*",
            "(.)(.)?.*",
        ]);
        expr.text("label_replace(")
            .part(part)
            .text(format!(", \"{to}\", \"{with}\", \"{from}\", "))
            .either(format!("{})", quoted(pattern)), format!("{})", quoted(&format!("(?s:{pattern})"))))
    }

    pub(super) fn quantile_of_buckets(&mut self, place: Place) -> Expr {
        let q = self.fraction();
        let buckets = |f: &Family| f.kind == Kind::Buckets;
        let plain = self.aligned || self.random.one_in(3);
        let part = if plain { self.selector(place, buckets) } else { self.rate_of_buckets(place, buckets) };
        let by = self.random.pick(&["", "sum by (le) ", "sum by (job, le) ", "sum without (instance) "]);
        Expr::new(Type::Vector, place.phase)
            .text("histogram_quantile(")
            .part(q)
            .text(format!(", {by}("))
            .part(part)
            .text("))")
            .precise(Close)
            .special()
    }

    pub(super) fn rate_of_buckets(&mut self, place: Place, buckets: impl Fn(&Family) -> bool) -> Expr {
        let family = self.family(buckets);
        let name = self.random.pick(&["rate", "increase"]);
        let range = self.range_of(place, family);
        Expr::new(Type::Vector, place.phase).text(format!("{name}(")).part(range).text(")").precise(Close)
    }

    pub(super) fn calendar(&mut self, place: Place) -> Expr {
        let name = self.random.pick(CALENDAR);
        let expr = Expr::new(Type::Vector, place.phase);
        match self.random.below(3) {
            0 => expr.text(format!("{name}()")),
            1 => {
                let part = self.timestamp(place);
                expr.text(format!("{name}(")).part(part).text(")").precise(Exact)
            }
            _ => {
                let days = self.random.between(-20_000, 40_000);
                let part = self.selector(place, |f| f.kind == Kind::Gauge);
                expr.text(format!("{name}(")).part(part).text(format!(" * 86400 + {days} * 43200)"))
            }
        }
    }

    /// 2.42 forgets the offset of what is pinned here.
    pub(super) fn timestamp(&mut self, place: Place) -> Expr {
        let part = loop {
            let part = if self.random.one_in(2) {
                self.selector(place, |_| true)
            } else {
                self.vector(place.below())
            };
            if !part.pinned || !part.shifted {
                break part;
            }
        };
        let mut expr = Expr::new(Type::Vector, place.phase)
            .text("timestamp(")
            .part(part)
            .text(")")
            .precise(Equal)
            .of_scale(SECONDS);
        expr.special = false;
        expr
    }

    pub(super) fn absent(&mut self, place: Place) -> Expr {
        let part = match self.random.below(3) {
            0 => {
                Expr::new(Type::Vector, place.phase).text(r#"gone{job="a",instance=~"b",zone!="c",code="1"}"#)
            }
            1 => Expr::new(Type::Vector, place.phase).text(r#"{__name__="gone",job="a",job="b",zone="c"}"#),
            _ => self.vector(place.below()),
        };
        let mut expr =
            Expr::new(Type::Vector, place.phase).text("absent(").part(part).text(")").precise(Exact);
        expr.special = false;
        expr
    }

    pub(super) fn other(&mut self, place: Place) -> Expr {
        let expr = Expr::new(Type::Vector, place.phase);
        match self.random.below(7) {
            0 | 1 => self.timestamp(place),
            2 => {
                let part = self.scalar(place.below());
                expr.text("vector(").part(part).text(")")
            }
            3 => {
                let part = self.vector(place.below());
                expr.text("+(").part(part).text(")")
            }
            4 => {
                let names = self.random.pick(&["up|build_info", "temp.*", "odd|up", ".*_total"]);
                let job = self.random.pick(&["job=\"api\"", "job!~\"db\"", "instance=~\"[ab]:.\""]);
                expr.text(format!("{{__name__=~\"{names}\",{job}}}")).precise(Equal).special()
            }
            5 => {
                let part = self.vector(place.below());
                let name = self.random.pick(&["histogram_count(", "histogram_sum("]);
                expr.text(name).part(part).text(")")
            }
            _ => {
                let text = TEXTS[self.random.below(TEXTS.len())];
                expr.text(format!("texts{{text={}}}", quoted(text)))
            }
        }
    }
}
