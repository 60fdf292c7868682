//! Ordinary users.

/// What runs the program behind it as a user without rights, whom every Debian has, where everybody may open `/dev/net/tun`: as where udev runs,
/// whatever this machine has.
pub const ORDINARY: [&str; 5] = [
    "unshare",
    "--mount",
    "sh",
    "-ec",
    "mount -t tmpfs tun /mnt
    mknod -m 666 /mnt/tun c 10 200
    mount --bind /mnt/tun /dev/net/tun
    umount -l /mnt
    exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$0\" \"$@\"",
];
