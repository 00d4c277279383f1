//! Memory that must stay flat while something is done again and again.

/// What a process held at some moment.
pub struct Held {
    bytes: u64,
    mappings: usize,
}

impl Held {
    /// What this process holds now.
    pub fn now() -> Held {
        let read = |path| std::fs::read_to_string(path).expect("/proc is there");
        let status = read("/proc/self/status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        Held {
            bytes: kilobytes.expect("VmRSS is a number") * 1024,
            mappings: read("/proc/self/maps").lines().count(),
        }
    }

    /// Fails if `count` times later there is more than 2 MiB, which an allocator may keep, and half a KiB each.
    pub fn assert_flat(&self, count: usize, what: &str) {
        let now = Held::now();
        let grown = now.bytes.saturating_sub(self.bytes);
        let more = now.mappings.saturating_sub(self.mappings);
        println!(
            "{count} {what}: {} KiB before, {} KiB more, {more} more mappings",
            self.bytes >> 10,
            grown >> 10
        );
        assert!(
            grown < (2 << 20) + 512 * count as u64,
            "{count} {what}: {grown} bytes more"
        );
        assert!(more < 32, "{count} {what}: {more} more mappings");
    }
}

/// How often: the number in this variable, or a default that takes seconds.
pub fn times(variable: &str, default: usize) -> usize {
    let count = std::env::var(variable).ok();
    count.and_then(|n| n.parse().ok()).unwrap_or(default)
}
