//! How much memory this process can have at most: the machine's, or what its control groups leave of it.

use std::fs;
use std::path::Path;

/// The smallest of the memory of the machine below `root` and the limits of the process's control groups
/// (version 2), in bytes. `None` where nothing tells.
pub fn memory_limit_bytes(root: &Path) -> Option<u64> {
    let mut limit = super::memory_bytes(root);
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let mounted = root.join("sys/fs/cgroup");
    // A limit of any group above counts for those in it.
    for group in Path::new(own).ancestors() {
        let text = fs::read_to_string(mounted.join(group).join("memory.max")).unwrap_or_default();
        if let Ok(bytes) = text.trim().parse::<u64>() {
            limit = Some(limit.map_or(bytes, |limit| limit.min(bytes)));
        }
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let put = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        assert_eq!(memory_limit_bytes(root), None);
        put("proc/meminfo", "MemTotal:  1000 kB\n");
        assert_eq!(memory_limit_bytes(root), Some(1_024_000));
        put("proc/self/cgroup", "0::/system.slice/ringcast.service\n");
        put("sys/fs/cgroup/system.slice/ringcast.service/memory.max", "max\n");
        assert_eq!(memory_limit_bytes(root), Some(1_024_000));
        put("sys/fs/cgroup/system.slice/memory.max", "500000\n");
        assert_eq!(memory_limit_bytes(root), Some(500_000));
        // In a container the group is the root of what is seen.
        put("proc/self/cgroup", "0::/\n");
        put("sys/fs/cgroup/memory.max", "400000\n");
        assert_eq!(memory_limit_bytes(root), Some(400_000));
    }
}
