//! Questions: expressions that a grammar makes, and the grid each is asked over.
//!
//! The grammar knows of each expression what [`Expr`] says, and asks nothing whose answer hangs on the last
//! bit of a value that may differ in it: `floor`, `==`, `topk` and their like take only parts that are equal
//! to the bit.

mod functions;
mod operators;
mod selectors;
mod wrong;

use super::{
    data::{END_MS, Family, Kind},
    expr::{
        Expr,
        Precision::{self, Close, Equal},
        Type,
    },
    random::Random,
};
use functions::MATH;
use operators::{ARITHMETIC, COMPARISON};
use wrong::WRONG;

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

const LABELS: &[&str] = &["job", "instance", "code", "zone", "version", "le", "text", "kind", "nothing"];

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
    fn precise(&mut self, place: Place, precision: Precision) -> Expr {
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
