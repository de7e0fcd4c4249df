//! Label names in URL paths: what is not plain comes as `U__…`.
//!
//! After `U__`, two underscores are one, and `_2e_` is the character with that number in hexadecimal.
//! A name that starts so but is not well-formed stands for itself.

/// The name that a path segment stands for.
pub fn unescape(segment: &str) -> String {
    segment.strip_prefix("U__").and_then(decode).unwrap_or_else(|| segment.to_owned())
}

fn decode(escaped: &str) -> Option<String> {
    let mut name = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((plain, after)) = rest.split_once('_') {
        name.push_str(plain);
        let (code, after) = after.split_once('_')?;
        name.push(if code.is_empty() { '_' } else { character(code)? });
        rest = after;
    }
    name.push_str(rest);
    Some(name)
}

fn character(code: &str) -> Option<char> {
    let well_formed = code.len() <= 6 && code.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u32::from_str_radix(code, 16).ok().filter(|_| well_formed)?;
    char::from_u32(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_decoded_and_others_left_alone() {
        for (segment, name) in [
            ("job", "job"),
            ("__name__", "__name__"),
            ("http.status", "http.status"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U___2E__6E29_", ".温"),
            ("U__plain", "plain"),
            ("U____", "_"),
            // Not well-formed:
            ("U__a_", "U__a_"),
            ("U__a_2e", "U__a_2e"),
            ("U__a_xx_", "U__a_xx_"),
            ("U__a_+41_", "U__a_+41_"),
            ("U__a_d800_", "U__a_d800_"),
            ("U__a_1234567_", "U__a_1234567_"),
        ] {
            assert_eq!(unescape(segment), name, "{segment}");
        }
    }
}
