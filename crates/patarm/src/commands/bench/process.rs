//! What the operating system counted for this process; `None` where it does not say.

/// Pages that were mapped without reading a disk, since the program began.
pub(super) fn minor_page_faults() -> Option<u64> {
    parse_minor_page_faults(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// The most memory that was resident at any moment.
pub(super) fn peak_memory_bytes() -> Option<u64> {
    parse_peak_memory(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Field 10 of `/proc/PID/stat`; field 2, the name, may hold blanks and brackets.
fn parse_minor_page_faults(stat: &str) -> Option<u64> {
    fields_after_name(stat)?.nth(7)?.parse().ok()
}

/// The fields of `/proc/PID/stat` behind the name, from the third on.
pub(super) fn fields_after_name(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

fn parse_peak_memory(status: &str) -> Option<u64> {
    bytes_of(status, "VmHWM:")
}

/// A size of `/proc/PID/status`, in KiB there.
pub(super) fn bytes_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 1234 0 5 0 10 2";
        assert_eq!(parse_minor_page_faults(stat), Some(1234));
        assert_eq!(parse_minor_page_faults("42"), None);
    }

    #[test]
    fn peak_memory_is_in_bytes() {
        assert_eq!(
            parse_peak_memory("Name:\tx\nVmHWM:\t   100 kB\nVmRSS:\t 1 kB\n"),
            Some(102_400)
        );
        assert_eq!(parse_peak_memory("Name:\tx\n"), None);
    }
}
