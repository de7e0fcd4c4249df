//! What Redis says of its memory, which it is asked now and then and never by a request.

use redis::Value;

/// The memory of a Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisMemory {
    /// Bytes in use.
    pub used: u64,
    /// As many as it may use; none is as many as there are.
    pub most: Option<u64>,
}

impl RedisMemory {
    /// Reads what `INFO memory` says; none if that is something else.
    pub(super) fn of_info(answer: &Value) -> Option<Self> {
        let text = match answer {
            Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
            Value::VerbatimString { text, .. } => text,
            Value::SimpleString(text) => text,
            _ => return None,
        };
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().parse::<u64>().ok()
        };
        Some(Self { used: number("used_memory")?, most: number("maxmemory").filter(|most| *most > 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_is_read() {
        let said = |text: &str| RedisMemory::of_info(&Value::BulkString(text.into()));
        let info = "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nmaxmemory:2097152\r\n\
                    maxmemory_human:2.00M\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!(said(info), Some(RedisMemory { used: 1 << 20, most: Some(1 << 21) }));
        assert_eq!(said("used_memory:5\r\nmaxmemory:0\r\n"), Some(RedisMemory { used: 5, most: None }));
        assert_eq!(said("used_memory:many"), None);
        assert_eq!(said(""), None);
        assert_eq!(RedisMemory::of_info(&Value::Nil), None);
    }
}
