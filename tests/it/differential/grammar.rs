//! Questions: expressions that a grammar makes, and the grid each is asked over.
//!
//! The grammar knows of each expression what [`Expr`] says, and asks nothing whose answer hangs on the last
//! bit of a value that may differ in it: `floor`, `==`, `topk` and their like take only parts that are equal
//! to the bit.

use super::{
    data::{END_MS, Family, Kind, TEXTS},
    expr::{
        Expr,
        Precision::{Close, Equal, Exact},
        Type,
    },
    random::Random,
};

/// A question, and whether an instant or a range is asked about.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub expr: Expr,
    pub grid: Grid,
    /// Whether windows may begin on a sample.
    pub aligned: bool,
    /// Whether the order of an instant's elements is that of their values.
    pub ordered: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Grid {
    Instant(i64),
    Range { start: i64, end: i64, step: i64 },
}

/// How large a time is.
const SECONDS: f64 = 2e9;

/// How far back the grids begin: what is before is for ranges, offsets and subqueries.
const ASKED_MS: i64 = 60 * 60_000;

#[derive(Debug)]
pub(super) struct Grammar<'a> {
    families: &'a [Family],
    random: Random,
    index: usize,
    aligned: bool,
}

/// Where in an expression something is made.
#[derive(Clone, Copy)]
struct Place {
    /// How many levels may follow.
    depth: usize,
    /// How many subqueries may.
    subqueries: usize,
    /// The milliseconds of a second it is evaluated at.
    phase: i64,
}

impl Place {
    fn below(self) -> Self {
        Self { depth: self.depth.saturating_sub(1), ..self }
    }
}

/// Functions of a vector's values, with what is left of precision at most, whether they need values that are equal to the
/// bit, and whether they make values special.
const MATH: &[(&str, bool, bool)] = &[
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

const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "%", "^", "atan2"];
const COMPARISON: &[&str] = &["==", "!=", "<", "<=", ">", ">="];
const SETS: &[&str] = &["and", "or", "unless"];
const LABELS: &[&str] = &["job", "instance", "code", "zone", "version", "le", "text", "kind", "nothing"];

/// Questions that no type, name or matcher makes right, to be refused alike.
const WRONG: &[&str] = &[
    "rate(up)",
    "sum(1)",
    "up[5m]",
    "rate(up[5m:30s])[5m]",
    "nothing(up)",
    "up and 1",
    "1 == 2",
    "1 and 2",
    "{}",
    r#"{job=""}"#,
    r#"{job=~".*"}"#,
    r#"up{job=~"("}"#,
    r#"up{job=~"*"}"#,
    "up{job=api}",
    "up offset",
    "up @ foo",
    "up offset 5m offset 5m",
    "up @ 1 @ 2",
    "sum by (job) without (job) (up)",
    "topk(up)",
    "topk(\"1\", up)",
    "quantile(up, up)",
    "count_values(1, up)",
    "up + \"text\"",
    "-\"text\"",
    "\"text\" + 1",
    "up and on (job) group_left up",
    "up + group_left up",
    "up + on (job) group_left (job) up",
    "1 + bool 2",
    "up + on (job) 1",
    "scalar(1)",
    "vector(up)",
    "time(1)",
    "round()",
    "round(up, 1, 2)",
    "clamp(up, 1)",
    "label_join(up, 1, 2)",
    "histogram_quantile(up)",
    "(up",
    "up)",
    "up{job=\"a\"",
    "up{job=\"a}",
    "up[",
    "up[5m",
    "up[5m:",
    "up[:5m]",
    "up[0s]",
    "avg_over_time(up[-5m])",
    "avg_over_time(up[5x])",
    "avg_over_time((up + up)[5m])",
    "1m1h",
    "up up",
    "up,up",
    "sum(up,)",
    "sum(up, up)",
    "up{,}",
    "by (job) up",
    "",
    "# nothing",
    "!up",
    "up ! up",
    "up = 1",
    "up =~ 1",
    "1 ** 2",
    "up{job=\"a\" instance=\"b\"}",
    "absent(1)",
    "topk(NaN, up)",
    "topk(1e30, up)",
    "bottomk(1e30, up)",
    "up * on () up",
    "up + on (job) up",
    r#"count_values("", up)"#,
    r#"label_replace(up, "x", "$1", "job", "(")"#,
    r#"label_replace(up, "__name__", "same", "", "") or on () up"#,
    r#"label_replace(temperature, "instance", "one", "", "")"#,
    r#"label_join(up, "instance", "-", "job")"#,
    r#"rate({__name__=~"up|build_info",job="api",version=""}[5m]) + rate({job="api"}[5m])"#,
];

