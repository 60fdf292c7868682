//! What a process has used, from /proc.

use std::fmt::Display;
use std::time::Duration;

/// The calling thread, below /proc.
pub(crate) const THIS_THREAD: &str = "thread-self";

/// CPU time of all threads of a process so far, user and system, in steps of 10 ms; or of one thread, `PID/task/TID`.
///
/// # Panics
/// If there is no such process.
pub(crate) fn cpu(pid: impl Display) -> Duration {
    let text = read(&pid, "stat");
    let ticks = ticks(&text).unwrap_or_else(|| panic!("/proc/{pid}/stat says {text}"));
    Duration::from_millis(ticks * TICK)
}

/// Bytes of a process that are in memory.
///
/// # Panics
/// If there is no such process.
pub(crate) fn resident(pid: u32) -> f64 {
    let text = read(&pid, "status");
    value(&text, "VmRSS:").unwrap_or_else(|| panic!("/proc/{pid}/status has no VmRSS")) * 1024.0
}

/// Bytes of memory that could be had on this machine without swapping.
///
/// # Panics
/// If the kernel does not say.
pub(crate) fn available() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    value(&text, "MemAvailable:").expect("MemAvailable") * 1024.0
}

fn read(pid: &impl Display, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_else(|_| panic!("process {pid} has ended"))
}

/// utime and stime, the 14th and 15th field; the second, the name in parentheses, may have spaces.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// The number, of kilobytes, behind a word at the beginning of a line.
fn value(text: &str, word: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Milliseconds of a tick: USER_HZ is 100 on x86-64 and aarch64, whatever the kernel's own.
const TICK: u64 = 10;

#[cfg(test)]
mod tests {
    #[test]
    fn a_stat_line_is_read() {
        let line = "77 (a (b) c) S 1 77 77 0 -1 4194560 134 0 0 0 123 45 9 9 20 0 3 0 5 6 7";
        assert_eq!(super::ticks(line), Some(168));
        assert_eq!(super::ticks("77 (a) S 1"), None);
    }

    #[test]
    fn a_status_is_read() {
        assert_eq!(super::value("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t  1824 kB\n", "VmRSS:"), Some(1824.0));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(super::resident(std::process::id()) > 100_000.0);
    }
}
