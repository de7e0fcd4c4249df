//! Random expressions that are mostly well typed, over the series of [`data`](crate::data).
//!
//! Whatever comes first in a list is the simplest, so that an expression ends when the bytes do.

use libfuzzer_sys::arbitrary::Unstructured;
use luminate::promql::{
    functions::signature::{Signature, TABLE},
    parse::ValueType,
};

use crate::{below, one_of};

const NAMES: &[&str] = &[
    "m",
    "c_total",
    "x",
    "h",
    "h_bucket",
    "n",
    "target_info",
    r#"{__name__=~"m|x"}"#,
    r#"{__name__=~".+"}"#,
];
const MATCHERS: &[&str] =
    &["", r#"a="x""#, r#"a!="x""#, r#"a=~"x|y""#, r#"a!~"x.*""#, r#"b="""#, r#"a=~"(?i:X)",b!="z""#];
const DURATIONS: &[&str] = &[
    "1m",
    "15s",
    "30s",
    "90s",
    "5m",
    "1ms",
    "7.003s",
    "0.5h",
    "(30s*2)",
    "(1m+step())",
    "max_of(20s,range())",
];
const STEPS: &[&str] = &["", "15s", "1m", "7s", "20.001s", "(10s*2)"];
const OFFSETS: &[&str] = &["30s", "1m", "-30s", "7ms", "-(1m)", "15s", "5m"];
const PINS: &[&str] = &["60", "120.5", "-10", "0", "start()", "end()", "300"];
const NUMBERS: &[&str] = &[
    "1", "0", "2", "0.5", "-1", "3", "NaN", "Inf", "-Inf", "1e308", "5e-324", "0.9", "1.5", "-0.25", "1m",
    "0x1F", "100",
];
const LABELS: &[&str] = &["a", "b", "i", "le", "__name__", "new", "job", "\"d.t\""];
const BINARY: &[&str] =
    &["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", ">", "<=", ">=", "</", ">/"];
const SETS: &[&str] = &["and", "or", "unless"];
const MATCHINGS: &[&str] = &[
    "",
    "on(a)",
    "ignoring(i)",
    "on()",
    "ignoring(a,b)",
    "on(a) group_left",
    "on(a) group_right(b)",
    "ignoring(a) group_left(b,new)",
    "on(b,i)",
    "ignoring(i) group_right",
];
const FILLS: &[&str] = &["", "", "", "fill(0)", "fill_left(1)", "fill_right(NaN)"];
const GROUPINGS: &[&str] = &[
    "",
    "by(a)",
    "without(i)",
    "by()",
    "by(a,b)",
    "without()",
    "by(le)",
    "without(le,i)",
    "by(__name__)",
    "by(\"d.t\",new)",
];
const PATTERNS: &[&str] = &["(.*)", "(x).*", "", "(.)(.*)", "y|z", "[^x]+"];
const REPLACEMENTS: &[&str] = &["$1", "", "x", "$2-$1", "${1}y", "$$"];

/// Writes expressions.
pub struct Writer<'a, 'b> {
    pub bytes: &'a mut Unstructured<'b>,
    /// How many more levels there may be.
    pub depth: u32,
}

impl Writer<'_, '_> {
    /// What a range query may ask.
    pub fn expression(&mut self) -> String {
        if below(self.bytes, 8) == 7 { self.scalar() } else { self.vector() }
    }

    /// `inside` with a level less to go.
    fn deeper(&mut self, inside: impl Fn(&mut Self) -> String) -> String {
        self.depth -= 1;
        let text = inside(self);
        self.depth += 1;
        text
    }

    fn is_over(&self) -> bool {
        self.depth == 0 || self.bytes.is_empty()
    }

    fn vector(&mut self) -> String {
        if self.is_over() {
            return self.selector();
        }
        self.deeper(|w| match below(w.bytes, 12) {
            0 => w.selector(),
            1..=4 => w.call(ValueType::InstantVector),
            5 | 6 => w.aggregation(),
            7 | 8 => w.of_two_vectors(),
            9 => w.with_scalar(),
            10 => format!("-{}", w.vector()),
            _ => format!("({})", w.vector()),
        })
    }

    fn selector(&mut self) -> String {
        let text = self.plain_selector();
        self.moved(text)
    }

    fn plain_selector(&mut self) -> String {
        let (name, matchers) = (*one_of(self.bytes, NAMES), *one_of(self.bytes, MATCHERS));
        if matchers.is_empty() {
            return name.to_owned();
        }
        match name.strip_suffix('}') {
            Some(open) => format!("{open},{matchers}}}"),
            None => format!("{name}{{{matchers}}}"),
        }
    }

    /// With `offset`, `@` or both.
    fn moved(&mut self, text: String) -> String {
        match below(self.bytes, 8) {
            5 => format!("{text} offset {}", one_of(self.bytes, OFFSETS)),
            6 => format!("{text} @ {}", one_of(self.bytes, PINS)),
            7 => format!("{text} @ {} offset {}", one_of(self.bytes, PINS), one_of(self.bytes, OFFSETS)),
            _ => text,
        }
    }

    fn range_vector(&mut self) -> String {
        let text = if self.is_over() || below(self.bytes, 4) < 3 {
            let of = self.plain_selector();
            format!(
                "{of}[{}]{}",
                one_of(self.bytes, DURATIONS),
                one_of(self.bytes, &["", "", " anchored", " smoothed"])
            )
        } else {
            let of = self.deeper(Self::vector);
            // An operator and a sign bind less than the brackets.
            format!("({of})[{}:{}]", one_of(self.bytes, DURATIONS), one_of(self.bytes, STEPS))
        };
        self.moved(text)
    }

    fn scalar(&mut self) -> String {
        if self.is_over() {
            return (*one_of(self.bytes, NUMBERS)).to_owned();
        }
        self.deeper(|w| match below(w.bytes, 8) {
            0..=3 => (*one_of(w.bytes, NUMBERS)).to_owned(),
            4 => format!("scalar({})", w.vector()),
            5 => w.call(ValueType::Scalar),
            6 => {
                let (left, right) = (w.scalar(), w.scalar());
                let op = *one_of(w.bytes, &BINARY[..13]);
                let bool = if BINARY[7..13].contains(&op) { "bool" } else { "" };
                format!("({left}) {op} {bool} ({right})")
            }
            _ => format!("(-{})", w.scalar()),
        })
    }

    fn call(&mut self, returns: ValueType) -> String {
        let all: Vec<&Signature> = TABLE.iter().filter(|f| f.returns == returns).collect();
        let function = *one_of(self.bytes, &all);
        let (least, most) = function.arity();
        let most = most.unwrap_or(least + 2);
        let count = least + usize::try_from(below(self.bytes, 3)).unwrap_or(0).min(most - least);
        let mut args = Vec::with_capacity(count);
        for i in 0..count {
            args.push(match function.args[i.min(function.args.len() - 1)] {
                ValueType::InstantVector if function.name == "info" && i == 1 => "{data=~\".*\"}".to_owned(),
                ValueType::InstantVector => self.vector(),
                ValueType::RangeVector => self.range_vector(),
                ValueType::Scalar => self.scalar(),
                ValueType::String => self.string(function.name, i),
            });
        }
        format!("{}({})", function.name, args.join(", "))
    }

    fn string(&mut self, function: &str, i: usize) -> String {
        let text = match (function, i) {
            ("label_replace", 2) => *one_of(self.bytes, REPLACEMENTS),
            ("label_replace", 4) => *one_of(self.bytes, PATTERNS),
            ("label_join", 2) => *one_of(self.bytes, &["-", "", "é"]),
            _ => one_of(self.bytes, LABELS).trim_matches('"'),
        };
        format!("\"{text}\"")
    }

    fn aggregation(&mut self) -> String {
        let op = *one_of(
            self.bytes,
            &[
                "sum",
                "avg",
                "min",
                "max",
                "count",
                "group",
                "stddev",
                "stdvar",
                "topk",
                "bottomk",
                "quantile",
                "count_values",
                "limitk",
                "limit_ratio",
            ],
        );
        let grouping = *one_of(self.bytes, GROUPINGS);
        let parameter = match op {
            "topk" | "bottomk" | "limitk" | "quantile" | "limit_ratio" => format!("{}, ", self.scalar()),
            "count_values" => "\"value\", ".to_owned(),
            _ => String::new(),
        };
        format!("{op} {grouping} ({parameter}{})", self.vector())
    }

    fn of_two_vectors(&mut self) -> String {
        let (left, right) = (self.vector(), self.vector());
        if below(self.bytes, 4) == 3 {
            let matching = *one_of(self.bytes, &MATCHINGS[..5]);
            return format!("({left}) {} {matching} ({right})", one_of(self.bytes, SETS));
        }
        let op = *one_of(self.bytes, &BINARY[..13]);
        let bool = if BINARY[7..13].contains(&op) { *one_of(self.bytes, &["", "bool"]) } else { "" };
        let (matching, fill) = (*one_of(self.bytes, MATCHINGS), *one_of(self.bytes, FILLS));
        format!("({left}) {op} {bool} {matching} {fill} ({right})")
    }

    fn with_scalar(&mut self) -> String {
        let (vector, scalar) = (self.vector(), self.scalar());
        let op = *one_of(self.bytes, BINARY);
        let bool = if BINARY[7..13].contains(&op) { *one_of(self.bytes, &["", "bool"]) } else { "" };
        if below(self.bytes, 3) == 2 && !["</", ">/"].contains(&op) {
            format!("({scalar}) {op} {bool} ({vector})")
        } else {
            format!("({vector}) {op} {bool} ({scalar})")
        }
    }
}

/// Whether the answer at a step depends on which other steps there are.
pub fn depends_on_grid(text: &str) -> bool {
    ["start()", "end()", "range()", "step()"].iter().any(|call| text.contains(call))
}