impl<'a> Grammar<'a> {
    pub(super) fn new(families: &'a [Family], seed: u64, index: u64) -> Self {
        let mut random = Random::new(seed, index);
        let aligned = random.one_in(5);
        Self { families, random, index: usize::try_from(index).unwrap(), aligned }
    }

    pub(super) fn question(mut self) -> Question {
        let phase = if self.aligned { 0 } else { 250 };
        let range = self.random.one_in(2);
        let place = Place { depth: 1 + self.random.below(4), subqueries: 2, phase };
        let mut ordered = false;
        let expr = match self.random.below(40) {
            0 | 1 => Expr::new(Type::Vector, phase).text(self.random.pick(WRONG)),
            2 | 3 => self.scalar(place),
            4 if !range => self.matrix(place),
            5 if !range => Expr::new(Type::String, phase).text(r#""a \"text\"""#),
            6 | 7 => {
                ordered = !range;
                let name = self.random.pick(&["sort", "sort_desc"]);
                let part = self.precise(place, Equal);
                Expr::new(Type::Vector, phase).text(format!("{name}(")).part(part).text(")")
            }
            8 => {
                ordered = !range;
                self.top(place, false)
            }
            // So that none is left to chance.
            _ if self.index.is_multiple_of(50) => self.math_by(place, self.index / 50 % MATH.len()),
            _ => self.vector(place),
        };
        let grid = self.grid(range, phase);
        Question { expr, grid, aligned: self.aligned, ordered }
    }

    fn grid(&mut self, range: bool, phase: i64) -> Grid {
        let second = self.random.between(-ASKED_MS / 1000, -5) * 1000;
        let at = END_MS + if self.aligned { second / 15_000 * 15_000 } else { second } + phase;
        if !range {
            return Grid::Instant(at);
        }
        let steps: &[i64] = if self.aligned { &[15, 30, 60, 300] } else { &[7, 15, 30, 60, 61, 300] };
        let step = steps[self.random.below(steps.len())] * 1000;
        let wanted = at + step * self.random.between(0, 40);
        let latest = END_MS + 2 * 60_000 + phase;
        // The end need not be a step.
        let end = wanted.min(latest) + self.random.between(0, 2) * 1000;
        Grid::Range { start: at, end, step }
    }

    fn family(&mut self, fits: impl Fn(&Family) -> bool) -> &'a Family {
        let all: Vec<&Family> =
            self.families.iter().filter(|f| (self.aligned || !f.aligned) && fits(f)).collect();
        all[self.random.below(all.len())]
    }

    /// A vector of any kind.
    fn vector(&mut self, place: Place) -> Expr {
        if place.depth == 0 {
            return self.selector(place, |_| true);
        }
        match self.random.below(30) {
            0..=2 => self.selector(place, |_| true),
            3..=8 => self.over_range(place),
            9..=11 => self.math(place),
            12..=16 => self.aggregation(place),
            17..=19 => self.with_scalar(place),
            20..=22 => self.with_vector(place),
            23 => self.set(place),
            24 => self.labelled(place),
            25 => self.quantile_of_buckets(place),
            26 => self.calendar(place),
            27 => self.top(place, true),
            28 => self.absent(place),
            _ => self.other(place),
        }
    }

    /// A vector that is equal on both sides at least as far as asked.
    fn precise(&mut self, place: Place, precision: super::expr::Precision) -> Expr {
        for _ in 0..4 {
            let expr = self.vector(place.below());
            if expr.precision >= precision {
                return expr;
            }
        }
        self.selector(place, |f| f.kind != Kind::Odd)
    }

    /// The same, without NaN and infinities.
    fn plain(&mut self, place: Place) -> Expr {
        let expr = self.precise(place, Equal);
        if expr.special { self.selector(place, |f| f.kind != Kind::Odd) } else { expr }
    }

    /// A plain selector: everything of a family, or what matchers leave of it.
    fn selector(&mut self, place: Place, fits: impl Fn(&Family) -> bool) -> Expr {
        let family = self.family(fits);
        let matchers = self.matchers(family);
        let (modifiers, _) = self.modifiers(place);
        let mut expr = Expr::new(Type::Vector, place.phase)
            .either(matchers.0, matchers.1)
            .modified(&modifiers)
            .precise(if family.kind == Kind::Odd { Equal } else { Exact });
        expr.special = family.kind == Kind::Odd;
        expr.distinct = !matches!(family.kind, Kind::Odd | Kind::Flag | Kind::Buckets);
        expr.scale = family.scale;
        expr
    }

