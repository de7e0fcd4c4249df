//! Replacement templates: `$1`, `${name}`, `$$`.
//!
//! A name is as long as it can be, so `$1x` asks for a group called `1x`. What asks for a group that
//! is not there, or took no part in the match, is replaced by nothing. A `$` that starts nothing
//! stands for itself.

/// Fills in a template. `group` gives the text of a group by number, `named` by name.
pub(super) fn fill<'t>(
    template: &str,
    group: impl Fn(usize) -> Option<&'t str>,
    named: impl Fn(&str) -> Option<&'t str>,
) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            filled.push('$');
            rest = after;
        } else if let Some((name, after)) = reference(after) {
            let text = match number(name) {
                Some(number) => group(number),
                None => named(name),
            };
            filled.push_str(text.unwrap_or_default());
            rest = after;
        } else {
            filled.push('$');
            rest = after;
        }
    }
    filled.push_str(rest);
    filled
}

/// Reads `name` or `{name}`.
fn reference(at: &str) -> Option<(&str, &str)> {
    let braced = at.strip_prefix('{');
    let at = braced.unwrap_or(at);
    let end = at.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(at.len());
    let (name, after) = at.split_at(end);
    if name.is_empty() {
        return None;
    }
    match braced {
        None => Some((name, after)),
        Some(_) => after.strip_prefix('}').map(|after| (name, after)),
    }
}

/// The number that a name is; one with a leading zero is a name.
fn number(name: &str) -> Option<usize> {
    let leading_zero = name.len() > 1 && name.starts_with('0');
    (!leading_zero && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().unwrap_or(usize::MAX))
}
