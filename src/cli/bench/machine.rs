//! The machine that is measured on, and what else it did meanwhile.
//!
//! Everything is read from Linux's /proc and /sys; what cannot be read is left out.

use std::fs::read_to_string;

/// What a reader of a report must know of the machine.
#[derive(Clone, Debug, Default)]
pub struct System {
    pub cpu: String,
    pub processors: usize,
    /// `L2 1024 KiB` and the like, for one processor.
    pub caches: Vec<String>,
    pub kernel: Option<String>,
    /// How the clock is chosen, where the kernel decides.
    pub governor: Option<String>,
    pub memory_mb: Option<f64>,
    /// Whether it is a guest, whose processors another may take.
    pub virtual_machine: bool,
}

impl System {
    pub fn here() -> System {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_once(':')?.1.trim().to_string())
        };
        let mut caches = Vec::new();
        for index in 0..8 {
            let Some((level, kind, bytes)) = cache(index) else {
                continue;
            };
            if kind != "Instruction" {
                caches.push(format!("L{level} {} KiB", bytes >> 10));
            }
        }
        let text = |path: &str| Some(read_to_string(path).ok()?.trim().to_string());
        let memory = read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"));
        let kilobytes = memory.and_then(|m| m.split_whitespace().next()?.parse::<f64>().ok());
        System {
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_string()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            caches,
            kernel: text("/proc/sys/kernel/osrelease"),
            governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_mb: kilobytes.map(|kb| kb * 1024.0 / 1e6),
            virtual_machine: field("flags")
                .is_some_and(|flags| flags.split_whitespace().any(|f| f == "hypervisor")),
        }
    }

    /// The processor's name and how many there are.
    pub fn short(&self) -> String {
        format!("{}, {} processors", self.cpu, self.processors)
    }

    /// Facts by name.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("processor", self.cpu.clone()),
            ("processors", self.processors.to_string()),
            ("caches", self.caches.join(", ")),
        ];
        facts.extend(self.memory_mb.map(|mb| ("memory", format!("{mb:.0} MB"))));
        facts.extend(self.kernel.clone().map(|kernel| ("kernel", kernel)));
        let governor = self.governor.clone();
        let unknown = "not to be read".to_string();
        facts.push(("clock governor", governor.unwrap_or(unknown)));
        let guest = if self.virtual_machine { "yes" } else { "no" };
        facts.push(("virtual machine", guest.to_string()));
        facts
    }
}

/// Level, kind and bytes of a cache of the first processor.
fn cache(index: usize) -> Option<(u32, String, usize)> {
    let base = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
    let read = |name: &str| {
        Some(
            read_to_string(format!("{base}/{name}"))
                .ok()?
                .trim()
                .to_string(),
        )
    };
    let size = read("size")?;
    let kilobytes: usize = size.strip_suffix('K')?.parse().ok()?;
    Some((read("level")?.parse().ok()?, read("type")?, kilobytes << 10))
}

/// The size of the data cache of this level.
pub fn cache_bytes(level: u32) -> Option<usize> {
    let all = (0..8).filter_map(cache);
    let mut fit = all.filter(|(l, kind, _)| *l == level && kind != "Instruction");
    fit.next().map(|(_, _, bytes)| bytes)
}

/// Processor time so far, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    total: u64,
    busy: u64,
    steal: u64,
    own: u64,
}

/// What others did to the machine while it measured.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// Processor time that the host gave to other guests, of all processor time.
    pub steal_percent: f64,
    /// Processor time of other processes, of all processor time.
    pub other_percent: f64,
    /// Processes that wanted to run in the last minute, at the end.
    pub load_average: f64,
}

impl Load {
    /// Now; `peers` are processes whose time is the measurement's own.
    pub fn now(peers: &[u32]) -> Option<Load> {
        let stat = read_to_string("/proc/stat").ok()?;
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; guests' time is among user's.
        let of = |at: usize| ticks.get(at).copied().unwrap_or(0);
        let busy = of(0) + of(1) + of(2) + of(5) + of(6);
        let own: u64 = std::iter::once("self".to_string())
            .chain(peers.iter().map(u32::to_string))
            .filter_map(|process| process_ticks(&process))
            .sum();
        Some(Load {
            total: busy + of(3) + of(4) + of(7),
            busy,
            steal: of(7),
            own,
        })
    }

    /// What happened since an earlier moment.
    pub fn since(&self, before: &Load) -> Option<Noise> {
        let total = self.total.checked_sub(before.total).filter(|n| *n > 0)? as f64;
        let busy = self.busy.saturating_sub(before.busy);
        let own = self.own.saturating_sub(before.own);
        let average = read_to_string("/proc/loadavg").unwrap_or_default();
        let average = average
            .split_whitespace()
            .next()
            .and_then(|n| n.parse().ok());
        Some(Noise {
            steal_percent: 100.0 * self.steal.saturating_sub(before.steal) as f64 / total,
            other_percent: 100.0 * busy.saturating_sub(own) as f64 / total,
            load_average: average.unwrap_or(f64::NAN),
        })
    }
}

/// Ticks of a process and of its children that have ended.
fn process_ticks(process: &str) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold blanks.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let times = fields.get(11..15)?;
    Some(times.iter().filter_map(|t| t.parse::<u64>().ok()).sum())
}
