//! How many files may be open, of which every connection is one, too.
//!
//! Systems start processes with a low limit (often 1,024) that they may raise themselves. Connections
//! get at most half of what there is then: a crowd at the door must not keep the store from opening
//! its files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as we may, and gives the most connections that leave the store its half.
pub(super) fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = match raised {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(event = "open_files_limit", %error, limit = current, "cannot raise the limit");
            current
        }
    };
    half(limit)
}

/// Half of a limit; none is no limit.
fn half(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_half_of_the_raised_limit() {
        let connections = raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
        assert_eq!(connections, half(maximum));
        assert_eq!([half(Some(1025)), half(None)], [512, usize::MAX]);
    }
}