    /// `name{matchers}` for us and for them, for whom `.` does not match a line's end unless told to.
    fn matchers(&mut self, family: &Family) -> (String, String) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.random.below(3) {
            let (label, values) = &family.labels[self.random.below(family.labels.len())];
            let value = values[self.random.below(values.len())];
            if self.random.one_in(2) {
                let op = if self.random.one_in(3) { "!=" } else { "=" };
                let value = if self.random.one_in(10) { "" } else { value };
                let text = format!("{label}{op}{}", quoted(value));
                ours.push(text.clone());
                theirs.push(text);
            } else {
                let op = if self.random.one_in(3) { "!~" } else { "=~" };
                let pattern = self.pattern(value, values);
                ours.push(format!("{label}{op}{}", quoted(&pattern)));
                theirs.push(format!("{label}{op}{}", quoted(&format!("(?s:{pattern})"))));
            }
        }
        let name = family.name;
        let print = |all: Vec<String>, form: usize| match form {
            0 => format!("{{__name__=\"{name}\",{}}}", all.join(",")),
            _ if all.is_empty() => name.to_owned(),
            _ => format!("{name}{{{}}}", all.join(",")),
        };
        let form = self.random.below(8);
        (print(ours, form), print(theirs, form))
    }

    /// A regular expression that may match.
    fn pattern(&mut self, value: &str, values: &[&str]) -> String {
        let literal = escaped(value);
        let first: String = value.chars().take(1).collect();
        let first = escaped(&first);
        match self.random.below(14) {
            0 => literal,
            1 => format!("{literal}|{}", escaped(values[self.random.below(values.len())])),
            2 => format!("{first}.*"),
            3 => format!(".*{first}.*"),
            4 => format!("{first}.+"),
            5 => format!("(?i:{})", literal.to_uppercase()),
            6 => ".+".to_owned(),
            7 => ".*".to_owned(),
            8 => format!("|{literal}"),
            9 => "[a-m].*|[0-4].*".to_owned(),
            10 => "\\w+\\W?\\w*".to_owned(),
            11 => "[^a\\d].*".to_owned(),
            12 => format!("({first})?.{{2,5}}"),
            _ => "(api|db|.*e).*".to_owned(),
        }
    }

    /// `offset` and `@`, and the phase of what they modify.
    fn modifiers(&mut self, place: Place) -> (String, i64) {
        let mut parts = Vec::new();
        let mut phase = place.phase;
        if self.random.one_in(8) {
            let seconds = self.random.between(1, 600);
            let sign = if self.random.one_in(4) { "-" } else { "" };
            parts.push(format!("offset {sign}{seconds}s"));
        }
        if self.random.one_in(10) {
            let top = if self.aligned { 0 } else { 250 };
            phase = top;
            parts.push(match self.random.below(4) {
                0 => "@ start()".to_owned(),
                1 => "@ end()".to_owned(),
                _ => {
                    let second = END_MS / 1000 - self.random.between(0, ASKED_MS / 1000);
                    format!("@ {second}.{top:03}")
                }
            });
        }
        if self.random.one_in(2) {
            parts.reverse();
        }
        (parts.iter().map(|part| format!(" {part}")).collect(), phase)
    }

    /// A duration for windows. Theirs are closed on the left: where samples may lie on the edge, theirs are
    /// a millisecond shorter.
    fn window(&mut self, longest: i64, uneven: bool) -> (String, String) {
        let seconds = if self.aligned {
            self.random.between(1, longest / 15) * 15
        } else {
            self.random.between(20, longest)
        };
        let millis = seconds * 1000 + if uneven { 250 } else { 0 };
        let theirs = if self.aligned { millis - 1 } else { millis };
        (duration(millis), duration(theirs))
    }

    /// A range vector.
    fn matrix(&mut self, place: Place) -> Expr {
        if place.subqueries > 0 && place.depth > 0 && self.random.one_in(4) {
            return self.subquery(place, None);
        }
        let family = self.family(|_| true);
        self.range_of(place, family)
    }

    fn range_of(&mut self, place: Place, family: &Family) -> Expr {
        let matchers = self.matchers(family);
        let window = self.window(1200, false);
        let (modifiers, _) = self.modifiers(place);
        let mut expr = Expr::new(Type::Matrix, place.phase)
            .either(format!("{}[{}]", matchers.0, window.0), format!("{}[{}]", matchers.1, window.1))
            .modified(&modifiers)
            .precise(if family.kind == Kind::Odd { Equal } else { Exact });
        expr.special = family.kind == Kind::Odd;
        expr.scale = family.scale;
        expr
    }

    /// Its points lie on whole seconds, so a window that would begin on one gets a quarter more.
    fn subquery(&mut self, place: Place, of: Option<Expr>) -> Expr {
        let (modifiers, phase) = self.modifiers(place);
        let below = Place { subqueries: place.subqueries - 1, phase: 0, ..place.below() };
        let part = of.unwrap_or_else(|| self.vector(below));
        let window = self.window(900, !self.aligned && phase == 0);
        let step = match self.random.below(5) {
            0 => String::new(),
            _ => duration(self.random.between(5, 90) * 1000),
        };
        Expr::new(Type::Matrix, place.phase)
            .text("(")
            .part(part)
            .either(format!(")[{}:{step}]", window.0), format!(")[{}:{step}]", window.1))
            .modified(&modifiers)
    }

    /// A function of a range.
    fn over_range(&mut self, place: Place) -> Expr {
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
    fn extrapolation(&mut self, place: Place, name: &str) -> Expr {
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

    fn math(&mut self, place: Place) -> Expr {
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

    fn math_by(&mut self, place: Place, n: usize) -> Expr {
        let (name, amplifies, special) = MATH[n];
        let part = if amplifies { self.precise(place, Equal) } else { self.vector(place.below()) };
        let left = if name == "abs" || name == "sqrt" && part.precision > Close { Equal } else { Close };
        let mut expr =
            Expr::new(Type::Vector, place.phase).text(format!("{name}(")).part(part).text(")").at_most(left);
        expr.special |= special;
        expr
    }

    fn number(&mut self) -> &'static str {
        const NUMBERS: &[&str] =
            &["0", "1", "-1", "2", "0.5", "100", "-3.25", "1e3", "7", "0x1F", "+Inf", "-Inf", "NaN", ".5"];
        NUMBERS[self.random.below(NUMBERS.len())]
    }

    fn scalar(&mut self, place: Place) -> Expr {
        let expr = Expr::new(Type::Scalar, place.phase);
        match self.random.below(if place.depth == 0 { 8 } else { 12 }) {
            0..=4 => {
                let number = self.number();
                let mut expr = expr.text(number).precise(Equal);
                expr.special = !finite(number);
                expr
            }
            5 => expr.text("time()").of_scale(SECONDS),
            6 | 7 => expr.text("pi()").precise(Equal),
            8 | 9 => {
                let part = self.precise(place, Equal);
                expr.text("scalar(").part(part).text(")").special()
            }
            10 => {
                let op = self.random.pick(ARITHMETIC);
                let (left, right) = (self.scalar(place.below()), self.scalar(place.below()));
                let expr = expr.text("(").part(left).text(format!(" {op} ")).part(right).text(")").special();
                if matches!(op, "^" | "atan2") { expr.precise(Close) } else { expr.at_most(Equal) }
            }
            _ => {
                let op = self.random.pick(COMPARISON);
                let (left, right) = (self.equal_scalar(place), self.equal_scalar(place));
                expr.text("(").part(left).text(format!(" {op} bool ")).part(right).text(")")
            }
        }
    }

    fn equal_scalar(&mut self, place: Place) -> Expr {
        let expr = self.scalar(place.below());
        if expr.precision >= Equal { expr } else { Expr::new(Type::Scalar, place.phase).text("2") }
    }

    /// What `quantile` takes, sometimes beyond its bounds.
    fn fraction(&mut self) -> Expr {
        const FRACTIONS: &[&str] = &["0", "0.1", "0.5", "0.75", "0.9", "0.99", "1", "-1", "2", "NaN"];
        Expr::new(Type::Scalar, -1).text(self.random.pick(FRACTIONS))
    }

    /// `by`, `without` or neither.
    fn grouping(&mut self) -> String {
        let mut labels: Vec<&str> = (0..self.random.below(3)).map(|_| self.random.pick(LABELS)).collect();
        if self.random.one_in(15) {
            labels.push("__name__");
        }
        match self.random.below(6) {
            0 | 1 => String::new(),
            2 => format!("without ({})", labels.join(", ")),
            _ => format!("by ({})", labels.join(", ")),
        }
    }

    fn aggregation(&mut self, place: Place) -> Expr {
        let by = self.grouping();
        let expr = Expr::new(Type::Vector, place.phase);
        let (name, part, precision) = match self.random.below(12) {
            0..=3 => {
                let part = self.vector(place.below());
                let precision = if part.precision == Exact { Exact } else { Close };
                ("sum", part, precision)
            }
            4 | 5 => ("avg", self.vector(place.below()), Close),
            6 => {
                let part = self.vector(place.below());
                let precision = part.precision;
                (self.random.pick(&["min", "max"]), part, precision)
            }
            7 => {
                let name = self.random.pick(&["count", "group"]);
                (name, self.vector(place.below()), Exact)
            }
            8 | 9 => (self.random.pick(&["stddev", "stdvar"]), self.plain(place), Close),
            10 => {
                let (q, part) = (self.fraction(), self.vector(place.below()));
                return expr
                    .text(format!("quantile {by} ("))
                    .part(q)
                    .text(", ")
                    .part(part)
                    .text(")")
                    .precise(Close)
                    .special();
            }
            _ => {
                let part = self.precise(place, Equal);
                let label = self.random.pick(&["value", "job", "zone"]);
                return expr
                    .text(format!("count_values {by} (\"{label}\", "))
                    .part(part)
                    .text(")")
                    .precise(Exact);
            }
        };
        if self.random.one_in(2) {
            expr.text(format!("{name} {by} (")).part(part).text(")").precise(precision)
        } else {
            expr.text(format!("{name} (")).part(part).text(format!(") {by}")).precise(precision)
        }
    }

    /// `topk` or `bottomk` of values that are all different.
    fn top(&mut self, place: Place, grouped: bool) -> Expr {
        let name = self.random.pick(&["topk", "bottomk"]);
        let by = if grouped { self.grouping() } else { String::new() };
        let k = self.random.pick(&["1", "2", "3", "1.9", "0", "-1", "100"]);
        let distinct = |f: &Family| matches!(f.kind, Kind::Gauge | Kind::Counter);
        let part = self.selector(place, distinct);
        Expr::new(Type::Vector, place.phase).text(format!("{name} {by} ({k}, ")).part(part).text(")")
    }

    fn with_scalar(&mut self, place: Place) -> Expr {
        if self.random.one_in(3) {
            let (vector, scalar) = (self.precise(place, Equal), self.equal_scalar(place));
            return self.compared(place, vector, scalar);
        }
        let op = self.random.pick(&["+", "-", "*", "/", "%", "^", "atan2"]);
        let (vector, scalar) = if matches!(op, "%" | "^") {
            (self.precise(place, Equal), self.equal_scalar(place))
        } else {
            (self.vector(place.below()), self.scalar(place.below()))
        };
        self.arithmetic(place, op, "", vector, scalar)
    }

    fn compared(&mut self, place: Place, left: Expr, right: Expr) -> Expr {
        let op = self.random.pick(COMPARISON);
        let bool = if self.random.one_in(3) { "bool " } else { "" };
        let (left, right) = if self.random.one_in(4) { (right, left) } else { (left, right) };
        Expr::new(Type::Vector, place.phase)
            .text("(")
            .part(left)
            .text(format!(" {op} {bool}"))
            .part(right)
            .text(")")
    }

    /// 2.42 keeps the name over `atan2`, so there it is taken away.
    fn arithmetic(&mut self, place: Place, op: &str, matching: &str, left: Expr, right: Expr) -> Expr {
        let (left, right) =
            if left.of != right.of && self.random.one_in(3) { (right, left) } else { (left, right) };
        let expr = Expr::new(Type::Vector, place.phase);
        let expr = if op == "atan2" { expr.either("(", "label_replace((") } else { expr.text("(") };
        let expr = expr.part(left).text(format!(" {op} {matching} ")).part(right);
        let expr =
            if op == "atan2" { expr.either(")", r#"), "__name__", "", "", "")"#) } else { expr.text(")") };
        match op {
            "+" | "-" => expr,
            "*" => expr.at_most(Equal),
            "/" | "%" => expr.at_most(Equal).special(),
            _ => expr.precise(Close).special(),
        }
    }

    /// An operation between vectors that have partners, mostly.
    fn with_vector(&mut self, place: Place) -> Expr {
        let comparing = self.random.one_in(3);
        let op = self.random.pick(ARITHMETIC);
        let needs_equal = comparing || matches!(op, "%" | "^");
        let one = |me: &mut Self| {
            if needs_equal { me.precise(place, Equal) } else { me.vector(place.below()) }
        };
        let (left, matching, right) = match self.random.below(8) {
            0 | 1 => {
                let left = one(self);
                let right = if self.random.one_in(2) { left.clone() } else { one(self) };
                (left, String::new(), right)
            }
            2 | 3 => {
                let (left, right) = (one(self), one(self));
                let label = self.random.pick(&["job", "job, instance"]);
                let sum = |part| {
                    Expr::new(Type::Vector, place.phase)
                        .text(format!("max by ({label}) ("))
                        .part(part)
                        .text(")")
                };
                let matching = self.random.pick(&["", "on (job)", "on (job, instance)", "ignoring (zone)"]);
                (sum(left), matching.to_owned(), sum(right))
            }
            4 => {
                let left = one(self);
                let right = self.selector(place, |f| f.name == "build_info");
                (left, "on (job, instance) group_left (version)".to_owned(), right)
            }
            5 => {
                let left = self.selector(place, |f| f.name == "build_info");
                let right = one(self);
                let include = self.random.pick(&["()", "(version)", "(nothing, version)"]);
                (left, format!("on (job, instance) group_right {include}"), right)
            }
            6 => {
                let left = one(self);
                let right = Expr::new(Type::Vector, place.phase)
                    .text("max without (code, zone, le, text) (")
                    .part(left.clone())
                    .text(")");
                (left, "ignoring (code, zone, le, text) group_left ()".to_owned(), right)
            }
            _ => {
                let (left, right) = (one(self), one(self));
                let label = self.random.pick(LABELS);
                let matching = match self.random.below(5) {
                    0 => format!("on ({label})"),
                    1 => format!("ignoring ({label})"),
                    2 => format!("on (job) group_left ({label})"),
                    3 => format!("ignoring ({label}) group_right ()"),
                    _ => "on ()".to_owned(),
                };
                let clash = matching.contains("(job) group_left (job)");
                (left, if clash { String::new() } else { matching }, right)
            }
        };
        if !comparing {
            return self.arithmetic(place, op, &matching, left, right);
        }
        let op = self.random.pick(COMPARISON);
        let bool = self.random.one_in(3);
        let mut expr = Expr::new(Type::Vector, place.phase)
            .text("(")
            .part(left)
            .text(format!(" {op} {}{matching} ", if bool { "bool " } else { "" }))
            .part(right)
            .text(")");
        expr.filters |= !bool;
        expr
    }

    fn set(&mut self, place: Place) -> Expr {
        let op = self.random.pick(SETS);
        let matching = match self.random.below(4) {
            0 => format!("on ({})", self.random.pick(LABELS)),
            1 => format!("ignoring ({})", self.random.pick(LABELS)),
            _ => String::new(),
        };
        let (left, right) = (self.vector(place.below()), self.vector(place.below()));
        Expr::new(Type::Vector, place.phase)
            .text("(")
            .part(left)
            .text(format!(" {op} {matching} "))
            .part(right)
            .text(")")
    }

    fn labelled(&mut self, place: Place) -> Expr {
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

    fn quantile_of_buckets(&mut self, place: Place) -> Expr {
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

    fn rate_of_buckets(&mut self, place: Place, buckets: impl Fn(&Family) -> bool) -> Expr {
        let family = self.family(buckets);
        let name = self.random.pick(&["rate", "increase"]);
        let range = self.range_of(place, family);
        Expr::new(Type::Vector, place.phase).text(format!("{name}(")).part(range).text(")").precise(Close)
    }

    fn calendar(&mut self, place: Place) -> Expr {
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
    fn timestamp(&mut self, place: Place) -> Expr {
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

    fn absent(&mut self, place: Place) -> Expr {
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

    fn other(&mut self, place: Place) -> Expr {
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

fn finite(number: &str) -> bool {
    !matches!(number, "+Inf" | "-Inf" | "NaN")
}

/// A string literal.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

/// A regular expression for the text itself.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn duration(millis: i64) -> String {
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let (seconds, millis) = (rest / 1000, rest % 1000);
    let units = [(minutes, "m"), (seconds, "s"), (millis, "ms")];
    units.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect()
}
